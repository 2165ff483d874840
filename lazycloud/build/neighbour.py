"""Take over files that a release on this disk has already: by link, by reflink, or by copy within the kernel.

Nothing is believed of a neighbour but what can be seen of the very file that was taken: that it is the one which
was written from the wanted object, and untouched since. Whatever is not goes back, to be written from git.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.listing import Leaf, leaf_of, permissions
from lazycloud.build.manifest import MANIFEST, Manifest, Mark, mark_of, read_manifest

FICLONE = 0x40049409
THREADS = (
    2  # a link is made without Python's lock held; measured: two take two thirds of one's time, four no less
)
TREE = "tree"
FEW_MOVED = 32  # files that are written sooner than looked for under another name
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Somebody may have put a pipe in a file's place, and opening one waits for its other end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_CLONES = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})
_ALL = 1 << 30


_File = tuple[bytes, bytes, bytes, Mark]  # its line, its name, its name in the neighbour, its mark there
# By (folder in the neighbour, folder in the new tree): both are opened once for all files in them.
_Folders = dict[tuple[bytes, bytes], list[_File]]
Taken = dict[bytes, Mark]  # what was taken over, by line, with its mark in the new tree


@dataclass(frozen=True)
class Neighbour:
    """A release whose tree was written by us."""

    tree: bytes
    manifest: Manifest

    def gives_links(self, sealed: bool) -> bool:
        """Whether a tree that is sealed, or not, may have this one's files, and not copies of them."""
        return sealed and self.manifest.sealed

    def take_over(
        self, leaves: Sequence[Leaf], tree: bytes, sealed: bool, stopped: Callable[[], bool]
    ) -> Taken:
        """Put those of the files into `tree`, whose folders are there, that can be had here.

        `sealed`: nobody will write to the new tree's files; one file may then be in both trees.
        """
        folders = self._found(leaves)
        if self.gives_links(sealed):
            return _Links(self.tree, tree, stopped).take(folders)
        return _Copies(self.tree, tree, stopped, self.manifest.sealed, sealed).take(folders)

    def _found(self, leaves: Sequence[Leaf]) -> _Folders:
        marks = self.manifest.marks
        folders: _Folders = defaultdict(list)
        moved = []
        for leaf in leaves:
            line, folder, name = leaf
            if mark := marks.get(line):
                folders[folder, folder].append((line, name, name, mark))
            else:
                moved.append(leaf)
        if len(moved) > FEW_MOVED:
            self._find_moved(moved, folders)
        return folders

    def _find_moved(self, leaves: Sequence[Leaf], folders: _Folders) -> None:
        """Files with the content that is wanted, and another path."""
        known = {line.partition(b"\t")[0]: line for line in self.manifest.marks}
        for line, folder, name in leaves:
            if found := known.get(line.partition(b"\t")[0]):
                _, origin, old = leaf_of(found)
                folders[origin, folder].append((line, name, old, self.manifest.marks[found]))


def neighbour_at(release: Path) -> Neighbour | None:
    """None for a folder without a manifest that can be read."""
    manifest = read_manifest(release / MANIFEST)
    return Neighbour(os.fsencode(release / TREE), manifest) if manifest and manifest.marks else None


@contextmanager
def _opened(*folders: bytes) -> Iterator[list[int]]:
    descriptors: list[int] = []
    try:
        for folder in folders:
            descriptors.append(os.open(folder, _FOLDER))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class _Links:
    """One file in both trees. Linked first and looked at afterwards: what was seen is then what the tree has."""

    def __init__(self, there: bytes, here: bytes, stopped: Callable[[], bool]) -> None:
        self._there = there
        self._here = here
        self._stopped = stopped

    def take(self, folders: _Folders) -> Taken:
        pairs = list(folders)
        with ThreadPoolExecutor(THREADS, "link") as threads:
            parts = threads.map(
                lambda part: self._part(folders, part), [pairs[n::THREADS] for n in range(THREADS)]
            )
            return {line: mark for part in parts for line, mark in part.items()}

    def _part(self, folders: _Folders, pairs: Sequence[tuple[bytes, bytes]]) -> Taken:
        taken: Taken = {}
        for pair in pairs:
            if self._stopped():
                break
            with suppress(OSError):
                self._link_folder(pair, folders[pair])
            self._look(pair[1], folders[pair], taken)
        return taken

    def _link_folder(self, pair: tuple[bytes, bytes], files: Sequence[_File]) -> None:
        link = os.link
        with _opened(self._there + b"/" + pair[0], self._here + b"/" + pair[1]) as (there, here):
            for _, name, origin, _ in files:
                # Gone, linked too often already, on another disk, not ours: each is written from git then.
                with suppress(OSError):
                    link(origin, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)

    def _look(self, folder: bytes, files: Sequence[_File], taken: Taken) -> None:
        stat = os.stat
        with _opened(self._here + b"/" + folder) as (here,):
            for line, name, _, mark in files:
                try:
                    status = stat(name, dir_fd=here, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if mark_of(status, True) == mark:
                    taken[line] = mark
                else:
                    os.unlink(name, dir_fd=here)


class _Copies:
    """A file of its own with the same content, which shares blocks of the disk where the file system can do that."""

    def __init__(
        self, there: bytes, here: bytes, stopped: Callable[[], bool], sealed_there: bool, sealed_here: bool
    ) -> None:
        self._there = there
        self._here = here
        self._stopped = stopped
        self._sealed_there = sealed_there
        self._sealed_here = sealed_here
        self._clones = True

    def take(self, folders: _Folders) -> Taken:
        taken: Taken = {}
        for (origin, folder), files in folders.items():
            if self._stopped():
                break
            with (
                suppress(OSError),
                _opened(self._there + b"/" + origin, self._here + b"/" + folder) as (there, here),
            ):
                for file in files:
                    with suppress(OSError):
                        self._take(there, here, file, taken)
        return taken

    def _take(self, there: int, here: int, file: _File, taken: Taken) -> None:
        line, name, old, mark = file
        origin = os.open(old, _READ, dir_fd=there)
        try:
            if not self._is_untouched(origin, mark):
                return
            target = os.open(name, WRITE, permissions(line, self._sealed_here), dir_fd=here)
            try:
                # Once more afterwards: it may have been written to while it was read.
                if self._fill(target, origin) and self._is_untouched(origin, mark):
                    taken[line] = mark_of(os.fstat(target), self._sealed_here)
            finally:
                os.close(target)
                if line not in taken:
                    os.unlink(name, dir_fd=here)
        finally:
            os.close(origin)

    def _is_untouched(self, descriptor: int, mark: Mark) -> bool:
        return mark_of(os.fstat(descriptor), self._sealed_there) == mark

    def _fill(self, target: int, origin: int) -> bool:
        """Whether all of it is there."""
        if self._clones:
            try:
                fcntl.ioctl(target, FICLONE, origin)
                return True
            except OSError as problem:
                if problem.errno not in _NO_CLONES:
                    raise
                self._clones = False
        size = os.fstat(origin).st_size
        while size > 0 and (count := os.copy_file_range(origin, target, min(size, _ALL))):
            size -= count
        return size == 0
