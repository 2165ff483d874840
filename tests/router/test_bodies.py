from __future__ import annotations

import random

import pytest

from lazycloud.router.bodies import BadBody, Chunked, Sized, chunk, last_chunk

WHOLE = b"5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nDigest: x\r\n\r\nNEXT"


def fed(body: Chunked | Sized, *parts: bytes) -> bytes:
    return b"".join(piece for part in parts if not body.done for piece in body.feed(part))


@pytest.mark.parametrize("seed", range(20))
def test_a_chunked_body_is_the_same_however_it_is_cut(seed: int) -> None:
    cuts = sorted(random.Random(seed).sample(range(len(WHOLE)), seed))
    parts = [WHOLE[a:b] for a, b in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    body, found, rest = Chunked(), b"", b""
    for part in parts:
        if body.done:
            rest += part
        else:
            found += b"".join(body.feed(part))
            rest = body.rest
    assert (found, rest, body.trailers) == (b"hello world", b"NEXT", [b"Digest: x"])


def test_a_chunked_body_arrives_byte_by_byte() -> None:
    body = Chunked()
    assert fed(body, *(WHOLE[i : i + 1] for i in range(len(WHOLE)))) == b"hello world"
    assert body.done


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\na\r\n",
        b"1 \r\na\r\n",
        b" 1\r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"\r\n",
        b"1;\nx\r\na\r\n",
        b"fffffffffffffffff\r\n",
        b"1" + b";" * 2000,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 5000,
    ],
)
def test_a_malformed_chunk_is_refused(raw: bytes) -> None:
    with pytest.raises(BadBody):
        Chunked().feed(raw)


def test_a_sized_body_leaves_what_is_not_its_own() -> None:
    body = Sized(5)
    assert fed(body, b"hel", b"loNEXT") == b"hello"
    assert (body.done, body.rest) == (True, b"NEXT")


def test_what_is_written_in_chunks_can_be_read_again() -> None:
    body = Chunked()
    assert fed(body, chunk(b"a" * 70000) + last_chunk([b"A: b"])) == b"a" * 70000
    assert body.trailers == [b"A: b"]
