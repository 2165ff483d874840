"""Heads of requests and answers: judged, cut into lines, and written again for the next hop. Pure.

llhttp is the judge (whitespace before a colon, bare CR or LF, NUL, folded lines, Content-Length together with
Transfer-Encoding, repeated lengths, codings other than a final `chunked`: all refused). What it lets through
is cut at CR LF, and lines that concern nobody but the two ends pass byte for byte. Each header that means
something to a proxy has one rule in the tables below; a look-up by name finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from lazycloud.router import access
from lazycloud.router.known import Known

END = b"\r\n\r\n"

_HOST = re.compile(rb"([0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*)\.?(?::[0-9]{0,5})?")
_HOST6 = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)([/?#].*)?", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*")
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_PLAIN_START = re.compile(  # with the host, where it comes first
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!\"$-~]*) HTTP/1\.1(?:\r\n[Hh]ost: ([!-~]+))?(?=\r\n)"
).match
_STATUS = re.compile(rb"[1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_LINES_MAX = 1000  # browsers send thirty, workers hardly more
_LENGTH_MAX = 18  # digits: more than any disk
_HOP_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade"))
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


class Fields:
    """What a request's header lines say, but for the host. A function of their bytes alone, so it may be kept.

    Defaults live on the class: most of them are never set.
    """

    length: int | None = None
    chunked = False
    keep_alive = True
    upgrades = False  # asks to become a websocket
    expects = False  # 100-continue
    agent = b""
    request_id = b""
    token = b""
    cookies: tuple[bytes, ...] = ()
    forwarded: tuple[tuple[bytes, bytes], ...] = ()  # (lower-case name, value): for trusted proxies to say
    hosts: tuple[bytes, ...] = ()
    options: tuple[bytes, ...] = ()  # of Connection, lower case
    upgrade = b""
    relayed = b""  # what `write_request` made of them for a worker, with the body's framing

    def __init__(self) -> None:
        self.lines: list[bytes] = []  # that only pass

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    def find(self, name: bytes) -> bytes:
        """The value of the first passing header called `name` (lower case); empty when there is none."""
        return next((value for found, value in map(_cut, self.lines) if found == name), b"")


class RequestHead:
    """What a router must know of a request."""

    __slots__ = ("authority", "fields", "host", "method", "minor", "target")

    def __init__(
        self, method: bytes, target: bytes, host: str, authority: bytes, fields: Fields, minor: int = 1
    ) -> None:
        self.method = method
        self.target = target
        self.host = host  # normalised: lower case, without port and final dot; empty: HTTP/1.0 without Host
        self.authority = authority  # the host as the client wrote it
        self.fields = fields
        self.minor = minor  # of HTTP/1.x

    @property
    def websocket(self) -> bool:
        """Whether it asks to become one."""
        return self.fields.upgrades and self.method == b"GET"

    @property
    def idempotent(self) -> bool:
        return self.method in _IDEMPOTENT


class AnswerHead:
    """What a router must know of an answer, and the lines that it only passes on. Kept like `Fields`."""

    minor = 1
    length: int | None = None
    chunked = False
    keep_alive = True
    options: tuple[bytes, ...] = ()
    upgrade = b""
    ours: tuple[bytes, ...] = ()  # Lazycloud-* lines: passed from control, never from a worker
    relayed = b""  # what `relay_answer` made of it

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason  # with the code: b"200 OK"
        self.lines: list[bytes] = []

    def without_body(self, method: bytes) -> bool:
        """Whether no body follows, whatever the headers say (RFC 9112, 6.3)."""
        return method == b"HEAD" or self.status in (204, 304) or self.status < 200


Rule = Callable[[Any, bytes, bytes], None]  # (head, line, value): what the line does to the head
_Judged = tuple[Rule | None, bytes]  # what a line does, and its value


def parse_request(raw: bytes) -> RequestHead:
    """The head in `raw`, which ends with an empty line. Raises BadHead.

    Clients repeat themselves: but for the first line and the host, theirs are mostly those of an earlier request.
    Such lines were judged then; first line and host are held to forms that are narrower than the judge's.
    """
    if plain := _PLAIN_START(raw):
        method, target, authority = plain.groups()
        if authority is None:
            authority, others = _cut_host(raw, plain.end())
        else:
            others = raw[plain.end() :]
        fields = _known_fields.get(others)
        if fields is not None and (host := _known_hosts.get(authority) or _find_host(authority)):
            return RequestHead(method, target, host, authority, fields)
    return _parse_new_request(raw)


def _cut_host(raw: bytes, at: int) -> tuple[bytes, bytes]:
    """The host and all other header lines, which begin `at` there. Nothing, when it is not written as usual."""
    begin = raw.find(b"\r\nHost: ", at)
    if begin < 0:
        begin = raw.find(b"\r\nhost: ", at)
        if begin < 0:
            return b"", b""
    end = raw.find(b"\r\n", begin + 8)
    return raw[begin + 8 : end], raw[at:begin] + raw[end:]


def _find_host(authority: bytes) -> str | None:
    if host := normalise_host(authority):
        _known_hosts.keep(authority, host)
    return host


def _parse_new_request(raw: bytes) -> RequestHead:
    _judge(HttpRequestParser, raw)
    lines = raw[:-4].split(b"\r\n")
    first = lines[0]
    start = first.split(b" ")
    # llhttp skips a line end before the method, which other readers may not; and it lets fragments through.
    if len(start) != 3 or start[2] not in _VERSIONS or not start[0][:1].isalpha() or b"#" in start[1]:
        raise BadHead("its first line is not that of an HTTP/1.1 request")
    if start[0] in (b"CONNECT", b"PRI"):
        raise BadHead("it asks for a tunnel")
    fields = Fields()
    head = RequestHead(start[0], start[1], "", b"", fields, _VERSIONS[start[2]])
    _sort(fields, lines, _known_request_lines, _request_rule)
    plain = head.target[:1] == b"/" and head.minor == 1
    _settle_target(head)
    _settle_host(head)
    _settle_connection(head)
    if plain:
        _, others = _cut_host(raw, len(first))
        if others:
            _known_fields.keep(others, fields)
    return head


def parse_answer(raw: bytes) -> AnswerHead:
    """The head in `raw`, which ends with an empty line. Not to be changed: it may be kept. Raises BadHead."""
    if known := _known_answers.get(raw):
        return known
    _judge(HttpResponseParser, raw)
    lines = raw[:-4].split(b"\r\n")
    version, _, reason = lines[0].partition(b" ")
    if version not in _VERSIONS or not _STATUS.fullmatch(reason):
        raise BadHead("its first line is not that of an HTTP/1.1 answer")
    head = AnswerHead(int(reason[:3]), reason)
    head.minor = _VERSIONS[version]
    _sort(head, lines, _known_answer_lines, _answer_rule)
    if head.options or not head.minor:
        head.keep_alive = _keeps_alive(head.minor, head.options)
        _drop_named(head)
    _known_answers.keep(raw, head)
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
    head: Fields | AnswerHead,
    lines: list[bytes],
    known: Known[_Judged],
    rule_of: Callable[[bytes], Rule | None],
) -> None:
    """Each line after the first to its rule; what has none passes. Most lines were seen before."""
    passing = head.lines
    del lines[0]
    if len(lines) > _LINES_MAX:
        raise BadHead("it has too many headers", 431)
    for line in lines:
        judged = known.get(line)
        if judged is None:
            name, _, value = line.partition(b":")
            judged = rule_of(name), value.strip(b" \t")
            known.keep(line, judged)
        rule, value = judged
        if rule is None:
            passing.append(line)
        else:
            rule(head, line, value)


def _settle_host(head: RequestHead) -> None:
    fields = head.fields
    if len(fields.hosts) > 1:
        raise BadHead("it has more than one Host")
    if fields.hosts:
        head.authority = head.authority or fields.hosts[0]
    elif head.minor:
        raise BadHead("it has no Host")
    if head.authority or fields.hosts:
        host = normalise_host(head.authority)
        if host is None:
            raise BadHead("its Host is not a name and a port")
        head.host = host


def _settle_target(head: RequestHead) -> None:
    """Absolute form: its host counts, not the Host header's (RFC 9112, 3.2.2); the path passes as it is."""
    if head.target[:1] == b"/" or (head.target == b"*" and head.method == b"OPTIONS"):
        return
    found = _ABSOLUTE.fullmatch(head.target)
    if found is None or not found[1]:
        raise BadHead("its target is neither a path nor an http address")
    head.authority = found[1]
    path = found[2] or (b"*" if head.method == b"OPTIONS" else b"/")  # RFC 9112, 3.2.4
    head.target = b"/" + path if path[:1] == b"?" else path


def _settle_connection(head: RequestHead) -> None:
    fields = head.fields
    if fields.chunked and not head.minor:
        raise BadHead("it is HTTP/1.0 and has a Transfer-Encoding")
    if not head.minor:
        fields.expects = False
    if fields.options or not head.minor:
        fields.keep_alive = _keeps_alive(head.minor, fields.options)
        fields.upgrades = bool(head.minor) and b"upgrade" in fields.options and _may_upgrade(fields)
        _drop_named(fields)


def _may_upgrade(fields: Fields) -> bool:
    return fields.upgrade.lower() == b"websocket" and not fields.has_body


def _keeps_alive(minor: int, options: tuple[bytes, ...]) -> bool:
    return b"close" not in options and (bool(minor) or b"keep-alive" in options)


def _drop_named(head: Fields | AnswerHead) -> None:
    named = {option for option in head.options if option not in _HOP_OPTIONS}
    if named:
        head.lines = [line for line in head.lines if _cut(line)[0] not in named]
        if isinstance(head, Fields) and b"cookie" in named:
            head.cookies = ()


def _cut(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _drop(head: Any, line: bytes, value: bytes) -> None:
    """Not for the next hop."""


def _connection(head: Fields | AnswerHead, line: bytes, value: bytes) -> None:
    said = value.lower()
    head.options += tuple([each.strip(b" \t") for each in said.split(b",")]) if b"," in said else (said,)


def _length(head: Fields | AnswerHead, line: bytes, value: bytes) -> None:
    if head.length is not None or head.chunked or not value.isdigit() or len(value) > _LENGTH_MAX:
        raise BadHead("its Content-Length is not one number")
    head.length = int(value)


def _coding(head: Fields | AnswerHead, line: bytes, value: bytes) -> None:
    if head.length is not None or head.chunked or value.lower() != b"chunked":
        raise BadHead("its Transfer-Encoding is not just “chunked”")
    head.chunked = True


def _upgrade(head: Fields | AnswerHead, line: bytes, value: bytes) -> None:
    head.upgrade = value


def _host(head: Fields, line: bytes, value: bytes) -> None:
    head.hosts += (value,)


def _expect(head: Fields, line: bytes, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise BadHead("it expects something else than 100-continue", 417)
    head.expects = True


def _cookie(head: Fields, line: bytes, value: bytes) -> None:
    head.cookies += (value,)


def _agent(head: Fields, line: bytes, value: bytes) -> None:
    head.agent = value
    head.lines.append(line)


def _request_id(head: Fields, line: bytes, value: bytes) -> None:
    if _REQUEST_ID.fullmatch(value):
        head.request_id = value


def _token(head: Fields, line: bytes, value: bytes) -> None:
    head.token = value


def _forwarded(head: Fields, line: bytes, value: bytes) -> None:
    head.forwarded += ((line.partition(b":")[0].lower(), value),)


def _ours(head: AnswerHead, line: bytes, value: bytes) -> None:
    head.ours += (line,)


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


_known_fields: Known[Fields] = Known()  # by all lines but the first and the host
_known_hosts: Known[str] = Known()
_known_answers: Known[AnswerHead] = Known()  # by the whole head
_known_request_lines: Known[_Judged] = Known()
_known_answer_lines: Known[_Judged] = Known()
_known_agents: Known[bool] = Known()  # whether it is a robot


def _request_rule(name: bytes) -> Rule | None:
    """What to do with a request's header; None: pass its line on."""
    lower = name.lower()
    if rule := _REQUEST.get(lower):
        return rule
    if lower.startswith(b"x-forwarded-"):
        return _forwarded
    # Servers of the CGI tradition read Lazycloud_Token and Lazycloud-Token as one name.
    return _drop if b"_" in lower or lower.startswith((b"lazycloud-", b"proxy-")) else None


def _answer_rule(name: bytes) -> Rule | None:
    """What to do with an answer's header; None: pass its line on."""
    lower = name.lower()
    if rule := _BOTH.get(lower):
        return rule
    if lower.startswith(b"lazycloud-"):
        return _ours
    return _drop if lower.startswith(b"proxy-") else None


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
    fields = head.fields
    if head.method != b"GET" or fields.upgrade:
        return False
    if mode := fields.find(b"sec-fetch-mode"):
        return mode == b"navigate" and fields.find(b"sec-fetch-dest") == b"document"
    fetched = fields.find(b"x-requested-with")  # by a script, as jQuery and its like say
    accepts = b"text/html" in fields.find(b"accept").lower()
    return accepts and not fetched and fields.agent.startswith(b"Mozilla/")


def is_robot(fields: Fields, words: Sequence[str]) -> bool:
    """Whether a User-Agent calls itself a robot, by one of `words` (lower case; the same at every call)."""
    found = _known_agents.get(fields.agent)
    if found is None:
        lower = fields.agent.decode("latin-1").lower()
        found = any(word in lower for word in words)
        _known_agents.keep(fields.agent, found)
    return found


def forwarding(head: RequestHead, peer: bytes, scheme: bytes, trusted: bool) -> bytes:
    """The lines that tell the next hop whom the request came from; a trusted peer's own are extended."""
    forwarded = head.fields.forwarded
    said = dict(forwarded) if trusted else {}
    chain = [value for name, value in forwarded if trusted and name == b"x-forwarded-for"]
    lines = [
        b"X-Forwarded-For: " + b", ".join([*chain, peer]),
        b"X-Forwarded-Proto: " + said.pop(b"x-forwarded-proto", scheme),
        b"X-Forwarded-Host: " + said.pop(b"x-forwarded-host", head.authority),
    ]
    said.pop(b"x-forwarded-for", None)
    return b"\r\n".join([*lines, *[name + b": " + value for name, value in said.items()]])


def write_request(head: RequestHead, forwarded: bytes, request_id: bytes, reason: bytes | None) -> bytes:
    """The head for the next hop; to control when there is a `reason`, otherwise to a worker.

    `forwarded` are whole lines as `forwarding` makes them.
    """
    fields = head.fields
    if reason:
        token = b"Lazycloud-Token: " + fields.token + b"\r\n" if fields.token else b""
        relayed = _relayed(fields, fields.cookies) + token + b"Lazycloud-Reason: " + reason + b"\r\n"
    else:
        if not fields.relayed:
            fields.relayed = _relayed(fields, [access.for_worker(each) for each in fields.cookies])
        relayed = fields.relayed
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket" if head.websocket else b""
    return b"".join(
        [
            head.method,
            b" ",
            head.target,
            b" HTTP/1.1\r\nHost: ",
            head.authority,
            b"\r\n",
            relayed,
            forwarded,
            b"\r\nX-Request-Id: ",
            request_id,
            upgrade,
            END,
        ]
    )


def _relayed(fields: Fields, cookies: Sequence[bytes]) -> bytes:
    """The lines for the next hop, each with its end: those that pass, and the body's framing."""
    out = list(fields.lines)
    out += [b"Cookie: " + each for each in cookies if each]
    if fields.chunked:
        out.append(b"Transfer-Encoding: chunked")
    elif fields.length is not None:
        out.append(b"Content-Length: %d" % fields.length)
    if fields.expects:
        out.append(b"Expect: 100-continue")
    return b"\r\n".join([*out, b""])


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


def relay_answer(head: AnswerHead) -> bytes:
    """What `write_answer` makes of a worker's answer that has a length, for a client of HTTP/1.1 that stays."""
    if not head.relayed:
        head.relayed = write_answer(head, b"Content-Length: %d" % (head.length or 0), b"", ours=False)
    return head.relayed
