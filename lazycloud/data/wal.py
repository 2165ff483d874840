"""Where an SQLite database in WAL mode is now, and whether the bytes of a WAL lead there.

Nothing here opens a file, and nothing speaks SQLite: callers hold the descriptors, in a process that has no SQLite
connection to the same database (closing any descriptor on it would drop that connection's locks).

A WAL is a header of 32 bytes and frames: 24 bytes about a page, then the page. A frame is good when its salts are
the header's and its checksum continues that of the frame before it; one that ends a commit says how many pages the
database has from there on. How far the WAL is good its readers learn from `-shm`, which has two copies of that.

    state(shm) -> State      where the database is now, in about 1 µs
    verify(wal, mark)        raises Unavailable unless a WAL leads to a mark; looks at every byte up to there
    last(wal) -> Mark        the last whole commit of a WAL, as SQLite finds it when it recovers
    follows(mark, mark)      whether a WAL is the next one after another's
    Walk(header)             good frames, from bytes that come in pieces
"""

from __future__ import annotations

import os
import re
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from lazycloud.errors import BadInput, Unavailable

HEADER, FRAME = 32, 24  # bytes of a WAL's header, and of that of each frame
PAGE_SIZES = frozenset(1 << power for power in range(9, 17))
PATIENCE = 0.02  # seconds for an index that is just being written: nanoseconds, unless its writer loses the processor
PIECE = 1 << 22  # bytes of a WAL that are looked at together
LITTLE, BIG = 0x377F0682, 0x377F0683  # magic: in which order its checksums read words
_VERSION = 3007000  # of both formats, since there are any
_MASK = 0xFFFFFFFF
_INDEX = struct.Struct("=12I48xI28xI4x")  # one of the two copies, nBackfill, nBackfillAttempted
_SALTS = struct.Struct(">32x2I")  # in it: all else is in the machine's order
_SIZE_AT = 16 if sys.byteorder == "little" else 0  # bits of the word that has the page size, and flags
_WAL = struct.Struct(">8I")
_ABOUT = struct.Struct(">6I")  # page, pages of the database or 0, two salts, two checksums
_TEXT = re.compile(r"-".join(["([0-9a-f]{1,8})"] * 7))


class Mark(NamedTuple):
    """Where a database is: at a frame of the WAL with these salts. `pages`, `page_size` (bytes): the database's.

    Two marks of one database are equal only if its contents are. The salts are drawn anew when a WAL starts over,
    but after a power cut SQLite may write other frames at the same numbers with the same salts; what tells them
    apart is the checksum, which runs over every page from the WAL's first to this one.

    At frame 0 nothing of the WAL counts and the database is its base file. Nothing but the salts and the frame is
    compared then: all else is 0 (what the index holds there is left over from a WAL before). The salts are those
    that the next WAL will have, or 0 in a database that was just opened. So such a mark is exact only together
    with the base file that it was read beside, and that nobody writes: it names no contents by itself.
    """

    salt1: int
    salt2: int
    frame: int
    checksum1: int
    checksum2: int
    pages: int
    page_size: int

    @property
    def end(self) -> int:
        """Bytes of the WAL up to here; 0 where nothing of it counts."""
        return HEADER + self.frame * (FRAME + self.page_size) if self.frame else 0

    def __str__(self) -> str:
        """All of it, as it is stored; `mark` reads it."""
        return "-".join(f"{number:x}" for number in self)


class State(NamedTuple):
    """What an index says. The base file has all pages up to frame `backfilled`, and maybe some up to `attempted`."""

    mark: Mark
    backfilled: int
    attempted: int


def mark(text: str) -> Mark:
    """What `str` made of a mark. Raises BadInput."""
    found = _TEXT.fullmatch(text)
    if not found:
        raise BadInput(f"{text[:80]!r} is no mark of a database.", "It is seven hexadecimal numbers.")
    return Mark(*(int(number, 16) for number in found.groups()))


def state(shm: int) -> State:
    """Where the database is now; `shm` is a descriptor on its `-shm`. 1 µs, 2 after a change; 20 ms before it raises.

    Raises Unavailable when the index is not in use, or stays between two states: its writer was ended there, and
    the next connection will mend it. A descriptor on a file that was removed meanwhile still reads what was.
    """
    if found := _parsed(os.pread(shm, _INDEX.size, 0)):
        return found
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        os.sched_yield()
        if found := _parsed(os.pread(shm, _INDEX.size, 0)):
            return found
    raise Unavailable(
        "The index of the database's WAL cannot be read: it is not in use, or was left half-written.",
        "Try again when the app has read or written its database.",
    )


@lru_cache(maxsize=256)  # most requests write nothing, and what is not read again is soon gone from it
def _parsed(data: bytes) -> State | None:
    """None of what is torn, or not begun."""
    if len(data) != _INDEX.size or data[:48] != data[48:96] or not data[12]:
        return None
    found = _INDEX.unpack(data)
    if found[0] != _VERSION or not _is_sound(*found[:12]):
        return None
    frame, backfilled, attempted = found[4], found[12], found[13]
    salt1, salt2 = _SALTS.unpack_from(data)
    if frame == 0:
        return State(Mark(salt1, salt2, 0, 0, 0, 0, 0), backfilled, attempted)
    size = found[3] >> _SIZE_AT
    page_size = (size & 0xFE00) + ((size & 1) << 16)  # 65536 does not fit, and is stored as 1
    mark = Mark(salt1, salt2, frame, found[6], found[7], found[5], page_size)
    return State(mark, backfilled, attempted)


def _is_sound(
    a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int, i: int, j: int, one: int, two: int
) -> bool:
    """Whether a copy has its own checksum: as in a WAL, of ten words in the machine's order. Written out for speed.

    Equal copies alone would do where bytes are read in their order, which no processor promises.
    """
    s = a
    t = b + s
    s += c + t
    t += d + s
    s += e + t
    t += f + s
    s += g + t
    t += h + s
    s += i + t
    t += j + s
    return s & _MASK == one and t & _MASK == two


def follows(before: Mark, after: Mark) -> bool:
    """Whether a mark is of the WAL that started over after the WAL of another: its first salt is one more.

    Whether that one had gone on after `before` cannot be told from this.
    """
    return after.salt1 == (before.salt1 + 1) & _MASK


def verify(wal: int, mark: Mark) -> None:
    """Raises Unavailable unless the WAL leads to the mark: the salts and checksum of each frame, up to the last.

    `skim` in place of `feed` leaves out the checksums of the pages, which take all of the time.
    """
    walk = walk_to(wal, mark)
    for data in pieces(wal, mark):
        walk.feed(data)
    walk.demand(mark)


def last(wal: int) -> Mark:
    """The last whole commit of a WAL: what comes after it is torn, left over, or not committed.

    Raises Unavailable for a WAL that SQLite would not read, either.
    """
    walk = Walk(os.pread(wal, HEADER, 0))
    for data in _read(wal, FRAME + walk.page_size, os.fstat(wal).st_size):
        walk.feed(data)
        if walk.has_ended:
            break
    return walk.mark


def walk_to(wal: int, mark: Mark) -> Walk:
    """A walk to the mark, at its beginning. Raises Unavailable for another WAL, or a short one."""
    walk = Walk(os.pread(wal, HEADER, 0))
    if walk.mark[:2] != mark[:2]:
        raise Unavailable(
            f"The WAL has started over since frame {mark.frame:,} was its last: its salts are others."
        )
    if walk.page_size != mark.page_size:
        raise Unavailable(f"The WAL has pages of {walk.page_size} bytes, and not of {mark.page_size}.")
    size = os.fstat(wal).st_size
    if size < mark.end:
        raise Unavailable(f"The WAL has {size:,} bytes, and frame {mark.frame:,} ends at {mark.end:,}.")
    return walk


def pieces(wal: int, mark: Mark, begin: int = 0) -> Iterator[bytes]:
    """The frames up to the mark, some at a time; from where another mark of the same WAL ends, or the first."""
    return _read(wal, FRAME + mark.page_size, mark.end, begin or HEADER)


def demand_salts(data: bytes, mark: Mark) -> None:
    """Raises Unavailable unless these are whole frames of the mark's WAL, as far as their salts tell.

    What is copied without being read otherwise may be no WAL, and a hole of any size in a file takes no room.
    """
    if not _have_salts(data, FRAME + mark.page_size, struct.pack(">2I", *mark[:2])):
        raise Unavailable("The WAL is damaged: there are frames of none in it.")


def _have_salts(data: bytes, step: int, salts: bytes) -> bool:
    return array("Q", data)[1 :: step // 8].tobytes() == salts * (len(data) // step)


def _read(wal: int, step: int, end: int, begin: int = HEADER) -> Iterator[bytes]:
    """Whole frames of `step` bytes, from and up to a place in the file, or to where it ends."""
    at, some = begin, max(PIECE // step, 1) * step
    while data := os.pread(wal, min(some, end - at), at) if at < end else b"":
        whole = data[: len(data) // step * step]
        if not whole:
            break
        yield whole
        at += len(whole)


class Walk:
    """From frame to frame of a WAL, as far as they are good. `mark`: the last commit that was passed.

    `header`: the first 32 bytes of the WAL. Raises Unavailable for those of none.
    """

    def __init__(self, header: bytes) -> None:
        if len(header) < HEADER:
            raise Unavailable("The WAL is empty or torn: it has no whole header.")
        magic, version, self.page_size, _, salt1, salt2, one, two = _WAL.unpack(header)
        known = magic in (LITTLE, BIG) and version == _VERSION and self.page_size in PAGE_SIZES
        if not known or _sums(header[:24], magic == BIG) != (one, two):
            raise Unavailable("The WAL's header is damaged, or none.")
        self.header = header
        self.frame = 0
        self.has_ended = False  # at a frame that is not good
        self.mark = Mark(salt1, salt2, 0, 0, 0, 0, 0)
        self._is_big_endian = magic == BIG
        self._sums = one, two

    def go_on_from(self, mark: Mark) -> None:
        """As if it had come to a mark, for which somebody answers: what follows is checked by that alone."""
        if (*mark[:2], mark.page_size) != (*self.mark[:2], self.page_size):
            raise Unavailable(f"The WAL has started over since frame {mark.frame:,} was its last.")
        self.frame, self._sums, self.mark = mark.frame, (mark.checksum1, mark.checksum2), mark

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Of the next whole frames the good ones: (page, pages of the database if it ends a commit, else 0)."""
        step, good = FRAME + self.page_size, list[tuple[int, int]]()
        if self.has_ended or not data:
            return good
        one, two = self._sums
        a, b, c, d = _advance(self.page_size // 8 + 1)
        salts = self.mark.salt1, self.mark.salt2
        for number, (own1, own2) in enumerate(_own_sums(data, step, self._is_big_endian)):
            page, pages, salt1, salt2, sum1, sum2 = _ABOUT.unpack_from(data, number * step)
            one, two = (a * one + b * two + own1) & _MASK, (c * one + d * two + own2) & _MASK
            if page == 0 or (salt1, salt2) != salts or (sum1, sum2) != (one, two):
                self.has_ended = True
                break
            self.frame += 1
            self._sums = one, two
            good.append((page, pages))
            if pages:
                self.mark = Mark(*salts, self.frame, one, two, pages, self.page_size)
        return good

    def skim(self, data: bytes) -> None:
        """As `feed`, but of the checksums only the last is looked at: it must be that of a commit.

        For bytes that cannot have changed since the index said that they are committed. That is so in the same
        boot (a power cut may keep a frame's first bytes and lose its page), and while the WAL does not start over:
        frames up to a mark are not written again before that. It starts over with a new header, and each frame has
        its salts; so see after reading that the header is what it was.
        """
        step = FRAME + self.page_size
        count, salts = len(data) // step, self.header[16:24]
        if not _have_salts(data, step, salts):
            self.has_ended = True
            return
        self.frame += count
        _, pages, salt1, salt2, one, two = _ABOUT.unpack_from(data, (count - 1) * step)
        self.mark = Mark(salt1, salt2, self.frame, one, two, pages, self.page_size)

    def demand(self, mark: Mark) -> None:
        """Raises Unavailable unless the walk has led to the mark, and no further."""
        if self.has_ended or self.frame < mark.frame:
            raise Unavailable(
                f"The WAL is torn: it is good up to frame {self.frame:,}, and {mark.frame:,} were committed."
            )
        if self.mark != mark:
            raise Unavailable(
                f"Frame {mark.frame:,} of the WAL is not what was committed there: another history was written."
            )


def _sums(data: bytes, is_big_endian: bool, one: int = 0, two: int = 0) -> tuple[int, int]:
    """The checksum of some pairs of words, continued from another."""
    words = struct.unpack(f"{'>' if is_big_endian else '<'}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & _MASK
        two = (two + second + one) & _MASK
    return one, two


@lru_cache(maxsize=16)
def _advance(pairs: int) -> tuple[int, int, int, int]:
    """What becomes of a checksum (one, two) over so many pairs of words that are 0: a·one + b·two, c·one + d·two."""
    (a, c), (b, d) = _sums(bytes(8 * pairs), False, 1, 0), _sums(bytes(8 * pairs), False, 0, 1)
    return a, b, c, d


def _own_sums(data: bytes, step: int, is_big_endian: bool) -> list[tuple[int, int]]:
    """The checksum of each frame by itself, as if it were the first and began with 0.

    The checksum is linear, so what came before may be added later. All frames go side by side in lanes of 64 bits of
    two large numbers: Python adds those at the speed of C, where word by word would take four times as long. After
    each pair of words a lane grows by less than 1.4 bits; it has 32 to spare.
    """
    if is_big_endian:
        swapped = array("I", data)
        swapped.byteswap()
        data = swapped.tobytes()
    pairs, count = (
        array("Q", data),
        len(data) // step,
    )  # only ever moved, so the machine's order does not matter
    low = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * count, "little")
    one = two = 0
    for number, at in enumerate((0, *range(FRAME // 8, step // 8))):
        both = int.from_bytes(pairs[at :: step // 8].tobytes(), "little")
        one += two + (both & low)
        two += one + ((both >> 32) & low)
        if number % 16 == 15:
            one &= low
            two &= low
    lanes = struct.Struct(f"<{count}Q")
    return list(
        zip(*(lanes.unpack((each & low).to_bytes(8 * count, "little")) for each in (one, two)), strict=True)
    )
