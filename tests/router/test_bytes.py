"""Lines 7 to 10 of http.md: what passes is what was sent, in bounded memory, and in time."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time

import pytest
from aiohttp import web

from tests.waiting import until

from .stage import Conversation, Router, fields, get, saying, sized, to_worker

HOST = b"Host: app.localhost\r\n"
BLOCK = bytes(range(256)) * 1024  # 256 KiB
MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "target", ["/a%2Fb", "/a;b=c", "//x//y", "/?", "/?a=?&b", "/%2e%2e/", "/../x", "/a+b%20c", "/~*!'()"]
)
async def test_path_and_query_arrive_byte_for_byte(router, serve, target: str) -> None:
    worker = await serve(saying(sized()))
    assert (await router.get(path=target)).status == 200
    assert worker.last.split()[1].decode() == target


async def test_absolute_form_is_made_a_path_and_names_the_host(router, serve) -> None:
    worker = await serve(saying(sized()))
    answer = await router.ask(
        b"GET http://app.localhost:80/a%2Fb?c HTTP/1.1\r\nHost: other.localhost\r\n\r\n"
    )
    assert answer.status == 200
    assert worker.last.split()[1] == b"/a%2Fb?c"
    assert fields(worker.last, "host") == ["app.localhost:80"]


async def test_duplicate_headers_stay_separate_and_in_order_and_names_keep_their_case(router, serve) -> None:
    worker = await serve(saying(sized(more=b"Set-Cookie: b=2\r\nX-CaSe: 1\r\nset-cookie: a=1\r\n")))
    answer = await router.ask(b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\nx-a:2\r\nX-A:  3 \r\n\r\n")
    assert answer.fields("set-cookie") == ["b=2", "a=1"]
    assert b"\r\nX-CaSe: 1\r\n" in answer.head
    assert b"\r\nX-A: 1\r\nx-a:2\r\nX-A:  3 \r\n" in worker.last


async def test_a_compressed_answer_is_not_touched(router, serve) -> None:
    await serve(saying(sized(b"\x1f\x8b\x00", more=b"Content-Encoding: gzip\r\n")))
    answer = await router.get(Accept_Encoding="gzip")
    assert (answer.body, answer.field("content-encoding")) == (b"\x1f\x8b\x00", "gzip")


async def upload(talk: Conversation, framing: str, size: int) -> str:
    """Reads a body of that framing; its hash."""
    seen = hashlib.sha256()
    if framing == "sized":
        while size:
            data = await talk.reader.read(min(size, 1 << 18))
            assert data
            seen.update(data)
            size -= len(data)
        return seen.hexdigest()
    while length := int(await talk.reader.readline(), 16):
        seen.update(await talk.reader.readexactly(length))
        await talk.reader.readexactly(2)
    await talk.reader.readexactly(2)
    return seen.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_200_mb_stream_up_through_bounded_memory(router: Router, serve, framing: str) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(sized((await upload(talk, framing, blocks * len(BLOCK))).encode()))

    blocks = 200 * MEGABYTE // len(BLOCK)
    await serve(handle)
    await router.get("nobody.localhost", "/.well-known/lazycloud/x")
    before, most = router.rss(), 0
    wire, sent = await router.connect(), hashlib.sha256()
    length = b"Content-Length: %d\r\n" % (blocks * len(BLOCK))
    await wire.send(
        b"PUT / HTTP/1.1\r\n"
        + HOST
        + (length if framing == "sized" else b"Transfer-Encoding: chunked\r\n")
        + b"\r\n"
    )
    for _ in range(blocks):
        sent.update(BLOCK)
        await wire.send(BLOCK if framing == "sized" else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        most = max(most, router.rss())
    if framing == "chunked":
        await wire.send(b"0\r\n\r\n")
    assert (await wire.answer()).body.decode() == sent.hexdigest()
    assert most - before < 30 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["sized", "chunked", "closing"])
async def test_200_mb_stream_down_through_bounded_memory(router: Router, serve, framing: str) -> None:
    heads = {
        "sized": b"Content-Length: %d\r\n" % (200 * MEGABYTE // len(BLOCK) * len(BLOCK)),
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "closing": b"Connection: close\r\n",
    }

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\n" + heads[framing] + b"\r\n")
        for _ in range(200 * MEGABYTE // len(BLOCK)):
            await talk.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK)
        if framing == "chunked":
            await talk.send(b"0\r\n\r\n")

    await serve(handle)
    await router.get("nobody.localhost", "/.well-known/lazycloud/x")
    before, most, size = router.rss(), 0, 0
    wire = await router.connect()
    await wire.send(get())
    head = await wire.head()
    seen, expected = hashlib.sha256(), hashlib.sha256()
    for _ in range(200 * MEGABYTE // len(BLOCK)):
        expected.update(BLOCK)
    while size < 200 * MEGABYTE // len(BLOCK) * len(BLOCK):
        if fields(head, "transfer-encoding"):
            length = int(await wire.reader.readline(), 16)
            data = (await wire.exactly(length + 2))[:-2]
        else:
            data = await wire.some()
        assert data
        seen.update(data)
        size += len(data)
        most = max(most, router.rss())
    assert seen.digest() == expected.digest()
    assert most - before < 30 * MEGABYTE


async def test_a_slow_reader_slows_the_worker_down_after_a_bounded_buffer(router: Router, serve) -> None:
    sent = 0

    async def handle(talk: Conversation) -> None:
        nonlocal sent
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (400 * len(BLOCK)))
        while sent < 400:
            await talk.send(BLOCK)
            sent += 1

    await serve(handle)
    await router.get("nobody.localhost", "/.well-known/lazycloud/x")
    before = router.rss()
    wire = await router.connect(takes=64 * 1024)
    await wire.send(get())
    await wire.head()
    await settled(lambda: sent)
    assert sent < 200, "the worker was not held back"
    assert router.rss() - before < 10 * MEGABYTE
    assert len(await wire.exactly(400 * len(BLOCK))) == 400 * len(BLOCK)


async def settled(value) -> None:
    """Wait until `value` has stayed the same for a while."""
    seen, same = value(), 0
    while same < 40:
        await asyncio.sleep(0.005)
        same = same + 1 if value() == seen else 0
        seen = value()


async def test_a_small_answer_does_not_wait_for_a_slow_client_to_be_read(router: Router, serve) -> None:
    """What the worker wrote is buffered up to a bound, so that it may go on to others."""
    done = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(sized(b"x" * 900_000))
        done.set()
        await talk.rest()

    await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await until(done.is_set)


async def test_server_sent_events_arrive_chunk_by_chunk(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for i in range(5):
            await talk.send(b"9\r\ndata: %d\n\n\r\n" % i)
            await acknowledged.acquire()
        await talk.send(b"0\r\n\r\n")

    acknowledged = asyncio.Semaphore(0)
    await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await wire.head()
    for i in range(5):
        assert await wire.exactly(14) == b"9\r\ndata: %d\n\n\r\n" % i
        acknowledged.release()
    assert await wire.exactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("then", ["reads on", "closes", "resets"])
async def test_an_answer_that_comes_before_the_upload_ends_is_delivered(router, serve, then: str) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.exactly(100_000)
        await talk.send(sized(b"too much", status="413 Content Too Large"))
        if then == "reads on":
            await talk.rest()
        elif then == "resets":
            talk.reset()

    await serve(handle)
    for _ in range(2):
        wire = await router.connect()
        await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: 50000000\r\n\r\n")
        sending = asyncio.create_task(push(wire))
        answer = await wire.answer()
        assert (answer.status, answer.body, answer.field("connection")) == (413, b"too much", "close")
        sending.cancel()


async def push(wire) -> None:
    for _ in range(190):
        await wire.send(BLOCK)


async def test_expect_100_continue_is_answered_once_and_by_the_worker(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        head = await talk.request()
        assert fields(head, "expect") == ["100-continue"]
        await go_on.wait()
        await talk.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await talk.send(sized(await talk.exactly(5)))

    go_on = asyncio.Event()
    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    await until(lambda: worker.heads)
    go_on.set()
    assert (await wire.answer()).status == 100
    await wire.send(b"hello")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, b"hello")


async def test_nobody_is_told_to_continue_while_the_worker_is_not_there(router, control, serve) -> None:
    worker = await serve(saying(sized()), host="elsewhere.localhost")
    wire = await router.connect()
    await wire.send(
        b"PUT / HTTP/1.1\r\nHost: cold.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    ask = await control.wait_for("ask")
    await control.wait_for("hello")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await wire.reader.readexactly(1)
    control.answer(ask, to_worker(worker.address))
    await wire.send(b"hello")
    assert (await wire.answer()).status == 200


async def test_early_hints_pass_to_1_1_and_not_to_1_0(router, serve) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    await serve(saying(hints + sized()))
    wire = await router.connect()
    await wire.send(get())
    assert (await wire.answer()).field("link") == "</a.css>"
    assert (await wire.answer()).status == 200
    answer = await router.ask(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    assert answer.status == 200


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"x" * 20_000, 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 12_000, 431),
    ],
)
async def test_heads_over_the_limit_are_414_or_431(router, serve, raw: bytes, status: int) -> None:
    worker = await serve(saying(sized()))
    assert (await router.ask(raw)).status == status
    assert worker.heads == []


async def test_a_head_within_the_limit_passes(router, serve) -> None:
    worker = await serve(saying(sized()))
    assert (await router.get(path="/" + "x" * 15_000, Cookie="y" * 45_000)).status == 200
    assert b"x" * 15_000 in worker.last
    assert b"y" * 45_000 in worker.last


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n"]
)
async def test_a_body_over_the_limit_is_a_413(start, serve, framing: bytes) -> None:
    router = await start(body_max=1000)

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    await serve(handle)
    answer = await router.ask(b"POST / HTTP/1.1\r\n" + HOST + framing + b"x" * 2000)
    assert answer.status == 413


async def test_an_aiohttp_worker_is_served_with_uploads_streams_and_errors(router, control) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for data in request.content.iter_any():
            await answer.write(data)
        await answer.write_eof()
        return answer

    app = web.Application(client_max_size=0)
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    control.routes["app.localhost"] = to_worker(f"127.0.0.1:{port}")
    wire = await router.connect()
    await wire.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3000\r\n\r\n" + b"z" * 3000)
    assert (await wire.answer()).body == b"z" * 3000
    assert (await router.get(path="/missing")).status == 404
    await runner.cleanup()


async def test_a_body_that_is_written_after_its_head_does_not_wait_for_a_late_acknowledgement(
    router, serve
) -> None:
    async def apart(talk: Conversation) -> None:
        own = talk.writer.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)  # as sockets are, and asyncio's are not
        while True:
            await talk.request()
            for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"bo", b"dy"):
                await talk.send(piece)

    await serve(apart)
    times = []
    for _ in range(21):
        began = time.perf_counter()
        assert (await router.get()).body == b"body"
        times.append(time.perf_counter() - began)
    assert min(times) < 0.03  # the kernel takes 0.04 s over a late one, each time; we are slow now and then


async def test_what_was_sent_behind_a_body_over_the_limit_is_answered_too(start, serve) -> None:
    router = await start(body_max=10)
    await serve(saying(sized()))
    wire = await router.connect()
    post = b"POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.send(post + b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n" + get(path="/second"))
    answer = await wire.answer()
    assert answer.status == 413
    if answer.field("connection") != "close":
        assert (await wire.answer()).status == 200
