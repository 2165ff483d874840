"""Which databases and files a version's folder holds. No link is followed: an app may have put them there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazycloud.data.files import COMPANIONS
from lazycloud.data.image import MAGIC
from lazycloud.data.tools.shapes import MAIN

FILES = "files"
DUMP_MAGIC = b"PGDMP"
POSTGRES, DUMP = "postgres", "postgres.dump"  # a database, and where `Versions.unfolded` puts its dump
SQLITE, SQL, TAR, DUMPED = (
    "sqlite",
    "sql",
    "tar",
    "dump",
)  # formats; the last as pg_dump --format=custom has it
FORMATS = (SQLITE, SQL, TAR, DUMPED)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Contents:
    """Paths in the folder, as they are told: `databases` and `files` (links too) lead to where they are."""

    databases: dict[str, Path]
    files: dict[str, Path]


def contents(folder: Path) -> Contents:
    """Of a version's folder. A main database that is empty is neither; one that is none any more is a file."""
    found = Contents({}, {})
    if is_dump(folder / DUMP):
        found.databases[POSTGRES] = folder / DUMP
    for place in (folder / MAIN, *_below(folder / FILES)):
        name = shown(str(place.relative_to(folder)))
        if is_database(place):
            found.databases[name] = place
        elif os.path.lexists(place) and not (name == MAIN and is_empty(place)) and not _is_companion(place):
            found.files[name] = place
    return found


def shown(path: str) -> str:
    """A path as text, whatever bytes it has: fit for JSON."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_database(place: Path) -> bool:
    """Whether a regular file begins as an SQLite database does. False for a link."""
    return _begins(place, MAGIC)


def is_dump(place: Path) -> bool:
    """Whether a regular file begins as one of pg_dump's own format does. False for a link."""
    return _begins(place, DUMP_MAGIC)


def _begins(place: Path, magic: bytes) -> bool:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return regular and os.pread(descriptor, len(magic), 0) == magic
    finally:
        os.close(descriptor)


def is_empty(place: Path) -> bool:
    return stat.S_ISREG(place.lstat().st_mode) and not size(place)


def size(place: Path) -> int:
    """Of a file; of a link what it takes itself."""
    return place.lstat().st_size


def are_same(one: Path, other: Path) -> bool:
    """Whether two files, or links, have the same bytes."""
    links = one.is_symlink(), other.is_symlink()
    if any(links):
        return all(links) and one.readlink() == other.readlink()
    if size(one) != size(other):
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(CHUNK):
            if chunk != right.read(CHUNK):
                return False
    return True


def stays(link: Path, folder: Path) -> bool:
    """Whether a link, with all that it leads over, leads to a place in a folder, from wherever that lies."""
    try:
        return not link.readlink().is_absolute() and link.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # it leads to itself
        return False


def _below(folder: Path) -> Iterator[Path]:
    """Regular files and links, in the order of their names."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path))
        elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _is_companion(place: Path) -> bool:
    """Whether it is a WAL, or the like, of a database beside it."""
    return any(
        place.name.endswith(ending) and is_database(place.with_name(place.name.removesuffix(ending)))
        for ending in COMPANIONS
    )
