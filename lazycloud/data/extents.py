"""What folders take of the disk where files may share their blocks (reflinks): each block counts once.

Where a file's blocks are is asked of the file system (FS_IOC_FIEMAP of linux/fiemap.h); where it cannot tell, no two
files share any.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FIEMAP = 0xC020660B
_HEAD, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
_AT_ONCE = 256  # extents that are asked for in one call
_LAST = 0x1
_NOWHERE = 0x2 | 0x4 | 0x100 | 0x200  # unknown, not written yet, within a block: no place of its own
BLOCK = 512  # bytes that st_blocks counts in
DEEPEST = 200  # folders in each other that are looked into: each takes a descriptor meanwhile
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Extent = tuple[tuple[int, int], int, int]
"""A device and 0, or a file that shares nothing with others: device and inode; from, up to: bytes."""


@dataclass(frozen=True)
class Usage:
    """In bytes: `total` of all, and what each of those who were asked about has alone: that comes free with it."""

    total: int
    own: Mapping[str, int]


def usage(folders: Mapping[str, Sequence[Path]]) -> Usage:
    """What is below each one's folders; those that are not there take nothing. Blocks."""
    return shared(
        {name: [one for place in places for one in _below(place)] for name, places in folders.items()}
    )


def shared(held: Mapping[str, Iterable[Extent]]) -> Usage:
    """Pure: a sweep over all places at which an extent begins or ends."""
    edges = []
    for name, extents in held.items():
        for place, begin, end in extents:
            edges += [(place, begin, 1, name), (place, end, -1, name)]
    total, own = 0, dict.fromkeys(held, 0)
    here: tuple[tuple[int, int], int] = ((0, 0), 0)
    holders: dict[str, int] = {}
    for place, at, step, name in sorted(edges):
        if holders:
            length = at - here[1]
            total += length
            if len(holders) == 1:
                own[next(iter(holders))] += length
        holders[name] = holders.get(name, 0) + step
        if not holders[name]:
            del holders[name]
        here = place, at
    return Usage(total, own)


def _below(folder: Path) -> Iterator[Extent]:
    """What goes meanwhile, or cannot be looked at, counts nothing; no link is followed."""
    with contextlib.suppress(OSError):
        top = os.open(folder, _FOLDER)
        try:
            yield from _in(top, 0)
        finally:
            os.close(top)


def _in(folder: int, depth: int) -> Iterator[Extent]:
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_blocks:
                yield from _of_file(name, folder)
            elif stat.S_ISDIR(found.st_mode) and depth < DEEPEST:
                inner = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _in(inner, depth + 1)
                finally:
                    os.close(inner)


def _of_file(name: str, directory: int) -> list[Extent]:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        alone = found.st_dev, found.st_ino
        try:
            return [
                (alone, logical, logical + length)
                if flags & _NOWHERE
                else ((found.st_dev, 0), physical, physical + length)
                for logical, physical, length, flags in _mapped(descriptor)
            ]
        except OSError:
            return [(alone, 0, found.st_blocks * BLOCK)]
    finally:
        os.close(descriptor)


def _mapped(descriptor: int) -> Iterator[tuple[int, int, int, int]]:
    """Logical and physical begin, length, flags of each extent. Raises OSError where nobody can tell."""
    begin = 0
    while True:
        asked = bytearray(_HEAD.pack(begin, (1 << 64) - 1 - begin, 0, 0, _AT_ONCE, 0))
        asked += bytes(_EXTENT.size * _AT_ONCE)
        fcntl.ioctl(descriptor, _FIEMAP, asked)
        count = _HEAD.unpack_from(asked)[3]
        flags = _LAST
        for place in range(count):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(
                asked, _HEAD.size + place * _EXTENT.size
            )
            yield logical, physical, length, flags
            begin = logical + length
        if flags & _LAST:
            return
