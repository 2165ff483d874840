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

from lazycloud.data import sqlite
from lazycloud.errors import StepFailed

FICLONE = 0x40049409
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Copy:
    """One copy of the folder `source` to `target`, which is not there yet. `patience`: seconds for locks."""

    def __init__(self, source: Path, target: Path, patience: float) -> None:
        self._source = source
        self._target = target
        self._patience = patience
        self._can_clone = True

    def make(self) -> None:
        """Raises StepFailed for what cannot be read, OSError for a full disk."""
        try:
            self._folder(self._source, self._target)
        except PermissionError as problem:
            raise StepFailed(
                f"{problem.filename} cannot be read, so the data cannot be copied.",
                "Let the app write its files with permission for their owner to read them.",
            ) from problem

    def _folder(self, source: Path, target: Path) -> None:
        target.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
                # The copy is complete without what vanished since its folder was read: the app removed it.
                with contextlib.suppress(FileNotFoundError):
                    self._entry(Path(entry.path), target / entry.name)
            _keep_facts(source.stat(), target)  # last, as each new entry changed its time

    def _entry(self, source: Path, target: Path) -> None:
        facts = source.lstat()
        if stat.S_ISDIR(facts.st_mode):
            self._folder(source, target)
        elif stat.S_ISLNK(facts.st_mode):
            self._symlink(source, target)
        elif stat.S_ISREG(facts.st_mode) and not _is_companion(source):
            self._file(source, target)
            _keep_facts(facts, target)

    def _file(self, source: Path, target: Path) -> None:
        if sqlite.is_database(source):
            sqlite.copy(source, target, self._patience, use_wal=False)
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # it may be a symlink or a pipe by now
        with (
            open(source, "rb", opener=lambda path, _: os.open(path, flags)) as origin,
            target.open("xb") as made,
        ):
            if not self._clone(origin.fileno(), made.fileno()):
                _copy_bytes(origin, made)

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

    def _symlink(self, source: Path, target: Path) -> None:
        """As it is; but one with an absolute path into the source would let the copy write to the source."""
        points_to = source.readlink()
        if points_to.is_absolute() and points_to.is_relative_to(self._source):
            ours = self._target / points_to.relative_to(self._source)
            points_to = Path(os.path.relpath(ours, target.parent))  # the copy is yet to get its name
        target.symlink_to(points_to)
        facts = source.lstat()
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


def _is_companion(place: Path) -> bool:
    """Whether it belongs to a database beside it, whose copy is complete without."""
    for ending in sqlite.COMPANIONS:
        if place.name.endswith(ending):
            return sqlite.is_database(place.with_name(place.name.removesuffix(ending)))
    return False


def _keep_facts(facts: os.stat_result, target: Path) -> None:
    target.chmod(stat.S_IMODE(facts.st_mode))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
