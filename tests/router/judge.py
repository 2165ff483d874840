"""What is right: what a worker should see of a request, a client of an answer; and whether that is what came out.

In the terms of strict.py, and independent of the router: `expected` and `relayed` are http.md's rules once more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h11

from .peers import Seen, seen
from .strict import BadBody, Fields, Incomplete, Malformed, Message, read_answer, read_requests
from .trial import Outcome, Stream

HOST = re.compile(rb"[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\.?(:[0-9]{0,5})?")
ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)([/?].*)?")
METHODS = b"GET HEAD POST PUT DELETE OPTIONS PATCH PROPFIND REPORT M-SEARCH".split()
_TAB_BEHIND_CODING = re.compile(rb"(?i)\r\ntransfer-encoding:[^\r]*\t *\r")  # mostly refused by llhttp

# Requests

_HOP = frozenset(
    b"connection keep-alive te trailer upgrade http2-settings transfer-encoding content-length".split()
)
_OURS = frozenset(b"forwarded x-real-ip x-request-id host expect".split())
_EDGE = frozenset(b"x-forwarded-for x-forwarded-proto x-forwarded-host x-request-id".split())
_NO_TRAILERS = frozenset(
    b"authorization cookie user-agent set-cookie content-encoding content-type content-range cache-control "
    b"location".split()
)


def acceptable(request: Message) -> bool:
    """Whether the router has no reason of its own to refuse what reads well."""
    method, target = request.start
    authority = _authority(request)
    return (
        method in METHODS
        and (target[:1] == b"/" or bool(ABSOLUTE.fullmatch(target)) or (method, target) == (b"OPTIONS", b"*"))
        and b"#" not in target
        and (bool(HOST.fullmatch(authority)) or not (request.minor or request.values(b"host") or authority))
        and all(value.lower() == b"100-continue" for value in request.values(b"expect"))
        and not _TAB_BEHIND_CODING.search(request.raw)
    )


def _authority(request: Message) -> bytes:
    found = ABSOLUTE.fullmatch(request.start[1])
    return found[1] if found else b"".join(request.values(b"host"))


def _target(request: Message) -> bytes:
    method, target = request.start
    found = ABSOLUTE.fullmatch(target)
    if found is None:
        return target
    path = found[2] or (b"*" if method == b"OPTIONS" else b"/")  # RFC 9112, 3.2.4
    return path if path[:1] in b"/*" else b"/" + path


def _asks_for_websocket(request: Message) -> bool:
    framed = request.values(b"transfer-encoding") or int((request.values(b"content-length") or (b"0",))[0])
    last = [value.lower() for value in request.values(b"upgrade")][-1:]
    return b"upgrade" in request.options and last == [b"websocket"] and not framed and request.minor == 1


def upgrades(request: Message) -> bool:
    return request.start[0] == b"GET" and _asks_for_websocket(request)


def is_last(request: Message) -> bool:
    """Whether its connection carries no other after it."""
    return not request.keeps_alive or _asks_for_websocket(request)


def _passes(name: bytes, value: bytes) -> bool:
    reserved = name.startswith((b"lazycloud-", b"proxy-", b"x-forwarded-"))
    nothing = name == b"cookie" and not value
    return not (name in _HOP or name in _OURS or b"_" in name or reserved or nothing)


def expected(request: Message) -> Message:
    """What a worker should see of it, without what the router adds."""
    named = request.options - {b"close", b"keep-alive", b"upgrade"}
    fields = [(b"host", _authority(request))]
    fields += [(name, value) for name, value in request.fields if _passes(name, value) and name not in named]
    fields += [(b"content-length", b"%d" % int(value)) for value in request.values(b"content-length")]
    fields += [(b"transfer-encoding", b"chunked") for _ in request.values(b"transfer-encoding")]
    if request.values(b"expect") and request.minor:
        fields.append((b"expect", b"100-continue"))
    if upgrades(request):
        fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    trailers = tuple((n, v) for n, v in request.trailers if _passes(n, v) and n not in _NO_TRAILERS)
    return Message((request.start[0], _target(request)), 1, tuple(fields), request.body, trailers)


def by_name(message: Message) -> tuple[Seen, Fields]:
    return seen(*message.start, message.fields, message.body), message.trailers


def without_edge(got: Message) -> Message:
    """`got` without what the router adds, which must be there once and right."""
    added = {name: got.values(name) for name in _EDGE}
    assert added[b"x-forwarded-for"] == (b"127.0.0.1",)
    assert added[b"x-forwarded-proto"] == (b"http",)
    assert added[b"x-forwarded-host"] == got.values(b"host")
    assert len(added[b"x-request-id"]) == 1
    fields = tuple((name, value) for name, value in got.fields if name not in _EDGE)
    return Message(got.start, got.minor, fields, got.body, got.trailers)


def judge_requests(sent: bytes, outcome: Outcome) -> None:
    """Fails unless the worker got exactly what was sent, or nothing of it."""
    requests, why = _readable(sent, passed=len(outcome.order))
    got = outcome.order
    for stream in outcome.streams:
        assert not stream.malformed, stream.malformed
        assert all(not request.trailers for request in stream.requests[:-1]), (
            "trailers may leak into the next"
        )
    assert [by_name(without_edge(each)) for each in got] == [
        by_name(expected(each)) for each in requests[: len(got)]
    ]
    refused = _judge_answers(outcome, requests)
    if len(got) < len(requests):
        assert refused, "neither answered nor refused"
        assert not acceptable(requests[len(got)]), "refused without need"
        why = Malformed("for a reason of the router's own")
    if isinstance(why, Malformed):
        assert refused, f"waits for the rest of what cannot be right: {why}"
    _judge_tails([stream for stream in outcome.streams if stream.tail], why)


def _readable(sent: bytes, passed: int) -> tuple[list[Message], Malformed | Incomplete | None]:
    """Up to the request that is its connection's last: nobody looks at what comes behind it."""
    requests, _, why = read_requests(sent)
    for i, request in enumerate(requests):
        if is_last(request) and (i < passed or acceptable(request)):
            return requests[: i + 1], None
    return requests, why


def _judge_answers(outcome: Outcome, requests: Sequence[Message]) -> bool:
    """The worker's answers in order, and then perhaps one of the router's own: whether it is there."""
    said = outcome.said
    for nth in range(len(outcome.order)):
        _, answer, said = read_answer(said, requests[nth].start[0], False)
        assert (answer.start[0], answer.values(b"x-nth")) == (b"200", (b"%d" % nth,))
        assert answer.minor and (b"close" in answer.options) == is_last(requests[nth])
    ended = bool(outcome.order) and is_last(requests[len(outcome.order) - 1])
    assert bool(outcome.ended) == (ended or bool(said)), (outcome.ended, said)
    if not said:
        return False
    _, answer, rest = read_answer(said, b"HEAD" if said.endswith(b"\r\n\r\n") else b"GET", True)
    assert answer.start[0].startswith(b"4")
    assert answer.values(b"lazycloud-answer") == (b"router",)
    assert b"close" in answer.options
    assert not rest
    return True


def _judge_tails(tails: list[Stream], why: Malformed | Incomplete | None) -> None:
    """What the worker got of a request that is not whole: nothing, or its head and the beginning of its body."""
    head = why.head if isinstance(why, (Incomplete, BadBody)) else None
    if head is None:
        assert not tails, "a part of what was refused reached the worker"
    for stream in tails:
        _, _, missing = read_requests(stream.tail)
        assert isinstance(missing, Incomplete)
        assert missing.head is not None and head is not None
        want, have = expected(head), without_edge(missing.head)
        assert head.body.startswith(have.body)
        assert by_name(Message(have.start, 1, have.fields)) == by_name(Message(want.start, 1, want.fields))


# Answers


@dataclass(frozen=True)
class Told:
    """What a worker says to a request, in packets, and whether it closes then."""

    method: bytes
    minor: int
    says: Sequence[bytes]
    closes: bool

    def read(self) -> tuple[list[Message], Message, bytes]:
        return read_answer(b"".join(self.says), self.method, self.closes)


def relayed(answer: Message, *, bodiless: bool) -> Message:
    """What a client should see of it."""
    named = answer.options - {b"close", b"keep-alive", b"upgrade"}
    ours = (b"lazycloud-", b"proxy-")
    fields = [
        (name, value)
        for name, value in answer.fields
        if not (name in _HOP or name in named or name.startswith(ours))
    ]
    if bodiless and answer.start[0] != b"204":
        fields += [(b"content-length", b"%d" % int(value)) for value in answer.values(b"content-length")]
    trailers = tuple((n, v) for n, v in answer.trailers if _passes(n, v) and n not in _NO_TRAILERS)
    return Message(answer.start, 1, tuple(fields), answer.body, trailers)


def judge_answer(told: Told, said: bytes, ended: str, *, trusted: bool) -> None:
    """Fails unless the client saw the worker's answer as it was; or saw a 502, or no end, as it was none.

    `trusted`: the router went on with the worker's connection.
    """
    try:
        interim, answer, surplus = told.read()
    except (Malformed, Incomplete):
        assert not trusted, "another request went where an answer was malformed"
        _judge_no_answer(told, said, ended)
        return
    assert not (trusted and (surplus or told.closes or not answer.keeps_alive))
    got_interim, got, rest = read_answer(said, told.method, ended == "eof")
    assert not rest
    assert h11_reads(told.method, said, ended) == (got.start[0], got.body)
    bodiless = told.method == b"HEAD" or answer.start[0] in (b"204", b"304")
    want = relayed(answer, bodiless=bodiless)
    if not told.minor:
        want = replace(want, trailers=())
    fields = tuple((n, v) for n, v in got.fields if n not in _HOP or (bodiless and n == b"content-length"))
    assert by_name(replace(got, fields=fields)) == by_name(want)
    passing = [relayed(each, bodiless=False) for each in interim if told.minor and each.start[0] != b"100"]
    assert [by_name(each) for each in got_interim] == [by_name(each) for each in passing]


def _judge_no_answer(told: Told, said: bytes, ended: str) -> None:
    try:
        _, got, _ = read_answer(said, told.method, ended == "eof")
    except Incomplete:
        assert h11_reads(told.method, said, ended) is None
        return
    assert (got.start[0], got.values(b"lazycloud-answer")) == (b"502", (b"router",))


def h11_reads(method: bytes, said: bytes, ended: str) -> tuple[bytes, bytes] | None:
    """Status and body; None: it has no end."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(said)
    if ended == "eof":
        client.receive_data(b"")
    status, body = b"", b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = b"%d" % event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body
