"""Folders as a version's, made by statements."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path


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
