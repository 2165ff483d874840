"""An SQLite database, opened by who does not trust it.

What is read are tables, by their columns. No view, trigger, generated column or virtual table of the database is ever
evaluated: those are programs of the app's, and need not end.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from lazycloud.data.files import COMPANIONS
from lazycloud.data.tools.shapes import Column, SchemaObject
from lazycloud.data.tools.sql import quoted
from lazycloud.data.tools.values import readable

ROW = 16_000_000  # bytes of a row that is read at once
LARGEST = 1_000_000_000  # of any row; SQLite's own limit
CACHE = 16_000  # KiB
MOST = 100_000  # objects of a schema: who has more has no schema but an accident
JOURNAL = bytes.fromhex(
    "d9d505f920a163d7"
)  # with which SQLite's journals begin, and end when they name another
SETTINGS = ("user_version", "application_id")
_ROWIDS = ("rowid", "_rowid_", "oid")
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\s+TABLE\s.*?\sUSING\s+([^\s(]+)", re.IGNORECASE | re.DOTALL)
# What modules of SQLite's own distribution keep their contents in, after the virtual table's name.
_SHADOWS = {
    "fts5": ("data", "idx", "content", "docsize", "config"),
    "fts4": ("content", "segments", "segdir", "docsize", "stat"),
    "fts3": ("content", "segments", "segdir", "docsize", "stat"),
    "rtree": ("node", "rowid", "parent"),
    "rtree_i32": ("node", "rowid", "parent"),
    "geopoly": ("node", "rowid", "parent"),
}


@dataclass(frozen=True)
class Table:
    """`kind` as in TableSummary. `columns`: those that hold values of their own, so none that are generated.

    `rowid` is a name that means it, "" if there is none. `is_odd`: it has a collation that only its app knows.
    """

    name: str
    kind: str
    columns: tuple[Column, ...]
    rowid: str
    is_odd: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of its primary key, in their order."""
        return tuple(one.name for one in sorted(self.columns, key=lambda one: one.key) if one.key)


class Unreadable(Exception):
    """What SQLite says of a database, or of a table, that cannot be read."""


@dataclass
class Database:
    """`connection` has no transaction; whoever copies nothing needs none, for nobody else is there.

    `told`: the schema of the Postgres database that it is a copy of. What has no key has no rowids in it, either.
    """

    connection: sqlite3.Connection
    told: tuple[SchemaObject, ...] | None = None
    _known: dict[str, Table] = field(default_factory=dict)
    _collations: set[str] = field(default_factory=set)

    @cached_property
    def encoding(self) -> str:
        with explained():
            return str(self.connection.execute("PRAGMA encoding").fetchone()[0])

    def setting(self, name: str) -> int:
        """One of SETTINGS. Raises Unreadable."""
        with explained():
            return int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])

    @cached_property
    def objects(self) -> dict[str, list[SchemaObject]]:
        """By name, also SQLite's own tables, but no index that belongs to a constraint.

        Raises Unreadable.
        """
        query = "SELECT type, name, coalesce(sql, '') FROM sqlite_master LIMIT ?"
        found: dict[str, list[SchemaObject]] = {}
        with explained():
            for at, (kind, name, sql) in enumerate(self.connection.execute(query, (MOST + 1,))):
                if at == MOST:
                    raise Unreadable(f"its schema has more than {MOST} tables, indexes, views and triggers")
                if all(isinstance(part, str) for part in (kind, name, sql)) and (sql or kind != "index"):
                    found.setdefault(name, []).append(SchemaObject(kind, name, sql))
        return found

    @property
    def schema(self) -> tuple[SchemaObject, ...]:
        """Without SQLite's own tables and shadow tables, which nobody wrote."""
        if self.told is not None:
            return self.told
        every = [one for objects in self.objects.values() for one in objects]
        told = [one for one in every if one.kind != "table" or self.kind(one.name) in ("table", "virtual")]
        return tuple(SchemaObject(one.kind, readable(one.name), readable(one.sql)) for one in told)

    @cached_property
    def tables(self) -> list[str]:
        """Their names, sorted."""
        return sorted(name for name, found in self.objects.items() if any(o.kind == "table" for o in found))

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Virtual tables, in lower case as names are compared, and their modules."""
        every = (one for objects in self.objects.values() for one in objects if one.kind == "table")
        matches = ((one.name.lower(), _VIRTUAL.match(one.sql)) for one in every)
        return {name: match[1].strip("\"'`[]").lower() for name, match in matches if match}

    @cached_property
    def _shadows(self) -> set[str]:
        return {
            f"{name}_{ending}"
            for name, module in self._modules.items()
            for ending in _SHADOWS.get(module, ())
        }

    def kind(self, name: str) -> str:
        """Of a table: see TableSummary."""
        if name.lower() in self._modules:
            return "virtual"
        if name.lower().startswith("sqlite_"):
            return "internal"
        return "shadow" if name.lower() in self._shadows else "table"

    def module(self, name: str) -> str:
        """Of a virtual table."""
        return self._modules[name.lower()]

    def table(self, name: str) -> Table:
        """Raises Unreadable. Of a virtual table nothing is asked but its name."""
        if name not in self._known:
            self._known[name] = self._table(name)
        return self._known[name]

    def _table(self, name: str) -> Table:
        kind = self.kind(name)
        if kind == "virtual":
            return Table(name, kind, (), "")
        with explained():
            query = 'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)'
            told = self.connection.execute(query, (name,)).fetchall()
            is_odd = self._stand_in_for_collations(name)
            columns = tuple(
                Column(name, declared, bool(required), default, key)
                for name, declared, required, default, key, hidden in told
                if not hidden
            )
            return Table(name, kind, columns, self._rowid(name, [one[0].lower() for one in told]), is_odd)

    def _rowid(self, table: str, columns: list[str]) -> str:
        for name in _ROWIDS if self.told is None else ():
            if name not in columns:
                with contextlib.suppress(sqlite3.OperationalError):
                    self.connection.execute(f"SELECT {name} FROM {quoted(table)} LIMIT 0")  # noqa: S608
                    return name
                return ""
        return ""

    def _stand_in_for_collations(self, table: str) -> bool:
        """For those of the app's own, without which SQLite reads nothing by such an index. Whether there are any."""
        query = (
            "SELECT DISTINCT x.coll FROM pragma_index_list(?) AS i, pragma_index_xinfo(i.name) AS x"
            " WHERE x.coll NOT IN ('BINARY', 'NOCASE', 'RTRIM')"
        )
        names = {name for (name,) in self.connection.execute(query, (table,))}
        for name in names:
            self.connection.create_collation(name, by_text)
        self._collations |= names
        return bool(names)

    @property
    def collations(self) -> frozenset[str]:
        """Of the app's own, of the tables that were asked for."""
        return frozenset(self._collations)

    def count(self, name: str) -> int:
        """Its rows. Raises Unreadable."""
        with explained():
            (number,) = self.connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()  # noqa: S608
        return int(number)


def may_read(connection: sqlite3.Connection, most: int) -> None:
    """Rows of up to `most` bytes: a larger one is a DataError."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)


@contextlib.contextmanager
def may_write(connection: sqlite3.Connection) -> Iterator[None]:
    """Into another file, by VACUUM INTO."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)
    connection.execute("PRAGMA query_only=OFF")
    try:
        yield
    finally:
        connection.execute("PRAGMA query_only=ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)


@contextlib.contextmanager
def opened(place: Path | None, told: tuple[SchemaObject, ...] | None = None) -> Iterator[Database]:
    """A database to read, that nobody else uses; None is an empty one. Raises Unreadable.

    A database that was frozen with its WAL takes that in, so it is opened for writing; but nothing is written by us.
    """
    with contextlib.closing(_connected(place)) as connection:
        with explained():
            _guard(connection)
        yield Database(connection, told)


@contextlib.contextmanager
def joined(one: Path, other: Path) -> Iterator[sqlite3.Connection]:
    """Two databases in one connection, as `main` and `other`. Raises Unreadable: also if their encodings differ."""
    with contextlib.closing(_connected(one)) as connection:
        with explained():
            connection.execute("ATTACH ? AS other", (_uri(other),))
            _guard(connection)
        yield connection


def _connected(place: Path | None) -> sqlite3.Connection:
    if place is None:
        return sqlite3.connect(":memory:", isolation_level=None)
    for ending in COMPANIONS:
        companion = place.with_name(place.name + ending)
        if companion.is_symlink() or (ending == "-journal" and _names_another(companion)):
            raise Unreadable(f"what {companion.name} leads to is not followed")
    with explained():
        return sqlite3.connect(_uri(place), uri=True, isolation_level=None, cached_statements=16)


def _names_another(journal: Path) -> bool:
    """Whether a journal ends with the name of another file, which SQLite would read, and remove."""
    if not journal.is_file():
        return False
    with journal.open("rb") as file:
        file.seek(max(0, journal.stat().st_size - len(JOURNAL)))
        return file.read() == JOURNAL


def _uri(place: Path) -> str:
    return f"file:{quote(str(place))}?mode=rw"


def _guard(connection: sqlite3.Connection) -> None:
    """Take from a connection what reading tables does not need."""
    limits = {
        sqlite3.SQLITE_LIMIT_LENGTH: ROW,
        sqlite3.SQLITE_LIMIT_ATTACHED: 0,
        sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
        sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
    }
    for limit, most in limits.items():
        connection.setlimit(limit, most)
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", f"cache_size=-{CACHE}"):
        connection.execute(f"PRAGMA {pragma}")
    connection.text_factory = _text


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def by_text(one: str, other: str) -> int:
    """A collation: by the bytes of UTF-8."""
    left, right = (text.encode("utf-8", "surrogateescape") for text in (one, other))
    return (left > right) - (left < right)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What SQLite says, or Python of what it gave, becomes Unreadable."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError, OverflowError) as problem:
        raise Unreadable(
            f"{type(problem).__name__}: {problem}" if not str(problem) else str(problem)
        ) from problem
