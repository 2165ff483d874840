"""A verified file -> a folder: complete, or not there at all.

Files are written before any link is, so that nothing can be written through one. Everything is bounded by what the
signed manifest says. As with all that stages make, `settle_marker` flushes it to the disk when nobody waits any more.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lazycloud.build.artifacts.envelope import CHUNK, Envelope
from lazycloud.build.artifacts.manifest import (
    FILE,
    FOLDER,
    LINK,
    ArtifactRefused,
    Entry,
    Manifest,
    moved,
    printable,
)
from lazycloud.build.artifacts.pack import Subject
from lazycloud.build.artifacts.relocation import is_movable, rewritten
from lazycloud.build.marker import TRASH, remove, write_marker

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SETTINGS_OF_VENV = "pyvenv.cfg"
_HOME_LINE = re.compile(rb"^home[ \t]*=.*$", re.MULTILINE)
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def demand_fit(manifest: Manifest, subject: Subject) -> None:
    """That it is what was asked for, and works here. Raises ArtifactRefused."""
    if (manifest.kind, manifest.key) != (subject.kind, subject.key):
        raise ArtifactRefused(f"It is {manifest.kind} {manifest.key}, which was not asked for.")
    if manifest.marker_name != subject.marker or not manifest.needs.keys() <= subject.needs.keys():
        raise ArtifactRefused("It was made in another way than this lazycloud makes it.")
    if manifest.platform != subject.platform:
        raise ArtifactRefused(f"It was made on {manifest.platform}, and this machine is {subject.platform}.")
    if manifest.python and manifest.python != subject.python_version:
        here = f"uses {subject.python_version}" if subject.python_version else "has none for it"
        raise ArtifactRefused(f"It needs Python {manifest.python}, and this machine {here}.")
    if _places(manifest, subject):
        _demand_movable(manifest, subject)


def _demand_movable(manifest: Manifest, subject: Subject) -> None:
    if manifest.bound:
        raise ArtifactRefused(
            f"{printable(manifest.bound)} in it names {manifest.root}, the only place where it works.",
            "Give this server the same home, or build here.",
        )
    if not is_movable(subject.root):
        raise ArtifactRefused(
            f"It cannot be moved to {subject.path}, a path with characters that mean something to shells.",
            "Give this server a home with a plain name, or build here.",
        )


def _places(manifest: Manifest, subject: Subject) -> dict[str, str]:
    """Paths of the machine that made it, with what they are here; empty if all are the same."""
    folders = _folders(manifest, subject)
    places = {f"{manifest.root}/{old}": f"{subject.root}/{new}" for old, new in folders.items()}
    if all(old == new for old, new in places.items()):
        return {}
    return {**places, f"{manifest.root}/": f"{subject.root}/"}


def _folders(manifest: Manifest, subject: Subject) -> dict[str, str]:
    """The same for folders below the app's: their names may come from the paths of interpreters."""
    needs = {folder: subject.needs[key] for key, folder in manifest.needs.items()}
    return {manifest.folder: subject.folder, **needs}


def aside_of(subject: Subject) -> Path:
    """A new name for what is not complete yet."""
    return subject.path.with_name(f"{TRASH}{os.urandom(16).hex()}")


def unpack(file: BinaryIO, envelope: Envelope, subject: Subject, aside: Path) -> None:
    """Make the folder, in `aside` until it is complete; `file` stands at the begin of a verified body.

    Raises ArtifactRefused, OSError; nothing is left then.
    """
    manifest, final = envelope.manifest, subject.path
    demand_fit(manifest, subject)
    final.parent.mkdir(parents=True, exist_ok=True)
    _demand_room(manifest, final.parent)
    aside.mkdir(mode=0o755)
    try:
        _Unpacking(manifest, subject, aside).run(file)
        taken = {"signer": envelope.signer, "provenance": manifest.provenance}
        write_marker(aside / subject.marker, {**manifest.marker, "fetched": taken})
        if final.exists():  # what a crash left half-made
            final.rename(aside_of(subject))
        aside.rename(final)
    except BaseException:
        remove(aside)
        raise


def _demand_room(manifest: Manifest, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if manifest.body.content > free:
        raise ArtifactRefused(
            f"It takes {manifest.body.content / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB."
        )


class _Unpacking:
    """Writes the entries below `aside`."""

    def __init__(self, manifest: Manifest, subject: Subject, aside: Path) -> None:
        self._manifest = manifest
        self._subject = subject
        self._aside = aside
        self._places = _places(manifest, subject)
        self._folders = _folders(manifest, subject)
        # The base interpreter, as uv and venv link to it: a virtual environment is not made from another one.
        self._python = os.path.realpath(subject.python) if subject.python else ""

    def run(self, file: BinaryIO) -> None:
        try:
            with zstd.open(file, "rb") as content:
                self._write_files(content)
                if content.read(1):
                    raise ArtifactRefused("It holds more than its manifest says.")
        except (zstd.ZstdError, EOFError) as problem:
            raise ArtifactRefused(f"It cannot be decompressed: {problem}.") from problem
        self._link()
        self._set_modes()

    def _write_files(self, content: zstd.ZstdFile) -> None:
        for entry in self._manifest.entries:
            if entry.type == FOLDER:
                (self._aside / entry.path).mkdir()
            elif entry.type == FILE:
                self._write(entry, f"{self._aside}/{entry.path}", content)

    def _write(self, entry: Entry, place: str, content: zstd.ZstdFile) -> None:
        pieces = _verified(entry, content)
        if self._places and entry.relocate:
            pieces = rewritten(pieces, self._places)
        if self._manifest.python and entry.path.rpartition("/")[2] == SETTINGS_OF_VENV:
            pieces = iter([self._with_home(b"".join(pieces))])
        with open(os.open(place, _FLAGS, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(file.fileno(), view) :]
            os.fchmod(file.fileno(), entry.mode)

    def _with_home(self, settings: bytes) -> bytes:
        """pyvenv.cfg says where the base interpreter is."""
        home = os.fsencode(os.path.dirname(self._python))  # noqa: PTH120
        return _HOME_LINE.sub(lambda _: b"home = " + home, settings)

    def _link(self) -> None:
        for entry in self._manifest.entries:
            if entry.type == LINK:
                (self._aside / entry.path).symlink_to(self._target(entry))
            elif entry.type not in (FILE, FOLDER):
                (self._aside / entry.path).symlink_to(self._python)
        # A link may lead out by way of another one, which reading its own text alone cannot tell.
        root, allowed = os.path.realpath(self._aside), self._allowed()
        for entry in self._manifest.entries:
            end = os.path.realpath(self._aside / entry.path) if entry.type == LINK else root
            if not any(end == place or end.startswith(f"{place}/") for place in (root, *allowed)):
                raise ArtifactRefused(f"It has a link {printable(entry.path)} that leads out.")

    def _target(self, entry: Entry) -> str:
        if not entry.relocate:
            return entry.target
        return f"{self._subject.root}/{moved(entry.target, self._folders)}"

    def _allowed(self) -> list[str]:
        """Where links may end beside the folder itself: its own final place, environments, the interpreter."""
        places = [f"{self._subject.root}/{folder}" for folder in self._folders.values()]
        return [os.path.realpath(place) for place in places] + ([self._python] if self._python else [])

    def _set_modes(self) -> None:
        """Folders at the end, what is inside before what it is in: one may be read-only."""
        for entry in reversed(self._manifest.entries):
            if entry.type == FOLDER:
                (self._aside / entry.path).chmod(entry.mode)


def _verified(entry: Entry, content: zstd.ZstdFile) -> Iterator[bytes]:
    """A file's content; what follows the last piece is only reached if its hash was right."""
    digest, left = hashlib.sha256(), entry.size
    while left:
        piece = content.read(min(left, CHUNK))
        if not piece:
            raise ArtifactRefused("It is cut short: a part of it is missing.")
        digest.update(piece)
        left -= len(piece)
        yield piece
    if digest.hexdigest() != entry.sha256:
        raise ArtifactRefused(f"{printable(entry.path)} in it is not what the manifest says.")
