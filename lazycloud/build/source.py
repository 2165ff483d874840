"""The files of a tree: listed, judged, and written from git objects to a folder.

Never by archive or checkout: no filter, hook or attribute of the repository has a say in what is written.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.disk import disk_watched
from lazycloud.build.git import Git
from lazycloud.build.objects import CHUNK, Objects, in_thread
from lazycloud.errors import StepFailed

FILE, EXECUTABLE, SYMLINK, SUBMODULE = "100644", "100755", "120000", "160000"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
LFS_POINTER_SIZE = 1024  # the specification's limit
WRITE_TIMEOUT = 600.0
_TARGET_SIZE = 4096  # PATH_MAX
_GIT_FOLDERS = frozenset({".git", "git~1"})  # the second is what Windows shares call the first


@dataclass(frozen=True)
class Entry:
    """A leaf of a tree: `path` from its root with `/`, `object` the blob, or the commit of a submodule."""

    mode: str
    object: str
    path: str


@dataclass(frozen=True)
class Written:
    files: int = 0
    pointers: int = 0  # of these, Git LFS pointers in place of the files they stand for

    def __add__(self, other: Written) -> Written:
        return Written(self.files + other.files, self.pointers + other.pointers)


async def list_tree(git: Git, tree: str) -> list[Entry]:
    """All leaves of the tree (or commit) with the full id `tree`. Raises GitFailed if it is not there."""
    listing = await git.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", tree)
    return [_entry(line) for line in listing.split(b"\0") if line]


def _entry(line: bytes) -> Entry:
    head, _, path = line.partition(b"\t")
    mode, _, object_id = head.split(b" ")
    return Entry(mode.decode(), object_id.decode(), os.fsdecode(path))


def check_names(entries: Iterable[Entry]) -> None:
    """Raises StepFailed for a name that could lead out of the folder, or into a file that is none."""
    files: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        parts = entry.path.split("/")
        if any(_is_refused(part) for part in parts):
            raise StepFailed(
                f"The commit has a file named {printable(entry.path)}, which cannot be written safely.",
                "Remove it from the tree and commit again.",
            )
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if entry.path in files or entry.path in folders or above & files:
            raise StepFailed(f"The commit has {printable(entry.path)} twice, with different meanings.")
        files.add(entry.path)
        folders |= above


def _is_refused(part: str) -> bool:
    return part in ("", ".", "..") or part.casefold() in _GIT_FOLDERS


def check_target(path: str, target: str) -> None:
    """Raises StepFailed for a symlink that leads out of the tree, read without following others."""
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or end == ".." or end.startswith("../"):
        raise _leaves(path, target)


def printable(path: str) -> str:
    """A path that a stranger chose, in quotes, for a sentence or a log."""
    shown = os.fsencode(path).decode(errors="backslashreplace")
    return f"“{''.join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)}”"


async def write_entries(git: Git, entries: Sequence[Entry], folder: Path) -> Written:
    """Write all but submodules into `folder`, which is made if need be and holds nothing yet.

    Raises StepFailed for refused names and links, missing objects and a full disk; what is written by then stays.
    """
    check_names(entries)
    with disk_watched(folder):
        for entry in entries:
            if entry.mode == SUBMODULE:
                (folder / entry.path).mkdir(parents=True, exist_ok=True)
        blobs = [entry for entry in entries if entry.mode in (FILE, EXECUTABLE, SYMLINK)]
        writing = _Writing(Objects(git, [entry.object for entry in blobs]), blobs, folder)
        return await in_thread(writing.run, writing.objects.kill, WRITE_TIMEOUT)


class _Writing:
    """One thread's work: regular files as they come, symlinks when no file can be written through them."""

    def __init__(self, objects: Objects, blobs: Sequence[Entry], folder: Path) -> None:
        self.objects = objects
        self._blobs = blobs
        self._folder = folder
        self._links: dict[str, str] = {}
        self._pointers = 0

    def run(self) -> Written:
        try:
            self._make_folders()
            for entry in self._blobs:
                self._take(entry)
            self._link()
        finally:
            self.objects.close()
        return Written(len(self._blobs), self._pointers)

    def _make_folders(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in sorted({posixpath.dirname(entry.path) for entry in self._blobs}):
            (self._folder / name).mkdir(parents=True, exist_ok=True)

    def _take(self, entry: Entry) -> None:
        size = self.objects.begin(entry.path)
        if entry.mode == SYMLINK:
            if size > _TARGET_SIZE:
                raise _leaves(entry.path, "a name longer than any path")
            self._links[entry.path] = os.fsdecode(self.objects.take(size))
        else:
            self._write(entry, size)
        self.objects.end()

    def _write(self, entry: Entry, size: int) -> None:
        mode = 0o755 if entry.mode == EXECUTABLE else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(f"{self._folder}/{entry.path}", flags, mode), "wb", buffering=0) as file:  # noqa: PTH123
            chunk = self.objects.take(size)
            if size < LFS_POINTER_SIZE and chunk.startswith(LFS_POINTER):
                self._pointers += 1
            for _ in range(0, size, CHUNK):
                if not chunk:
                    raise StepFailed(f"git stopped while {printable(entry.path)} was read.")
                _write_all(file.fileno(), chunk)
                size -= len(chunk)
                chunk = self.objects.take(size)

    def _link(self) -> None:
        for path, target in self._links.items():
            check_target(path, target)
        for path, target in self._links.items():
            (self._folder / path).symlink_to(target)
        # A link may lead out by way of another one, which reading its own text alone cannot tell.
        root = os.path.realpath(self._folder)
        for path, target in self._links.items():
            end = os.path.realpath(self._folder / path)
            if end != root and not end.startswith(f"{root}/"):
                (self._folder / path).unlink()
                raise _leaves(path, target)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _leaves(path: str, target: str) -> StepFailed:
    return StepFailed(
        f"The symlink {printable(path)} leads out of the commit's tree, to {printable(target)}.",
        "Let it point to a file of the repository by a relative path.",
    )
