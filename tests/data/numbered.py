"""An app whose every commit has a number, so that a copy of its database can be told to be right or wrong.

`python -m tests.data.numbered DATABASE LEDGER` writes until it is ended. A commit changes some cells, and adds one
row to a log: its number, and a hash of the log before and of all cells after. LEDGER is a file beside the database,
shared by all its writers, where a commit's hash stands before it is made, and in the writer's own slot which number
was tried and which has succeeded. A right copy has the log up to a number, its hashes as in the ledger, and just
those cells.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

SLOTS, SLOT, HASH = 64, struct.Struct("<QQ"), 16  # tried and succeeded of each writer; bytes of a hash
CELLS = 200
LOG = 300  # the last rows of the log, which are there
TABLES = """
CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, cells BLOB, hash BLOB);
CREATE TABLE IF NOT EXISTS cells (id INTEGER PRIMARY KEY, content BLOB);
"""


class Ledger:
    """What the writers of one database have done, as seen from outside."""

    def __init__(self, place: Path) -> None:
        self._file = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        os.close(self._file)

    def tries(self, slot: int, number: int, content: bytes) -> None:
        os.pwrite(self._file, content, SLOTS * SLOT.size + number * HASH)
        os.pwrite(self._file, struct.pack("<Q", number), slot * SLOT.size)

    def succeeded(self, slot: int, number: int) -> None:
        os.pwrite(self._file, struct.pack("<Q", number), slot * SLOT.size + 8)

    def tried(self) -> int:
        """The highest number that a copy may have that is made now."""
        return max(tried for tried, _ in self._slots())

    def done(self) -> int:
        """The lowest number that a copy may have that is made from now on."""
        return max(done for _, done in self._slots())

    def hash(self, number: int) -> bytes:
        return os.pread(self._file, HASH, SLOTS * SLOT.size + number * HASH)

    def _slots(self) -> list[tuple[int, int]]:
        data = os.pread(self._file, SLOTS * SLOT.size, 0).ljust(SLOTS * SLOT.size, b"\0")
        return list(SLOT.iter_unpack(data))


def digest(*parts: bytes) -> bytes:
    made = hashlib.blake2b(digest_size=HASH)
    for part in parts:
        made.update(part)
    return made.digest()


def mixed(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def of_cell(number: int, content: bytes) -> bytes:
    return digest(str(number).encode(), b" ", content)


def write(database: Path, ledger: Ledger, options: argparse.Namespace) -> None:
    chance, commits = random.Random(options.seed), 0
    while options.commits is None or commits < options.commits:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            if options.page_size:
                connection.execute(f"PRAGMA page_size={options.page_size}")
            connection.execute(f"PRAGMA journal_mode={options.mode}")
            connection.execute(f"PRAGMA synchronous={options.synchronous}")
            if options.autocheckpoint is not None:
                connection.execute(f"PRAGMA wal_autocheckpoint={options.autocheckpoint}")
            connection.executescript(TABLES)
            for _ in range(options.reopen):
                commit(connection, ledger, options, chance)
                commits += 1
                time.sleep(options.pause)
                if options.vacuum and commits % options.vacuum == 0:
                    connection.execute("VACUUM")
                if options.commits is not None and commits >= options.commits:
                    break


def commit(
    connection: sqlite3.Connection, ledger: Ledger, options: argparse.Namespace, chance: random.Random
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    last = connection.execute("SELECT number, cells, hash FROM log ORDER BY number DESC LIMIT 1").fetchone()
    number, cells, before = last or (0, bytes(HASH), bytes(HASH))
    for cell in chance.sample(range(CELLS), chance.randint(1, options.cells)):
        old = connection.execute("SELECT content FROM cells WHERE id = ?", (cell,)).fetchone()
        if old:
            cells = mixed(cells, of_cell(cell, old[0]))
        if old and chance.random() < 0.2:
            connection.execute("DELETE FROM cells WHERE id = ?", (cell,))
            continue
        content = chance.randbytes(chance.randint(1, options.size))
        cells = mixed(cells, of_cell(cell, content))
        connection.execute("INSERT OR REPLACE INTO cells VALUES (?, ?)", (cell, content))
    number += 1
    after = digest(before, cells, str(number).encode())
    connection.execute("INSERT INTO log VALUES (?, ?, ?)", (number, cells, after))
    connection.execute("DELETE FROM log WHERE number <= ?", (number - LOG,))
    ledger.tries(options.slot, number, after)
    connection.execute("COMMIT")
    ledger.succeeded(options.slot, number)


def wrong(image: Path, ledger: Ledger, least: int, most: int) -> str:
    """What is wrong with a copy, which must have a commit from `least` to `most` as its last; "" if nothing is."""
    with closing(sqlite3.connect(image)) as connection:
        try:
            log = connection.execute("SELECT number, cells, hash FROM log ORDER BY number").fetchall()
            cells = connection.execute("SELECT id, content FROM cells").fetchall()
        except sqlite3.Error as problem:
            return "" if least == 0 and "no such table" in str(problem) else f"cannot be read: {problem}"
        checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if checked != "ok":
        return f"is damaged: {checked}"
    last = log[-1][0] if log else 0
    if [number for number, _, _ in log] != [*range(max(1, last - LOG + 1), last + 1)]:
        return f"has {len(log)} rows of the log up to {last}"
    if not least <= last <= most:
        return f"has {last} commits, and must have {least} to {most}"
    before = log[0][2] if log else b""
    for number, mixture, after in log[1:]:
        if digest(before, mixture, str(number).encode()) != after or after != ledger.hash(number):
            return f"has another commit {number} than was made"
        before = after
    mixture = bytes(HASH)
    for cell, content in cells:
        mixture = mixed(mixture, of_cell(cell, content))
    if log and mixture != log[-1][1]:
        return f"has other cells than commit {last} left"
    return ""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("database", type=Path)
    made.add_argument("ledger", type=Path)
    made.add_argument("--slot", type=int, default=0)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--mode", default="wal")
    made.add_argument("--page-size", type=int)
    made.add_argument("--synchronous", default="NORMAL")
    made.add_argument("--autocheckpoint", type=int)
    made.add_argument("--cells", type=int, default=5, help="that a commit changes at most")
    made.add_argument("--size", type=int, default=3000, help="bytes of a cell at most")
    made.add_argument("--reopen", type=int, default=10**9, help="commits by one connection")
    made.add_argument("--vacuum", type=int, default=0, help="commits between")
    made.add_argument("--commits", type=int)
    made.add_argument("--pause", type=float, default=0.002, help="seconds between commits")
    return made


if __name__ == "__main__":
    given = parser().parse_args()
    write(given.database, Ledger(given.ledger), given)
