"""The router as a process: how it stops, and how it lives without control."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from .stage import Conversation, get, saying, sized, to_worker, until


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
    assert await asyncio.wait_for(router.process.wait(), 5) == 0


async def test_the_end_of_the_parent_is_a_stop(router, serve) -> None:
    await serve(saying(sized()))
    await router.get()
    os.close(router.lifeline)
    assert await asyncio.wait_for(router.process.wait(), 5) == 0


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
    assert await asyncio.wait_for(router.process.wait(), 5) == 0


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
    assert await asyncio.wait_for(router.process.wait(), 2) == 0


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


async def test_without_control_its_pages_are_a_503_after_the_connect_deadline(start, control) -> None:
    router = await start(connect_timeout=0.3)
    await control.wait_for("hello")
    await control.stop()
    answer = await router.get(path="/.well-known/lazycloud/x")
    assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    await control.start()


async def test_hello_names_the_process(router, control) -> None:
    assert await control.wait_for("hello") == {"hello": {"pid": router.process.pid}}


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
