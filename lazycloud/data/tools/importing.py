"""A version's folder, made of a file that somebody sent. See `tasks.import_`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lazycloud.data.files import COMPANIONS
from lazycloud.data.tools import script
from lazycloud.data.tools.contents import (
    DUMP,
    FILES,
    POSTGRES,
    SQL,
    SQLITE,
    TAR,
    contents,
    is_database,
    is_dump,
    stays,
)
from lazycloud.data.tools.database import LARGEST, Unreadable, explained, may_read, opened
from lazycloud.data.tools.dumps import write_sql
from lazycloud.data.tools.shapes import MAIN
from lazycloud.data.tools.values import readable
from lazycloud.errors import BadInput, DiskFull

MOST_MEMBERS = 1_000_000
SHOWN = 3  # problems of one database that are told


def take_in(file: Path, folder: Path, kind: str, most: int, with_dump: bool = False) -> tuple[str, list[str]]:
    """Fill an empty folder; the kind of the file, and warnings. `most`: bytes in all.

    `with_dump`: it is a tar that has a dump of Postgres, too, which stays as it is, unread.
    Raises BadInput for what is wrong with the file, DiskFull. What was made by then stays.
    """
    kind = kind or _kind(file)
    with _room():
        if kind == SQLITE:
            _copy(file, folder / MAIN)
        elif kind == SQL:
            _use_wal(folder / MAIN)
            script.run(file, folder / MAIN, most)
        else:
            _Tar(folder, most, with_dump).unpack(file)
        (folder / FILES).mkdir(exist_ok=True)
        warnings = [
            warning
            for name, place in contents(folder).databases.items()
            if name != POSTGRES
            for warning in _check(name, place)
        ]
        _use_wal(folder / MAIN)
    return kind, warnings


def restore(dump: Path, target: Path) -> None:
    """A dump of Postgres as SQL. Raises BadInput for one that is none, or damaged; DiskFull."""
    if not is_dump(dump):
        raise BadInput(
            "The file is no dump of pg_dump’s own format (--format=custom): it does not begin as one."
        )
    try:
        with _room():
            write_sql(dump, target)
    except Unreadable as problem:
        raise BadInput(f"The dump cannot be read: {problem}.") from problem


def _kind(file: Path) -> str:
    if is_database(file):
        return SQLITE
    with contextlib.suppress(tarfile.TarError, OSError, EOFError), tarfile.open(file, "r:*"):
        return TAR
    return SQL


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskFull(f"There is no room for the data: {problem.strerror}.") from problem
    except sqlite3.Error as problem:
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
            raise
        raise DiskFull("There is no room for the data: they are more than may be written.") from problem


def _copy(file: Path, target: Path) -> None:
    """Page by page, so that what is checked afterwards is what is there."""
    if not is_database(file):
        raise BadInput("The file is no SQLite database: it does not begin as one.")
    try:
        with opened(file) as database, contextlib.closing(sqlite3.connect(target)) as made, explained():
            database.connection.backup(made)
    except Unreadable as problem:
        raise BadInput(f"The SQLite database cannot be read: {problem}.") from problem


def _check(name: str, place: Path) -> list[str]:
    """Warnings. Raises BadInput for a database that is damaged."""
    try:
        with opened(place) as database:
            may_read(database.connection, LARGEST)
            return [*_integrity(name, database.connection), *_foreign_keys(name, database.connection)]
    except Unreadable as problem:
        raise _damaged(name, str(problem)) from problem


def _integrity(name: str, connection: sqlite3.Connection) -> list[str]:
    """What needs an app's own functions or collations cannot be checked here; that is no damage."""
    try:
        found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({SHOWN})")]
    except sqlite3.OperationalError as problem:
        if "no such" not in str(problem):
            raise Unreadable(str(problem)) from problem
        return [f"{name} was not checked whole: {problem}."]
    except sqlite3.Error as problem:
        raise Unreadable(str(problem)) from problem
    if found != ["ok"]:
        raise _damaged(name, "; ".join(found[:SHOWN]))
    return []


def _foreign_keys(name: str, connection: sqlite3.Connection) -> list[str]:
    counts: dict[tuple[str, str], int] = {}
    try:
        for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
            counts[table, parent] = counts.get((table, parent), 0) + 1
    except sqlite3.Error as problem:
        return [f"The foreign keys of {name} were not checked: {problem}."]
    told = list(counts.items())[:SHOWN]
    return [
        f"{number} rows of {readable(table)} in {name} name rows of {readable(parent)} that are not there."
        for (table, parent), number in told
    ]


def _damaged(name: str, what: str) -> BadInput:
    return BadInput(
        f"The database {name} is damaged: {what}.", "`sqlite3 FILE .recover` may save what is left."
    )


def _use_wal(place: Path) -> None:
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


class _Tar:
    """Unpacks one: `most` bytes in all, into a folder, and nothing anywhere else."""

    def __init__(self, folder: Path, most: int, with_dump: bool) -> None:
        self._folder = folder
        self._with_dump = with_dump
        self._left = most
        self._links: list[tuple[tarfile.TarInfo, Path]] = []

    def unpack(self, file: Path) -> None:
        """Links come last, so that nothing is ever written through one."""
        try:
            with tarfile.open(file, "r:*") as tar:
                for at, member in enumerate(tar):
                    if at == MOST_MEMBERS:
                        raise BadInput(f"The tar has more than {MOST_MEMBERS:,} members.")
                    self._member(tar, member)
        except (tarfile.TarError, EOFError, UnicodeError) as problem:
            raise BadInput(f"The tar cannot be read: {problem}.") from problem
        for member, place in self._links:
            with self._once(member):
                self._demand_inside(member, place.parent)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(member.linkname)
        for member, place in self._links:  # it may lead to another one
            if not stays(place, self._folder / FILES):
                raise _refused(member, "is a link that leads out of the data")
        if not (self._folder / MAIN).exists():
            raise BadInput(
                f"The tar has no {MAIN}.", "It holds that, and files/: see `lazycloud data export`."
            )
        if self._with_dump and not is_dump(self._folder / DUMP):
            raise BadInput(
                f"The tar has no {DUMP}, which holds what is in Postgres.",
                "See `lazycloud data export`; a dump alone, as .dump or .sql, leaves the files as they are.",
            )
        self._refuse_companions()

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = PurePosixPath(member.name)
        parts = [part for part in name.parts if part != "."]
        if name.is_absolute() or ".." in parts or "\0" in member.name:
            raise _refused(member, "leads out of the data")
        if not parts and member.isdir():
            return
        if parts == [DUMP] and not self._with_dump:
            raise BadInput(
                f"The tar has a {DUMP}, and this version has nothing in Postgres.",
                "Send it without that (tar --delete), if the rest is what you want.",
            )
        if parts not in ([MAIN], [DUMP]) and parts[:1] != [FILES]:
            raise _refused(member, f"is neither {MAIN} nor in {FILES}/")
        place = self._folder.joinpath(*parts)
        with self._once(member):
            self._make(tar, member, place)

    def _demand_inside(self, member: tarfile.TarInfo, parent: Path) -> None:
        """Whether there is, or will be, a folder of ours: it may be a link that was made a moment ago."""
        try:
            inside = parent.resolve().is_relative_to(self._folder.resolve() / FILES)
        except (OSError, RuntimeError):  # it leads to itself
            inside = False
        if not inside:
            raise _refused(member, "is in a link that leads out of the data")

    @contextlib.contextmanager
    def _once(self, member: tarfile.TarInfo) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
            raise _refused(member, "is there twice") from problem

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
        elif member.issym() and place.is_relative_to(self._folder / FILES):
            self._links.append((member, place))
        elif member.isreg():
            self._file(tar, member, place)
        else:
            raise _refused(member, "is neither a file, a folder nor a link")

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
        self._left -= member.size
        if self._left < 0:
            raise BadInput("What the tar holds is larger than may be written.", "Free room, or send less.")
        place.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(member)
        assert content
        with content, place.open("xb") as made:
            shutil.copyfileobj(content, made, 1 << 20)
        place.chmod(stat.S_IMODE(member.mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
        os.utime(place, (member.mtime, member.mtime))

    def _refuse_companions(self) -> None:
        """A journal is part of a database, and may name other files, which SQLite would remove."""
        for place in contents(self._folder).databases.values():
            for ending in COMPANIONS:
                if os.path.lexists(place.with_name(place.name + ending)):
                    raise BadInput(
                        f"The tar has a {place.name}{ending}, so its {place.name} was copied while it was in use.",
                        f"Copy it with `sqlite3 {place.name} \"VACUUM INTO 'copy.sqlite'\"`.",
                    )


def _refused(member: tarfile.TarInfo, why: str) -> BadInput:
    return BadInput(f"“{readable(member.name)[:200]}” in the tar {why}.")
