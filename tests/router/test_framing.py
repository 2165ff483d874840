"""Lines 1 to 6 of http.md: where one message ends and the next begins."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.waiting import PATIENCE, until

from .stage import Conversation, fields, get, saying, sized

HOST = b"Host: app.localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST

SMUGGLING = {
    "length and coding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 6\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length of nothing": POST + b"Content-Length:\r\n\r\nhello",
    "an endless length": POST + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "a coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding that looks like chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked behind a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before a colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "space before a name": POST + b" Content-Length: 5\r\n\r\nhello",
    "a folded line": POST + b"X: a\r\n b\r\n\r\n",
    "a bare LF": POST + b"X: a\nContent-Length: 5\r\n\r\nhello",
    "bare LFs only": b"GET / HTTP/1.1\nHost: app.localhost\n\n",
    "a bare CR": POST + b"X: a\rContent-Length: 5\r\n\r\nhello",
    "NUL in a value": POST + b"X: a\0b\r\n\r\n",
    "NUL in a name": POST + b"X\0: a\r\n\r\n",
    "no colon": POST + b"X\r\n\r\n",
    "no name": POST + b": x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n" + HOST + b"\r\n",
    "version 2": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "another protocol": b"GET / RTSP/1.0\r\n" + HOST + b"\r\n",
    "the preface of h2c": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": b"CONNECT app.localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("raw", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_a_request_that_two_readers_could_understand_differently_is_a_400_and_reaches_no_worker(
    router, serve, raw: bytes
) -> None:
    worker = await serve(saying(sized()))
    wire = await router.connect()
    await wire.send(raw + get(path="/smuggled"))
    answer = await wire.answer()
    assert (answer.status, answer.field("connection")) == (400, "close")
    assert await wire.rest() == b""
    assert (await router.get(path="/after")).status == 200
    assert [head.split()[1] for head in worker.heads] == [b"/after"]


@pytest.mark.parametrize(
    "chunk", [b"x\r\nhello\r\n", b"5\r\nhelloX\r\n", b"5 \r\nhello\r\n", b"5\nhello\r\n"]
)
async def test_a_malformed_chunk_of_the_client_is_its_400(router, serve, chunk: bytes) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        came.append(await talk.rest())

    came: list[bytes] = []
    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    await until(lambda: worker.heads)
    await wire.send(chunk)
    answer = await wire.answer()
    assert (answer.status, answer.field("connection")) == (400, "close")
    await until(lambda: came)
    assert b"0\r\n" not in came[0]  # closed, and never ended as if whole


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"hello\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_a_malformed_answer_of_the_worker_is_a_502(router, serve, said: bytes) -> None:
    await serve(saying(said))
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")


async def test_an_answer_that_breaks_in_the_middle_is_never_relayed_as_if_whole(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await talk.reader.readexactly(1)  # until the test has read that

    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    assert fields(await wire.head(), "transfer-encoding") == ["chunked"]
    assert await wire.exactly(10) == b"5\r\nhello\r\n"
    worker.connections[0].writer.write(b"zz\r\n")
    assert await wire.rest() == b""


async def test_a_1_0_client_learns_by_a_reset_that_an_answer_was_cut(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await talk.reader.readexactly(1)

    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    await wire.head()
    assert await wire.exactly(5) == b"hello"
    worker.connections[0].reset()
    with pytest.raises(ConnectionResetError):
        await wire.rest()


async def test_hop_by_hop_headers_are_dropped_on_both_legs(router, serve) -> None:
    hops = b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n"
    worker = await serve(saying(sized(more=hops + b"X-End: 2\r\n")))
    answer = await router.get(Connection="X-Mine", X_Mine="1", TE="trailers", Keep_Alive="300", Accept="a/b")
    for name in ("connection", "x-hop", "keep-alive", "proxy-authenticate"):
        assert answer.field(name) is None, name
    assert answer.field("x-end") == "2"
    for name in ("connection", "x-mine", "te", "keep-alive"):
        assert fields(worker.last, name) == [], name
    assert fields(worker.last, "accept") == ["a/b"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n"),
    ],
)
async def test_head_204_and_304_have_no_body_whatever_their_headers_say(
    router, serve, method: str, said: bytes
) -> None:
    worker = await serve(saying(said, said, sized(b"next")))
    wire = await router.connect()
    for _ in range(2):
        await wire.send(f"{method} / HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        answer = await wire.answer(method)
        assert answer.status == int(said.split()[1])
        if b" 204 " not in said:
            assert answer.fields("content-length") == fields(said, "content-length")
    await wire.send(get())
    assert (await wire.answer()).body == b"next"
    assert len(worker.connections) == 1


async def test_a_get_with_a_body_and_a_delete_without_a_length_pass_through(router, serve) -> None:
    bodies = []

    async def handle(talk: Conversation) -> None:
        while head := await talk.request():
            length = int((fields(head, "content-length") or ["0"])[0])
            bodies.append((head.split()[0], await talk.exactly(length)))
            await talk.send(sized())

    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc")
    assert (await wire.answer()).status == 200
    await wire.send(b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (await wire.answer()).status == 200
    assert bodies == [(b"GET", b"abc"), (b"DELETE", b"")]
    assert fields(worker.last, "transfer-encoding") == fields(worker.last, "content-length") == []


async def test_1_0_clients_get_no_chunks_and_keep_alive_only_if_they_asked(router, serve) -> None:
    await serve(
        saying(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", sized()
        )
    )
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n")
    answer = await wire.answer()
    assert (answer.fields("transfer-encoding"), answer.field("connection"), answer.body) == (
        [],
        "close",
        b"abcde",
    )
    wire = await router.connect()
    for _ in range(2):
        await wire.send(b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n")
        assert (await wire.answer()).field("connection") == "keep-alive"
    await wire.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    assert (await wire.answer()).field("connection") == "close"
    assert await wire.rest() == b""


async def test_a_worker_of_1_0_that_ends_by_closing_is_relayed_whole(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    await serve(handle)
    wire = await router.connect()
    for _ in range(2):
        await wire.send(get())
        answer = await wire.answer()
        assert (answer.field("transfer-encoding"), answer.body) == ("chunked", b"all of it")


async def test_pipelined_requests_are_answered_in_order(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        while head := await talk.request():
            if fields(head, "transfer-encoding"):
                await talk.chunks()
            await talk.send(sized(head.split()[1]))

    worker = await serve(handle)
    wire = await router.connect()
    post = POST.replace(b" / ", b" /post ") + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    await wire.send(post + b"".join(get(path=f"/{i}") for i in range(100)) + b"\r\n" + get(path="/end"))
    bodies = [(await wire.answer()).body for _ in range(102)]
    assert bodies == [b"/post", *(b"/%d" % i for i in range(100)), b"/end"]
    assert len(worker.connections) == 1


async def test_a_malformed_request_behind_a_good_one_is_refused_after_the_first_answer(router, serve) -> None:
    await serve(saying(sized(b"first")))
    wire = await router.connect()
    await wire.send(get() + b"NONSENSE\r\n\r\n")
    assert (await wire.answer()).body == b"first"
    assert (await wire.answer()).status == 400
    assert await wire.rest() == b""


async def test_what_is_sent_ahead_without_end_is_not_read_without_end(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    worker = await serve(handle)
    wire = await router.connect()
    wire.writer.transport.set_write_buffer_limits(high=0)
    await wire.send(get())
    await until(lambda: worker.heads)
    before = router.rss()
    for _ in range(200):
        wire.writer.write(get(path="/" + "x" * 8000) * 20)
    await until(lambda: wire.writer.transport.get_write_buffer_size() > 0)
    assert router.rss() - before < 8_000_000
    assert len(worker.heads) == 1


async def test_trailers_pass_in_both_directions(router, serve) -> None:
    trailers = []

    async def handle(talk: Conversation) -> None:
        await talk.request()
        trailers.append(await talk.chunks())
        await talk.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nDigest: out\r\n\r\n"
        )

    await serve(handle)
    answer = await router.ask(
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nDigest: in\r\nHost: evil\r\n\r\n"
    )
    assert (answer.body, answer.trailers) == (b"ok", b"Digest: out\r\n")
    assert trailers == [([b"hi"], b"Digest: in\r\n")]


async def test_more_headers_than_anybody_sends_are_a_431_that_costs_little(router, serve) -> None:
    worker = await serve(saying(sized()))
    names = [f"n{number}" for number in range(2000)]
    lines = [f"Connection: {','.join(names)}", *(f"{name}: 1" for name in names)]
    answer = await router.ask(get(path="/")[:-2] + "\r\n".join([*lines, "", ""]).encode())
    assert (answer.status, worker.heads) == (431, [])


async def test_a_head_that_is_much_too_long_is_taken_in_so_that_its_answer_arrives(router) -> None:
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a.localhost\r\nX-Long: " + b"a" * (16 << 20))
    assert (await wire.answer()).status == 431


async def test_who_was_refused_and_goes_on_sending_is_closed_on_all_the_same(start) -> None:
    router = await start(linger=0.3)
    wire = await router.connect()
    await wire.send(b"this is no request\n\n")
    assert (await wire.answer()).status == 400
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while True:
                await wire.send(b"x")
                await asyncio.sleep(0.02)
