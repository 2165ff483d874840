"""What strangers and workers might send: requests and answers by the grammar, and then not quite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import strategies as st

from .judge import METHODS, Told
from .strict import Incomplete, Malformed

# By the grammar first

_VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12).map(str.encode)
_VALUE = st.binary(max_size=20).map(lambda raw: bytes(c for c in raw if c == 9 or (c > 31 and c != 127)))
_TOKENS = st.text("abcXYZ019-!#$%&'*+.^_`|~", min_size=1, max_size=8).map(str.encode)
_PATHS = _VISIBLE.map(lambda path: b"/" + path.replace(b"#", b""))
_AUTHORITIES = st.sampled_from(
    [b"app.localhost", b"APP.localhost:8000", b"app.localhost.", b"a_b.localhost:", b"other.localhost"]
)
_NAMES = st.sampled_from(
    b"Accept X-A x-a X-B Cookie User-Agent TE Trailer Keep-Alive Referer X_Under X-Forwarded-For X-Forwarded-Host "
    b"Forwarded X-Real-IP Proxy-Authorization Lazycloud-Reason HTTP2-Settings Origin Range".split()
)
_FIELDS = st.one_of(
    st.tuples(_NAMES, _VALUE),
    st.tuples(_TOKENS.map(lambda name: b"X-" + name), _VALUE),
    st.sampled_from(
        [
            (b"Connection", b"close"),
            (b"Connection", b"keep-alive"),
            (b"Connection", b"X-A, Cookie,TE"),
            (b"connection", b"Host, content-length , Transfer-Encoding"),
            (b"Expect", b"100-continue"),
            (b"X-Request-Id", b"abc"),
            (b"Cookie", b"a=b; c=d"),
        ]
    ),
)
_SPACE = st.sampled_from([b" ", b"", b"\t", b"  "])
_CUTS = st.lists(st.integers(0, 5000), max_size=3)


@st.composite
def _targets(draw: st.DrawFn) -> bytes:
    path = draw(_PATHS)
    if draw(st.integers(0, 5)):
        return path
    path = draw(st.sampled_from([path, b"", path.replace(b"/", b"?", 1)]))
    return draw(st.sampled_from([b"http://", b"HTTPS://"])) + draw(_AUTHORITIES) + path


@st.composite
def _lines(draw: st.DrawFn, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b":" + draw(_SPACE) + value + draw(_SPACE) + b"\r\n" for name, value in fields)


@st.composite
def _chunked(draw: st.DrawFn) -> bytes:
    body = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=4)):
        extension = draw(st.sampled_from([b"", b"", b";a", b";a=b", b' ; a="b;c"', b";" + b"x" * 40]))
        size = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % len(chunk)
        body += size + extension + b"\r\n" + chunk + b"\r\n"
    names = [b"X-Sum", b"Host", b"Content-Length", b"Transfer-Encoding", b"Cookie", b"X-Forwarded-For"]
    trailers = draw(st.lists(st.tuples(st.sampled_from(names), _VALUE), max_size=2))
    return body + b"0\r\n" + draw(_lines(trailers)) + b"\r\n"


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers that frame it, and it."""
    if draw(st.booleans()):
        return [(b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"])))], draw(_chunked())
    body = draw(st.binary(max_size=60))
    return [(draw(st.sampled_from([b"Content-Length", b"content-length"])), b"%d" % len(body))], body


@st.composite
def _start_lines(draw: st.DrawFn, minor: bytes = b"1") -> bytes:
    return draw(st.sampled_from(METHODS)) + b" " + draw(_targets()) + b" HTTP/1." + minor + b"\r\n"


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 9))
    minor = b"0" if kind == 0 else b"1"
    fields = draw(st.lists(_FIELDS, max_size=6))
    framing, body = draw(_bodies()) if kind > 4 else ([], b"")
    if kind == 5:
        protocol = draw(st.sampled_from([b"websocket", b"h2c"]))
        fields += [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", protocol)]
    host = [(b"Host", draw(_AUTHORITIES))]
    fields = draw(st.permutations(fields + framing + host))
    return draw(_start_lines(minor)) + draw(_lines(fields)) + b"\r\n" + body


# And then not quite

_NASTY = st.sampled_from(
    [
        *(b"\r|\n|\r\n|\0|\t|\x0b|\x0c|\x7f|\x80|\xff|\x01|#|@".split(b"|")),
        *(b' |:|;|,|"|\\|-|+|0|1|_|\r\r\n|\n\r\n|\r\n\r\n|\r\n |0x|chunked|identity'.split(b"|")),
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: +3\r\n",
        b"Host: evil.localhost\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\n",
        b"0\r\n\r\n",
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
)


def _insert(raw: bytes, at: int, what: bytes) -> bytes:
    return raw[:at] + what + raw[at:]


def _replace(raw: bytes, at: int, what: bytes) -> bytes:
    return raw[:at] + what + raw[at + 1 :]


def _delete(raw: bytes, at: int, what: bytes) -> bytes:
    return raw[:at] + raw[at + len(what) :]


def _end(raw: bytes, at: int, what: bytes) -> bytes:
    return raw[:at]


def _insert_line(raw: bytes, at: int, what: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    return b"\r\n".join([*lines[: at % len(lines)], what.removesuffix(b"\r\n"), *lines[at % len(lines) :]])


def _repeat_line(raw: bytes, at: int, what: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    return b"\r\n".join([lines[0], lines[at % len(lines)], *lines[1:]])


def _spoil_line_end(raw: bytes, at: int, what: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    cut = at % len(lines)
    return b"\r\n".join(lines[:cut]) + what + b"\r\n".join(lines[cut:])


def _spoil_line_begin(raw: bytes, at: int, what: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines[at % len(lines)] = what + lines[at % len(lines)]
    return b"\r\n".join(lines)


_MUTATIONS: Sequence[Callable[[bytes, int, bytes], bytes]] = (
    _insert,
    _replace,
    _delete,
    _end,
    _insert_line,
    _repeat_line,
    _spoil_line_end,
    _spoil_line_begin,
)
_CHANGES = st.lists(st.tuples(st.sampled_from(_MUTATIONS), st.integers(0, 5000), _NASTY), max_size=3)


def _changed(raw: bytes, changes: Sequence[tuple[Callable[[bytes, int, bytes], bytes], int, bytes]]) -> bytes:
    for change, at, what in changes:
        raw = change(raw, at % (len(raw) + 1), what)
    return raw


def _cut(raw: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`raw` in packets."""
    at = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    return [raw[i:j] for i, j in pairwise(at)]


_INTERIM = st.sampled_from([b"100 Continue", b"103 Early Hints", b"102 "])
_FINAL = st.sampled_from(
    [
        b"200 OK",
        b"200",
        b"201 ",
        b"204 No Content",
        b"304 Not Modified",
        b"404 Nope \xe9",
        b"500 A\tB",
        b"799 X",
    ]
)
_ANSWER_FIELDS = st.one_of(
    st.tuples(
        st.sampled_from([b"Set-Cookie", b"ETag", b"X-A", b"X_B", b"Lazycloud-Answer", b"Keep-Alive"]), _VALUE
    ),
    st.sampled_from(
        [
            (b"Connection", b"close"),
            (b"Connection", b"keep-alive, X-A"),
            (b"Upgrade", b"h2c"),
            (b"Trailer", b"X-Sum"),
            (b"Proxy-Authenticate", b"Basic"),
        ]
    ),
)


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    interim = b"".join(
        b"HTTP/1.1 "
        + draw(_INTERIM)
        + b"\r\n"
        + draw(_lines(draw(st.lists(_ANSWER_FIELDS, max_size=2))))
        + b"\r\n"
        for _ in range(draw(st.sampled_from([0, 0, 1, 2])))
    )
    framing, body = draw(st.one_of(_bodies(), _bodies(), st.binary(max_size=60).map(lambda body: ([], body))))
    fields = draw(st.permutations(draw(st.lists(_ANSWER_FIELDS, max_size=4)) + framing))
    surplus = draw(
        st.sampled_from([b"", b"", b"", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
    )
    version = draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 "]))
    return interim + version + draw(_FINAL) + b"\r\n" + draw(_lines(fields)) + b"\r\n" + body + surplus


@st.composite
def told(draw: st.DrawFn) -> Told:
    """What a worker says, well-formed or not quite. What is not whole ends with the connection."""
    raw = _changed(draw(_answers()), draw(_CHANGES))
    method = draw(st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]))
    minor = draw(st.sampled_from([1, 1, 1, 0]))
    found = Told(method, minor, _cut(raw, draw(_CUTS)), closes=False)
    if draw(st.booleans()):
        return replace(found, closes=True)
    try:
        found.read()
    except (Malformed, Incomplete):
        return replace(found, closes=True)
    return found


@st.composite
def _pipeline(draw: st.DrawFn) -> bytes:
    """Some requests; perhaps one that has the headers and the body of another."""
    requests = draw(st.lists(_requests(), min_size=1, max_size=4))
    if draw(st.booleans()):
        _, _, again = draw(st.sampled_from(requests)).partition(b"\r\n")
        requests.append(draw(_start_lines()) + again)
    return b"".join(requests)


def sent() -> st.SearchStrategy[list[bytes]]:
    """What a client sends, in packets: some requests, well-formed or not quite."""
    return st.builds(
        lambda raw, changes, cuts: _cut(_changed(raw, changes), cuts), _pipeline(), _CHANGES, _CUTS
    )
