"""A version's data as one file. See `tasks.export`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lazycloud.data.tools.contents import (
    DUMP,
    DUMPED,
    POSTGRES,
    SQLITE,
    TAR,
    contents,
    is_database,
    is_dump,
    is_empty,
    size,
    stays,
)
from lazycloud.data.tools.database import LARGEST, Unreadable, explained, may_read, may_write, opened
from lazycloud.data.tools.dump import statements
from lazycloud.data.tools.dumps import write_sql
from lazycloud.data.tools.shapes import MAIN
from lazycloud.errors import DiskFull, StepFailed

_WAL = "wal"


def export(folder: Path, target: Path, kind: str, scratch: Path) -> str:
    """Write it; what is to be told of it, or "". `scratch` is an empty folder on a disk with room for the data.

    Raises StepFailed for what cannot be read, DiskFull.
    """
    with _room(target):
        if kind == TAR:
            return _tar(folder, target, scratch)
        if is_dump(folder / DUMP) and kind != SQLITE:
            _of_postgres(folder / DUMP, target, kind)
            return _files_left_out(folder)
        note = _whole(folder / MAIN, target) if kind == SQLITE else _sql(folder / MAIN, target)
        return " ".join(each for each in (note, _left_out(folder)) if each)


def _of_postgres(dump: Path, target: Path, kind: str) -> None:
    """As it is, or as text."""
    if kind == DUMPED:
        shutil.copyfile(dump, target)
        return
    try:
        write_sql(dump, target)
    except Unreadable as problem:
        raise StepFailed(f"The dump of Postgres cannot be made SQL: {problem}.") from problem


@contextlib.contextmanager
def _room(target: Path) -> Iterator[None]:
    """A full disk, and a file that grows beyond what the task may write, are one error."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFull(f"There is no room for {target.name}: {problem.strerror}.") from problem


def _left_out(folder: Path) -> str:
    in_postgres = "Its Postgres database is not in it: `tar` has a dump of it."
    return " ".join(filter(None, [_files_left_out(folder), in_postgres if is_dump(folder / DUMP) else ""]))


def _files_left_out(folder: Path) -> str:
    found = contents(folder)
    others = len(found.files) + len([name for name in found.databases if name not in (MAIN, POSTGRES)])
    count = "1 file of DATA_DIR is" if others == 1 else f"{others} files of DATA_DIR are"
    return f"{count} not in it: `tar` has all." if others else ""


def _whole(source: Path, target: Path) -> str:
    """A database as one file, without free pages; as it is where that cannot be had."""
    with _readable(source), opened(_present(source)) as database:
        may_read(database.connection, LARGEST)
        mode = database.connection.execute("PRAGMA journal_mode").fetchone()[0]
        note = ""
        try:
            with may_write(database.connection):
                database.connection.execute("VACUUM INTO ?", (str(target),))
        except sqlite3.OperationalError as problem:
            _demand_room(problem)
            target.unlink(missing_ok=True)
            note = f"It is not compacted: {problem}."
            with contextlib.closing(sqlite3.connect(target)) as copy:
                database.connection.backup(copy)
        _finish(target, mode)
        return note


def _finish(target: Path, mode: str) -> None:
    """One file, in the mode that the database had: that of WAL is kept in its file."""
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute(f"PRAGMA journal_mode={_WAL if mode == _WAL else 'DELETE'}")
        copy.execute(
            "PRAGMA user_version=0" if not size(target) else "SELECT 1"
        )  # an empty one has a first page, too


def _sql(source: Path, target: Path) -> str:
    with _readable(source), opened(_present(source)) as database, target.open("wb") as file:
        may_read(database.connection, LARGEST)
        for statement in statements(database):
            file.write(statement.encode("utf-8", "surrogateescape") + b"\n")
    return ""


def _present(source: Path) -> Path | None:
    """None is an empty database."""
    if is_database(source):
        return source
    if os.path.lexists(source) and not is_empty(source):
        raise StepFailed(f"{source.name} is no SQLite database, and cannot be exported as one.")
    return None


@contextlib.contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        with explained():
            yield
    except Unreadable as problem:
        _demand_room(problem.__cause__)
        raise StepFailed(
            f"The database {source.name} cannot be exported: {problem}.",
            "Look at it with `sqlite3 FILE 'PRAGMA integrity_check'`, or take a snapshot that is sound.",
        ) from problem


def _demand_room(problem: BaseException | None) -> None:
    if getattr(problem, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from problem


def _tar(folder: Path, target: Path, scratch: Path) -> str:
    """Databases are whole in it, so what lies beside them is not. Links that lead out of DATA_DIR are left out."""
    found, notes = contents(folder), []
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        if dump := found.databases.pop(POSTGRES, None):
            _add(tar, dump, DUMP)
        if MAIN not in found.databases:
            found.files.pop(MAIN, None)
            found.databases[MAIN] = folder / MAIN
        for place in sorted(found.databases.values()):
            copy = scratch / "database"
            note = _whole(place, copy)
            notes += [f"{place.name}: {note}"] if note else []
            _add(tar, copy, str(place.relative_to(folder)))
            copy.unlink()
        for place in sorted(found.files.values()):
            if place.is_symlink() and not stays(place, folder / "files"):
                notes.append(f"{place.name} is a link that leads out of DATA_DIR, and is not in it.")
                continue
            _add(tar, place, str(place.relative_to(folder)))
    return " ".join(notes[:20])


def _add(tar: tarfile.TarFile, place: Path, name: str) -> None:
    """Of nobody, and without more rights than to be read and written."""
    facts = place.lstat()
    member = tarfile.TarInfo(name)
    member.mtime, member.mode = int(facts.st_mtime), stat.S_IMODE(facts.st_mode) & 0o777
    if stat.S_ISLNK(facts.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(place.readlink())
        tar.addfile(member)
        return
    member.size = facts.st_size
    with place.open("rb") as content:
        tar.addfile(member, content)
