"""Folders as a version's, made by statements."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any


def version(place: Path, *statements: str, database: str = "database.sqlite") -> Path:
    """The folder of a version whose database those statements made; more may be added to one that is there."""
    (place / "files").mkdir(parents=True, exist_ok=True)
    path = place / database
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)
    return place


def insert(
    place: Path, table: str, rows: Sequence[Sequence[object]], database: str = "database.sqlite"
) -> None:
    marks = ", ".join("?" * len(rows[0]))
    with closing(sqlite3.connect(place / database)) as connection:
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()


def contents(place: Path, name: str = "database.sqlite") -> dict[str, Any]:
    """All that a database holds but rowids that are no key: texts as their bytes, each value with its type."""
    with closing(sqlite3.connect(place / name)) as connection:
        connection.text_factory = bytes
        ask = connection.execute
        found: dict[str, Any] = {
            pragma: ask(f"PRAGMA {pragma}").fetchone() for pragma in ("user_version", "application_id")
        }
        found["schema"] = ask("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
        for (table,) in ask(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        ).fetchall():
            names = [
                quoted(column[0]) for column in ask(f"SELECT * FROM {quoted(table.decode())}").description
            ]
            values = ", ".join(f"typeof({name}), {name}" for name in names)
            found[table.decode()] = sorted(ask(f"SELECT {values} FROM {quoted(table.decode())}"), key=repr)
        return found


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
