"""A database in layers, into pieces and out of them: of what an earlier backup has, nothing is read again.

A base is known by its id, which stands for its bytes. A WAL only ever grows, and its checksum runs over all of it: so
what is new is checked from the mark of the earlier backup on, and that its last piece is what it was says that it is
the same WAL. Out of pieces, all of it is checked from its first frame on.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from lazycloud.data import blocks, image, wal
from lazycloud.data.backup import chunks
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.manifest import FILE, Entry, Wal
from lazycloud.data.fingerprint import fingerprint, fingerprint_of, resting
from lazycloud.data.layers import Layer, Layers
from lazycloud.data.wal import Mark
from lazycloud.errors import Unavailable

CHECKED = 1 << 20  # bytes of frames that are checked at a time

Keep = Callable[[bytes], str]
"""What has a piece in the store, and says its name."""
Piece = Callable[[str], bytes]
"""The piece of a name. Raises Damaged, Missing."""


def kept(path: str, at: float, layers: Layers, known: Entry | None, there: set[str], keep: Keep) -> Entry:
    """The entry of a database whose layers are in pieces now.

    `known`: its entry in an earlier backup, of which only pieces count that are `there`. Raises Unavailable for a WAL
    that does not lead to its mark.
    """
    facts = layers.base.stat()
    before: dict[str, Wal] = {}
    if known and known.base == layers.id and there >= set(known.chunks):
        names = known.chunks
    else:
        with layers.base.open("rb") as base:
            names = tuple(keep(data) for data in _read(base, facts.st_size))
    if known:
        before = {one.generation: one for one in known.wals if there >= set(one.chunks)}
    wals = tuple(_kept_wal(one, before.get(one.generation), keep) for one in layers.wals)
    _demand_one_line([one.mark for one in layers.wals])
    last = layers.wals[-1].mark if layers.wals else None
    size = last.pages * last.page_size if last else facts.st_size
    mode, mtime = facts.st_mode & 0o7777, int(at * 1e9)
    return Entry(path, FILE, mode, mtime, size, names, base=layers.id, wals=wals)


def _kept_wal(layer: Layer, before: Wal | None, keep: Keep) -> Wal:
    mark = layer.mark
    if before and before.at == mark:
        return before
    with layer.place.open("rb", buffering=0) as file:
        walk = wal.Walk(file.read(wal.HEADER))
        names = _same(file, mark, before) if before else None
        if before and names is not None:
            walk.go_on_from(before.at)
        names, checked = names or [], _Checked(walk, walk.mark.end or wal.HEADER)
        begin = len(names) * chunks.SIZE
        file.seek(begin)
        for data in _read(file, mark.end - begin):
            checked.feed(data, len(names) * chunks.SIZE)
            names.append(keep(data))
        checked.demand(mark)
    return Wal(layer.generation, str(mark), tuple(names))


def _same(file: BinaryIO, mark: wal.Mark, before: Wal) -> list[str] | None:
    """The full pieces of what an earlier backup has of a WAL; None if it is another one, or was shorter then."""
    had = before.at
    if (*had[:2], had.page_size) != (*mark[:2], mark.page_size) or had.frame > mark.frame:
        return None
    whole, rest = divmod(had.end, chunks.SIZE)
    file.seek(whole * chunks.SIZE)
    if rest and chunks.name_of(file.read(rest)) != before.chunks[-1]:
        return None
    return list(before.chunks[:whole])


class _Checked:
    """Pieces of a WAL as they are kept, through its checksums; those are known up to a place in the file."""

    def __init__(self, walk: wal.Walk, begin: int) -> None:
        self._walk = walk
        self._begin = begin
        self._waiting = bytearray()

    def feed(self, data: bytes, at: int) -> None:
        self._waiting += data[max(self._begin - at, 0) :]
        if len(self._waiting) >= CHECKED:
            self._check()

    def demand(self, mark: wal.Mark) -> None:
        self._check()
        self._walk.demand(mark)

    def _check(self) -> None:
        step = wal.FRAME + self._walk.page_size
        whole = len(self._waiting) // step * step
        self._walk.feed(bytes(self._waiting[:whole]))
        del self._waiting[:whole]


def _read(file: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes of a file, in pieces; fewer where it ends."""
    while size > 0 and (data := file.read(min(size, chunks.SIZE))):
        size -= len(data)
        yield data


def fold(entry: Entry, place: Path, piece: Piece) -> None:
    """Write what the WALs of an entry say into `place`, which has its base. Raises Damaged, Missing, OSError."""
    try:
        _fold(place, [(one.at, partial(_written, one, piece, place.parent)) for one in entry.wals])
    except Unavailable as problem:
        raise Damaged(f"What is kept of a database does not fit together: {problem.sentence}") from problem


def are(layers: Layers, database: Path) -> bool:
    """Whether layers say what a database holds that nobody writes, and that has no WAL. Makes a copy beside them."""
    together = layers.base.with_name(f"{layers.base.name}-together")
    try:
        with layers.base.open("rb") as base, together.open("xb") as made:
            blocks.give(base.fileno(), made.fileno())
        _fold(together, [(one.mark, partial(_open, one.place)) for one in layers.wals])
        # The same bytes, in all but a few cases: what free pages have depends on when they were written.
        return filecmp.cmp(together, database, shallow=False) or _contents(together) == _contents(database)
    finally:
        together.unlink(missing_ok=True)


def _open(place: Path) -> BinaryIO:
    return place.open("rb")


def _fold(place: Path, wals: Sequence[tuple[Mark, Callable[[], BinaryIO]]]) -> None:
    """WALs up to marks, by what opens each, into a base. Raises Unavailable."""
    with place.open("r+b") as base:
        image.fold_all(base.fileno(), [(partial(_descriptor, log), mark) for mark, log in wals])


@contextlib.contextmanager
def _descriptor(log: Callable[[], BinaryIO]) -> Iterator[int]:
    with log() as file:
        yield file.fileno()


def walk(entry: Entry, piece: Piece, sound: set[Wal]) -> None:
    """Look whether all its WALs lead to their marks, and follow each other. Raises Damaged, Missing.

    `sound`: those of which that is known; what is found to be joins them.
    """
    try:
        _demand_one_line([one.at for one in entry.wals])
        for one in [one for one in entry.wals if one not in sound]:
            with _written(one, piece) as file:
                wal.verify(file.fileno(), one.at)
            sound.add(one)
    except Unavailable as problem:
        raise Damaged(f"What is kept of a database does not fit together: {problem.sentence}") from problem


def _demand_one_line(marks: Sequence[Mark]) -> None:
    for before, after in itertools.pairwise(marks):
        if not wal.follows(before, after):
            raise Unavailable("A WAL is missing between two: their salts do not follow.")


def _written(one: Wal, piece: Piece, folder: Path | None = None) -> BinaryIO:
    """A file without a name that has a WAL."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(tempfile.TemporaryFile(dir=folder))
        for name in one.chunks:
            file.write(piece(name))
        file.flush()
        if file.tell() != one.at.end:
            raise Unavailable("A WAL is shorter or longer than it was.")
        opened.pop_all()
        return cast(BinaryIO, file)


def complaints(database: Path) -> list[str]:
    """What SQLite finds to be wrong with a database that nobody writes to; nothing if it cannot be asked.

    It cannot where a constraint, or an index, is made with functions of the app. Then all rows are read at least.
    """
    with resting(database) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        except sqlite3.Error as problem:
            if problem.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                return [str(problem)]
            return _unreadable(connection)
    return [] if found == ["ok"] else found


def _contents(database: Path) -> str:
    """The fingerprint; why there is none, where it cannot be read."""
    try:
        return fingerprint_of(database)
    except sqlite3.Error as problem:
        return str(problem)


def _unreadable(connection: sqlite3.Connection) -> list[str]:
    try:
        fingerprint(connection, rowids=True)
    except sqlite3.Error as problem:
        return [str(problem)]
    return []


def paths(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Those that are in layers, by path."""
    return {entry.path: entry for entry in entries if entry.base}
