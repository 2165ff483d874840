"""A commit's files, written to a folder: from git objects, and from releases that have some of them already.

Never by archive or checkout: no filter, hook or attribute of the repository has a say in what is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.lfs import POINTER_SIZE, LargeFile, large_file
from lazycloud.build.listing import (
    EXECUTABLE,
    FILE,
    SUBMODULE,
    SYMLINK,
    object_of,
    path_of,
    permissions,
    printable,
)
from lazycloud.build.manifest import MANIFEST, Manifest, Mark, mark_of, wait_past
from lazycloud.build.neighbour import WRITE, neighbour_at
from lazycloud.build.objects import CHUNK, Objects
from lazycloud.build.parts import Part
from lazycloud.build.symlinks import TARGET_SIZE, Symlinks, leads_out
from lazycloud.errors import StepFailed

WRITE_TIMEOUT = 600.0
ENOUGH = 32  # so many files are written from git sooner than another neighbour's manifest is read
_REGULAR = (f"{FILE} ".encode(), f"{EXECUTABLE} ".encode())
_LINK = f"{SYMLINK} ".encode()
_BLOBS = (*_REGULAR, _LINK)


@dataclass(frozen=True)
class Written:
    """How many files; of these, how many a neighbour had, how many are from Git LFS, or its pointers still.

    `missing` are the oids of the content that pointers stand for.
    """

    files: int = 0
    shared: int = 0
    large: int = 0
    pointers: int = 0
    missing: tuple[str, ...] = ()

    def sentences(self, commit: str, trouble: str) -> Iterator[str]:
        """For the log. `trouble` is why there are pointers left, and what to do."""
        unchanged = f", {self.shared:,} of them unchanged" if self.shared else ""
        yield f"{self.files:,} files of commit {commit}{unchanged}"
        if self.large:
            yield f"{self.large:,} files are from Git LFS"
        if self.pointers:
            why = trouble or "their content is not what they say, or they need an extension"
            yield f"warning: {self.pointers:,} files are in Git LFS and are written as their pointers: {why}"


class Writing:
    """Writes the parts of a tree into `folder`, which is made if need be and holds nothing yet.

    Blocking, in two steps for a thread, which raise StepFailed for what is refused or not there, and OSError.
    What is written by then stays. `sealed`: nobody will have the right to write to the files.
    """

    def __init__(self, parts: Sequence[Part], folder: Path, sealed: bool) -> None:
        self._parts = parts
        self._folder = folder
        self._root = os.fsencode(folder)
        self._sealed = sealed
        self._manifest = Manifest(sealed)
        self._fresh: list[Mark] = []
        self._links: list[Symlinks] = []
        self._objects: Objects | None = None
        self._stopped = False
        self._files = sum(len(part.listing.lines) - len(part.listing.of_mode(SUBMODULE)) for part in parts)
        self._shared = 0
        self.large: list[LargeFile] = []  # found by `begin`, left to `finish`

    def stop(self) -> None:
        """From another thread."""
        self._stopped = True
        if self._objects is not None:
            self._objects.kill()

    def begin(self, neighbours: Sequence[Path]) -> None:
        """Write all that needs nothing but this machine."""
        self._share(neighbours)
        for part in self._parts:
            self._write_part(part)

    def _share(self, neighbours: Sequence[Path]) -> None:
        """Make the folders, and take over what is in these releases, the likeliest first."""
        self._make_folders()
        wanted = [leaf for part in self._parts for leaf in part.leaves if leaf[0].startswith(_REGULAR)]
        for release in neighbours:
            if len(wanted) <= (ENOUGH if self._manifest.marks else 0):
                break
            if neighbour := neighbour_at(release):
                taken = neighbour.take_over(wanted, self._root, self._sealed, lambda: self._stopped)
                self._manifest.marks |= taken
                if not neighbour.gives_links(self._sealed):
                    self._fresh += taken.values()
                wanted = [leaf for leaf in wanted if leaf[0] not in taken]
        self._shared = len(self._manifest.marks)

    def finish(self, place_of: Callable[[LargeFile], Path | None]) -> Written:
        """Write what is in Git LFS, then the symlinks. It is the marker's part to have the disk flushed."""
        left = [file for file in self.large if not self._write_large(file, place_of(file))]
        large = len(self.large) - len(left)
        for links in self._links:
            links.write()
        for links in self._links:
            links.check()
        self._manifest.write(self._folder.with_name(MANIFEST))
        # Whoever runs here next may change a file, and that has to show.
        wait_past(self._fresh)
        missing = tuple(dict.fromkeys(file.oid for file in left if file.oid))
        return Written(self._files, self._shared, large, len(left), missing)

    def _make_folders(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in sorted(folder for part in self._parts for folder in part.folders):
            os.mkdir(self._root + b"/" + folder)  # noqa: PTH102 - bytes, thousands of times

    def _write_part(self, part: Part) -> None:
        known = self._manifest.marks
        wanted = [line for line, _, _ in part.leaves if line not in known and line.startswith(_BLOBS)]
        if not wanted or self._stopped:
            return
        self._objects = objects = Objects(part.git, [object_of(line) for line in wanted])
        if self._stopped:
            objects.kill()
        links: dict[bytes, bytes] = {}
        try:
            for line in wanted:
                size = objects.begin(path_of(line))
                if line.startswith(_LINK):
                    links[path_of(line)[len(part.place) :]] = _target(objects, line, size)
                else:
                    self._write_file(objects, part, line, size)
                objects.end()
        finally:
            objects.close()
        self._links.append(Symlinks((self._root + b"/" + part.place).rstrip(b"/"), links))

    def _write_file(self, objects: Objects, part: Part, line: bytes, size: int) -> None:
        chunk = objects.take(size)
        if size < POINTER_SIZE and (file := large_file(part, line, chunk)):
            self.large.append(file)
            return
        descriptor = self._open(line)
        try:
            for _ in range(0, size, CHUNK):
                if not chunk:
                    raise StepFailed(f"git stopped while {printable(path_of(line))} was read.")
                _write_all(descriptor, chunk)
                size -= len(chunk)
                chunk = objects.take(size)
            self._note(line, descriptor)
        finally:
            os.close(descriptor)

    def _write_large(self, file: LargeFile, origin: Path | None) -> bool:
        """Whether the file has its content now, and not its pointer's."""
        if origin and self._copy(file, origin):
            return True
        descriptor = self._open(file.line)
        try:
            # Not noted in the manifest: the next commit may find the content, and must not take this for it.
            _write_all(descriptor, file.pointer)
        finally:
            os.close(descriptor)
        return False

    def _copy(self, file: LargeFile, origin: Path) -> bool:
        """Whether what is there is what the pointer says; else nothing of it is left."""
        found = hashlib.sha256()
        descriptor = self._open(file.line)
        try:
            with open(origin, "rb", buffering=0) as content:  # noqa: PTH123 - its path may be anything
                while not self._stopped and (chunk := content.read(CHUNK)):
                    found.update(chunk)
                    _write_all(descriptor, chunk)
            if found.hexdigest() == file.oid:
                self._note(file.line, descriptor)
                return True
        except FileNotFoundError:
            pass
        finally:
            os.close(descriptor)
        os.unlink(self._place(file.line))  # noqa: PTH108 - bytes
        return False

    def _open(self, line: bytes) -> int:
        return os.open(self._place(line), WRITE, permissions(line, self._sealed))

    def _note(self, line: bytes, descriptor: int) -> None:
        mark = mark_of(os.fstat(descriptor), self._sealed)
        self._manifest.marks[line] = mark
        self._fresh.append(mark)

    def _place(self, line: bytes) -> bytes:
        return self._root + b"/" + path_of(line)


def _target(objects: Objects, line: bytes, size: int) -> bytes:
    if size > TARGET_SIZE:
        raise leads_out(path_of(line), "a name longer than any path")
    return objects.take(size)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
