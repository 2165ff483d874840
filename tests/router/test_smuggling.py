"""The known ways to make two servers see different requests in the same bytes: none of them passes.

A case is what a client sends. Either the router refuses it, with that status, and no byte of it reaches a worker; or
the worker gets just the requests that are listed, and every server one might run there sees the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from .peers import Peer, read_all
from .strict import read_answer
from .trial import Outcome, Trial

HOST = b"Host: app.localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
END = b"\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    status: int = 400
    head_passed: bool = (
        False  # the body is what is wrong: its head, and what was right, went to the worker before
    )


@dataclass(frozen=True)
class Passed:
    """Requests as (method, target, body); `has` and `lacks` are of the first one's head."""

    requests: Sequence[tuple[bytes, bytes, bytes]]
    has: Sequence[bytes] = ()
    lacks: Sequence[bytes] = ()


def a_coding(value: bytes, name: bytes = b"Transfer-Encoding") -> bytes:
    """A chunked body behind that header, and what would be smuggled were it not chunked."""
    return POST + name + b": " + value + END + b"0\r\n\r\n" + NEXT


def a_length(value: bytes) -> bytes:
    return POST + b"Content-Length: " + value + END + b"hello" + NEXT


def a_line(line: bytes) -> bytes:
    return GET + line + END + NEXT


def a_chunk(raw: bytes) -> bytes:
    return POST + CHUNKED + b"\r\n" + raw + b"0\r\n\r\n" + NEXT


def trailers(lines: bytes) -> bytes:
    return POST + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n" + lines + b"\r\n" + NEXT


def first(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + b"\r\n" + NEXT


def host(lines: bytes, target: bytes = b"/") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n" + NEXT


ROOT, FOLLOWING = (b"GET", b"/", b""), (b"GET", b"/next", b"")
NO_BODY, HELLO = (b"POST", b"/", b""), (b"POST", b"/", b"hello")
BOTH, WITH_BODY = Passed([ROOT, FOLLOWING]), Passed([HELLO, FOLLOWING])
EMPTY_CHUNKED = Passed([NO_BODY, FOLLOWING], has=[b"Transfer-Encoding: chunked"])

Case = tuple[bytes, Refused | Passed]

LENGTH_AND_CODING: dict[str, Case] = {
    "CL.TE": (POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\nG", Refused()),
    "TE.CL": (POST + CHUNKED + b"Content-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n", Refused()),
    "CL.TE with the coding obscured": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(),
    ),
    "a length beside a coding that is none": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        Refused(),
    ),
    "a length of 0 beside chunked": (POST + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n", Refused()),
    "a coding in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n" + NEXT, Refused()),
    "a length beside a Content_Length": (
        POST + b"Content-Length: 5\r\nContent_Length: 0\r\n\r\nhello" + NEXT,
        Passed([HELLO, FOLLOWING], lacks=[b"Content_Length"]),
    ),
    "chunked beside a Transfer_Encoding": (
        POST + CHUNKED + b"Transfer_Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + NEXT,
        Passed([HELLO, FOLLOWING], lacks=[b"Transfer_Encoding"]),
    ),
    "a Transfer_Encoding alone": (
        POST + b"Transfer_Encoding: chunked\r\n\r\n" + NEXT,
        Passed([NO_BODY, FOLLOWING], lacks=[b"Transfer_Encoding"]),
    ),
    "0.CL: a body behind a request without a length is the next request": (
        POST + b"\r\n" + NEXT,
        Passed([NO_BODY, FOLLOWING]),
    ),
    "CL.0: a body that looks like a request stays a body": (
        POST + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT,
        Passed([(b"POST", b"/", NEXT)]),
    ),
    "a GET with a body": (
        GET + b"Content-Length: 5\r\n\r\nhello" + NEXT,
        Passed([(b"GET", b"/", b"hello"), FOLLOWING]),
    ),
    "a HEAD with a body": (
        b"HEAD / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello" + NEXT,
        Passed([(b"HEAD", b"/", b"hello"), FOLLOWING]),
    ),
}

CODINGS: dict[str, Case] = {
    "CHUNKED": (a_coding(b"CHUNKED"), EMPTY_CHUNKED),
    "chunked behind spaces": (a_coding(b"   chunked"), EMPTY_CHUNKED),
    "chunked before a space": (a_coding(b"chunked "), EMPTY_CHUNKED),
    "chunked behind a tab": (a_coding(b"\tchunked"), EMPTY_CHUNKED),
    "chunked before a tab": (a_coding(b"chunked\t"), Refused()),
    "chunked behind a vertical tab": (a_coding(b"\x0bchunked"), Refused()),
    "chunked before a vertical tab": (a_coding(b"chunked\x0b"), Refused()),
    "chunked behind a form feed": (a_coding(b"\x0cchunked"), Refused()),
    "chunked behind a no-break space": (a_coding(b"\xa0chunked"), Refused()),
    "chunked before NUL": (a_coding(b"chunked\0"), Refused()),
    "chunked in quotes": (a_coding(b'"chunked"'), Refused()),
    "chunked in single quotes": (a_coding(b"'chunked'"), Refused()),
    "xchunked": (a_coding(b"xchunked"), Refused()),
    "chunkedx": (a_coding(b"chunkedx"), Refused()),
    "chunk": (a_coding(b"chunk"), Refused()),
    "identity": (a_coding(b"identity"), Refused()),
    "no coding": (a_coding(b""), Refused()),
    "a parameter": (a_coding(b"chunked;q=1"), Refused()),
    "chunked, chunked": (a_coding(b"chunked, chunked"), Refused()),
    ", chunked": (a_coding(b",chunked"), Refused()),
    "chunked,": (a_coding(b"chunked,"), Refused()),
    "identity, chunked": (a_coding(b"identity, chunked"), Refused()),
    "chunked, identity": (a_coding(b"chunked, identity"), Refused()),
    "gzip, chunked": (a_coding(b"gzip, chunked"), Refused()),
    "two lines of chunked": (a_coding(b"chunked\r\n" + CHUNKED[:-2]), Refused()),
    "chunked and then identity": (a_coding(b"chunked\r\nTransfer-Encoding: identity"), Refused()),
    "identity and then chunked": (a_coding(b"identity\r\nTransfer-Encoding: chunked"), Refused()),
    "a folded value": (a_coding(b"\r\n chunked"), Refused()),
    "a folded second value": (a_coding(b"chunked\r\n , identity"), Refused()),
    "a value behind a bare LF": (a_coding(b"\nchunked"), Refused()),
    "a value behind a bare CR": (a_coding(b"\rchunked"), Refused()),
    "a letter of Unicode": (a_coding("chun\u212aed".encode()), Refused()),
    "a space before the colon": (a_coding(b"chunked", b"Transfer-Encoding "), Refused()),
    "a tab before the colon": (a_coding(b"chunked", b"Transfer-Encoding\t"), Refused()),
    "a vertical tab before the colon": (a_coding(b"chunked", b"Transfer-Encoding\x0b"), Refused()),
    "a CR before the colon": (a_coding(b"chunked", b"Transfer-Encoding\r"), Refused()),
    "a NUL in the name": (a_coding(b"chunked", b"Transfer-\0Encoding"), Refused()),
    "a space before the name": (a_coding(b"chunked", b" Transfer-Encoding"), Refused()),
    "a name behind another line's bare LF": (a_coding(b"chunked", b"X: a\nTransfer-Encoding"), Refused()),
    "a name behind another line's bare CR": (a_coding(b"chunked", b"X: a\rTransfer-Encoding"), Refused()),
    "no colon": (POST + b"Transfer-Encoding chunked\r\n\r\n0\r\n\r\n" + NEXT, Refused()),
    "two colons": (POST + b"Transfer-Encoding:: chunked\r\n\r\n0\r\n\r\n" + NEXT, Refused()),
    "named by Connection": (
        POST + CHUNKED + b"Connection: Transfer-Encoding\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + NEXT,
        Passed([HELLO, FOLLOWING], has=[b"Transfer-Encoding: chunked"], lacks=[b"Connection"]),
    ),
}

LENGTHS: dict[str, Case] = {
    "leading zeros": (a_length(b"0005"), Passed([HELLO, FOLLOWING], has=[b"Content-Length: 5"])),
    "spaces around": (a_length(b"  5\t"), Passed([HELLO, FOLLOWING], has=[b"Content-Length: 5"])),
    "a plus": (a_length(b"+5"), Refused()),
    "a minus": (a_length(b"-5"), Refused()),
    "minus nothing": (a_length(b"-0"), Refused()),
    "hexadecimal": (a_length(b"0x5"), Refused()),
    "hexadecimal digits": (a_length(b"a"), Refused()),
    "octal": (a_length(b"0o5"), Refused()),
    "an underscore": (a_length(b"0_5"), Refused()),
    "a point": (a_length(b"5.0"), Refused()),
    "an exponent": (a_length(b"5e0"), Refused()),
    "quotes": (a_length(b'"5"'), Refused()),
    "a space within": (a_length(b"0 5"), Refused()),
    "a semicolon": (a_length(b"5;"), Refused()),
    "nothing": (a_length(b""), Refused()),
    "white space only": (a_length(b" \t "), Refused()),
    "Unicode digits": (a_length("٥".encode()), Refused()),
    "a vertical tab": (a_length(b"\x0b5"), Refused()),
    "a NUL": (a_length(b"5\0"), Refused()),
    "2 to the 64": (a_length(b"18446744073709551616"), Refused()),
    "2 to the 64 and 5": (a_length(b"18446744073709551621"), Refused()),
    "2 to the 63": (a_length(b"9223372036854775808"), Refused()),
    "a thousand digits": (a_length(b"0" * 999 + b"5"), Refused()),
    "a list of the same": (a_length(b"5, 5"), Refused()),
    "a list of different ones": (a_length(b"5, 0"), Refused()),
    "an empty item": (a_length(b"5,"), Refused()),
    "twice the same": (a_length(b"5\r\nContent-Length: 5"), Refused()),
    "two different ones": (a_length(b"5\r\nContent-Length: 0"), Refused()),
    "two in different case": (a_length(b"5\r\ncontent-length: 0"), Refused()),
    "a folded value": (a_length(b"\r\n 5"), Refused()),
    "a folded second digit": (a_length(b"5\r\n 0"), Refused()),
    "a bare LF and another": (a_length(b"5\nContent-Length: 0"), Refused()),
    "named by Connection": (
        POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
        Passed([HELLO, FOLLOWING], has=[b"Content-Length: 5"], lacks=[b"Connection"]),
    ),
}

BAD_CHUNK = Refused(head_passed=True)
CHUNKS: dict[str, Case] = {
    "an extension": (a_chunk(b"5;a=b\r\nhello\r\n"), WITH_BODY),
    "an extension behind white space": (a_chunk(b"5 \t;a\r\nhello\r\n"), WITH_BODY),
    "a quoted extension": (a_chunk(b'5;a="b;\\"c"\r\nhello\r\n'), WITH_BODY),
    "an extension of the last chunk": (POST + CHUNKED + b"\r\n5\r\nhello\r\n0;a\r\n\r\n" + NEXT, WITH_BODY),
    "an extension of 900 bytes": (a_chunk(b"5;" + b"a" * 900 + b"\r\nhello\r\n"), WITH_BODY),
    "an extension of 2,000 bytes": (a_chunk(b"5;" + b"a" * 2000 + b"\r\nhello\r\n"), BAD_CHUNK),
    "a bare LF in an extension": (a_chunk(b"5;a\nb\r\nhello\r\n"), BAD_CHUNK),
    "a bare LF in a quoted extension": (a_chunk(b'5;a="\n"\r\nhello\r\n'), BAD_CHUNK),
    "a bare CR in an extension": (a_chunk(b"5;a\rb\r\nhello\r\n"), BAD_CHUNK),
    "CR CR LF behind an extension": (a_chunk(b"5;a\r\r\nhello\r\n"), BAD_CHUNK),
    "a NUL in an extension": (a_chunk(b"5;a\0\r\nhello\r\n"), BAD_CHUNK),
    "a vertical tab in an extension": (a_chunk(b"5;\x0b\r\nhello\r\n"), BAD_CHUNK),
    "a bare LF behind the size": (a_chunk(b"5\nhello\r\n"), BAD_CHUNK),
    "a bare CR behind the size": (a_chunk(b"5\rhello\r\n"), BAD_CHUNK),
    "LF behind the payload": (a_chunk(b"5\r\nhello\n"), BAD_CHUNK),
    "CR behind the payload": (a_chunk(b"5\r\nhello\r"), BAD_CHUNK),
    "two bytes more than the size": (a_chunk(b"5\r\nhelloXX\r\n"), BAD_CHUNK),
    "two bytes less than the size": (a_chunk(b"7\r\nhello\r\n"), BAD_CHUNK),
    "a space behind the size": (a_chunk(b"5 \r\nhello\r\n"), BAD_CHUNK),
    "a space before the size": (a_chunk(b" 5\r\nhello\r\n"), BAD_CHUNK),
    "0x before the size": (a_chunk(b"0x5\r\nhello\r\n"), BAD_CHUNK),
    "a plus before the size": (a_chunk(b"+5\r\nhello\r\n"), BAD_CHUNK),
    "a minus before the size": (a_chunk(b"-5\r\nhello\r\n"), BAD_CHUNK),
    "an underscore in the size": (a_chunk(b"0_5\r\nhello\r\n"), BAD_CHUNK),
    "a point in the size": (a_chunk(b"5.\r\nhello\r\n"), BAD_CHUNK),
    "no size": (a_chunk(b"\r\nhello\r\n"), BAD_CHUNK),
    "an extension without a size": (a_chunk(b";a\r\nhello\r\n"), BAD_CHUNK),
    "a letter that is no digit": (a_chunk(b"g\r\nhello\r\n"), BAD_CHUNK),
    "a size of 16 digits": (a_chunk(b"1000000000000005\r\nhello\r\n"), BAD_CHUNK),
    "a size of 17 digits": (a_chunk(b"10000000000000005\r\nhello\r\n"), BAD_CHUNK),
    "a size of 16 ones": (a_chunk(b"ffffffffffffffff\r\nhello\r\n"), BAD_CHUNK),
    "leading zeros": (a_chunk(b"0005\r\nhello\r\n"), WITH_BODY),
    "many zeros": (a_chunk(b"0" * 40 + b"5\r\nhello\r\n"), BAD_CHUNK),
    "a last chunk of several zeros": (POST + CHUNKED + b"\r\n5\r\nhello\r\n000\r\n\r\n" + NEXT, WITH_BODY),
    "a last chunk with a bare LF": (POST + CHUNKED + b"\r\n5\r\nhello\r\n0\n\n" + NEXT, BAD_CHUNK),
    "a bare LF behind the last chunk": (POST + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\n" + NEXT, BAD_CHUNK),
}

TRAILERS: dict[str, Case] = {
    "a length": (trailers(b"Content-Length: 50\r\n"), WITH_BODY),
    "a coding": (trailers(CHUNKED), WITH_BODY),
    "a host": (trailers(b"Host: evil.localhost\r\n"), WITH_BODY),
    "a cookie and an authorization": (trailers(b"Cookie: a=b\r\nAuthorization: Basic x\r\n"), WITH_BODY),
    "a client's address": (trailers(b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"), WITH_BODY),
    "an underscore": (trailers(b"X_Forwarded_For: 6.6.6.6\r\n"), WITH_BODY),
    "a checksum": (trailers(b"X-Sum: abc\r\n"), WITH_BODY),
    "a space before the colon": (trailers(b"X-Sum : abc\r\n"), BAD_CHUNK),
    "a space before the name": (trailers(b" X-Sum: abc\r\n"), BAD_CHUNK),
    "a folded line": (trailers(b"X-Sum: abc\r\n def\r\n"), BAD_CHUNK),
    "a bare LF": (trailers(b"X-Sum: abc\nContent-Length: 5\r\n"), BAD_CHUNK),
    "a bare CR": (trailers(b"X-Sum: abc\rContent-Length: 5\r\n"), BAD_CHUNK),
    "a NUL": (trailers(b"X-Sum: \0\r\n"), BAD_CHUNK),
    "no colon": (trailers(b"GET / HTTP/1.1\r\n"), BAD_CHUNK),
    "no name": (trailers(b": a\r\n"), BAD_CHUNK),
    "without end": (POST + CHUNKED + b"\r\n0\r\n" + b"X: %b\r\n" % (b"a" * 1000) * 20, BAD_CHUNK),
}

LINES: dict[str, Case] = {
    "a space before the colon": (a_line(b"X-A : 1"), Refused()),
    "a tab before the colon": (a_line(b"X-A\t: 1"), Refused()),
    "a space before the name": (a_line(b" X-A: 1"), Refused()),
    "a tab before the name": (a_line(b"\tX-A: 1"), Refused()),
    "a space before the first name": (b"GET / HTTP/1.1\r\n X: 1\r\n" + HOST + b"\r\n" + NEXT, Refused()),
    "no name": (a_line(b": 1"), Refused()),
    "no colon": (a_line(b"X-A"), Refused()),
    "a space in the name": (a_line(b"X A: 1"), Refused()),
    "a bracket in the name": (a_line(b"X(A): 1"), Refused()),
    "a slash in the name": (a_line(b"X/A: 1"), Refused()),
    "a quote in the name": (a_line(b'"X": 1'), Refused()),
    "an @ in the name": (a_line(b"X@A: 1"), Refused()),
    "an umlaut in the name": (a_line("Ä: 1".encode()), Refused()),
    "a NUL in the name": (a_line(b"X\0A: 1"), Refused()),
    "a NUL in the value": (a_line(b"X-A: \0"), Refused()),
    "a DEL in the value": (a_line(b"X-A: \x7f"), Refused()),
    "a vertical tab in the value": (a_line(b"X-A: \x0b"), Refused()),
    "an escape in the value": (a_line(b"X-A: \x1b[2J"), Refused()),
    "an umlaut in the value": (
        a_line(b"X-A: \xc3\x84\xff"),
        Passed([ROOT, FOLLOWING], has=[b"X-A: \xc3\x84\xff"]),
    ),
    "no value": (a_line(b"X-A:"), Passed([ROOT, FOLLOWING], has=[b"X-A:"])),
    "a name of signs": (a_line(b"!#$%&'*+-.^`|~: 1"), Passed([ROOT, FOLLOWING], has=[b"!#$%&'*+-.^`|~: 1"])),
    "an underscore": (a_line(b"X_Admin: 1"), Passed([ROOT, FOLLOWING], lacks=[b"X_Admin"])),
    "a folded line": (a_line(b"X-A: 1\r\n 2"), Refused()),
    "a folded empty line": (a_line(b"X-A: 1\r\n \t"), Refused()),
    "a bare LF": (a_line(b"X-A: 1\nX-B: 2"), Refused()),
    "a bare CR": (a_line(b"X-A: 1\rX-B: 2"), Refused()),
    "CR CR LF": (a_line(b"X-A: 1\r\r\nX-B: 2"), Refused()),
    "an empty line of a bare LF": (GET + b"X: 1\n\n" + NEXT, Refused()),
    "an empty line of CR CR LF": (GET + b"X: 1\r\n\r\r\n" + NEXT, Refused()),
    "a request behind a bare LF in a value": (
        GET + b"X: a\n\nGET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n",
        Refused(),
    ),
    "a head of 70,000 bytes": (a_line(b"X-A: " + b"a" * 70_000), Refused(431)),
}

FIRST_LINES: dict[str, Case] = {
    "an empty line before": (b"\r\n" + GET + b"\r\n" + NEXT, BOTH),
    "an empty line between": (GET + b"\r\n\r\n\r\n" + NEXT, BOTH),
    "a bare LF before": (b"\n" + GET + b"\r\n", Refused()),
    "a bare CR before": (b"\r" + GET + b"\r\n", Refused()),
    "a bare LF before a HEAD": (b"\nHEAD / HTTP/1.1\r\n" + HOST + b"\r\n", Refused()),
    "a bare LF behind an empty line": (b"\r\n\n" + GET + b"\r\n", Refused()),
    "a space before": (b" " + GET + b"\r\n" + NEXT, Refused()),
    "a NUL before": (b"\0" + GET + b"\r\n" + NEXT, Refused()),
    "two spaces": (first(b"GET  / HTTP/1.1"), Refused()),
    "a tab": (first(b"GET\t/ HTTP/1.1"), Refused()),
    "a space behind": (first(b"GET / HTTP/1.1 "), Refused()),
    "a space in the target": (first(b"GET /a b HTTP/1.1"), Refused()),
    "a tab in the target": (first(b"GET /a\tb HTTP/1.1"), Refused()),
    "a NUL in the target": (first(b"GET /\0 HTTP/1.1"), Refused()),
    "a CR in the target": (first(b"GET /\r HTTP/1.1"), Refused()),
    "an umlaut in the target": (first("GET /ä HTTP/1.1".encode()), Refused()),
    "a fragment": (first(b"GET /a#b HTTP/1.1"), Refused()),
    "a target that is a word": (first(b"GET a HTTP/1.1"), Refused()),
    "no target": (first(b"GET HTTP/1.1"), Refused()),
    "a target of 20,000 bytes": (first(b"GET /" + b"a" * 20_000 + b" HTTP/1.1"), Refused(414)),
    "a method in lower case": (first(b"get / HTTP/1.1"), Refused()),
    "a method nobody knows": (first(b"SMUGGLE / HTTP/1.1"), Refused()),
    "a method of 5,000 letters": (first(b"G" * 5000 + b" / HTTP/1.1"), Refused()),
    "a method with a colon": (first(b"GET: / HTTP/1.1"), Refused()),
    "CONNECT to an address": (first(b"CONNECT evil.localhost:80 HTTP/1.1"), Refused()),
    "CONNECT to a path": (first(b"CONNECT / HTTP/1.1"), Refused()),
    "CONNECT to a URL": (first(b"CONNECT http://app.localhost/ HTTP/1.1"), Refused()),
    "HTTP/0.9": (b"GET /\r\n\r\n" + NEXT, Refused()),
    "HTTP/0.9 said": (first(b"GET / HTTP/0.9"), Refused()),
    "HTTP/1.2": (first(b"GET / HTTP/1.2"), Refused()),
    "HTTP/2.0": (first(b"GET / HTTP/2.0"), Refused()),
    "HTTP/01.1": (first(b"GET / HTTP/01.1"), Refused()),
    "HTTP/1.10": (first(b"GET / HTTP/1.10"), Refused()),
    "HTTP/1": (first(b"GET / HTTP/1"), Refused()),
    "http/1.1": (first(b"GET / http/1.1"), Refused()),
    "another protocol": (first(b"GET / ICE/1.0"), Refused()),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NEXT, Refused()),
    "the preface of HTTP/2 in HTTP/1.1": (first(b"PRI / HTTP/1.1"), Refused()),
    "a path that looks like a URL": (
        first(b"GET //evil.localhost/a HTTP/1.1"),
        Passed([(b"GET", b"//evil.localhost/a", b""), FOLLOWING]),
    ),
    "OPTIONS *": (first(b"OPTIONS * HTTP/1.1"), Passed([(b"OPTIONS", b"*", b""), FOLLOWING])),
    "OPTIONS of a whole server": (
        first(b"OPTIONS http://app.localhost HTTP/1.1"),
        Passed([(b"OPTIONS", b"*", b""), FOLLOWING]),
    ),
    "GET *": (first(b"GET * HTTP/1.1"), Refused()),
}

HOSTS: dict[str, Case] = {
    "none": (host(b""), Refused()),
    "none beside a URL": (host(b"", b"http://app.localhost/"), Refused()),
    "two": (host(HOST + b"Host: evil.localhost\r\n"), Refused()),
    "twice the same": (host(HOST + HOST), Refused()),
    "two, one with a space before the colon": (host(HOST + b"Host : evil.localhost\r\n"), Refused()),
    "two, one folded": (host(b"X: 1\r\n Host: evil.localhost\r\n" + HOST), Refused()),
    "a list": (host(b"Host: app.localhost, evil.localhost\r\n"), Refused()),
    "a user": (host(b"Host: evil@app.localhost\r\n"), Refused()),
    "a path": (host(b"Host: app.localhost/evil\r\n"), Refused()),
    "a query": (host(b"Host: app.localhost?evil\r\n"), Refused()),
    "a fragment": (host(b"Host: app.localhost#evil\r\n"), Refused()),
    "a backslash": (host(b"Host: app.localhost\\evil\r\n"), Refused()),
    "a percent sign": (host(b"Host: app%2elocalhost\r\n"), Refused()),
    "a space": (host(b"Host: app.localhost evil\r\n"), Refused()),
    "a port that is no number": (host(b"Host: app.localhost:evil\r\n"), Refused()),
    "two ports": (host(b"Host: app.localhost:80:81\r\n"), Refused()),
    "an endless port": (host(b"Host: app.localhost:800000\r\n"), Refused()),
    "nothing": (host(b"Host:\r\n"), Refused()),
    "a dot": (host(b"Host: .\r\n"), Refused()),
    "a name of 300 letters": (host(b"Host: " + b"a" * 300 + b"\r\n"), Refused()),
    "another than the URL's": (
        host(b"Host: evil.localhost\r\n", b"http://app.localhost/"),
        Passed([ROOT, FOLLOWING], has=[b"Host: app.localhost"], lacks=[b"evil"]),
    ),
    "a malformed one beside a URL": (
        host(b"Host: a b\r\n", b"http://app.localhost/"),
        Passed([ROOT, FOLLOWING], has=[b"Host: app.localhost"]),
    ),
    "a URL with a user": (host(HOST, b"http://evil@app.localhost/"), Refused()),
    "a URL without a host": (host(HOST, b"http:///a"), Refused()),
    "a URL of another scheme": (host(HOST, b"ftp://app.localhost/"), Refused()),
    "a file": (host(HOST, b"file:///etc/passwd"), Refused()),
    "named by Connection": (
        host(HOST + b"Connection: Host\r\n"),
        Passed([ROOT, FOLLOWING], has=[b"Host: app.localhost"], lacks=[b"Connection"]),
    ),
    "X-Forwarded-Host beside it": (
        host(HOST + b"X-Forwarded-Host: evil.localhost\r\nX-Host: x\r\n"),
        Passed([ROOT, FOLLOWING], has=[b"X-Forwarded-Host: app.localhost"], lacks=[b"evil"]),
    ),
}

EXPECT = b"Expect: 100-continue\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
HOPS: dict[str, Case] = {
    "Expect": (POST + EXPECT + b"Content-Length: 5\r\n\r\nhello" + NEXT, WITH_BODY),
    "Expect twice": (POST + EXPECT * 2 + b"Content-Length: 5\r\n\r\nhello" + NEXT, WITH_BODY),
    "Expect without a body": (POST + EXPECT + b"\r\n" + NEXT, Passed([NO_BODY, FOLLOWING])),
    "Expect with a length of 0": (
        POST + EXPECT + b"Content-Length: 0\r\n\r\n" + NEXT,
        Passed([NO_BODY, FOLLOWING]),
    ),
    "Expect in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + EXPECT + b"Content-Length: 5\r\n\r\nhello",
        Passed([HELLO], lacks=[b"Expect"]),
    ),
    "Expect something else": (
        POST + b"Expect: 200-ok\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
        Refused(417),
    ),
    "Expect a list": (
        POST + b"Expect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
        Refused(417),
    ),
    "Expect obscured": (
        POST + b"Expect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
        Refused(417),
    ),
    "Expect with a folded value": (
        POST + b"Expect:\r\n 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Refused(),
    ),
    "h2c": (
        GET
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"Upgrade", b"HTTP2-Settings", b"Connection"]),
    ),
    "a list of protocols": (
        GET + b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"Upgrade", b"Connection"]),
    ),
    "a request behind an upgrade that is not made": (
        GET + WEBSOCKET + b"\r\n" + NEXT,
        Passed([ROOT], has=[b"Upgrade: websocket"]),
    ),
    "an upgrade with a body": (
        GET + WEBSOCKET + b"Content-Length: 5\r\n\r\nhello" + NEXT,
        Passed([(b"GET", b"/", b"hello"), FOLLOWING], lacks=[b"Upgrade"]),
    ),
    "an upgrade by POST": (
        POST + WEBSOCKET + b"Content-Length: 5\r\n\r\nhello" + NEXT,
        Passed([HELLO, FOLLOWING], lacks=[b"Upgrade"]),
    ),
    "an upgrade that is not a hop's": (
        GET + b"Upgrade: websocket\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"Upgrade"]),
    ),
    "a request behind the last one": (GET + b"Connection: close\r\n\r\n" + NEXT, Passed([ROOT])),
    "a request behind HTTP/1.0": (b"GET / HTTP/1.0\r\n" + HOST + b"\r\n" + NEXT, Passed([ROOT])),
    "Connection names a cookie": (
        GET + b"Connection: Cookie, X-Auth\r\nCookie: a=b\r\nX-Auth: 1\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"Cookie", b"X-Auth"]),
    ),
    "Connection names the client's address": (
        GET + b"Connection: X-Forwarded-For, X-Forwarded-Host\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], has=[b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: app.localhost"]),
    ),
    "Proxy-Connection": (
        GET + b"Proxy-Connection: close\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"Proxy-Connection"]),
    ),
    "TE and Trailer": (
        GET + b"TE: trailers\r\nTrailer: X\r\n\r\n" + NEXT,
        Passed([ROOT, FOLLOWING], lacks=[b"TE", b"Trailer"]),
    ),
}

TABLE = {
    "length and coding": LENGTH_AND_CODING,
    "codings": CODINGS,
    "lengths": LENGTHS,
    "chunks": CHUNKS,
    "trailers": TRAILERS,
    "lines": LINES,
    "first lines": FIRST_LINES,
    "hosts": HOSTS,
    "hops": HOPS,
}
CASES = {f"{family}: {name}": case for family, cases in TABLE.items() for name, case in cases.items()}


@pytest.mark.parametrize(("raw", "expected"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("packets", [1, 5], ids=["at once", "in packets"])
def test_what_may_be_read_in_two_ways_does_not_pass(
    trial: Trial, peers: list[Peer], raw: bytes, expected: Refused | Passed, packets: int
) -> None:
    size = len(raw) // packets + 1
    outcome = trial.run(trial.send([raw[i : i + size] for i in range(0, len(raw), size)]))
    if isinstance(expected, Refused):
        check_refused(outcome, expected)
    else:
        check_passed(outcome, expected)
        for stream in outcome.streams:
            if stream.raws:
                trial.run(read_all(peers, stream.raws, stream.requests))


def test_an_empty_line_before_a_request_may_come_in_two_packets(trial: Trial) -> None:
    outcome = trial.run(trial.send([NEXT, b"\r", b"\n" + NEXT]))
    assert [request.start for request in outcome.order] == [(b"GET", b"/next")] * 2


def check_refused(outcome: Outcome, expected: Refused) -> None:
    _, answer, rest = read_answer(outcome.said, b"HEAD" if outcome.said.endswith(END) else b"GET", True)
    assert int(answer.start[0]) == expected.status
    assert answer.values(b"lazycloud-answer") == (b"router",)
    assert b"close" in answer.options
    assert (outcome.ended, rest, outcome.order) == ("eof", b"", [])
    assert not any(stream.malformed for stream in outcome.streams)
    assert expected.head_passed or not any(stream.tail for stream in outcome.streams)


def check_passed(outcome: Outcome, expected: Passed) -> None:
    assert not any(stream.malformed or stream.tail for stream in outcome.streams)
    assert [(*request.start, request.body) for request in outcome.order] == list(expected.requests)
    lines = {line.lower() for line in outcome.order[0].raw.split(b"\r\n")}
    assert {line.lower() for line in expected.has} <= lines
    names = {name for name, _ in outcome.order[0].fields}
    assert not any(
        each.lower() in names or b": " + each.lower() in outcome.order[0].raw for each in expected.lacks
    )


def test_a_trailer_is_never_a_header_of_the_next_request_to_that_worker(trial: Trial) -> None:
    """aiohttp's C parser makes it one, if the next request comes on the same connection."""
    outcome = trial.run(trial.send([trailers(b"X-Admin: 1\r\n")]))
    assert [request.trailers for request in outcome.order] == [((b"x-admin", b"1"),), ()]
    assert len([stream for stream in outcome.streams if stream.raws]) == 2


OK = b"HTTP/1.1 200 OK\r\n"
SMUGGLED = OK + b"Content-Length: 8\r\n\r\nsmuggled"
ANSWERS = {
    "a status of 0": b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    "a status under 100": b"HTTP/1.1 099 X\r\n\r\n" + SMUGGLED,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "an escape in the reason": b"HTTP/1.1 200 \x1b[2J\r\nContent-Length: 0\r\n\r\n",
    "a bare LF in the reason": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "a bare CR in a value": OK + b"X-A: 1\rContent-Length: 0\r\n\r\n",
    "a bare LF in a value": OK + b"X-A: 1\nContent-Length: 0\r\n\r\n",
    "a folded value": OK + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "length and coding": OK + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": OK + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED,
    "a list of lengths": OK + b"Content-Length: 0, 50\r\n\r\n" + SMUGGLED,
    "a coding and then chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding that looks like chunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk's size that is none": OK + CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a protocol that nobody asked for": b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    + SMUGGLED,
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no head": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_may_be_read_in_two_ways_is_a_502_and_its_connection_is_left(
    trial: Trial, raw: bytes
) -> None:
    said, _ = trial.run(trial.tell(b"GET", 1, [raw], closes=False))
    interim, answer, rest = read_answer(said, b"GET", False)
    assert (interim, answer.start[0], answer.values(b"lazycloud-answer"), rest) == (
        [],
        b"502",
        (b"router",),
        b"",
    )
    assert not trial.speaker.trusted


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 OK\r\n\r\n",
        b"HTTP/1.1 304 OK\r\nContent-Length: 2\r\n\r\n",
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_follows_an_answer_is_nobodys_answer(trial: Trial, raw: bytes, apart: bool) -> None:
    said, _ = trial.run(trial.tell(b"GET", 1, [raw, SMUGGLED] if apart else [raw + SMUGGLED], closes=False))
    assert b"smuggled" not in said
    assert not trial.speaker.trusted


def test_a_status_that_is_not_in_the_book_passes(trial: Trial) -> None:
    said, _ = trial.run(trial.tell(b"GET", 1, [b"HTTP/1.1 799 X\r\nContent-Length: 0\r\n\r\n"], closes=False))
    assert said == b"HTTP/1.1 799 X\r\nContent-Length: 0\r\n\r\n"
