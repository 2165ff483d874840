"""A folder that a stage completed -> one file. Memory grows with the number of files, not with their size."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import posixpath
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lazycloud import __version__
from lazycloud.blobs.keys import SigningKey
from lazycloud.build.artifacts.envelope import CHUNK, seal
from lazycloud.build.artifacts.manifest import (
    FILE,
    FOLDER,
    INTERPRETER,
    KINDS,
    LEVEL,
    LINK,
    MODE_MOST,
    OWNER,
    Body,
    Entry,
    Manifest,
    moved,
    printable,
)
from lazycloud.build.artifacts.relocation import Search
from lazycloud.build.marker import read_marker
from lazycloud.errors import LazycloudError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OF_A_MACHINE = frozenset(
    {"boot", "fetched", "made", "sealed", "settled"}
)  # facts that hold where it was made
BYTECODE_FOLDER, BYTECODE = "__pycache__", ".pyc"
TREE = "tree/"  # of a release, what its app sees; beside it are markers, which are touched at each use
PLUG_AND_PLAY = ".pnp.cjs"  # Yarn's list of packages that lie in a cache outside


class Unpackable(LazycloudError):
    """A folder that would not work elsewhere."""


@dataclass(frozen=True)
class Subject:
    """A folder to pack, or to unpack into: `folder` below the app's folder `root`, complete when `marker` is there.

    `python` and `python_version` are the interpreter of this machine that its environment links to, "" without one.
    `needs` are the folders of the environments that it links into, by key. `left_out` are paths in it that are not
    its own. All is JSON, to be told to another process.
    """

    kind: str
    key: str
    root: str
    folder: str
    marker: str
    platform: str
    python: str = ""
    python_version: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    provenance: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.root) / self.folder

    @property
    def name(self) -> str:
        """Its name in a store."""
        return artifact_name(self.kind, self.key)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Subject:
        return cls(**{**values, "left_out": tuple(values["left_out"])})


def artifact_name(kind: str, key: str) -> str:
    return f"{KINDS[kind]}/{key}"


def pack(subject: Subject, key: SigningKey, to: BinaryIO, scratch: Path) -> Manifest:
    """Write the artifact of a complete folder. `scratch` is where its body is kept meanwhile.

    Raises Unpackable for what would not work elsewhere, OSError for what cannot be read or written.
    """
    marker = read_marker(subject.path / subject.marker)
    if marker is None:
        raise Unpackable(f"{subject.path} is not complete.")
    with tempfile.TemporaryFile(dir=scratch) as body:
        packing = _Packing(subject, body, marker.get("made", float("inf")))
        entries = tuple(packing.entries())
        manifest = Manifest(
            kind=subject.kind,
            key=subject.key,
            root=subject.root,
            folder=subject.folder,
            marker_name=subject.marker,
            marker={name: fact for name, fact in marker.items() if name not in OF_A_MACHINE},
            provenance={**subject.provenance, **_made_here()},
            platform=subject.platform,
            body=packing.finish(),
            entries=entries,
            python=subject.python_version if packing.links_python else "",
            needs=subject.needs,
            bound=packing.bound,
        )
        body.seek(0)
        seal(manifest, body, key, to)
    return manifest


def _made_here() -> dict[str, str | float]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = str(os.getuid())
    return {"host": platform.node(), "user": user, "at": time.time(), "lazycloud": __version__}


class _Packing:
    """Walks the folder, which was complete at `made`, and compresses what it reads into `body`."""

    def __init__(self, subject: Subject, body: BinaryIO, made: float) -> None:
        self.links_python = False
        self.bound = ""
        self._subject = subject
        self._made = made
        self._body = body
        self._compressor = zstd.ZstdCompressor(LEVEL)
        self._written = hashlib.sha256()
        self._size = 0
        self._content = 0
        self._left_out = {subject.marker, *subject.left_out}
        self._python = os.path.realpath(subject.python) if subject.python else ""

    def entries(self) -> Iterator[Entry]:
        yield from self._folder("")

    def finish(self) -> Body:
        self._write(self._compressor.flush())
        return Body(self._size, self._written.hexdigest(), self._content)

    def _folder(self, path: str) -> Iterator[Entry]:
        place = self._subject.path / path
        children = sorted(os.scandir(place), key=lambda child: child.name)
        names = {child.name for child in children}
        for child in children:
            inner = f"{path}/{child.name}" if path else child.name
            if inner not in self._left_out and not _is_bytecode(child.name, names):
                yield from self._entry(inner, child)

    def _entry(self, path: str, child: os.DirEntry[str]) -> Iterator[Entry]:
        mode = child.stat(follow_symlinks=False).st_mode
        if child.is_symlink():
            yield self._link(path, os.readlink(child.path))  # noqa: PTH115 - as it is, "./" too
        elif stat.S_ISDIR(mode):
            yield Entry(path, FOLDER, mode & MODE_MOST | OWNER)
            yield from self._folder(path)
        elif stat.S_ISREG(mode):
            yield self._file(path, child.path, mode & MODE_MOST)
            self._demand_as_made(path, child.path)
        else:
            raise Unpackable(f"{printable(path)} is neither a file, a folder nor a link.")

    def _demand_as_made(self, path: str, place: str) -> None:
        """What runs there may have written, until now: that is no other server's business, and no key tells of it."""
        modified = os.lstat(place).st_mtime
        if modified > self._made and (self._subject.kind != "release" or path.startswith(TREE)):
            raise Unpackable(f"{printable(path)} was written after it was complete, by what runs in it.")

    def _file(self, path: str, place: str, mode: int) -> Entry:
        if posixpath.basename(path) == PLUG_AND_PLAY:
            raise Unpackable(f"{path} of Yarn names packages that lie outside, in Yarn's cache.")
        search, digest, size = Search(self._subject.root), hashlib.sha256(), 0
        with open(place, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of them
            while piece := file.read(CHUNK):
                search.feed(piece)
                digest.update(piece)
                size += len(piece)
                self._write(self._compressor.compress(piece))
        self._content += size
        if search.found and not search.is_text:
            self.bound = self.bound or path
        return Entry(path, FILE, mode, size, digest.hexdigest(), relocate=search.found and search.is_text)

    def _link(self, path: str, target: str) -> Entry:
        if not target.startswith("/"):
            return Entry(path, LINK, target=target)
        if self._python and os.path.realpath(target) == self._python:
            self.links_python = True
            return Entry(path, INTERPRETER)
        inner = target.removeprefix(f"{self._subject.root}/")
        folders = (self._subject.folder, *self._subject.needs.values())
        if inner != target and moved(inner, dict.fromkeys(folders, "")) is not None:
            return Entry(path, LINK, target=inner, relocate=True)
        raise Unpackable(f"{printable(path)} is a link out of it, to {printable(target)}.")

    def _write(self, piece: bytes) -> None:
        self._written.update(piece)
        self._size += len(piece)
        self._body.write(piece)


def _is_bytecode(name: str, beside: set[str]) -> bool:
    """Bytecode that Python makes again from the source beside it."""
    return name == BYTECODE_FOLDER or (name.endswith(BYTECODE) and name.removesuffix("c") in beside)
