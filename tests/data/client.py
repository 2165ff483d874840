"""A process with one connection to a database: it runs SQL that it is sent, a line each, and says when it is done.

Never the test's own process: that reads the files raw, and closing one drops all locks that it has there.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path


class Client:
    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def run(self, *statements: str) -> str:
        """The first row of the last, or what went wrong."""
        assert self._process.stdin
        assert self._process.stdout
        answer = ""
        for statement in statements:
            self._process.stdin.write(f"{statement}\n")
            answer = self._process.stdout.readline().rstrip("\n")
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.2)
    for line in sys.stdin:
        try:
            print(connection.execute(line).fetchone(), flush=True)
        except sqlite3.Error as problem:
            print(f"{type(problem).__name__}: {problem}", flush=True)
