"""What became of one version's data in another. See `tasks.difference`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lazycloud.data.files import COMPANIONS
from lazycloud.data.tools.contents import POSTGRES, are_same, contents, size
from lazycloud.data.tools.database import (
    LARGEST,
    ROW,
    SETTINGS,
    Database,
    Table,
    Unreadable,
    by_text,
    explained,
    joined,
    may_read,
    opened,
)
from lazycloud.data.tools.dumps import converted
from lazycloud.data.tools.rows import ORDER, Found, Rows, Side
from lazycloud.data.tools.shapes import (
    ADDED,
    CHANGED,
    REMOVED,
    DatabaseDifference,
    Difference,
    FileChange,
    RowChange,
    SchemaChange,
    SchemaObject,
    TableDifference,
    changes,
)
from lazycloud.data.tools.values import readable, row_as_json

MOST_FILES = 2000
MOST_CHANGES = 2000  # of one schema
MOST_TABLES = 2000
SQL_SHOWN = 20_000  # characters of one statement
ROOM = 8_000_000  # bytes of rows, as JSON, in all
_NOTES = {"shadow": "A virtual table keeps its contents here.", "internal": "SQLite's own."}


@dataclass
class Wanted:
    """`table`: the only one that is looked at, if any; `rows` of each table are told while there is `room`, in bytes.

    `unlike` becomes true when something differs, or nobody can tell.
    """

    table: str
    rows: int
    room: int = ROOM
    unlike: bool = field(default=False, init=False)


def compare(one: Path, other: Path, table: str, rows: int) -> Difference:
    """Of two versions' folders. Whatever cannot be read is told, and is not the same."""
    before, after, wanted = contents(one), contents(other), Wanted(table, rows)
    databases = []
    for name in sorted({*before.databases, *after.databases}):
        # What is a file on one side, and a database on the other, is a file that changed.
        if name in before.files or name in after.files:
            for side in (before, after):
                side.files.update({name: side.databases.pop(name)} if name in side.databases else {})
            continue
        found = _databases(name, before.databases.get(name), after.databases.get(name), wanted)
        databases += [found] if found else []
    files = [] if table else _files(before.files, after.files)
    same = not files and not wanted.unlike
    return Difference(same, tuple(databases), tuple(files[:MOST_FILES]), len(files) > MOST_FILES)


def _files(before: dict[str, Path], after: dict[str, Path]) -> list[FileChange]:
    found = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old and new and are_same(old, new):
            continue
        change = CHANGED if old and new else ADDED if new else REMOVED
        found.append(FileChange(path, change, size(old) if old else None, size(new) if new else None))
    return found


def _databases(name: str, one: Path | None, other: Path | None, wanted: Wanted) -> DatabaseDifference | None:
    """None if there is nothing to tell."""
    if not wanted.table and one and other and _are_whole(one, other) and are_same(one, other):
        return None
    try:
        with (
            _sources(name, one, other) as (first, second),
            first.opened() as before,
            second.opened() as after,
            _joint(first.place, second.place, before, after) as joint,
        ):
            found = _Comparison(before, after, joint, wanted).difference(name)
        if note := first.note or second.note:  # of what nobody compares
            wanted.unlike, found = True, replace(found, note=f"{found.note} {note}".strip())
    except Unreadable as problem:
        wanted.unlike = True
        return DatabaseDifference(name, note=f"It could not be read: {problem}.")
    return found if found.schema or found.tables or found.note else None


@dataclass(frozen=True)
class _Source:
    """A database to open; `told` and `note` are of the dump that it was made of, if it was."""

    place: Path | None
    told: tuple[SchemaObject, ...] | None = None
    note: str = ""

    def opened(self) -> contextlib.AbstractContextManager[Database]:
        return opened(self.place, self.told)


@contextlib.contextmanager
def _sources(name: str, one: Path | None, other: Path | None) -> Iterator[tuple[_Source, _Source]]:
    """Both sides of a comparison: of Postgres, made of its dumps."""
    if name != POSTGRES:
        yield _Source(one), _Source(other)
        return
    with contextlib.ExitStack() as stack:
        yield _converted(stack, one), _converted(stack, other)


def _converted(stack: contextlib.ExitStack, dump: Path | None) -> _Source:
    if dump is None:
        return _Source(None, ())
    place, outline = stack.enter_context(converted(dump, rows=True))
    return _Source(place, tuple(outline.schema), outline.note)


def _are_whole(*places: Path) -> bool:
    """Whether all of each is in its file."""
    companions = (place.with_name(place.name + ending) for place in places for ending in COMPANIONS)
    return not any(companion.exists() for companion in companions)


@contextlib.contextmanager
def _joint(
    one: Path | None, other: Path | None, before: Database, after: Database
) -> Iterator[sqlite3.Connection | None]:
    """One connection with both, if they can be in one."""
    if one is None or other is None or before.encoding != after.encoding:
        yield None
        return
    with joined(one, other) as connection:
        yield connection


class _Comparison:
    """Of two databases, by a connection of each, and one that has both, if there is one."""

    def __init__(
        self, before: Database, after: Database, joint: sqlite3.Connection | None, wanted: Wanted
    ) -> None:
        self._before, self._after, self._joint, self._wanted = before, after, joint, wanted
        self._plain = before.encoding == after.encoding == "UTF-8"
        for connection in self._connections:
            connection.create_collation(ORDER, by_text)

    @property
    def _connections(self) -> list[sqlite3.Connection]:
        every = (self._before.connection, self._after.connection, self._joint)
        return [connection for connection in every if connection]

    def difference(self, name: str) -> DatabaseDifference:
        """Raises Unreadable when not even the schema can be read."""
        only = self._wanted.table
        schema = changes(self._before.schema, self._after.schema)
        schema = [_cut(each) for each in schema if only in ("", each.name)] + (
            [] if only else self._settings()
        )
        self._wanted.unlike |= bool(schema)
        names = [each for each in sorted({*self._before.tables, *self._after.tables}) if only in ("", each)]
        found: list[TableDifference] = []
        skipped = 0
        for at, table in enumerate(names):
            if len(found) == MOST_TABLES:
                skipped, self._wanted.unlike = len(names) - at, True
                break
            each = self._virtual(table) or self._table(table)
            found += [each] if each else []
        note = _and_more(len(schema) - MOST_CHANGES, "more changes of the schema")
        note += _and_more(skipped, "more tables, which were not compared")
        return DatabaseDifference(name, tuple(schema[:MOST_CHANGES]), tuple(found), note.strip())

    def _settings(self) -> list[SchemaChange]:
        """Numbers of the app's own in the head of its file: migrations may go by them."""
        found = []
        for name in SETTINGS:
            before, after = (str(each.setting(name)) for each in (self._before, self._after))
            found += [SchemaChange("setting", name, CHANGED, before, after)] if before != after else []
        return found

    def _sides(self, name: str) -> list[Database]:
        return [database for database in (self._before, self._after) if name in database.tables]

    def _virtual(self, name: str) -> TableDifference | None:
        """What is told of one, since its contents are not read by its module; nothing of others."""
        modules = {each.module(name) for each in self._sides(name) if each.kind(name) == "virtual"}
        if not modules:
            return None
        by = readable(" and ".join(sorted(modules)))
        note = f"A virtual table of {by}: not compared, but for the tables in which that keeps its contents."
        return TableDifference(readable(name), None, None, note=note)

    def _table(self, name: str) -> TableDifference | None:
        """None if there is nothing to tell."""
        kinds = {each.kind(name) for each in self._sides(name)}
        note = " ".join(_NOTES[kind] for kind in sorted(kinds) if kind in _NOTES)
        found = TableDifference(readable(name), None, None, note=note)
        try:
            found = self._compared(name, found)
        except Unreadable as problem:
            self._wanted.unlike = True
            return replace(found, note=f"{note} It could not be read: {problem}.".strip())
        differs = found.added or found.removed or found.changed or None in (found.before, found.after)
        self._wanted.unlike |= bool(differs)
        return found if differs or self._wanted.table else None

    def _compared(self, name: str, found: TableDifference) -> TableDifference:
        tables = [each.table(name) if name in each.tables else None for each in (self._before, self._after)]
        counts = [each.count(name) if name in each.tables else None for each in (self._before, self._after)]
        found = replace(found, before=counts[0], after=counts[1])
        if None in counts and not self._wanted.rows:
            return replace(found, added=counts[1] or 0, removed=counts[0] or 0)
        for collation in self._before.collations | self._after.collations:
            for connection in self._connections:
                connection.create_collation(collation, by_text)
        with explained():
            try:
                return self._told(found, tables[0], tables[1], careful=False)
            except (sqlite3.DataError, MemoryError):  # a row that is too large to be read at once
                return self._told(found, tables[0], tables[1], careful=True)

    def _told(
        self, found: TableDifference, before: Table | None, after: Table | None, careful: bool
    ) -> TableDifference:
        for connection in self._connections:
            may_read(connection, LARGEST if careful else ROW)
        joint = self._joint if before and after else None
        one = Side(joint or self._before.connection, "main", before) if before else None
        other = Side(joint or self._after.connection, "other" if joint else "main", after) if after else None
        rows = Rows(one, other, joined=bool(joint), plain=self._plain, careful=careful)
        told, counts = self._collected(rows)
        whole = (
            "It has no primary key: rows are compared whole." if before and after and rows.is_whole else ""
        )
        note = " ".join(each for each in (found.note, whole, _columns_apart(before, after)) if each)
        more = sum(counts.values()) > len(told)
        found = replace(found, added=counts[ADDED], removed=counts[REMOVED], changed=counts[CHANGED])
        return replace(found, rows=tuple(told), more=more, note=note)

    def _collected(self, rows: Rows) -> tuple[list[RowChange], dict[str, int]]:
        """The first rows, and how many of each kind there are."""
        told: list[RowChange] = []
        counts, room = {ADDED: 0, REMOVED: 0, CHANGED: 0}, self._wanted.room
        for found in rows.differences():
            counts[found.change] += 1
            if len(told) < self._wanted.rows and room > 0:
                told.append(_row(rows, found))
                room -= len(json.dumps([told[-1].key, told[-1].before, told[-1].after]))
        self._wanted.room = room
        return told, counts


def _row(rows: Rows, found: Found) -> RowChange:
    before = row_as_json(rows.before, found.before) if found.before else None
    after = row_as_json(rows.after, found.after) if found.after else None
    return RowChange(found.change, row_as_json(rows.key, found.key), before, after)


def _columns_apart(before: Table | None, after: Table | None) -> str:
    """What is to be known of rows that have not the same columns."""
    if not before or not after or set(before.names) == set(after.names):
        return ""
    gone = [readable(name) for name in before.names if name not in after.names]
    new = [readable(name) for name in after.names if name not in before.names]
    parts = [f"{', '.join(names)} {word}" for names, word in ((gone, "gone"), (new, "new")) if names]
    return f"Rows are compared by the columns that both have ({'; '.join(parts)})."


def _cut(change: SchemaChange) -> SchemaChange:
    return replace(change, before=_beginning(change.before), after=_beginning(change.after))


def _beginning(sql: str | None) -> str | None:
    if sql is None or len(sql) <= SQL_SHOWN:
        return sql
    return f"{sql[:SQL_SHOWN]} … ({len(sql)} characters)"


def _and_more(number: int, what: str) -> str:
    return f"There are {number} {what}. " if number > 0 else ""
