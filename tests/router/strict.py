"""One strict reading of HTTP/1.1, from RFC 9112 alone: what two readers cannot understand differently.

It shares nothing with the router, so that the two can be held against each other. What it takes is plain; what it
refuses the router may not let through. Names are lower case and values stripped, as no reader looks at more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from dataclasses import field as default

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/1\.([01])" % TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"(%b):([\t\x20-\x7e\x80-\xff]*)" % TOKEN)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")

Fields = tuple[tuple[bytes, bytes], ...]


class Malformed(Exception):
    """No message begins with these bytes, whatever comes after them."""


class Incomplete(Exception):
    """The message goes on. `head` is known when only its body is missing."""

    def __init__(self, head: Message | None = None) -> None:
        super().__init__(head)
        self.head = head


class BadBody(Malformed):
    """The head is fine and the body is not."""

    def __init__(self, why: str, head: Message) -> None:
        super().__init__(why)
        self.head = head


@dataclass(frozen=True)
class Message:
    """`start` is (method, target) of a request and (status, reason) of an answer."""

    start: tuple[bytes, bytes]
    minor: int
    fields: Fields
    body: bytes = b""
    trailers: Fields = ()
    raw: bytes = default(default=b"", compare=False)  # the head as it came

    def values(self, name: bytes) -> tuple[bytes, ...]:
        return tuple(value for found, value in self.fields if found == name)

    @property
    def options(self) -> set[bytes]:
        """Of Connection."""
        return {
            each.strip(b" \t") for value in self.values(b"connection") for each in value.lower().split(b",")
        }

    @property
    def keeps_alive(self) -> bool:
        return b"close" not in self.options and (self.minor == 1 or b"keep-alive" in self.options)


def read_request(data: bytes) -> tuple[Message, bytes]:
    """The first request in `data`, and what follows it. Raises Malformed and Incomplete."""
    data = skip_empty_lines(data)
    first, minor, fields, rest = _head(data, _REQUEST_LINE)
    head = Message((first[1], first[2]), minor, fields, raw=data[: len(data) - len(rest)])
    hosts = len(head.values(b"host"))
    if hosts > 1 or hosts < minor:
        raise Malformed("it has no Host, or several")
    length, chunked = _framing(head)
    if not (length or chunked):
        return head, rest
    return _with_body(head, rest, length)


def read_requests(data: bytes) -> tuple[list[Message], bytes, Malformed | Incomplete | None]:
    """All requests in `data`, what is left over, and why it is."""
    found: list[Message] = []
    while data := skip_empty_lines(data):
        try:
            request, data = read_request(data)
        except (Malformed, Incomplete) as why:
            return found, data, why
        found.append(request)
    return found, b"", None


def read_answer(data: bytes, method: bytes, closed: bool) -> tuple[list[Message], Message, bytes]:
    """Interim answers, the final one, and what follows it. `closed`: `data` ends with the connection."""
    interim: list[Message] = []
    while True:
        first, minor, fields, data = _head(data, _STATUS_LINE)
        head = Message((first[2], (first[3] or b"").strip()), minor, fields)
        length, chunked = _framing(head)
        if head.start[0] == b"101":
            raise Malformed("nobody asked for another protocol")
        if head.start[0] >= b"200":
            break
        interim.append(head)
    if method == b"HEAD" or head.start[0] in (b"204", b"304") or (length == 0):
        return interim, head, data
    if length is None and not chunked:
        if not closed:
            raise Incomplete(head)
        return interim, replace(head, body=data), b""
    return interim, *_with_body(head, data, length)


def skip_empty_lines(data: bytes) -> bytes:
    """RFC 9112, 2.2: before a request line only."""
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data


def _head(data: bytes, start: re.Pattern[bytes]) -> tuple[re.Match[bytes], int, Fields, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Incomplete
    first, *lines = head.split(b"\r\n")
    found = start.fullmatch(first)
    if found is None:
        raise Malformed(f"no first line: {first!r}")
    minor = int(found[3] if start is _REQUEST_LINE else found[1])
    return found, minor, _fields(lines), rest


def _fields(lines: list[bytes]) -> Fields:
    found = [(_FIELD.fullmatch(line), line) for line in lines]
    if bad := [line for field, line in found if field is None]:
        raise Malformed(f"no header: {bad[0]!r}")
    return tuple((field[1].lower(), field[2].strip(b" \t")) for field, _ in found if field)


def _framing(head: Message) -> tuple[int | None, bool]:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed("it says twice where it ends")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise Malformed(f"no length: {lengths[0]!r}")
    # An answer of HTTP/1.0 may be chunked: clients take it so, and the router frames it anew.
    if codings and (codings[0].lower() != b"chunked" or not (head.minor or head.start[0].isdigit())):
        raise Malformed(f"no coding of ours: {codings[0]!r}")
    return (int(lengths[0]) if lengths else None), bool(codings)


def _with_body(head: Message, data: bytes, length: int | None) -> tuple[Message, bytes]:
    if length is not None:
        if len(data) < length:
            raise Incomplete(replace(head, body=data))
        return replace(head, body=data[:length]), data[length:]
    body = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            raise Incomplete(replace(head, body=body))
        size = _SIZE.fullmatch(line)
        if size is None:
            raise BadBody(f"no size: {line!r}", replace(head, body=body))
        if not (left := int(size[1], 16)):
            return _trailers(replace(head, body=body), rest)
        body += rest[:left]
        gap, data = rest[left : left + 2], rest[left + 2 :]
        if not b"\r\n".startswith(gap):
            raise BadBody("a chunk has no end", replace(head, body=body))
        if len(gap) < 2:
            raise Incomplete(replace(head, body=body))


def _trailers(head: Message, data: bytes) -> tuple[Message, bytes]:
    if data.startswith(b"\r\n"):
        return head, data[2:]
    lines, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Incomplete(head)
    try:
        return replace(head, trailers=_fields(lines.split(b"\r\n"))), rest
    except Malformed as error:
        raise BadBody(str(error), head) from error
