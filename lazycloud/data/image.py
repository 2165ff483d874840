"""Images of an SQLite database at a mark, made and folded without SQLite.

An image is a base file and the WAL up to the mark: `database.sqlite`, `database.sqlite-wal`, and no `-shm`. Whoever
opens it with SQLite finds the database as it was at the mark. It is right only if the base holds no page of a later
frame of the same WAL, which checkpoints write there, and no check of SQLite's would notice. The index says how far
they have come; `make` looks at it after the base was copied, and refuses. Without an index its caller answers for
that: nobody writes to the base meanwhile (it is frozen, or a clone), and checkpoints came no further than the mark.

As in `wal`, callers hold the descriptors, and none of it speaks SQLite. Nothing that is written is synced.

    make(base, wal, mark, folder, index) -> bool   an image of a mark; whether the base was cloned
    fold(base, segments) -> int                    what the WALs over a base say, written into it; bytes written
    empty(place)                                   a database in WAL mode with nothing in it
    journal_mode(base), page_size(base)            what a database says of itself
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from lazycloud.data import blocks
from lazycloud.data.wal import FRAME, HEADER, PAGE_SIZES, Mark, pieces, state, walk_to
from lazycloud.data.wal import follows as follows_on
from lazycloud.errors import Unavailable

MAGIC = b"SQLite format 3\0"
DATABASE, WAL = "database.sqlite", "-wal"
LOCKED = 1 << 30  # the page with this byte is never written: its bytes are what processes lock
_WAL_MODE = b"\x02\x02"  # at byte 18: what writes and what reads it must know
_EMPTY = struct.Struct(">16sH2s4B2I60x2I")  # the header of a page, up to byte 100
_PAGE = 4096
TOGETHER = 64  # WALs that are folded at a time: each is an open file


def make(
    base: int,
    wal: int,
    mark: Mark,
    folder: Path,
    index: int | None = None,
    *,
    name: str = DATABASE,
    trusted: bool = False,
) -> bool:
    """Make an image in a folder that has none; True if the base shares its blocks with the one that was given.

    `wal` may be -1 at frame 0. `index`: a descriptor on the `-shm`, or None where the caller answers for the base.
    `trusted`: the WAL cannot have changed since the mark was read from the index in this boot; so only salts and
    the last checksum are looked at, and not each page. Raises Unavailable, and leaves nothing then.
    """
    _demand_base(base, mark.page_size)
    if index is not None:
        _demand_frozen(index, mark)
    with contextlib.ExitStack() as made:
        cloned = blocks.give(base, made.enter_context(_created(folder / name)))
        if mark.frame:
            _copy_wal(wal, made.enter_context(_created(folder / f"{name}{WAL}")), mark, trusted)
        if index is not None:
            _demand_frozen(index, mark)
    return cloned


def fold(base: int, segments: Iterable[tuple[int, Mark]]) -> int:
    """Write into a base what WALs over it say, up to a mark each, oldest first; the number of bytes written.

    `base` is a descriptor to read and write, of a copy that nobody else uses: as a power cut in between leaves it
    half-written. As SQLite's own checkpoint: of each page the last version, and the size after the last commit.
    All is checked before anything is written: raises Unavailable for a WAL that does not lead to its mark, or does
    not follow on the one before it.
    """
    size, newest = page_size(base), dict[int, tuple[int, int]]()  # page -> WAL, place of its content there
    smallest, last = os.fstat(base).st_size // size, None
    for wal, mark in segments:
        if last and not follows_on(last, mark):
            raise Unavailable(
                "A WAL is missing between two that were to be folded: their salts do not follow."
            )
        last = mark
        if mark.frame:
            _demand_base(base, mark.page_size)
            newest.update(_newest(wal, mark))
            newest = {page: at for page, at in newest.items() if page <= mark.pages}
            smallest, pages = min(smallest, mark.pages), mark.pages
    if not newest:
        return 0
    _demand_whole(newest, size)
    os.ftruncate(base, smallest * size)  # what was cut off and came back unwritten is empty
    os.ftruncate(base, pages * size)
    for page, (wal, at) in sorted(newest.items()):
        os.pwrite(base, os.pread(wal, size, at), (page - 1) * size)
    return len(newest) * size


def fold_all(base: int, wals: Sequence[tuple[Callable[[], AbstractContextManager[int]], Mark]]) -> None:
    """`fold` a chain of any length, each WAL by what opens it. When this raises the base may be half-written."""
    for begin in range(0, len(wals), TOGETHER):
        with contextlib.ExitStack() as opened:
            some = wals[
                max(begin - 1, 0) : begin + TOGETHER
            ]  # the one before once more: that they follow is asked
            fold(base, [(opened.enter_context(open_wal()), mark) for open_wal, mark in some])


def empty(place: Path) -> None:
    """Make a database in WAL mode with nothing in it, as SQLite does. Raises FileExistsError."""
    header = _EMPTY.pack(MAGIC, _PAGE, _WAL_MODE, 0, 64, 32, 32, 1, 1, 1, 3007000)
    tree = struct.pack(">BHHHB", 13, 0, 0, _PAGE, 0)  # a leaf without cells
    with place.open("xb") as made:
        made.write((header + tree).ljust(_PAGE, b"\0"))


def journal_mode(base: int) -> Literal["wal", "rollback", ""]:
    """How a database is written: "" is an empty file, which is to become one. Raises Unavailable for what is none."""
    found = os.pread(base, 100, 0)
    if not found:
        return ""
    if len(found) < 100 or found[:16] != MAGIC:
        raise Unavailable("The file is no SQLite database.", "Restore it, or remove it.")
    return "wal" if found[19] == 2 else "rollback"


def page_size(base: int) -> int:
    """Bytes. Raises Unavailable for what is no database, or an empty one."""
    if not journal_mode(base):
        raise Unavailable("The database's file is empty.")
    stored = int.from_bytes(os.pread(base, 2, 16), "big")
    size = 1 << 16 if stored == 1 else stored  # 65536 does not fit
    if size not in PAGE_SIZES:
        raise Unavailable(f"The database is damaged: it says that its pages have {size} bytes.")
    return size


def _demand_base(base: int, size: int) -> None:
    if journal_mode(base) != "wal":
        raise Unavailable("The database is not in WAL mode: nothing but its file counts.")
    if size not in (0, page_size(base)):
        raise Unavailable(f"The database has pages of {page_size(base)} bytes, and its WAL of {size}.")


def _demand_frozen(index: int, mark: Mark) -> None:
    """The rule of an image: of this WAL the base has nothing after the mark."""
    now = state(index)
    if now.mark[:2] != mark[:2]:
        raise Unavailable(
            f"The WAL has started over since frame {mark.frame:,}: the database's file may have what came after."
        )
    if now.attempted > mark.frame:
        raise Unavailable(
            f"A checkpoint has written to the database's file what came after frame {mark.frame:,},"
            f" up to frame {now.attempted:,}."
        )


@contextlib.contextmanager
def _created(place: Path) -> Iterator[int]:
    """A new file to write to, which is gone if it does not end well."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    except BaseException:
        place.unlink()
        raise
    finally:
        os.close(descriptor)


def _copy_wal(wal: int, made: int, mark: Mark, trusted: bool) -> None:
    """Read once: what is written is what was looked at.

    Not cloned: that would flush the WAL of an app that goes on writing, and make it wait meanwhile.
    """
    walk = walk_to(wal, mark)
    look = walk.skim if trusted else walk.feed
    at = os.pwrite(made, walk.header, 0)
    for data in pieces(wal, mark):
        look(data)
        at += _write(made, data, at)
    walk.demand(mark)
    if os.pread(wal, HEADER, 0) != walk.header:
        raise Unavailable("The WAL started over while it was copied.")


def _write(made: int, data: bytes, at: int) -> int:
    left = memoryview(data)
    while left:
        done = os.pwrite(made, left, at)
        at, left = at + done, left[done:]
    return len(data)


def _newest(wal: int, mark: Mark) -> dict[int, tuple[int, int]]:
    """The last version of each page in a WAL, all of which is looked at."""
    walk, found = walk_to(wal, mark), dict[int, tuple[int, int]]()
    at = HEADER + FRAME
    for data in pieces(wal, mark):
        for page, _ in walk.feed(data):
            found[page] = wal, at
            at += FRAME + mark.page_size
    walk.demand(mark)
    return found


def _demand_whole(newest: dict[int, tuple[int, int]], size: int) -> None:
    """Whatever its checksum says."""
    if LOCKED // size + 1 in newest:
        raise Unavailable("The WAL is damaged: it has the page that is only ever locked, and never written.")
    if 1 in newest:
        wal, at = newest[1]
        if os.pread(wal, 20, at)[16:] != struct.pack(">H", 1 if size == 1 << 16 else size) + _WAL_MODE:
            raise Unavailable(
                "The WAL would take the database out of WAL mode, or change the size of its pages."
            )
