"""Heads of requests and answers: judged, cut into lines, and written again for the next hop. Pure.

llhttp is the judge (whitespace before a colon, bare CR or LF, NUL, folded lines, Content-Length together with
Transfer-Encoding, repeated lengths, codings other than a final `chunked`: all refused). What it lets through
is cut at CR LF, and lines that concern nobody but the two ends pass byte for byte. Each header that means
something to a proxy has one rule in the tables below; a look-up by name finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from lazycloud.router import access

END = b"\r\n\r\n"

_HOST = re.compile(rb"([0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)\.?(?::[0-9]{0,5})?")
_HOST6 = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)([/?#].*)?", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*")
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_HOST_MAX = 255  # a DNS name has at most 253
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))  # RFC 9110, 9.2.2


class BadHead(Exception):
    """A head that may not pass. `status` is what its client is told; the text says what is wrong."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class Silent:
    """Wants none of the parser's callbacks: it is asked for a verdict only."""


_SILENT = Silent()


class RequestHead:
    """What a router must know of a request, and the lines that it only passes on.

    Defaults live on the class: a head is made for every request, and most of it is never set.
    """

    minor = 1  # of HTTP/1.x
    host = ""  # normalised: lower case, without port and final dot; empty: HTTP/1.0 without Host
    authority = b""  # the host as the client wrote it
    length: int | None = None
    chunked = False
    keep_alive = True
    websocket = False  # asks to become one
    expects = False  # 100-continue
    agent = b""
    request_id = b""
    token = b""
    cookies: Sequence[bytes] = ()
    forwarded: Sequence[tuple[bytes, bytes]] = ()  # (lower-case name, value): only trusted proxies may say it
    hosts: Sequence[bytes] = ()
    options: Sequence[bytes] = ()  # of Connection, lower case
    upgrade = b""

    def __init__(self, method: bytes, target: bytes) -> None:
        self.method = method
        self.target = target
        self.lines: list[bytes] = []

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    @property
    def idempotent(self) -> bool:
        return self.method in _IDEMPOTENT

    def field(self, name: bytes) -> bytes:
        """The value of the first passing header called `name` (lower case); empty when there is none."""
        return next((value for found, value in map(_cut, self.lines) if found == name), b"")


class AnswerHead:
    """What a router must know of an answer, and the lines that it only passes on."""

    minor = 1
    length: int | None = None
    chunked = False
    keep_alive = True
    options: Sequence[bytes] = ()
    upgrade = b""
    ours: Sequence[bytes] = ()  # Lazycloud-* lines: passed from control, never from a worker

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason  # with the code: b"200 OK"
        self.lines: list[bytes] = []

    def without_body(self, method: bytes) -> bool:
        """Whether no body follows, whatever the headers say (RFC 9112, 6.3)."""
        return method == b"HEAD" or self.status in (204, 304) or self.status < 200


Rule = Callable[[Any, bytes, bytes], None]  # (head, line, value): what the line does to the head


def parse_request(raw: bytes) -> RequestHead:
    """The head in `raw`, which ends with an empty line. Raises BadHead."""
    _judge(HttpRequestParser, raw)
    lines = raw[:-4].split(b"\r\n")
    start = lines[0].split(b" ")
    if len(start) != 3 or start[2] not in _VERSIONS or start[0] == b"PRI":
        raise BadHead("its first line is not that of an HTTP/1.1 request")
    head = RequestHead(start[0], start[1])
    head.minor = _VERSIONS[start[2]]
    _sort(head, lines, _request_rule)
    _settle_host(head)
    _settle_connection(head)
    return head


def parse_answer(raw: bytes) -> AnswerHead:
    """The head in `raw`, which ends with an empty line. Raises BadHead."""
    _judge(HttpResponseParser, raw)
    lines = raw[:-4].split(b"\r\n")
    version, _, reason = lines[0].partition(b" ")
    if version not in _VERSIONS or not reason[:3].isdigit():
        raise BadHead("its first line is not that of an HTTP/1.1 answer")
    head = AnswerHead(int(reason[:3]), reason)
    head.minor = _VERSIONS[version]
    _sort(head, lines, _answer_rule)
    head.keep_alive = _keeps_alive(head.minor, head.options)
    if head.options:
        _drop_named(head)
    return head


def check_trailers(lines: Sequence[bytes]) -> list[bytes]:
    """The trailer lines that may pass: those with no say in framing, routing or identity. Raises BadHead."""
    if bad := next((line for line in lines if not _LINE.fullmatch(line)), None):
        raise BadHead(f"a line is no header: {bad[:40]!r}")
    return [line for line in lines if _may_trail(_cut(line)[0])]


def _may_trail(name: bytes) -> bool:
    return _request_rule(name) is None and name not in _NO_TRAILERS


def _judge(judge: type[HttpRequestParser] | type[HttpResponseParser], raw: bytes) -> None:
    try:
        judge(_SILENT).feed_data(raw)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise BadHead(str(error)) from error


def _sort(
    head: RequestHead | AnswerHead, lines: list[bytes], rule_of: Callable[[bytes], Rule | None]
) -> None:
    passing = head.lines
    del lines[0]
    for line in lines:
        name, _, value = line.partition(b":")
        rule = rule_of(name)
        if rule is None:
            passing.append(line)
        else:
            rule(head, line, value.strip(b" \t"))


def _settle_host(head: RequestHead) -> None:
    if head.target[:1] != b"/":
        _settle_target(head)
    if len(head.hosts) > 1:
        raise BadHead("it has more than one Host")
    if head.hosts:
        head.authority = head.authority or head.hosts[0]
    elif head.minor:
        raise BadHead("it has no Host")
    if head.authority or head.hosts:
        host = normalise_host(head.authority)
        if host is None:
            raise BadHead("its Host is not a name and a port")
        head.host = host


def _settle_target(head: RequestHead) -> None:
    """Absolute form: its host counts, not the Host header's (RFC 9112, 3.2.2); the path passes as it is."""
    if head.target == b"*" and head.method == b"OPTIONS":
        return
    found = _ABSOLUTE.fullmatch(head.target)
    if found is None or not found[1]:
        raise BadHead("its target is neither a path nor an http address")
    head.authority = found[1]
    path = found[2] or b"/"
    head.target = path if path[:1] == b"/" else b"/" + path


def _settle_connection(head: RequestHead) -> None:
    if head.chunked and not head.minor:
        raise BadHead("it is HTTP/1.0 and has a Transfer-Encoding")
    if not (head.options or not head.minor):
        return
    head.keep_alive = _keeps_alive(head.minor, head.options)
    if head.minor:
        head.websocket = b"upgrade" in head.options and _may_upgrade(head)
    else:
        head.expects = False
    _drop_named(head)


def _may_upgrade(head: RequestHead) -> bool:
    return head.upgrade.lower() == b"websocket" and head.method == b"GET" and not head.has_body


def _keeps_alive(minor: int, options: Sequence[bytes]) -> bool:
    return b"close" not in options and (bool(minor) or b"keep-alive" in options)


def _drop_named(head: RequestHead | AnswerHead) -> None:
    named = set(head.options) - {b"close", b"keep-alive", b"upgrade"}
    if named:
        head.lines = [line for line in head.lines if _cut(line)[0] not in named]
        if isinstance(head, RequestHead) and b"cookie" in named:
            head.cookies = ()


def _cut(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _drop(head: Any, line: bytes, value: bytes) -> None:
    """Not for the next hop."""


def _connection(head: RequestHead | AnswerHead, line: bytes, value: bytes) -> None:
    head.options = (*head.options, *(option.strip(b" \t") for option in value.lower().split(b",")))


def _length(head: RequestHead | AnswerHead, line: bytes, value: bytes) -> None:
    if head.length is not None or head.chunked or not _LENGTH.fullmatch(value):
        raise BadHead("its Content-Length is not one number")
    head.length = int(value)


def _coding(head: RequestHead | AnswerHead, line: bytes, value: bytes) -> None:
    if head.length is not None or head.chunked or value.lower() != b"chunked":
        raise BadHead("its Transfer-Encoding is not just “chunked”")
    head.chunked = True


def _upgrade(head: RequestHead | AnswerHead, line: bytes, value: bytes) -> None:
    head.upgrade = value


def _host(head: RequestHead, line: bytes, value: bytes) -> None:
    head.hosts = (*head.hosts, value)


def _expect(head: RequestHead, line: bytes, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise BadHead("it expects something else than 100-continue", 417)
    head.expects = True


def _cookie(head: RequestHead, line: bytes, value: bytes) -> None:
    head.cookies = (*head.cookies, value)


def _agent(head: RequestHead, line: bytes, value: bytes) -> None:
    head.agent = value
    head.lines.append(line)


def _request_id(head: RequestHead, line: bytes, value: bytes) -> None:
    if _REQUEST_ID.fullmatch(value):
        head.request_id = value


def _token(head: RequestHead, line: bytes, value: bytes) -> None:
    head.token = value


def _forwarded(head: RequestHead, line: bytes, value: bytes) -> None:
    head.forwarded = (*head.forwarded, (line.partition(b":")[0].lower(), value))


def _ours(head: AnswerHead, line: bytes, value: bytes) -> None:
    head.ours = (*head.ours, line)


_BOTH: dict[bytes, Rule] = {
    b"connection": _connection,
    b"keep-alive": _drop,
    b"te": _drop,
    b"trailer": _drop,
    b"upgrade": _upgrade,
    b"content-length": _length,
    b"transfer-encoding": _coding,
}
_REQUEST: dict[bytes, Rule] = _BOTH | {
    b"host": _host,
    b"expect": _expect,
    b"cookie": _cookie,
    b"user-agent": _agent,
    b"x-request-id": _request_id,
    b"lazycloud-token": _token,
    b"http2-settings": _drop,
    b"forwarded": _forwarded,
    b"x-real-ip": _forwarded,
}
# What a recipient might merge from trailers into a head it has already acted on (RFC 9110, 6.5.1).
_NO_TRAILERS = frozenset(
    b"authorization set-cookie content-encoding content-type content-range cache-control location".split()
)


@lru_cache(maxsize=1024)
def _request_rule(name: bytes) -> Rule | None:
    """What to do with a request's header; None: pass its line on."""
    lower = name.lower()
    if rule := _REQUEST.get(lower):
        return rule
    if lower.startswith(b"x-forwarded-"):
        return _forwarded
    # Servers of the CGI tradition read Lazycloud_Token and Lazycloud-Token as one name.
    return _drop if b"_" in lower or lower.startswith((b"lazycloud-", b"proxy-")) else None


@lru_cache(maxsize=1024)
def _answer_rule(name: bytes) -> Rule | None:
    """What to do with an answer's header; None: pass its line on."""
    lower = name.lower()
    if rule := _BOTH.get(lower):
        return rule
    if lower.startswith(b"lazycloud-"):
        return _ours
    return _drop if lower.startswith(b"proxy-") else None


@lru_cache(maxsize=4096)
def normalise_host(authority: bytes) -> str | None:
    """`Example.COM.:8000` -> `example.com`, `[::1]:80` -> `[::1]`; None when it is no host."""
    if len(authority) > _HOST_MAX:
        return None
    if found := _HOST.fullmatch(authority):
        return found[1].decode().lower()
    if found := _HOST6.fullmatch(authority):
        try:
            return f"[{IPv6Address(found[1].decode()).compressed}]"
        except AddressValueError:
            return None
    return None


def is_navigation(head: RequestHead) -> bool:
    """Whether a browser's window waits for this answer, so that a page may be shown in its stead.

    Browsers send Sec-Fetch-* over https and to localhost only; elsewhere Accept and User-Agent tell.
    """
    if head.method != b"GET" or head.websocket or head.upgrade:
        return False
    if mode := head.field(b"sec-fetch-mode"):
        return mode == b"navigate" and head.field(b"sec-fetch-dest") == b"document"
    return b"text/html" in head.field(b"accept").lower() and head.agent.startswith(b"Mozilla/")


@lru_cache(maxsize=1024)
def is_robot(agent: bytes, words: tuple[str, ...]) -> bool:
    """Whether a User-Agent calls itself a robot, by one of `words` (lower case)."""
    lower = agent.decode("latin-1").lower()
    return any(word in lower for word in words)


def forwarding(head: RequestHead, peer: bytes, scheme: bytes, trusted: bool) -> bytes:
    """The lines that tell the next hop whom the request came from; a trusted peer's own are extended."""
    said = dict(head.forwarded) if trusted else {}
    chain = [value for name, value in head.forwarded if trusted and name == b"x-forwarded-for"]
    lines = [
        b"X-Forwarded-For: " + b", ".join((*chain, peer)),
        b"X-Forwarded-Proto: " + said.pop(b"x-forwarded-proto", scheme),
        b"X-Forwarded-Host: " + said.pop(b"x-forwarded-host", head.authority),
    ]
    said.pop(b"x-forwarded-for", None)
    return b"\r\n".join((*lines, *(name + b": " + value for name, value in said.items())))


def write_request(head: RequestHead, forwarded: bytes, request_id: bytes, reason: bytes | None) -> bytes:
    """The head for the next hop; to control when there is a `reason`, otherwise to a worker.

    `forwarded` are whole lines as `forwarding` makes them.
    """
    out = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, head.target, head.authority)]
    out += head.lines
    for cookies in head.cookies:
        if kept := cookies if reason else access.for_worker(cookies):
            out.append(b"Cookie: " + kept)
    if head.chunked:
        out.append(b"Transfer-Encoding: chunked")
    elif head.length is not None:
        out.append(b"Content-Length: %d" % head.length)
    if head.expects:
        out.append(b"Expect: 100-continue")
    if head.websocket:
        out.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    if reason:
        out.append(b"Lazycloud-Reason: " + reason)
    out.append(b"%b\r\nX-Request-Id: %b\r\n\r\n" % (forwarded, request_id))
    return b"\r\n".join(out)


def write_answer(head: AnswerHead, framing: bytes, connection: bytes, ours: bool) -> bytes:
    """The head for the client. `framing` and `connection` are whole lines, or empty."""
    out = [b"HTTP/1.1 " + head.reason, *head.lines]
    if ours:
        out += head.ours
    if framing:
        out.append(framing)
    if connection:
        out.append(connection)
    out.append(END[2:])
    return b"\r\n".join(out)
