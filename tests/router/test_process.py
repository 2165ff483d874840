"""The router as a process: how it stops, and how it lives without control."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, until

from .stage import Conversation, Router, get, saying, sized, to_worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_finishes_what_is_in_flight_and_exits_0(router, serve, number: signal.Signals) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await finish.wait()
        await talk.send(sized(b"finished"))

    finish = asyncio.Event()
    worker = await serve(handle)
    busy, idle = await router.connect(), await router.connect()
    await busy.send(get())
    await until(lambda: worker.heads)
    router.process.send_signal(number)
    assert await idle.rest() == b""
    with pytest.raises(OSError):
        await router.connect()
    assert router.process.returncode is None
    finish.set()
    answer = await busy.answer()
    assert (answer.body, answer.field("connection")) == (b"finished", "close")
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_the_end_of_the_parent_is_a_stop(router, serve) -> None:
    await serve(saying(sized()))
    await router.get()
    os.close(router.lifeline)
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_a_stop_is_bounded_whatever_a_worker_does(start, control, serve) -> None:
    router = await start(drain_timeout=0.3)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    worker = await serve(handle)
    stuck, held = await router.connect(), await router.connect()
    await stuck.send(get())
    await held.send(get("cold.localhost"))
    await until(lambda: worker.heads)
    await control.wait_for("ask", 2)
    router.process.terminate()
    for wire in (stuck, held):
        answer = await wire.answer()
        assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_an_open_websocket_does_not_hold_up_a_stop(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        await talk.rest()

    await serve(handle)
    wire = await router.connect()
    await wire.send(get(Connection="Upgrade", Upgrade="websocket"))
    await wire.head()
    router.process.terminate()
    assert await wire.rest() == b""
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def echo(talk: Conversation) -> None:
    """A websocket, as far as a router can tell."""
    await talk.request()
    await talk.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    while data := await talk.some():
        await talk.send(data)


async def test_a_router_that_was_replaced_serves_whom_it_has_until_they_go(router, serve) -> None:
    worker = await serve(saying(sized()))
    await serve(echo, host="socket.localhost", deployment="d2")
    socket, kept, idle = [await router.connect() for _ in range(3)]
    await socket.send(get("socket.localhost", Connection="Upgrade", Upgrade="websocket"))
    await socket.head()
    await kept.send(get())
    assert (await kept.answer()).field("connection") is None
    router.process.send_signal(signal.SIGHUP)
    await until_refused(router)
    for wire in (kept, idle):
        await wire.send(get())
        answer = await wire.answer()
        assert (answer.status, answer.field("connection")) == (200, "close")
        assert await wire.rest() == b""
    await socket.send(b"still here")
    assert await socket.exactly(10) == b"still here"
    assert router.process.returncode is None
    socket.close()
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0
    assert len(worker.heads) == 3


async def test_an_answer_that_promised_to_keep_the_connection_keeps_it_in_a_router_that_was_replaced(
    router, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await finish.wait()
        await talk.send(b"llo")
        await saying(sized(b"next"))(talk)

    finish = asyncio.Event()
    await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    assert b"close" not in await wire.head()
    router.process.send_signal(signal.SIGHUP)
    await until_refused(router)
    finish.set()
    assert await wire.exactly(5) == b"hello"
    await wire.send(get())
    answer = await wire.answer()
    assert (answer.body, answer.field("connection")) == (b"next", "close")
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


@pytest.mark.parametrize("how", ["its time is over", "the server stops"])
async def test_a_router_that_was_replaced_does_not_stay_for_ever(start, serve, how: str) -> None:
    router = await start(leave_timeout=0.3 if how == "its time is over" else 60)
    await serve(echo)
    socket, idle = await router.connect(), await router.connect()
    await socket.send(get(Connection="Upgrade", Upgrade="websocket"))
    await socket.head()
    router.process.send_signal(signal.SIGHUP)
    await until_refused(router)
    if how == "the server stops":
        router.process.terminate()
    assert await socket.rest() == b""
    assert await idle.rest() == b""
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_a_stop_waits_for_a_slow_client_to_read_its_answer(start, serve) -> None:
    body = b"x" * 12_000_000  # more than what the kernel keeps
    router = await start(write_max=16_000_000)
    await serve(saying(sized(body)))
    wire = await router.connect()
    await wire.send(get())
    await wire.head()
    router.process.terminate()
    await until_refused(router)
    assert await wire.exactly(len(body)) == body
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_a_router_says_when_it_accepts(start) -> None:
    ready, end = os.pipe()
    os.set_inheritable(end, True)
    await start(ready=end, inherited=[end])
    os.close(end)
    assert await asyncio.to_thread(os.read, ready, 100) == b'{"ready": true}\n'
    os.close(ready)


async def until_refused(router: Router) -> None:
    """Until it accepts no more: here nobody else has its socket."""
    with pytest.raises(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):  # it took that one, and ended
                (await router.connect()).close()
            await asyncio.sleep(0.01)


async def test_a_known_route_is_served_while_control_is_dead_and_unknown_ones_wait_for_it(
    router, control, serve
) -> None:
    worker = await serve(saying(sized()))
    assert (await router.get()).status == 200
    await control.stop()
    wire = await router.connect()
    for _ in range(20):
        await wire.send(get())
        assert (await wire.answer()).status == 200
    control.routes["b.localhost"] = to_worker(worker.address)
    held = asyncio.create_task(router.get("b.localhost"))
    page = asyncio.create_task(router.get(path="/.well-known/lazycloud/x"))
    await control.start()
    assert (await held).status == 200
    assert (await page).body == b"control"
    await wire.send(get())
    assert (await wire.answer()).status == 200


async def test_an_ask_that_was_open_when_control_died_is_asked_again(router, control, serve) -> None:
    worker = await serve(saying(sized()), host="elsewhere.localhost")
    asking = asyncio.create_task(router.get())
    await control.wait_for("ask")
    await control.stop()
    control.heard.clear()
    await control.start()
    control.answer(await control.wait_for("ask"), to_worker(worker.address))
    assert (await asking).status == 200


async def test_without_a_link_an_unknown_host_is_a_503_after_a_while(start, control) -> None:
    router = await start(link_wait=0.3)
    await control.wait_for("hello")
    await control.stop()
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    assert answer.field("retry-after")
    await control.start()


async def test_without_control_its_pages_are_a_503_after_a_while(start, control) -> None:
    router = await start(link_wait=0.3)
    await control.wait_for("hello")
    await control.stop()
    answer = await router.get(path="/.well-known/lazycloud/x")
    assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    await control.start()


async def test_hello_names_the_process(router, control) -> None:
    assert (await control.wait_for("hello"))["hello"]["pid"] == router.process.pid


async def test_many_connections_at_once_are_all_answered_and_none_is_leaked(router, control, serve) -> None:
    await serve(saying(sized()))
    await router.get()
    descriptors = Path(f"/proc/{router.process.pid}/fd")

    async def one(number: int) -> int:
        wire = await router.connect()
        statuses = []
        for _ in range(5):
            await wire.send(get(path=f"/{number}"))
            statuses.append((await wire.answer()).status)
        wire.close()
        return statuses.count(200)

    assert sum(await asyncio.gather(*(one(number) for number in range(100)))) == 500
    control.say({"forget": "d1", "drain": 1})
    await until(lambda: len(list(descriptors.iterdir())) < 25)
    await until(lambda: control.activity("d1").get("requests") == 501)
    assert control.activity("d1")["open"] == 0


async def test_wrong_settings_are_said_in_a_sentence() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lazycloud.router",
        "--settings",
        '{"listen_fds": []}',
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (2, "The router's settings lack “control”.\n")


async def test_settings_with_secrets_are_read_from_standard_input() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lazycloud.router", "--settings", "-"),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate(
        b'{"listen_fds": [], "control": "/c", "link": "/l", "preview_key": "secret"}'
    )
    assert process.returncode == 2
    assert "preview_key" in said.decode()
