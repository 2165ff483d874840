"""An app with an SQLite database in a process of its own: `App(place)` runs it, and it runs what it is told.

Who reads a database's files raw must not have it open by SQLite in the same process.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from lazycloud.data import wal
from lazycloud.data.fingerprint import fingerprint

Statement = tuple[str, list[Any]]


class App:
    """It has `place` open in WAL mode, and the files of it are open here: `base`, `wal`, `shm` are descriptors."""

    def __init__(self, place: Path, page_size: int = 4096, autocheckpoint: int = 0, more: str = "") -> None:
        self.place = place
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.run(f"PRAGMA page_size={page_size}")
        self.run("PRAGMA journal_mode=WAL")
        self.run(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
        if more:
            self.run(more)
        self.run("SELECT count(*) FROM sqlite_master")
        self.base = os.open(place, os.O_RDONLY)
        self.wal = os.open(f"{place}-wal", os.O_RDONLY)
        self.shm = os.open(f"{place}-shm", os.O_RDONLY)

    def run(self, sql: str, *values: Any) -> list[list[Any]]:
        """One statement, by itself or in the transaction that was begun."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([sql, values]) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        assert isinstance(said, list), said
        return said

    def commit(self, statements: Sequence[Statement]) -> wal.Mark:
        """In one transaction; where the database is then."""
        self.run("BEGIN IMMEDIATE")
        for sql, values in statements:
            self.run(sql, *values)
        self.run("COMMIT")
        return wal.state(self.shm).mark

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        for descriptor in (self.base, self.wal, self.shm):
            os.close(descriptor)


class Model:
    """The same statements in memory, and the fingerprint after each commit."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None)

    def commit(self, statements: Sequence[Statement]) -> str:
        for sql, values in statements:
            self._database.execute(sql, values)
        return fingerprint(self._database, rowids=True)

    def close(self) -> None:
        self._database.close()


@contextmanager
def modelled() -> Iterator[Model]:
    with closing(Model()) as model:
        yield model


def commits(seed: int, count: int) -> Iterator[list[Statement]]:
    """What an app does, at random but the same for a seed; commit n leaves `n` in `said`."""
    chance = random.Random(seed)
    yield [
        ("CREATE TABLE said (id INTEGER PRIMARY KEY, number INTEGER)", []),
        ("INSERT INTO said VALUES (1, 0)", []),
        ("CREATE TABLE notes (text, length INTEGER)", []),
        ("CREATE TABLE pairs (a TEXT, b TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID", []),
        ("CREATE INDEX lengths ON notes (length)", []),
    ]
    for number in range(1, count):
        yield [
            ("UPDATE said SET number = ? WHERE id = 1", [number]),
            *(_one(chance, number) for _ in range(chance.randint(1, 4))),
        ]


def _one(chance: random.Random, number: int) -> Statement:
    kind = chance.randrange(10)
    if kind < 4:
        text = chance.choice("abcdefg") * chance.choice((3, 30, 300, 3000, 30000))
        return "INSERT INTO notes VALUES (?, ?)", [text, len(text)]
    if kind < 6:
        return "INSERT OR REPLACE INTO pairs VALUES (?, ?)", [str(chance.random()), "b" * chance.randrange(9)]
    if kind < 8:
        return "DELETE FROM notes WHERE rowid % ? = 0", [chance.randint(2, 9)]
    if kind < 9:
        return "UPDATE notes SET text = text || ?", [str(number)]
    return f"CREATE TABLE IF NOT EXISTS t{number} AS SELECT * FROM notes LIMIT 3", []


def contents(place: Path) -> str:
    """The fingerprint of a database that nobody else has open."""
    with closing(sqlite3.connect(place)) as connection:
        return fingerprint(connection, rowids=True)


def writing(place: str, seed: int, count: int) -> None:
    """All those commits, as fast as they go."""
    connection = sqlite3.connect(place, isolation_level=None, timeout=30)
    connection.execute("PRAGMA wal_autocheckpoint=200")
    for statements in commits(seed, count):
        connection.execute("BEGIN IMMEDIATE")
        for sql, values in statements:
            connection.execute(sql, values)
        connection.execute("COMMIT")


def _serve(place: str) -> None:
    connection = sqlite3.connect(place, isolation_level=None, timeout=30)
    for line in sys.stdin:
        sql, values = json.loads(line)
        try:
            said: object = connection.execute(sql, values).fetchall()
        except sqlite3.Error as problem:
            said = str(problem)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
