"""The copy of a folder of files while its app goes on writing.

Files are cloned where the file system can (the copy is made at once, and takes no space), else copied; SQLite
databases among them are copied as databases. A file that vanishes meanwhile is left out, like sockets and pipes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from lazycloud.data import sqlite, within
from lazycloud.errors import StepFailed

FICLONE = 0x40049409
_VANISHED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)  # or it is something else by now
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Copy:
    """One copy of the folder `source` to `target`, which is not there yet. `patience`: seconds for locks.

    The app may write to all below `root`, and put links in place of anything, at any moment: none is followed.
    """

    def __init__(self, source: Path, target: Path, patience: float, root: Path | None = None) -> None:
        self._root = root or source
        self._source = source
        self._target = target
        self._patience = patience
        self._can_clone = True

    def make(self) -> None:
        """Raises StepFailed for what cannot be read, OSError for a full disk."""
        try:
            with within.opened(self._root, self._source, within.FOLDER) as folder:
                self._folder(folder, self._source, self._target)
        except PermissionError as problem:
            raise StepFailed(
                f"{problem.filename} cannot be read, so the data cannot be copied.",
                "Let the app write its files with permission for their owner to read them.",
            ) from problem

    def _folder(self, folder: int, source: Path, target: Path) -> None:
        """`folder` is open; `source` is only what it is called."""
        target.mkdir(mode=0o700)
        for name in sorted(os.listdir(folder)):
            # The copy is complete without what vanished since its folder was read: the app removed it.
            try:
                self._entry(folder, source / name, target / name)
            except OSError as problem:
                if problem.errno not in _VANISHED:
                    raise
        _keep_facts(os.fstat(folder), target)  # last, as each new entry changed its time

    def _entry(self, folder: int, source: Path, target: Path) -> None:
        facts = os.stat(source.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            with within.opened_in(folder, source.name, within.FOLDER, source) as inner:
                self._folder(inner, source, target)
        elif stat.S_ISLNK(facts.st_mode):
            self._symlink(folder, facts, source, target)
        elif stat.S_ISREG(facts.st_mode) and not _is_companion(folder, source):
            with within.opened_in(folder, source.name, within.FILE, source) as origin:
                self._file(origin, source, target)

    def _file(self, origin: int, source: Path, target: Path) -> None:
        facts = os.fstat(origin)
        if not stat.S_ISREG(facts.st_mode):
            return
        if sqlite.is_database(origin):
            sqlite.copy(source, origin, target, self._patience, use_wal=False)
        else:
            with open(origin, "rb", closefd=False) as reading, target.open("xb") as made:
                if not self._clone(origin, made.fileno()):
                    _copy_bytes(reading, made)
        _keep_facts(facts, target)

    def _clone(self, origin: int, made: int) -> bool:
        """Share the blocks, where the file system can; whether it did. Asked once, then remembered."""
        if self._can_clone:
            try:
                fcntl.ioctl(made, FICLONE, origin)
            except OSError as problem:
                if problem.errno not in _CANNOT_CLONE:
                    raise
                self._can_clone = False
        return self._can_clone

    def _symlink(self, folder: int, facts: os.stat_result, source: Path, target: Path) -> None:
        """As it is; but one with an absolute path into the source would let the copy write to the source."""
        try:
            points_to = Path(os.readlink(source.name, dir_fd=folder))
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            return  # no link any more
        if points_to.is_absolute() and points_to.is_relative_to(self._source):
            ours = self._target / points_to.relative_to(self._source)
            points_to = Path(os.path.relpath(ours, target.parent))  # the copy is yet to get its name
        target.symlink_to(points_to)
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)


def _copy_bytes(origin: BinaryIO, made: BinaryIO) -> None:
    """In the kernel where it can, from where both files stand."""
    try:
        while os.copy_file_range(origin.fileno(), made.fileno(), 1 << 27):
            pass
    except OSError as problem:
        if problem.errno not in _CANNOT_CLONE:
            raise
        shutil.copyfileobj(origin, made, 1 << 20)


def _is_companion(folder: int, place: Path) -> bool:
    """Whether it belongs to a database beside it, whose copy is complete without."""
    for ending in sqlite.COMPANIONS:
        if place.name.endswith(ending):
            other = place.with_name(place.name.removesuffix(ending))
            with (
                contextlib.suppress(OSError),
                within.opened_in(folder, other.name, within.FILE, other) as database,
            ):
                return sqlite.is_database(database)
    return False


def _keep_facts(facts: os.stat_result, target: Path) -> None:
    target.chmod(stat.S_IMODE(facts.st_mode))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
