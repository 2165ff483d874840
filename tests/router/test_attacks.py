"""Strangers who hold on to what they were given: slow heads, slow bodies, slow readers, by the hundred.

Others are served meanwhile, every limit of line 16 of http.md holds, and all that was taken comes back.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.waiting import PATIENCE, until

from ..tools import needs
from .stage import Answer, Conversation, Router, Wire, get, saying, sized, to_worker

CROWD = 300
POST = b"POST /slow HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100000\r\n\r\n"
BLOCK = b"x" * 50_000
BIG = 160 * len(BLOCK)  # more than the router and two kernels keep for who does not read


def descriptors(router: Router) -> int:
    return len(os.listdir(f"/proc/{router.process.pid}/fd"))  # noqa: PTH208 - names do, and hundreds of times


def cpu(router: Router) -> float:
    """Seconds that the router has worked."""
    times = psutil.Process(router.process.pid).cpu_times()
    return times.user + times.system


async def crowd(router: Router, raw: bytes, count: int = CROWD) -> list[Wire]:
    """So many connections, on each of which `raw` was sent."""
    wires = [await router.connect() for _ in range(count)]
    for wire in wires:
        await wire.send(raw)
    return wires


@asynccontextmanager
async def dripping(wires: list[Wire], drip: bytes, every: float = 0.1) -> AsyncIterator[None]:
    """Each connection sends a little again and again."""

    async def drip_on() -> None:
        while True:
            for wire in wires:
                if not wire.writer.is_closing():
                    wire.writer.write(drip)
            await asyncio.sleep(every)

    task = asyncio.create_task(drip_on(), name="drip")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def others_served(router: Router) -> AsyncIterator[None]:
    """All the while others are answered, on a connection that they keep and on new ones, and soon."""
    times: list[float] = []
    over = asyncio.Event()
    kept = await router.connect()

    async def ask_on() -> None:
        while not over.is_set():
            began = time.monotonic()
            await kept.send(get())
            assert (await kept.answer()).status == 200
            assert (await router.get()).status == 200
            times.append(time.monotonic() - began)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(ask_on(), name="others")
    try:
        await until(lambda: times or task.done())
        yield
    finally:
        over.set()
        await task
    assert max(times) < PATIENCE / 3, sorted(times)[-5:]


async def answers(wires: list[Wire]) -> list[Answer]:
    """What each was told, and then closed on."""

    async def one(wire: Wire) -> Answer:
        answer = await wire.answer()
        with suppress(ConnectionError):
            assert await wire.rest() == b""
        wire.close()
        return answer

    return await asyncio.gather(*map(one, wires))


async def by_path(talk: Conversation) -> None:
    """A worker: /big is much, /slow is read and never answered, the rest is quick."""
    while True:
        head = await talk.request()
        if b" /slow " in head:
            await talk.reader.read()
            return
        if b" /big " in head:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
            for _ in range(BIG // len(BLOCK)):
                await talk.send(BLOCK)
        else:
            await talk.send(sized(b"quick"))


async def test_heads_in_drips_are_refused_in_time_while_others_are_served(start, serve) -> None:
    router = await start(head_timeout=0.5, linger=1)
    worker = await serve(by_path)
    await router.get()
    before = descriptors(router)
    wires = await crowd(router, b"GET /slow HTTP/1.1\r\nHost: app.localhost\r\nX-Slow: ")
    async with dripping(wires, b"x"), others_served(router):
        assert {answer.status for answer in await answers(wires)} == {408}
    await until(lambda: descriptors(router) <= before)
    assert not [head for head in worker.heads if b"/slow" in head]


@pytest.mark.slow
async def test_connections_that_say_nothing_are_closed_in_time(start, serve) -> None:
    router = await start(keep_alive=3)  # the others pause for less
    await serve(by_path)
    await router.get()
    before = descriptors(router)
    wires = await crowd(router, b"")
    async with others_served(router):
        assert {await wire.rest() for wire in wires} == {b""}
    await until(lambda: descriptors(router) <= before)


async def test_bodies_that_stop_coming_free_their_worker_in_time_while_others_are_served(
    start, control, serve
) -> None:
    router = await start(idle_timeout=0.5, linger=1)
    await serve(by_path)
    await router.get()
    before = descriptors(router)
    async with others_served(router):
        wires = await crowd(router, POST + b"x" * 10)
        told = await answers(wires)
    assert {(answer.status, answer.field("lazycloud-answer")) for answer in told} == {(408, "router")}
    await until(lambda: control.activity("d1")["open"] == 0)
    assert control.activity("d1")["errors"] == 0
    await until(lambda: descriptors(router) <= before + 1)  # one more to the worker: it keeps two busy now


async def test_bodies_in_drips_do_not_hold_a_worker_for_ever(start, control, serve) -> None:
    router = await start(head_timeout=0.5, idle_timeout=60, upload_rate=1000, linger=1)
    await serve(by_path)
    await router.get()
    before = descriptors(router)
    async with others_served(router):
        wires = await crowd(router, POST)
        async with dripping(wires, b"x"):
            told = await answers(wires)
    assert {(answer.status, answer.field("lazycloud-answer")) for answer in told} == {(408, "router")}
    await until(lambda: control.activity("d1")["open"] == 0)
    await until(lambda: descriptors(router) <= before + 1)


async def test_a_body_at_a_fair_rate_takes_as_long_as_it_takes(start, serve) -> None:
    router = await start(head_timeout=0.2, upload_rate=1000)
    await serve(saying(sized()))
    wire = await router.connect()
    head = b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 23000\r\n\r\n"
    await wire.send(head + b"x" * 20_000)  # so a pause of ours does not make it unfair
    for _ in range(10):
        await wire.send(b"x" * 300)
        await asyncio.sleep(0.1)
    assert (await wire.answer()).status == 200


@pytest.mark.slow
async def test_the_wait_for_a_worker_that_does_not_read_is_not_held_against_the_client(start, serve) -> None:
    async def late(talk: Conversation) -> None:
        await talk.request()
        talk.writer.transport.pause_reading()
        await go_on.wait()
        talk.writer.transport.resume_reading()
        await talk.exactly(30_000_000)
        await talk.send(sized())

    router = await start(
        head_timeout=1.5, upload_rate=10**7
    )  # what the kernels take at once pays for a second
    go_on = asyncio.Event()
    await serve(late)
    wire = await router.connect()
    wire.writer.write(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 30000000\r\n\r\n")
    wire.writer.write(b"x" * 30_000_000)
    await asyncio.sleep(4)
    go_on.set()
    assert (await wire.answer()).status == 200


@pytest.mark.slow
async def test_slow_readers_are_cut_in_time_while_others_are_served_and_memory_is_bounded(
    start, control, serve
) -> None:
    count, kept = 60, 64 * 1024
    router = await start(idle_timeout=6, write_max=kept)  # all are there before the first is cut
    await serve(by_path)
    await router.get(path="/big")
    before, memory = descriptors(router), router.rss()
    wires = [await slow_reader(router) for _ in range(count)]
    for wire in wires:
        await wire.send(get(path="/big"))
    async with others_served(router):
        await until(lambda: control.activity("d1").get("open", 0) >= count)
        assert router.rss() - memory < count * (kept + 256 * 1024) + 20_000_000
        await until(lambda: control.activity("d1")["open"] < 5)  # their workers are free
        await until(lambda: descriptors(router) < before + 10)
    assert control.activity("d1")["errors"] == 0
    for wire in wires:
        wire.close()


async def test_what_is_kept_for_slow_readers_is_bounded_in_all(start, control, serve) -> None:
    router = await start(write_max=4 * 1024 * 1024, write_total=16 * 1024 * 1024)
    await serve(by_path)
    await router.get(path="/big")
    memory = router.rss()
    wires = [await slow_reader(router) for _ in range(60)]
    for wire in wires:
        await wire.send(get(path="/big"))
    await until(lambda: control.activity("d1").get("open") == 60)
    await still(lambda: control.activity("d1")["sent"])
    assert router.rss() - memory < 100_000_000  # 60 × 4 MB without it
    for wire in wires:
        wire.reset()


async def slow_reader(router: Router) -> Wire:
    """A connection that reads nothing, and whose kernel takes little."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", router.port))
    reader, writer = await asyncio.open_connection(sock=own)
    writer.transport.pause_reading()
    return Wire(reader, writer)


async def still(figure) -> None:
    """Until a figure does not change any more."""
    before = None
    async with asyncio.timeout(PATIENCE):
        while before != (now := figure()):
            before = now
            await asyncio.sleep(0.3)


async def test_answers_are_not_piled_up_for_who_asks_and_does_not_read(start, control, serve) -> None:
    router = await start(write_max=64 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        control.routes["dead.localhost"] = to_worker(f"127.0.0.1:{taken.getsockname()[1]}", "d2")
    await router.get("dead.localhost")
    wire = await slow_reader(router)
    wire.writer.write(get("dead.localhost", Accept="text/html") * 1500)  # 3 KB of page each
    await until(lambda: control.activity("d2").get("requests", 0) > 100)
    await still(lambda: control.activity("d2")["requests"])
    assert control.activity("d2")["requests"] < 1000  # what kernels hold, and 64 KiB
    wire.writer.transport.resume_reading()
    for _ in range(1500):
        assert (await wire.answer()).status == 502


async def test_what_a_client_asks_before_it_has_read_takes_no_worker(start, control, serve) -> None:
    router = await start(write_max=64 * 1024, head_timeout=0.3)
    worker = await serve(saying(sized(b"x" * 10_000)))
    wire = await slow_reader(router)
    wire.writer.write(get() * 1000)
    await until(lambda: control.activity("d1").get("requests", 0) > 10)
    await still(lambda: control.activity("d1")["requests"])
    await until(lambda: control.activity("d1")["open"] == 0)
    await until(lambda: len(worker.heads) == control.activity("d1")["requests"])
    assert len(worker.heads) < 1000
    wire.writer.transport.resume_reading()
    assert {(await wire.answer()).status for _ in range(1000)} == {200}
    await until(lambda: control.activity("d1")["requests"] == 1000)
    assert control.activity("d1")["errors"] == 0


async def test_who_asks_and_never_reads_is_cut_in_time(start, control, serve) -> None:
    router = await start(write_max=64 * 1024, idle_timeout=0.5)
    await serve(saying(sized(b"x" * 10_000)))
    await router.get()
    before = descriptors(router)
    wires = [await slow_reader(router) for _ in range(20)]
    for wire in wires:
        wire.writer.write(get() * 1000)
    await until(lambda: control.activity("d1").get("requests", 0) > 100)
    await until(lambda: descriptors(router) < before + 20)
    assert control.activity("d1")["errors"] == 0
    for wire in wires:
        wire.reset()


async def test_a_head_in_drips_costs_no_more_when_it_is_long(start) -> None:
    router = await start(head_timeout=60)

    async def cost(length: int) -> float:
        wire = await router.connect()
        own = wire.writer.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await wire.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nCookie: " + b"x" * length)
        await asyncio.sleep(0.1)
        began = cpu(router)
        for _ in range(400):
            wire.writer.write(b"x")
            await asyncio.sleep(0.001)  # or the kernel would join them
        wire.close()
        return cpu(router) - began

    costs = []
    while len(costs) < 5 and not any(long < 2 * short + 0.05 for short, long in costs):
        costs.append(
            (await cost(10), await cost(60_000))
        )  # who shares the processor makes it dearer now and then
    assert any(long < 2 * short + 0.05 for short, long in costs), costs


@needs("slowhttptest")
@pytest.mark.slow
async def test_slowhttptest_finds_the_service_available_and_its_connections_closed(
    start, control, serve, tmp_path: Path
) -> None:
    router = await start(head_timeout=1, idle_timeout=1, linger=0.5, write_max=64 * 1024)
    await serve(by_path)
    control.routes["127.0.0.1"] = control.routes["app.localhost"]
    await router.get()
    before = descriptors(router)
    async with others_served(router):
        said = await asyncio.gather(
            attack(router, tmp_path, "/", "-H", "-i", "1", "-c", "200", "-l", "60"),
            attack(router, tmp_path, "/slow", "-B", "-i", "3", "-s", "100000", "-c", "200", "-l", "60"),
            attack(router, tmp_path, "/big", "-X", "-n", "2", "-z", "10", "-c", "50", "-l", "5"),
        )
    heads, bodies, readers = map(outcome, said)
    assert heads == bodies == ("YES", 0, "No open connections left"), said
    assert readers[0] == "YES", readers
    await until(lambda: descriptors(router) < before + 10)
    await until(lambda: control.activity("d1")["open"] == 0)
    assert control.activity("d1")["errors"] == 0


async def attack(router: Router, folder: Path, path: str, *how: str) -> str:
    """What slowhttptest says at its end."""
    process = await asyncio.create_subprocess_exec(
        *("slowhttptest", *how, "-r", "200", "-p", "30", "-v", "2"),
        *("-u", f"http://127.0.0.1:{router.port}{path}"),
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    said, _ = await process.communicate()
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode())


def outcome(said: str) -> tuple[str, int, str]:
    """Whether the service was available all along, how many connections failed, how the attack ended."""
    available = set(re.findall(r"service available:\s+(\w+)", said))
    errors = re.findall(r"error:\s+(\d+)", said)
    ended = re.findall(r"Exit status: (.*?)\s*\n", said)
    return "NO" if "NO" in available else "YES", int(errors[-1]), ended[-1]
