"""A consistent copy of one SQLite database while its app goes on writing.

Closing any descriptor on a database drops all POSIX locks that the process holds on it, SQLite's own included.
So whoever calls this must not have the same database open in another thread; `Versions` copies in one thread,
and nothing else of control opens them. What is opened raw is closed before SQLite opens, or after it has closed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lazycloud.errors import StepFailed

MAGIC = b"SQLite format 3\0"
COMPANIONS = ("-wal", "-shm", "-journal")

# Seconds. SQLite's own waiting sleeps up to 0.1 s, and misses the gaps that a busy writer in DELETE mode leaves.
BUSY_POLL = 0.002
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_database(descriptor: int) -> bool:
    """Whether an open file begins as an SQLite database does. False for what is no regular file."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return regular and os.pread(descriptor, len(MAGIC), 0) == MAGIC


def create(place: Path) -> None:
    """An empty database in WAL mode: the mode is kept in the file, so the app has it with any driver."""
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as connection:
        _use_wal(connection)


def copy(source: Path, itself: int, target: Path, patience: float, use_wal: bool) -> None:
    """Copy a live database to a file that is not there yet: complete by itself, and in WAL mode if asked to.

    `itself` is a descriptor of it, since SQLite only takes a path, which the app may lead elsewhere meanwhile.

    A writer in WAL mode is never blocked; in another mode its commits wait for as long as the copy takes. Waits
    `patience` seconds for a lock. Raises StepFailed for a database that stays locked or is broken, OSError
    for a full disk or a source that is gone. `target` is not synced.
    """
    try:
        with (
            _reading(source, itself, patience) as origin,
            contextlib.closing(_connect(target, "rwc")) as made,
        ):
            # A journal would only be of use to a copy that is worth keeping half-made, and none is.
            made.execute("PRAGMA journal_mode=OFF")
            made.execute("PRAGMA synchronous=OFF")
            origin.backup(made, pages=-1)
        if use_wal:
            with contextlib.closing(_connect(target, "rw")) as made:
                _use_wal(made)
    except sqlite3.Error as problem:
        raise _explained(problem, source, target) from problem


@contextlib.contextmanager
def _reading(source: Path, itself: int, patience: float) -> Iterator[sqlite3.Connection]:
    """A connection that holds a read transaction.

    Begun before the backup, since Python's `backup` tries for ever on a lock, whatever the timeout is.
    """
    with contextlib.closing(_connect(source, "rw")) as connection:
        _demand_opened(itself, source)  # nothing was read yet, nor locked
        connection.execute("BEGIN")
        deadline = time.monotonic() + patience
        while not _has_read_lock(connection, is_last_try=time.monotonic() >= deadline):
            time.sleep(BUSY_POLL)
        yield connection
        connection.rollback()


def _demand_opened(itself: int, source: Path) -> None:
    """Raises StepFailed unless SQLite, too, has that file open. Nobody else of this process has."""
    facts, found = os.fstat(itself), 0
    for open_one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by another thread meanwhile
            found += os.path.samestat(os.fstat(int(open_one.name)), facts)
    if found < 2:
        raise StepFailed(
            f"The database {source.name} became another file while it was to be copied.",
            "Try again when its app leaves it in its place.",
        )


def _has_read_lock(connection: sqlite3.Connection, is_last_try: bool) -> bool:
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as problem:
        if is_last_try or problem.sqlite_errorcode & 0xFF not in _BUSY:
            raise
        return False
    return True


def _connect(place: Path, mode: str) -> sqlite3.Connection:
    """`rw` for a source too: a database whose app crashed is rolled back, or its WAL read, by its next reader."""
    uri = f"file:{quote(str(place))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)


def _use_wal(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StepFailed(
            f"The file system of the data cannot hold an SQLite database in WAL mode (it is in {mode} mode).",
            "Use a local file system for lazycloud's home folder, not a network one.",
        )


def _explained(problem: sqlite3.Error, source: Path, target: Path) -> Exception:
    """What SQLite met, as what a person can act on."""
    primary = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
    if primary in _BUSY:
        return StepFailed(
            f"The database {source.name} is locked by its app, and cannot be copied.",
            "Let the app keep its transactions short, and open the database without"
            " `PRAGMA locking_mode=EXCLUSIVE`; or stop it, and try again.",
        )
    if primary == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    if primary == sqlite3.SQLITE_CANTOPEN and not source.exists():
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StepFailed(
            f"The database {source.name} is damaged, or none: {problem}.",
            "Look at it with `sqlite3 FILE 'PRAGMA integrity_check'`, or restore it.",
        )
    return StepFailed(f"The database {source.name} could not be copied: {problem}.")
