"""Lines 1 to 6 of http.md, the clauses that test_framing.py leaves: every header, on every leg."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import until

from .stage import Conversation, fields, get, saying, sized, to_worker

HOST = b"Host: app.localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
HOPS = {
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "keep-alive",
    "Proxy-Authenticate": "Basic",
    "Proxy-Authorization": "Basic eDp5",
    "Proxy-Whatever": "1",
    "TE": "trailers, deflate",
    "Trailer": "Digest",
    "Upgrade": "h2c",
    "X-Named": "1",
    "x-also-NAMED": "2",
}
NAMING = "Connection: keep-alive, X-Named\r\nX-Kept: 3\r\nConnection:,X-Also-Named ,\r\n"
BAGGAGE = (NAMING + "".join(f"{name}: {value}\r\n" for name, value in HOPS.items())).encode()


def by_path(*answers: bytes):
    """A worker that says `answers[n]` to /n, on a connection that it closes if the answer is no good."""

    async def handle(talk: Conversation) -> None:
        while head := await talk.request():
            await talk.send(answers[int(head.split()[1][1:])])

    return handle


async def test_each_hop_by_hop_header_is_dropped_from_requests_answers_and_early_hints(router, serve) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n" + BAGGAGE + b"\r\n"
    worker = await serve(saying(hints + sized(more=BAGGAGE)))
    wire = await router.connect()
    await wire.send(b"GET / HTTP/1.1\r\n" + HOST + BAGGAGE + b"\r\n")
    early, final = await wire.answer(), await wire.answer()
    assert (early.status, final.status) == (103, 200)
    for head in (worker.last, early.head, final.head):
        assert {name: fields(head, name) for name in ("Connection", *HOPS)} == {
            name: [] for name in ("Connection", *HOPS)
        }
        assert fields(head, "x-kept") == ["3"]


async def test_what_connection_names_is_dropped_although_routing_and_framing_stay(router, serve) -> None:
    """A client cannot have lazycloud's own headers, the length or the host dropped on the way."""
    worker = await serve(
        saying(sized(b"hello", more=b"Connection: Content-Length, Set-Cookie\r\nSet-Cookie: a\r\n"))
    )
    named = b"Connection: Content-Length, Host, X-Forwarded-For, X-Request-Id\r\nContent-Length: 2\r\n\r\nhi"
    answer = await router.ask(POST + named)
    assert (answer.body, answer.fields("set-cookie")) == (b"hello", [])
    assert fields(worker.last, "content-length") == ["2"]
    assert fields(worker.last, "host") == ["app.localhost"]
    assert fields(worker.last, "x-forwarded-for") == ["127.0.0.1"]
    assert len(fields(worker.last, "x-request-id")) == 1


AMBIGUOUS = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello",
]


async def test_an_answer_that_two_readers_could_understand_differently_is_a_502_and_ends_its_connection(
    router, serve
) -> None:
    worker = await serve(by_path(*AMBIGUOUS))
    for number, said in enumerate(AMBIGUOUS):
        answer = await router.get(path=f"/{number}")
        assert (answer.status, answer.field("lazycloud-answer")) == (502, "router"), said
        await until(worker.connections[number].reader.at_eof)
    assert len(worker.connections) == len(AMBIGUOUS)


async def test_a_malformed_chunk_of_a_held_request_is_its_400_and_frees_its_place(router, control) -> None:
    await control.wait_for("hello")
    answer = await router.ask(POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert (answer.status, answer.field("connection")) == (400, "close")
    assert (await control.wait_for("leave"))["leave"] == (await control.wait_for("ask"))["ask"]


async def test_a_malformed_chunk_behind_a_good_one_is_a_502_while_nothing_was_relayed(router, serve) -> None:
    await serve(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"))
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")
    assert b"hello" not in answer.body


BODILESS = [
    ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 1000\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    ("GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 1000\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n"),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
]


async def test_what_has_no_body_has_none_whatever_it_says_of_a_length_or_a_coding(router, serve) -> None:
    worker = await serve(by_path(*(said for _, said in BODILESS), sized(b"next")))
    wire = await router.connect()
    for number, (method, said) in enumerate(BODILESS):
        await wire.send(f"{method} /{number} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        answer = await wire.answer(method)
        if answer.status == 103:
            assert answer.fields("content-length") == answer.fields("transfer-encoding") == []
            answer = await wire.answer(method)
        if answer.status == 204:
            assert answer.fields("content-length") == answer.fields("transfer-encoding") == [], said
        await wire.send(get(path=f"/{len(BODILESS)}"))
        assert (await wire.answer()).body == b"next", said
    assert len(worker.connections) == 1


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstray\r\n0\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + sized(b"stray")),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nstray"),
    ],
)
async def test_a_body_that_must_not_be_there_is_neither_relayed_nor_taken_for_the_next_answer(
    router, serve, method: str, said: bytes
) -> None:
    worker = await serve(by_path(said, sized(b"next")))
    wire = await router.connect()
    await wire.send(f"{method} /0 HTTP/1.1\r\n".encode() + HOST + b"\r\n" + get(path="/1"))
    assert (await wire.answer(method)).status == int(said.split()[1])
    assert (await wire.answer()).body == b"next"
    assert len(worker.connections) == 2


async def test_pipelined_requests_are_answered_in_order_although_the_first_is_held(
    router, control, serve
) -> None:
    await serve(saying(sized(b"warm")))
    await router.get()
    wire = await router.connect()
    await wire.send(get("cold.localhost") + get() + get("cold.localhost") + get())
    ask = await control.wait_for("ask", 2)
    cold = await serve(saying(sized(b"cold")), host="elsewhere.localhost")
    control.answer(ask, to_worker(cold.address))
    assert [(await wire.answer()).body for _ in range(4)] == [b"cold", b"warm", b"cold", b"warm"]


async def test_trailers_pass_when_they_come_late_and_a_1_0_client_gets_the_body_without_them(
    router, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nDig")
        await late.wait()
        await talk.send(b"est: a\r\nDigest: b\r\n\r\n")

    late = asyncio.Event()
    worker = await serve(handle)
    wire = await router.connect()
    await wire.send(get())
    await wire.head()
    assert await wire.exactly(7) == b"2\r\nok\r\n"
    late.set()
    assert await wire.chunks() == ([], b"Digest: a\r\nDigest: b\r\n")
    answer = await router.ask(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    assert answer.body == b"ok"
    await until(lambda: len(worker.heads) == 2)
