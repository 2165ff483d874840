"""Lines 13 to 16 of http.md: what goes wrong between client and worker, and who is told what."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE, until

from .stage import Conversation, get, saying, sized, to_worker

HOST = b"Host: app.localhost\r\n"


def once_then_closing(*, speaks: bytes = b""):
    """A worker whose first connection answers one request, reads the next, and closes instead of answering."""
    first = True

    async def handle(talk: Conversation) -> None:
        nonlocal first
        mine, first = first, False
        await talk.request()
        await talk.send(sized(b"one"))
        if mine:
            await talk.request()
            await talk.send(speaks)
            return
        while await talk.request():
            await talk.send(sized(b"again"))

    return handle


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_a_stale_connection_is_retried_once_for_an_idempotent_request(
    router, serve, method: str
) -> None:
    worker = await serve(once_then_closing())
    assert (await router.get()).body == b"one"
    answer = await router.ask(f"{method} / HTTP/1.1\r\n".encode() + HOST + b"\r\n", method)
    assert answer.status == 200
    assert len(worker.connections) == 2
    assert [head.split()[0].decode() for head in worker.heads] == ["GET", method, method]


async def test_a_stale_connection_is_not_retried_for_a_post(router, serve) -> None:
    worker = await serve(once_then_closing())
    assert (await router.get()).body == b"one"
    answer = await router.ask(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")
    assert len(worker.heads) == 2


async def test_a_stale_connection_is_not_retried_once_the_body_was_sent(router, serve) -> None:
    worker = await serve(once_then_closing())
    assert (await router.get()).body == b"one"
    answer = await router.ask(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi")
    assert answer.status == 502
    assert len(worker.heads) == 2


async def test_a_stale_connection_is_not_retried_once_a_byte_of_the_answer_came(router, serve) -> None:
    worker = await serve(once_then_closing(speaks=b"HTTP/1.1 2"))
    assert (await router.get()).body == b"one"
    assert (await router.get()).status == 502
    assert len(worker.heads) == 2


async def test_a_fresh_connection_is_not_retried(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()

    worker = await serve(handle)
    assert (await router.get()).status == 502
    assert len(worker.connections) == 1


async def test_a_connection_that_the_worker_closed_while_idle_is_not_used(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(sized())

    worker = await serve(handle)
    for count in range(1, 4):
        answer = await router.ask(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        assert answer.status == 200
        assert len(worker.connections) == count
        assert await worker.connections[-1].rest() == b""


async def test_a_worker_that_speaks_without_being_asked_loses_its_connection(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(sized(b"mine") + sized(b"poison"))
        await talk.request()
        await talk.send(sized(b"more poison"))

    worker = await serve(handle)
    for _ in range(3):
        assert (await router.get()).body == b"mine"
    assert len(worker.connections) == 3


async def test_a_client_that_goes_away_cancels_its_request_to_the_worker(router, control, serve) -> None:
    gone = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        assert await talk.rest() == b""
        gone.set()

    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await until(lambda: worker.heads)
    wire.close()
    await until(gone.is_set)
    await until(lambda: control.activity("d1").get("open") == 0)
    assert control.activity("d1")["errors"] == 0
    assert control.activity("d1")["last"] == 0


@pytest.mark.parametrize("body", [b"\r\n", b"Content-Length: 100000000\r\n\r\n"])
async def test_a_held_client_that_goes_away_leaves(router, control, body: bytes) -> None:
    wire = await router.connect()
    await wire.send(b"POST / HTTP/1.1\r\n" + HOST + body)
    ask = await control.wait_for("ask")
    if body != b"\r\n":
        wire.writer.write(b"x" * 10_000_000)  # more than the kernel takes: only a reset can be seen behind it
        wire.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    wire.reset()
    assert await control.wait_for("leave") == {"leave": ask["ask"]}


async def test_a_worker_that_nobody_answers_for_is_asked_about_once_with_the_dead_address(
    router, control, serve
) -> None:
    worker = await serve(saying(sized(b"new")), host="other.localhost")
    dead = free_address()
    wire = await router.connect()
    await wire.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello")
    control.answer(await control.wait_for("ask"), to_worker(dead))
    control.answer(await control.wait_for("ask", 2), to_worker(worker.address, "d2"))
    assert (await wire.answer()).body == b"new"
    asks = control.said("ask")
    assert [ask.get("dead") for ask in asks] == [None, dead]


async def test_a_worker_that_stays_dead_is_a_502(router, control) -> None:
    control.routes["app.localhost"] = to_worker(free_address())
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")
    assert len(control.said("ask")) == 2
    await until(lambda: control.activity("d1").get("errors") == 1)
    assert control.activity("d1")["open"] == 0


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


async def test_own_answers_are_pages_json_or_text_and_name_the_request(router, control) -> None:
    control.routes["app.localhost"] = to_worker(free_address())
    page = await router.get(Accept="text/html", X_Request_Id="my-id-1")
    assert page.field("content-type") == "text/html; charset=utf-8"
    assert (page.field("x-request-id"), page.field("cache-control")) == ("my-id-1", "no-store")
    assert b"my-id-1" in page.body
    error = json.loads((await router.get(Accept="application/json")).body)["error"]
    assert error["status"] == 502
    text = await router.get(X_Request_Id="not sane")
    assert text.body.startswith(b"502 Bad Gateway\n")
    assert len(text.field("x-request-id") or "") == 32
    head = await router.ask(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", "HEAD")
    assert head.status == 502


async def test_the_connection_goes_on_after_an_own_answer(router, control, serve) -> None:
    await serve(saying(sized()))
    control.routes["dead.localhost"] = to_worker(free_address())
    wire = await router.connect()
    await wire.send(get("dead.localhost") + get() + get("dead.localhost") + get())
    assert [(await wire.answer()).status for _ in range(4)] == [502, 200, 502, 200]


async def test_a_head_that_does_not_arrive_is_a_408(start) -> None:
    router = await start(head_timeout=0.2)
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHo")
    assert (await wire.answer()).status == 408
    assert await wire.rest() == b""


async def test_a_head_in_drips_does_not_prolong_its_deadline(start) -> None:
    router = await start(head_timeout=0.3)
    wire = await router.connect()
    began = asyncio.get_running_loop().time()
    answer = asyncio.create_task(wire.answer())
    while not answer.done():
        wire.writer.write(b"X")
        await asyncio.wait([answer], timeout=0.05)
    assert (await answer).status == 408
    assert asyncio.get_running_loop().time() - began < PATIENCE / 4


async def test_an_idle_connection_is_closed_without_a_word(start, serve) -> None:
    router = await start(keep_alive=1)
    await serve(saying(sized()))
    wire = await router.connect()
    await wire.send(get())
    assert (await wire.answer()).status == 200
    assert await wire.rest() == b""


async def test_a_head_after_a_long_idle_time_has_its_own_deadline(start, serve) -> None:
    router = await start(keep_alive=300, head_timeout=2)
    await serve(saying(sized()))
    wire = await router.connect()
    await wire.send(get())
    await wire.answer()
    await asyncio.sleep(2.3)
    await wire.send(get()[:10])
    await asyncio.sleep(0.2)  # its deadline is looked at meanwhile
    await wire.send(get()[10:])
    assert (await wire.answer()).status == 200


async def test_a_worker_that_never_answers_is_a_504(start, control, serve) -> None:
    router = await start(answer_timeout=0.2)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    await serve(handle)
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (504, "router")
    await until(lambda: control.activity("d1").get("errors") == 1)


async def test_a_body_that_stops_coming_is_cut(start, serve) -> None:
    router = await start(idle_timeout=0.2)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await talk.rest()

    await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await wire.head()
    assert await wire.rest() == b"hello"


async def test_a_slow_body_that_keeps_coming_is_not_cut(start, serve) -> None:
    router = await start(idle_timeout=2, answer_timeout=2)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n")
        for _ in range(25):
            await talk.send(b"x")
            await asyncio.sleep(0.1)

    await serve(handle)
    assert (await router.get()).body == b"x" * 25


async def test_an_upload_that_stops_coming_is_a_408(start, serve) -> None:
    router = await start(idle_timeout=0.2)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    await serve(handle)
    answer = await router.ask(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nhello")
    assert answer.status == 408


async def test_a_worker_that_does_not_accept_is_a_502_within_the_connect_deadline(start, control) -> None:
    router = await start(connect_timeout=0.3)
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(full.getsockname())
    control.routes["app.localhost"] = to_worker(f"127.0.0.1:{full.getsockname()[1]}")
    answer = await router.get()
    assert answer.status == 502
    for each in (full, *waiting):
        each.close()


async def test_a_worker_that_stops_in_the_middle_of_a_sized_answer_is_seen_as_cut(
    router, control, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await wire.head()
    assert await wire.rest() == b"hello"


async def test_idle_connections_to_a_worker_are_closed_in_time(start, serve) -> None:
    router = await start(pool_idle=0.2)
    worker = await serve(saying(sized()))
    await router.get()
    await until(worker.connections[0].reader.at_eof)
