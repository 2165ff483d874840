"""Lines 13 to 20 of http.md, the clauses that test_failure.py and test_identity.py leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.waiting import until

from .stage import Conversation, Router, fields, get, saying, sized

HOST = b"Host: app.localhost\r\n"


def closing_after(*answered: int):
    """A worker whose nth connection answers so many requests, and closes on the one after them."""
    left: Iterator[int] = iter(answered)

    async def handle(talk: Conversation) -> None:
        for _ in range(next(left)):
            head = await talk.request()
            for length in fields(head, "content-length"):
                await talk.exactly(int(length))
            await talk.send(sized(head.split()[0]))
        await talk.request()

    return handle


async def test_a_request_is_retried_no_more_than_once_and_then_there_is_one_502(router, serve) -> None:
    worker = await serve(closing_after(1, 0, 1))
    assert (await router.get()).status == 200
    wire = await router.connect()
    await wire.send(get(path="/second"))
    answer = await wire.answer()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")
    assert [head.split()[1] for head in worker.heads] == [b"/", b"/second", b"/second"]
    await wire.send(get(path="/third"))  # nothing more comes of the second, and the connection goes on
    assert (await wire.answer()).status == 200


async def test_a_retry_takes_a_new_connection_and_not_another_that_may_be_stale(router, serve) -> None:
    both = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        if len(worker.connections) < 3:
            await both.wait()
            await talk.send(sized())
            await talk.request()
            return
        await talk.send(sized(b"new"))

    worker = await serve(handle)
    asking = [asyncio.create_task(router.get()) for _ in range(2)]
    await until(lambda: len(worker.heads) == 2)
    both.set()
    await asyncio.gather(*asking)
    assert (await router.get()).body == b"new"
    assert len(worker.connections) == 3


async def test_a_put_whose_body_was_not_sent_yet_is_retried_and_then_gets_its_body(router, serve) -> None:
    worker = await serve(closing_after(1, 1))
    assert (await router.get()).status == 200
    wire = await router.connect()
    await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")
    await until(lambda: len(worker.heads) == 3)
    await wire.send(b"hello")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, b"PUT")


async def test_a_patch_on_a_stale_connection_is_a_502_and_is_sent_once(router, serve) -> None:
    worker = await serve(closing_after(1, 1))
    assert (await router.get()).status == 200
    answer = await router.ask(b"PATCH / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
    assert (answer.status, len(worker.heads)) == (502, 2)


@pytest.mark.parametrize("at", ["the upload", "the answer"])
async def test_a_client_that_goes_away_in_the_middle_ends_what_its_worker_does(
    router, control, serve, at: str
) -> None:
    ended = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        if at == "the answer":
            await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        with_end = await talk.rest()
        assert b"0\r\n\r\n" not in with_end  # an upload that was cut does not look whole
        ended.set()

    worker = await serve(handle)
    wire = await router.connect()
    if at == "the answer":
        await wire.send(get())
        await wire.head()
    else:
        await wire.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await until(lambda: worker.heads)
    wire.reset()
    await until(ended.is_set)
    await until(lambda: control.activity("d1").get("failed") == {"499": 1})
    assert (control.activity("d1")["open"], control.activity("d1")["errors"]) == (0, 0)


async def test_nothing_that_a_client_says_makes_the_router_dial_an_address(
    router: Router, control, serve
) -> None:
    """Only control names addresses; whoever is named by a stranger never sees a connection."""
    called: list[object] = []
    server = await asyncio.start_server(lambda reader, writer: called.append(writer), "127.0.0.1", 0)
    there = b"127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    worker = await serve(saying(sized()))
    control.routes["127.0.0.1"] = {"to": "control", "reason": "page"}
    with closing(server):
        for raw in (
            b"GET / HTTP/1.1\r\nHost: " + there + b"\r\n\r\n",
            b"GET http://" + there + b"/ HTTP/1.1\r\n" + HOST + b"\r\n",
            b"CONNECT " + there + b" HTTP/1.1\r\n" + HOST + b"\r\n",
            b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-Host: " + there + b"\r\nX-Real-IP: 1\r\n\r\n",
            b"GET @" + there + b"/ HTTP/1.1\r\n" + HOST + b"\r\n",
            b"GET //" + there + b"/ HTTP/1.1\r\n" + HOST + b"\r\n",
        ):
            await router.ask(raw)
    assert called == []
    assert len(worker.heads) == 2
    assert {ask["host"] for ask in control.said("ask")} == {"127.0.0.1", "app.localhost"}
