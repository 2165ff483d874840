"""The pieces that contents are kept in: of one size, each once, under the hash of what it holds. Pure.

A piece in the store is the SHA-256 of all that follows, and that is the piece, compressed. So every bit of it counts:
a damaged one does not pass for what it was, also where a compressed text can be damaged and mean the same.
"""

from __future__ import annotations

import hashlib
import sys

from lazycloud.errors import LazycloudError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SIZE = 1 << 16  # bytes: a page that changed costs so many at the most, a gigabyte has 16,384 of them
DIGEST = 32
LEVEL = 3


class Damaged(LazycloudError):
    """What the store gave out is not what was put into it."""

    status = 502
    kind = "damaged"


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(data: bytes) -> bytes:
    """As it is kept."""
    body = zstd.compress(data, LEVEL)
    return hashlib.sha256(body).digest() + body


def unpacked(name: str, blob: bytes, most: int = SIZE) -> bytes:
    """What it holds. Raises Damaged."""
    body = blob[DIGEST:]
    if hashlib.sha256(body).digest() != blob[:DIGEST]:
        raise Damaged(f"The piece {name[:12]}… is damaged.")
    try:
        data = zstd.ZstdDecompressor().decompress(body, max_length=most + 1)
    except zstd.ZstdError as problem:
        raise Damaged(f"The piece {name[:12]}… cannot be read: {problem}.") from problem
    if name_of(data) != name:
        raise Damaged(f"The piece {name[:12]}… holds something else.")
    return data
