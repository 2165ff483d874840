"""WALs as bytes, made by the book and not by what is tested: https://www.sqlite.org/fileformat2.html#walformat"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lazycloud.data.wal import FRAME, HEADER, Mark

Frame = tuple[int, int, bytes]  # page, pages of the database if it ends a commit, contents


def checksum(data: bytes, order: str, one: int = 0, two: int = 0) -> tuple[int, int]:
    for at in range(0, len(data), 8):
        first, second = struct.unpack_from(f"{order}2I", data, at)
        one = (one + first + two) % 2**32
        two = (two + second + one) % 2**32
    return one, two


def written(frames: Sequence[Frame], page_size: int, salts: tuple[int, int], order: str = "<") -> bytes:
    """A WAL of these frames; `order` is that of the words in its checksums."""
    magic = 0x377F0682 if order == "<" else 0x377F0683
    header = struct.pack(">6I", magic, 3007000, page_size, 0, *salts)
    one, two = checksum(header, order)
    made = [header, struct.pack(">2I", one, two)]
    for page, pages, content in frames:
        about = struct.pack(">2I", page, pages)
        one, two = checksum(about + content, order, one, two)
        made += [about, struct.pack(">4I", *salts, one, two), content]
    return b"".join(made)


def taken(data: bytes, mark: Mark) -> list[Frame]:
    """The frames of a WAL up to a mark."""
    step, found = FRAME + mark.page_size, list[Frame]()
    for at in range(HEADER, mark.end, step):
        page, pages = struct.unpack_from(">2I", data, at)
        found.append((page, pages, data[at + FRAME : at + step]))
    return found
