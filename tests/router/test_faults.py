"""Workers that fail under steady load: every request ends in its answer or in a clean error, and is counted once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from lazycloud.control.link import Answer, Ask, Link
from tests.waiting import PATIENCE, until

from .load import Load, answer_to
from .stage import Control, Conversation, fields, get, saying, sized, to_worker

SECONDS = 2.0
HOST = "app.localhost"


def asked(head: bytes) -> tuple[str, int]:
    """Kind and number of the request."""
    _, kind, number = head.split(b" ")[1].decode().split("/")
    return kind, int(number)


async def request(talk: Conversation) -> tuple[str, int]:
    """The next one, with its body."""
    head = await talk.request()
    for length in fields(head, "content-length"):
        await talk.exactly(int(length))
    return asked(head)


def seen(heads: list[bytes]) -> Counter[int]:
    """How often a worker saw which request."""
    return Counter(asked(head)[1] for head in heads)


async def counted(control: Control, load: Load, deployment: str = "d1") -> None:
    """Until control has been told of all that the clients know, and of no more."""
    await until(lambda: control.activity(deployment).get("requests", 0) >= load.sent)
    activity = control.activity(deployment)
    failed = sum(count for what, count in load.counts.items() if what == "cut" or what[0] == "5")
    assert (activity["requests"], activity["errors"], activity["open"]) == (load.sent, failed, 0), load


async def test_a_worker_that_closes_idle_connections_at_random_costs_no_idempotent_request(
    router, control, serve
) -> None:
    chance = random.Random(1)

    async def handle(talk: Conversation) -> None:
        while True:
            kind, number = await request(talk)
            await talk.send(sized(answer_to(kind, number)))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.004)  # as likely as not in the moment of the next one
                return

    worker = await serve(handle)
    async with Load(router.port, HOST).going_on() as load:
        await asyncio.sleep(SECONDS)
        await until(lambda: load.counts["200"] > 100)
    assert set(load.counts) <= {"200", "502 router"}
    assert not [each for each in load.outcomes if each.what != "200" and each.ask.idempotent], load
    times = seen(worker.heads)
    assert all(times[each.ask.number] <= (2 if each.ask.idempotent else 1) for each in load.outcomes)
    await counted(control, load)


async def test_resets_before_and_in_answers_are_told_apart_and_only_what_had_not_begun_is_retried(
    router, control, serve
) -> None:
    chance = random.Random(2)
    deeds: dict[int, str] = {}

    async def handle(talk: Conversation) -> None:
        while True:
            kind, number = await request(talk)
            deed = "" if number in deeds else chance.choices(["", "before", "within"], [8, 1, 1])[0]
            deeds.setdefault(number, deed)
            answer = sized(answer_to(kind, number))
            if deed == "within":
                await talk.send(answer[:-2])
            if deed:
                talk.reset()
                return
            await talk.send(answer)

    worker = await serve(handle)
    async with Load(router.port, HOST).going_on() as load:
        await asyncio.sleep(SECONDS)
        await until(lambda: load.counts.keys() >= {"200", "502 router", "cut"})
    times = seen(worker.heads)
    for each in load.outcomes:
        retried = times[each.ask.number] == 2
        assert (
            each.what
            in {"": {"200"}, "within": {"cut"}, "before": {"200", "502 router"}}[deeds[each.ask.number]]
        )
        assert retried == (deeds[each.ask.number] == "before" and each.what == "200")
        assert times[each.ask.number] <= (2 if each.ask.idempotent else 1)
    assert set(load.counts) == {"200", "502 router", "cut"}
    await counted(control, load)


WORKER = """
import asyncio, sys
from tests.router.load import answer_to

async def handle(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            _, kind, number = head.split(b" ")[1].decode().split("/")
            if kind == "echo":
                await reader.readexactly(len(number))
            body = answer_to(kind, int(number))
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()

async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@asynccontextmanager
async def worker_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A worker that can be stopped, and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = f"127.0.0.1:{int(await process.stdout.readline())}"
    try:
        yield process, address
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.slow
async def test_a_worker_that_hangs_is_a_504_while_others_are_served_and_is_well_when_it_goes_on(
    start, control, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        while True:
            kind, number = await request(talk)
            await talk.send(sized(answer_to(kind, number)))

    router = await start(answer_timeout=2, idle_timeout=2)  # the one that is well is never as slow
    await serve(handle, host="well.localhost", deployment="d2")
    async with worker_process() as (process, address):
        control.routes[HOST] = to_worker(address)
        hangs, well = Load(router.port, HOST), Load(router.port, "well.localhost")
        async with hangs.going_on(), well.going_on(4):
            await until(lambda: hangs.counts["200"] > 50)
            process.send_signal(signal.SIGSTOP)
            before = well.counts["200"]
            await until(lambda: hangs.counts["504 router"] >= 7)  # of six clients
            assert well.counts["200"] > before + 50
            process.send_signal(signal.SIGCONT)
            after = hangs.counts["200"]
            await until(lambda: hangs.counts["200"] > after + 50)
            ends = len(hangs.outcomes)
            await until(lambda: len(hangs.outcomes) > ends + 50)
            assert set(hangs.since(ends)) == {"200"}
    assert set(hangs.counts) <= {"200", "504 router", "cut"}
    assert set(well.counts) == {"200"}
    assert max(each.seconds for each in well.outcomes) < PATIENCE / 5
    await counted(control, hangs)
    await counted(control, well, "d2")


async def test_a_worker_that_is_killed_is_asked_about_and_the_new_one_is_served(router, control) -> None:
    async with worker_process() as (old, address), worker_process() as (_, new):
        control.routes[HOST] = to_worker(address)
        async with Load(router.port, HOST).going_on() as load:
            await until(lambda: load.counts["200"] > 50)
            control.routes[HOST] = to_worker(new)
            old.kill()
            done = len(load.outcomes)
            await until(lambda: len(load.outcomes) > done + 100)
            ends = len(load.outcomes)
            await until(lambda: len(load.outcomes) > ends + 50)
            assert set(load.since(ends)) == {"200"}
    assert set(load.counts) <= {"200", "502 router", "cut"}
    assert sum(load.counts[what] for what in ("502 router", "cut")) <= 6  # the clients that waited just then
    await until(lambda: any(ask.get("dead") == address for ask in control.said("ask")))
    await counted(control, load)


@pytest.fixture
async def new_link(control: Control) -> AsyncIterator[Callable[[], Awaitable[Link]]]:
    """Begins control's own end of the link instead of the staged one; a host leads to the deployment of its name."""
    await control.stop()
    links: list[Link] = []

    async def resolve(ask: Ask) -> Answer:
        return Answer.worker(ask.host, control.routes[HOST]["addresses"], login=False, keep=True)

    async def begin() -> Link:
        for link in links:
            await link.close()
        links.append(Link(resolve, lambda: {"apps": {}, "domain": "localhost"}, drain_timeout=1))
        await links[-1].start(control.link_path)
        return links[-1]

    yield begin
    for link in links:
        await link.close()


async def test_a_link_that_breaks_has_nothing_counted_twice(router, new_link, serve) -> None:
    link = await new_link()
    await serve(saying(sized()))
    for _ in range(5):
        await router.get()
    await until(lambda: link.activity(HOST).requests == 5)
    link.forget_hosts(["x" * 2_000_000])  # more than a router takes in one line: it connects anew
    await until(lambda: link.activity(HOST).open == 0 and link.activity(HOST).requests == 5)
    for count in range(6, 9):
        await router.get()
        await until(lambda count=count: link.activity(HOST).requests >= count)
        assert link.activity(HOST).requests == count


@pytest.mark.slow
async def test_the_activity_of_thousands_of_deployments_is_told_to_a_new_control(
    router, new_link, serve
) -> None:
    link = await new_link()
    await serve(saying(sized()))
    hosts = [f"{number:04}{'.long' * 30}.localhost" for number in range(4000)]
    wire = await router.connect()
    for host in hosts:
        await wire.send(get(host))
        assert (await wire.answer()).status == 200
    await until(lambda: all(link.activity(host).requests == 1 for host in hosts))
    again = await new_link()
    await until(lambda: all(again.activity(host).requests == 1 for host in hosts))
    await wire.send(get("another.localhost"))
    assert (await wire.answer()).status == 200


async def test_a_control_that_hangs_makes_a_router_neither_larger_nor_silent(control, start, serve) -> None:
    deaf = asyncio.Event()
    heard: list[bytes] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ask = json.loads([await reader.readline(), await reader.readline()][1])
        route = to_worker(worker.address, "d" * 100_000)  # so that all it tells is much
        writer.write(json.dumps({"answer": ask["ask"], "route": route, "keep": True}).encode() + b"\n")
        await deaf.wait()
        while line := await reader.readline():
            heard.append(line)

    worker = await serve(saying(sized()))
    await control.stop()
    server = await asyncio.start_unix_server(hang, control.link_path, limit=1 << 20)
    router = await start(sweep=0.01, report=0.01, link_wait=2)
    await router.get()
    memory = router.rss()
    wire = await router.connect()
    for _ in range(150):
        await wire.send(get())
        assert (await wire.answer()).status == 200
        await asyncio.sleep(0.01)
    assert router.rss() - memory < 5_000_000  # of 15 MB that were to be told
    assert (await router.get("cold.localhost")).status == 503  # rather than never
    deaf.set()
    await until(lambda: b'"requests": 151' in (heard[-1] if heard else b""))
    server.close()


async def test_a_page_that_control_was_at_when_it_died_is_a_503_to_try_again(router, control) -> None:
    async def die(talk: Conversation) -> None:
        await talk.request()
        talk.reset()

    control.http._handle = die
    answer = await router.get(path="/.well-known/lazycloud/log")
    assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    assert answer.field("retry-after")
