"""Holds read transactions on live databases, and moves their WALs on, one step at a time as it is told.

A read transaction that begins when the WAL is all in the database file takes the read lock 0, and nobody writes that
file while it lasts. One that begins at another moment has a lock from 1 up: nothing is written there that is not
in the WAL of that moment, and the WAL does not begin anew. Each database has three connections: one holds, one is
free to hold next or to checkpoint, and one is the barrier, which keeps writers out for some milliseconds.

SQLite up to 3.51.2 spoils a database when a checkpoint overlaps the commit that begins a WAL anew. So a checkpoint is
made only while that cannot be: while a reader is held, or behind the barrier.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

BUSY_POLL = 0.0005  # seconds between tries for a lock: a busy writer leaves gaps of less than a millisecond
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Answer = dict[str, Any]


class Refused(Exception):
    """A command that cannot be done now. `kind` is one word, for who asked; the text is a sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Database:
    """The connections to one live database. Used by one thread."""

    def __init__(self, path: str, inode: list[int]) -> None:
        """`inode`: device and number of the file that is meant; the path may lead elsewhere by now."""
        self._path = path
        self._connections = [connect(path, inode) for _ in range(3)]
        self._free = self._connections[:2]
        self._held: list[sqlite3.Connection] = []  # oldest first
        self._writer = self._connections[2]
        self._lifted_at: float | None = None  # when the barrier falls by itself

    @property
    def barrier_lasts(self) -> float | None:
        """Seconds until the barrier falls by itself; None if there is none."""
        return None if self._lifted_at is None else max(0.0, self._lifted_at - time.monotonic())

    def mode(self, seconds: float) -> Answer:
        """The journal mode, which it is asked for and never told. Waits `seconds` for who locks it all."""
        found: list[str] = []
        patiently(lambda: found.append(self._writer.execute("PRAGMA journal_mode").fetchone()[0]), seconds)
        return {"mode": found[0]}

    def hold(self, seconds: float) -> Answer:
        """Begin a read transaction, beside the one that there may be. Waits `seconds` for who locks it all."""
        if self._free:  # else it was done before, and what came after was not
            reader = self._free[0]
            reader.execute("BEGIN")
            try:
                # A pragma reads a page and no schema: that is the app's, and may be anything.
                patiently(lambda: reader.execute("PRAGMA user_version").fetchone(), seconds)
            except BaseException:
                reader.execute("ROLLBACK")
                raise
            self._held.append(self._free.pop(0))
        return {"held": len(self._held)}

    def release(self) -> Answer:
        """End the older read transaction."""
        if not self._held:
            raise Refused("order", "Nothing is held.")
        reader = self._held.pop(0)
        reader.execute("ROLLBACK")
        self._free.append(reader)
        return {"held": len(self._held)}

    def checkpoint(self) -> Answer:
        """Write to the database file what may be: without waiting, and without locking anybody out."""
        if not self._free or (not self._held and self._lifted_at is None):
            raise Refused("order", "A checkpoint is made only behind a reader or a barrier.")
        busy, log, checkpointed = self._free[0].execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return {"busy": bool(busy), "log": log, "checkpointed": checkpointed}

    def bar(self, seconds: float, lasts: float) -> Answer:
        """Keep writers out, when the one at work has ended, for `lasts` seconds at most. Waits `seconds` for it."""
        patiently(lambda: self._writer.execute("BEGIN IMMEDIATE"), seconds)
        self._lifted_at = time.monotonic() + lasts
        return {}

    def lift(self) -> Answer:
        """Let writers in again. Nothing happens if there is no barrier."""
        if self._lifted_at is not None:
            self._lifted_at = None
            self._writer.execute("ROLLBACK")
        return {}

    def turn(self, seconds: float | None = None) -> Answer:
        """Behind the barrier: let go, write all there is to the database file, hold again, lift the barrier.

        `seconds`: put up the barrier, too, and wait so long for it. `complete`: all was written, so what is held is
        the read lock 0, and nobody writes that file. If not, somebody else reads at an earlier moment: what is held
        is only that nothing later than the barrier is written. `barred`: seconds that it stood, if it was put up.
        """
        if seconds is not None:
            self.bar(seconds, lasts=0)
        if self._lifted_at is None:
            raise Refused("late", "The barrier has fallen.")
        began = time.monotonic()
        try:
            while self._held:
                self.release()
            done = self._checkpoint_if_can()
            self.hold(0)
        except sqlite3.Error as problem:
            raise Refused("lost", f"It could not be held again: {problem}.") from problem
        finally:
            self.lift()
        is_complete = not done["busy"] and done["log"] == done["checkpointed"]
        return {**done, "complete": is_complete, "barred": time.monotonic() - began}

    def mend(self) -> Answer:
        """Read once: SQLite writes an index anew that was left half-written."""
        if self._lifted_at is None:
            self._writer.execute("PRAGMA user_version").fetchone()
        return {}

    def forget(self) -> Answer:
        """Lock nothing any more. The connections stay: to close the last would remove a WAL by its name."""
        while self._held:
            self.release()
        return self.lift()

    def _checkpoint_if_can(self) -> Answer:
        try:
            return self.checkpoint()
        except sqlite3.Error as problem:  # a full disk: the WAL goes on being what counts
            return {"busy": True, "log": -1, "checkpointed": -1, "why": str(problem)}


class Station(threading.Thread):
    """One database and who does what is asked of it, in the order it is asked. Others need not wait for it."""

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._database: Database | None = None

    def ask(self, command: dict[str, Any]) -> None:
        self._asked.put(command)

    def run(self) -> None:
        while True:
            lasts = self._database.barrier_lasts if self._database else None
            try:
                command = self._asked.get(timeout=lasts)
            except queue.Empty:  # who asked for the barrier hangs, or is gone: its app must not wait for that
                assert self._database
                self._database.lift()
                continue
            self._answer({"id": command["id"], **self._done(command)})

    def _done(self, command: dict[str, Any]) -> Answer:
        try:
            return self._do(**{name: value for name, value in command.items() if name not in ("id", "key")})
        except Refused as problem:
            return {"error": problem.kind, "why": str(problem)}
        except sqlite3.Error as problem:
            return {"error": kind_of(problem), "why": str(problem)}
        except TypeError as problem:  # other arguments than it takes
            return {"error": "order", "why": str(problem)}

    def _do(self, do: str, **arguments: Any) -> Answer:
        if do == "copy":
            return copy(**arguments)
        if do == "open":
            seconds = arguments.pop("seconds")
            self._database = Database(**arguments)
            return self._database.mode(seconds)
        if self._database is None:
            raise Refused("order", "No database is open.")
        if do not in STEPS:
            raise Refused("order", f"There is no command {do!r}.")
        answer: Answer = getattr(self._database, do)(**arguments)
        return answer


STEPS = ("mode", "hold", "release", "checkpoint", "bar", "lift", "turn", "mend", "forget")


def copy(path: str, inode: list[int], target: str, seconds: float) -> Answer:
    """A copy by SQLite of a database that is in no WAL mode; its writers wait meanwhile. Not synced.

    Its connection may be closed: SQLite itself keeps in mind what locks others of this process have on the file,
    and one that has no WAL removes none.
    """
    origin = connect(path, inode)
    origin.execute("BEGIN")
    patiently(lambda: origin.execute("PRAGMA user_version").fetchone(), seconds)
    if origin.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        origin.execute("ROLLBACK")
        raise Refused("mode", "It is in WAL mode.")
    made = sqlite3.connect(f"file:{quote(target)}?mode=rwc", uri=True, isolation_level=None)
    made.execute("PRAGMA journal_mode=OFF")  # only of use to a copy that is worth keeping half-made
    made.execute("PRAGMA synchronous=OFF")
    try:
        origin.backup(made, pages=-1)
    finally:
        made.close()
    origin.execute("ROLLBACK")
    _kept.remove(origin)
    origin.close()
    return {}


_kept: list[sqlite3.Connection] = []  # so that none is closed because nobody refers to it any more


def connect(path: str, inode: list[int]) -> sqlite3.Connection:
    """A connection to that very file, which has read and locked nothing yet."""
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
    )
    _kept.append(connection)
    if inode not in opened():
        raise Refused("gone", "It became another file.")
    for setting in (
        "trusted_schema=OFF",
        "wal_autocheckpoint=0",
    ):  # none that reads the file, or waits for a lock
        connection.execute(f"PRAGMA {setting}")
    if configure := getattr(connection, "setconfig", None):  # Python 3.12
        configure(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)  # type: ignore[attr-defined,unused-ignore]
    return connection


def opened() -> list[list[int]]:
    """Device and number of each file that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        try:
            facts = os.stat(f"/proc/self/fd/{name}")  # noqa: PTH116
        except OSError:  # it was the one of the listing itself
            continue
        found.append([facts.st_dev, facts.st_ino])
    return found


def patiently(ask: Callable[[], Any], seconds: float) -> None:
    """Do it when its lock is free, or raise when that takes more than `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(BUSY_POLL)


def kind_of(problem: sqlite3.Error) -> str:
    primary = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    if primary in _BUSY:
        return "busy"
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "damaged"
    if primary == sqlite3.SQLITE_FULL:
        return "full"
    return "gone" if primary == sqlite3.SQLITE_CANTOPEN else "other"


def main() -> None:
    """Serve until stdin ends; then be gone without closing anything."""
    stations: dict[str, Station] = {}
    lock = threading.Lock()

    def answer(line: Answer) -> None:
        with lock:
            try:
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            except OSError:
                os._exit(0)

    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "ping":  # told in order with all that was answered before
            answer({"id": command["id"]})
            continue
        key = command["key"]
        if key not in stations:
            stations[key] = Station(answer)
            stations[key].start()
        stations[key].ask(command)


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)
