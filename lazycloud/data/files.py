"""The copy of a folder of files while its app goes on writing.

Files are cloned where the file system can (the copy is made at once, and takes no space), else copied. SQLite
databases are another's matter (data/line.py). A file that vanishes meanwhile is left out, like sockets and pipes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

from lazycloud.data import blocks, within
from lazycloud.data.image import MAGIC
from lazycloud.errors import StepFailed, Unavailable

COMPANIONS = ("-wal", "-shm", "-journal")
_VANISHED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)  # or it is something else by now


class Unforeseen(Unavailable):
    """There is a database that nobody holds: what a copy of its file would hold, nobody knows."""


def is_database(descriptor: int) -> bool:
    """Whether an open file begins as an SQLite database does. False for what is no regular file."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return regular and os.pread(descriptor, len(MAGIC), 0) == MAGIC


class Copy:
    """One copy of the folder `source` to `target`, which may hold its databases already, and nothing else.

    `databases` are the places of those that are left out, relative to `source`, with what SQLite keeps beside them;
    None: nobody writes there, and all is copied as it is.

    The app may write to all below `source`, and put links in place of anything, at any moment: none is followed.
    """

    def __init__(self, source: Path, target: Path, databases: Collection[str] | None) -> None:
        self._source = source
        self._target = target
        self._databases = databases
        self._linked: dict[tuple[int, int], Path] = {}  # files with several names -> their copies

    def make(self) -> None:
        """Raises StepFailed for what cannot be read, Unforeseen for another database, OSError for a full disk."""
        try:
            with within.opened(self._source, self._source, within.FOLDER) as folder:
                self._folder(folder, self._source, self._target)
        except PermissionError as problem:
            raise StepFailed(
                f"{problem.filename} cannot be read, so the data cannot be copied.",
                "Let the app write its files with permission for their owner to read them.",
            ) from problem

    def _folder(self, folder: int, source: Path, target: Path) -> None:
        """`folder` is open; `source` is only what it is called."""
        target.mkdir(mode=0o700, exist_ok=True)
        for name in sorted(os.listdir(folder)):
            # The copy is complete without what vanished since its folder was read: the app removed it. Where nobody
            # writes, nothing vanishes but all of it.
            try:
                self._entry(folder, source / name, target / name)
            except OSError as problem:
                if self._databases is None or problem.errno not in _VANISHED:
                    raise
        _keep_facts(os.fstat(folder), target)  # last, as each new entry changed its time

    def _entry(self, folder: int, source: Path, target: Path) -> None:
        facts = os.stat(source.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            with within.opened_in(folder, source.name, within.FOLDER, source) as inner:
                self._folder(inner, source, target)
        elif self._is_anothers(source):
            return
        elif stat.S_ISLNK(facts.st_mode):
            self._symlink(folder, facts, source, target)
        elif stat.S_ISREG(facts.st_mode):
            with within.opened_in(folder, source.name, within.FILE, source) as origin:
                self._file(origin, source, target)

    def _is_anothers(self, source: Path) -> bool:
        """Whether it is a database that is copied elsewhere, or belongs to one."""
        if self._databases is None:
            return False
        name = str(source.relative_to(self._source))
        stem = next((name.removesuffix(end) for end in COMPANIONS if name.endswith(end)), name)
        return name in self._databases or stem in self._databases

    def _file(self, origin: int, source: Path, target: Path) -> None:
        facts = os.fstat(origin)
        if not stat.S_ISREG(facts.st_mode):
            return
        if self._databases is not None and is_database(origin):
            raise Unforeseen(f"{source.name} became a database while the data were copied.", "Try again.")
        if facts.st_nlink > 1:  # a copy of each name could take any number of times the room
            first = self._linked.setdefault((facts.st_dev, facts.st_ino), target)
            if first != target:
                os.link(first, target, follow_symlinks=False)
                return
        with target.open("xb") as made:
            blocks.give(origin, made.fileno())
        _keep_facts(facts, target)

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


def _keep_facts(facts: os.stat_result, target: Path) -> None:
    target.chmod(stat.S_IMODE(facts.st_mode))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
