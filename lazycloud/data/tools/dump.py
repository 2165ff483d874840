"""A database as SQL, as `sqlite3 FILE .dump` writes it, but whole: what that loses is written in another way.

Texts with a NUL, or that are no UTF-8, are CAST from their bytes; user_version and application_id are set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from lazycloud.data.tools.database import SETTINGS, Database, explained
from lazycloud.data.tools.shapes import SchemaObject
from lazycloud.data.tools.sql import quoted

_SEQUENCE, _STATISTICS = "sqlite_sequence", "sqlite_stat1"


def statements(database: Database) -> Iterator[str]:
    """In an order in which they can be run. Raises Unreadable, or sqlite3's errors."""
    yield "PRAGMA foreign_keys=OFF;"
    yield "BEGIN TRANSACTION;"
    for setting in SETTINGS:
        if number := database.setting(setting):
            yield f"PRAGMA {setting}={number};"
    yield from _tables(database)
    for one in _others(database):
        yield _ended(one.sql)
    yield "COMMIT;"


def _tables(database: Database) -> Iterator[str]:
    """Virtual tables last: when what keeps their contents is there, they are only named."""
    names = [name for name in database.tables if database.kind(name) != "virtual"]
    internal = [name for name in names if database.kind(name) == "internal"]
    for name in names:
        if name not in internal:
            yield _ended(_sql(database, name))
            yield from _rows(database, name)
    for name in internal:
        if name == _SEQUENCE:
            yield f"DELETE FROM {_SEQUENCE};"  # noqa: S608
            yield from _rows(database, name)
    virtual = [name for name in database.tables if database.kind(name) == "virtual"]
    yield from ["PRAGMA writable_schema=ON;"] if virtual else []
    for name in virtual:
        values = f"'table',{literal(name)},{literal(name)},0,{literal(_sql(database, name))}"
        yield f"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES({values});"
    yield from ["PRAGMA writable_schema=OFF;"] if virtual else []
    if _STATISTICS in internal:
        yield "ANALYZE sqlite_schema;"
        yield f"DELETE FROM {_STATISTICS};"  # noqa: S608
        yield from _rows(database, _STATISTICS)


def _sql(database: Database, table: str) -> str:
    (sql,) = (one.sql for one in database.objects[table] if one.kind == "table")
    return sql


def _ended(sql: str) -> str:
    """It may end with a comment."""
    return f"{sql};" if "\0" not in sql and sqlite3.complete_statement(f"{sql};") else f"{sql}\n;"


def _rows(database: Database, name: str) -> Iterator[str]:
    table = database.table(name)
    with explained():
        names = ", ".join(map(quoted, table.names))
        rows = database.connection.execute(f"SELECT {names} FROM {quoted(name)} NOT INDEXED")  # noqa: S608
        begins = f"INSERT INTO {quoted(name)}({names}) VALUES("
        for row in rows:
            yield f"{begins}{','.join(map(literal, row))});"


def _others(database: Database) -> list[SchemaObject]:
    """Indexes, triggers and views, after all rows: a trigger must not see those come."""
    every = [one for objects in database.objects.values() for one in objects]
    return [one for kind in ("index", "view", "trigger") for one in every if one.kind == kind and one.sql]


def literal(value: Any) -> str:
    """A value of SQLite as SQL has it."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"X'{value.hex()}'"
        case str():
            return _text(value)
        case float():
            return "9e999" if value == float("inf") else "-9e999" if value == float("-inf") else repr(value)
        case _:
            return str(value)


def _text(value: str) -> str:
    if "\0" in value or any("\udc80" <= letter <= "\udcff" for letter in value if not letter.isascii()):
        return f"CAST(X'{value.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    return "'" + value.replace("'", "''") + "'"
