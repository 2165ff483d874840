"""The schema and the sizes of a version's data. See `tasks.summary`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lazycloud.data.files import COMPANIONS
from lazycloud.data.tools.contents import POSTGRES, contents, size
from lazycloud.data.tools.database import Database, Unreadable, explained, opened
from lazycloud.data.tools.dumps import Outline, converted
from lazycloud.data.tools.shapes import Column, DatabaseSummary, Summary, TableSummary
from lazycloud.data.tools.values import readable

_NOT_COUNTED = "A virtual table of {}: its rows are not counted."


def sum_up(folder: Path, rows: bool, sizes: bool) -> Summary:
    """Of a version's folder. `rows`: they are counted; `sizes`: bytes of each table, for which all is read."""
    found = contents(folder)
    databases = tuple(_database(name, place, rows, sizes) for name, place in sorted(found.databases.items()))
    return Summary(databases, len(found.files), sum(map(size, found.files.values())))


def _database(name: str, place: Path, rows: bool, sizes: bool) -> DatabaseSummary:
    found = DatabaseSummary(name, _bytes(place), "", 0, (), ())
    try:
        if name == POSTGRES:
            with converted(place, rows) as (copy, outline), opened(copy, tuple(outline.schema)) as database:
                tables = tuple(_table(database, table, rows, None) for table in database.tables)
                return replace(found, tables=tables or tuple(_told(outline)), schema=database.schema)
        with opened(place) as database:
            return _summed(found, database, rows, sizes)
    except Unreadable as problem:
        return DatabaseSummary(name, found.bytes, "", 0, (), (), f"It could not be read: {problem}.")


def _summed(found: DatabaseSummary, database: Database, rows: bool, sizes: bool) -> DatabaseSummary:
    taken = _table_bytes(database) if sizes else {}
    tables = tuple(_table(database, name, rows, taken.get(name)) for name in database.tables)
    with explained():
        (mode,) = database.connection.execute("PRAGMA journal_mode").fetchone()
        (version,) = database.connection.execute("PRAGMA user_version").fetchone()
    return DatabaseSummary(found.name, found.bytes, mode, version, tables, database.schema)


def _table(database: Database, name: str, rows: bool, taken: int | None) -> TableSummary:
    kind, note, number = database.kind(name), "", None
    columns: tuple[Column, ...] = ()
    sql = readable(next(one.sql for one in database.objects[name] if one.kind == "table"))
    if kind == "virtual":
        note = _NOT_COUNTED.format(readable(database.module(name)))
    else:
        try:
            columns = database.table(name).columns
            number = database.count(name) if rows else None
        except Unreadable as problem:
            note = f"It could not be read: {problem}."
    return TableSummary(readable(name), kind, sql, columns, number, taken, note)


def _told(outline: Outline) -> Iterator[TableSummary]:
    """The tables of a dump that has no rows."""
    statements = {one.name: one.sql for one in outline.schema if one.kind in ("table", "foreign table")}
    for name, columns in sorted(outline.columns.items()):
        yield TableSummary(readable(name), "table", readable(statements.get(name, "")), columns, None, None)


def _table_bytes(database: Database) -> dict[str, int]:
    """With its indexes; nothing where this SQLite was built without dbstat, or cannot follow the pages."""
    found: dict[str, int] = {}
    with contextlib.suppress(Unreadable), explained():
        owners = dict(database.connection.execute("SELECT name, tbl_name FROM sqlite_master"))
        for name, size in database.connection.execute(
            "SELECT name, pgsize FROM dbstat WHERE aggregate = TRUE"
        ):
            owner = owners.get(name, name)
            found[owner] = found.get(owner, 0) + size
        return found
    return {}


def _bytes(place: Path) -> int:
    every = [place, *(place.with_name(place.name + ending) for ending in COMPANIONS)]
    return sum(size(one) for one in every if one.exists())
