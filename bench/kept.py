"""Databases to measure on: apps that have them open, and the file systems that they are on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from source import disk
from trials import Trials

# What it is told in JSON it runs, and says how many seconds it took for each.
_APP = """
import json, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for line in sys.stdin:
    sql, values, times, pause = json.loads(line)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        connection.execute(sql, values).fetchall()
        took.append(time.perf_counter() - began)
        if pause:
            time.sleep(pause)
    print(json.dumps(took), flush=True)
"""


@dataclass
class Kept(Trials):
    """Trials with databases of `sizes` (MB), in a folder and on file systems that are made in files there."""

    sizes: Sequence[int] = (10, 1000)
    folder: Path | None = None
    disks: Sequence[str] = field(default_factory=list)

    @contextlib.contextmanager
    def places(self) -> Iterator[Iterator[tuple[str, Path]]]:
        """The folder first, then one on each file system; each has its name, and is gone when the next one comes."""
        with tempfile.TemporaryDirectory(
            prefix="bench-", dir=self.folder, ignore_cleanup_errors=True
        ) as name:
            yield self._places(Path(name))

    def _places(self, home: Path) -> Iterator[tuple[str, Path]]:
        for kind in ("", *(self.disks if os.geteuid() == 0 else ())):
            with disk(home, kind) as place:
                yield kind or _kind(place), place


class App:
    """A process that has a database open in WAL mode, which it never checkpoints by itself."""

    def __init__(self, place: Path, *settings: str) -> None:
        self.place = place
        self._process = subprocess.Popen(
            [sys.executable, "-c", _APP, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for setting in (*settings, "journal_mode=WAL", "wal_autocheckpoint=0"):
            self.run(f"PRAGMA {setting}")

    def run(self, sql: str, *values: Any, times: int = 1, pause: float = 0.0) -> list[float]:
        """One statement, several times, with some seconds between; seconds of each."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([sql, values, times, pause]) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def fill(self, megabytes: int) -> None:
        """A table of rows that are not empty, so that no copy is cheap by chance; all of it in the base."""
        self.run("CREATE TABLE bulk (id INTEGER PRIMARY KEY, content BLOB)")
        left = megabytes
        while left > 0:
            some = min(left, 20)
            self.run(
                "INSERT INTO bulk (content) WITH n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT ?)"
                " SELECT randomblob(3900) FROM n",
                some * 250,
            )
            self.run("PRAGMA wal_checkpoint(TRUNCATE)")
            left -= some
        self.run("CREATE TABLE events (id INTEGER PRIMARY KEY, text TEXT)")
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@contextlib.contextmanager
def timed() -> Iterator[dict[str, float]]:
    values: dict[str, float] = {}
    began = time.perf_counter()
    yield values
    values["seconds"] = time.perf_counter() - began


def _kind(place: Path) -> str:
    asked = ["stat", "--file-system", "--format=%T", place]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    return "ext4" if said == "ext2/ext3" else said  # the three have one number
