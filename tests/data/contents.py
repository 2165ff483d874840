"""Looking into versions, and writing to them as an app does."""

import sqlite3
from contextlib import closing
from pathlib import Path

from lazycloud.data.versions import Versions
from tests.waiting import PATIENCE

COMMIT = "3f2a9c1d0b" + "0" * 30
OTHER = "a" * 40


def database(versions: Versions, version: str) -> Path:
    return Path(versions.environment(version)["DATABASE_URL"].removeprefix("sqlite:///"))


def files(versions: Versions, version: str) -> Path:
    return Path(versions.environment(version)["DATA_DIR"])


def write_rows(versions: Versions, version: str, *texts: str) -> None:
    with closing(sqlite3.connect(database(versions, version), timeout=PATIENCE)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])
        connection.commit()


def write_bulk(place: Path, size: int) -> None:
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # else the bulk would be in the WAL once more
        connection.execute(f"CREATE TABLE bulk AS SELECT zeroblob({size}) AS data")
        connection.commit()


def rows(versions: Versions, version: str) -> list[str]:
    with closing(sqlite3.connect(database(versions, version))) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def leftovers(versions: Versions) -> list[Path]:
    """What is half-made or half-dropped; nothing when it changes under our eyes."""
    try:
        return list(database(versions, "production").parent.parent.rglob(".*ing-*"))
    except FileNotFoundError:
        return []
