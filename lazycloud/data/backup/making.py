"""A folder, or a file, into the store: pieces that are not there yet first, what names them last."""

from __future__ import annotations

import io
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from lazycloud.blobs.keys import SigningKey
from lazycloud.blobs.store import Store
from lazycloud.data.backup import chunks, layering
from lazycloud.data.backup.manifest import (
    FILE,
    FOLDER,
    LAYERED,
    LINK,
    PLAIN,
    Backup,
    Entry,
    Manifest,
    scope,
    shown,
)
from lazycloud.data.fingerprint import fingerprint_of
from lazycloud.data.layers import Layers
from lazycloud.errors import Unavailable

MAGIC = b"SQLite format 3\0"
TOGETHER = 64  # pieces that are settled at a time: so many are put in vain when it is ended
SMALLEST = chunks.DIGEST + 1  # bytes of a piece: a shorter one was cut off


class Making:
    """One backup. `again`: pieces that are known to be damaged, and put anew whoever else has them.

    `examine`: bytes from which on a database is looked at closely; those that are whole are `sound` then, by path.
    """

    def __init__(
        self,
        store: Store,
        app: str,
        key: SigningKey,
        again: frozenset[str] = frozenset(),
        examine: float = float("inf"),
    ) -> None:
        self._store = store
        self._app = app
        self._key = key
        self._scope = scope(app, key.public)
        stored = store.list(f"{self._scope}/chunks")
        self._there = {one.name.rpartition("/")[2] for one in stored if one.size >= SMALLEST} - again
        self._databases: dict[str, str] = {}
        self._notes: list[str] = []
        self._examine = examine
        self.sound: list[str] = []
        self.put = 0  # pieces that were not there
        self.put_bytes = 0

    def make(
        self,
        roots: Mapping[str, Path],
        at: float,
        note: str,
        facts: Mapping[str, str],
        layers: Mapping[str, Layers] | None = None,
        known: Mapping[str, Entry] | None = None,
    ) -> Backup:
        """Of private copies, which nobody else opens, by the names that they have in the backup.

        `layers`: databases, by path, that are no files of those; `known`: entries of an earlier backup, by path.
        Raises StoreFailed, Unavailable; what was put then is in nobody's way.
        """
        entries = [entry for name, root in sorted(roots.items()) for entry in self._entries(name, root)]
        for path, one in sorted((layers or {}).items()):
            entries.append(layering.kept(path, at, one, (known or {}).get(path), self._there, self._keep))
        if len({entry.path for entry in entries}) < len(entries):
            raise Unavailable("A large database was exchanged while it was to be copied.", "Try again.")
        said = " ".join(filter(None, [note, *self._notes]))
        kind = LAYERED if layers else PLAIN
        manifest = Manifest(self._app, at, said, facts, tuple(entries), self._databases, kind)
        self._store.settle()
        blob = manifest.pack(self._key)
        backup = Backup.of(self._scope, at, blob)
        self._store.put(backup.name, io.BytesIO(blob))
        return backup

    def _entries(self, path: str, place: Path) -> Iterator[Entry]:
        facts = place.lstat()
        mode, mtime = stat.S_IMODE(facts.st_mode), facts.st_mtime_ns
        if stat.S_ISDIR(facts.st_mode):
            yield Entry(path, FOLDER, mode, mtime)
            for database in [one for one in sorted(place.iterdir()) if _is_database(one)]:
                self._note_contents(f"{path}/{database.name}", database)
            for inner in sorted(place.iterdir()):
                yield from self._entries(f"{path}/{inner.name}", inner)
        elif stat.S_ISLNK(facts.st_mode):
            yield Entry(path, LINK, 0, mtime, target=str(place.readlink()))
        elif stat.S_ISREG(facts.st_mode):
            facts = place.stat()  # a database is one file by now
            yield self._file(Entry(path, FILE, mode, mtime), place)

    def _note_contents(self, path: str, database: Path) -> None:
        """One that cannot be read is kept all the same, byte for byte: somebody may mend it."""
        try:
            self._databases[path] = _fingerprint(database)
            if database.stat().st_size >= self._examine and not layering.complaints(database):
                self.sound.append(path)
        except sqlite3.Error as problem:
            self._notes.append(shown(f"{path} is no whole database: {problem}."))

    def _file(self, entry: Entry, place: Path) -> Entry:
        size, names = 0, []
        with place.open("rb") as file:
            while data := file.read(chunks.SIZE):
                size += len(data)
                names.append(self._keep(data))
        return Entry(entry.path, FILE, entry.mode, entry.mtime, size, tuple(names))

    def _keep(self, data: bytes) -> str:
        name = chunks.name_of(data)
        if name not in self._there:
            blob = chunks.packed(data)
            self._store.put(f"{self._scope}/chunks/{name}", io.BytesIO(blob), settled=False)
            self._there.add(name)
            self.put += 1
            if self.put % TOGETHER == 0:
                self._store.settle()
            self.put_bytes += len(blob)
        return name


def _is_database(place: Path) -> bool:
    if not stat.S_ISREG(place.lstat().st_mode):
        return False
    with place.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _fingerprint(database: Path) -> str:
    """Of what it holds; a WAL beside it is in it afterwards. Raises sqlite3.Error."""
    if database.with_name(f"{database.name}-wal").exists():
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return fingerprint_of(database)
