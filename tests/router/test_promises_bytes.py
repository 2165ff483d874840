"""Lines 7 to 12 of http.md, the clauses that test_bytes.py and test_upgrades.py leave."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.waiting import until

from .stage import Conversation, Router, fields, get, saying, sized
from .test_upgrades import SWITCHED, UPGRADE

HOST = b"Host: app.localhost\r\n"


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        (b"http://app.localhost?x=%2F", b"/?x=%2F"),
        (b"http://app.localhost//a;b%2f?", b"//a;b%2f?"),
        (b"HTTP://APP.localhost:80", b"/"),
        (b"/?", b"/?"),
        (b"//app.localhost/x", b"//app.localhost/x"),
        (b"?x", None),  # no form of RFC 9112: servers disagree about it
    ],
)
async def test_a_query_without_a_path_gets_a_path_and_keeps_its_bytes(
    router, serve, target: bytes, arrives: bytes | None
) -> None:
    worker = await serve(saying(sized()))
    answer = await router.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.status == (200 if arrives else 400)
    assert [head.split()[1] for head in worker.heads] == ([arrives] if arrives else [])


async def test_a_body_passes_both_ways_at_once_and_piece_by_piece(router, serve) -> None:
    async def echo(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await talk.reader.readline(), 16):
            payload = (await talk.exactly(size + 2))[:-2]
            await talk.send(b"%x\r\n%b\r\n" % (size, payload))
        await talk.reader.readline()
        await talk.send(b"0\r\n\r\n")

    await serve(echo)
    wire = await router.connect()
    await wire.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    await wire.head()
    for number in range(5):
        await wire.send(b"7\r\nping %02d\r\n" % number)
        assert await wire.exactly(12) == b"7\r\nping %02d\r\n" % number
    await wire.send(b"0\r\n\r\n")
    assert await wire.rest() == b"0\r\n\r\n"


async def test_a_worker_that_does_not_read_slows_the_client_down_in_bounded_memory(
    router: Router, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await reads.wait()
        await talk.exactly(size)
        await talk.send(sized(b"all of it"))

    size, reads = 90_000_000, asyncio.Event()
    worker = await serve(handle)
    worker.takes(64 * 1024)
    wire = await router.connect()
    wire.writer.transport.set_write_buffer_limits(high=0)
    await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
    await until(lambda: worker.heads)
    before = router.rss()
    wire.writer.write(b"x" * size)
    left, same = 0, 0
    while same < 40:  # until nobody takes any more of it
        await asyncio.sleep(0.005)
        now = wire.writer.transport.get_write_buffer_size()
        left, same = now, same + 1 if now == left else 0
    assert left > size / 2  # the kernel keeps 40 MB at most
    assert router.rss() - before < 8_000_000
    reads.set()
    assert (await wire.answer()).body == b"all of it"


async def test_a_compressed_upload_is_not_touched(router, serve) -> None:
    body, bodies = gzip.compress(b"hello"), []

    async def handle(talk: Conversation) -> None:
        head = await talk.request()
        bodies.append((fields(head, "content-encoding"), fields(head, "accept-encoding")))
        bodies.append(await talk.exactly(len(body)))
        await talk.send(sized())

    await serve(handle)
    lines = b"Content-Encoding: gzip\r\nAccept-Encoding: br;q=0.5, zstd\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    assert (await router.ask(b"POST / HTTP/1.1\r\n" + HOST + lines + body)).status == 200
    assert bodies == [(["gzip"], ["br;q=0.5, zstd"]), body]


async def test_a_worker_may_refuse_what_expects_100_continue_without_taking_the_body(router, serve) -> None:
    worker = await serve(saying_no)
    wire = await router.connect()
    await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.field("connection")) == (401, "close")
    await wire.send(b"hello")
    assert await wire.rest() == b""
    assert await worker.connections[0].rest() == b""


async def saying_no(talk: Conversation) -> None:
    await talk.request()
    await talk.send(sized(b"", status="401 Unauthorized"))
    await until(talk.reader.at_eof)


async def test_each_expectation_on_a_connection_is_met_once(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await talk.send(sized(await talk.exactly(5)))

    await serve(handle)
    wire = await router.connect()
    for body in (b"first", b"other"):
        await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await wire.answer()).status == 100
        await wire.send(body)
        assert (await wire.answer()).body == body


async def test_an_answers_head_over_the_limit_is_a_502(start, serve) -> None:
    router = await start(head_max=4096)
    await serve(saying(sized(more=b"X-Long: " + b"x" * 5000 + b"\r\n")))
    assert (await router.get()).status == 502


async def test_a_413_of_the_app_itself_passes_with_its_words(start, serve) -> None:
    router = await start(body_max=1000)
    await serve(saying(sized(b"at most ten", status="413 Content Too Large")))
    answer = await router.ask(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 20\r\n\r\n" + b"x" * 20)
    assert (answer.status, answer.body, answer.field("lazycloud-answer")) == (413, b"at most ten", None)


@pytest.mark.parametrize(
    "lines",
    [b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Connection: Upgrade\r\n", b"Upgrade: websocket, h2c\r\n"],
)
async def test_a_101_to_anything_but_a_websocket_is_a_502(router, serve, lines: bytes) -> None:
    await serve(saying(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n"))
    wire = await router.connect()
    await wire.send(UPGRADE)
    answer = await wire.answer()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")


async def test_what_is_sent_before_the_101_never_reaches_a_worker_that_says_no(router, serve) -> None:
    worker = await serve(saying(sized(b"no", status="400 Bad Request")))
    wire = await router.connect()
    await wire.send(UPGRADE + get(path="/smuggled"))
    assert (await wire.answer()).status == 400
    assert await wire.rest() == b""
    await router.get(path="/after")
    assert [head.split()[1] for head in worker.heads] == [b"/ws", b"/after"]


async def test_the_last_bytes_of_the_side_that_ends_a_tunnel_are_delivered(router, serve) -> None:
    came: list[bytes] = []
    much = 500_000  # times: more than sockets take at once

    async def handle(talk: Conversation) -> None:
        head = await talk.request()
        await talk.send(SWITCHED)
        if b" /worker " in head:
            await talk.send(b"goodbye" * much)
            return
        came.append(await talk.rest())

    await serve(handle)
    wire = await router.connect()
    await wire.send(UPGRADE.replace(b" /ws ", b" /worker "))
    await wire.head()
    assert await wire.rest() == b"goodbye" * much
    wire = await router.connect()
    await wire.send(UPGRADE)
    await wire.head()
    await wire.send(b"farewell" * much)
    wire.writer.write_eof()
    assert await wire.rest() == b""
    await until(lambda: came)
    assert came == [b"farewell" * much]
