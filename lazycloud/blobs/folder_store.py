"""A store in a folder: a disk of this machine, or one that is mounted from another."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lazycloud.blobs.store import ARTIFACTS, Kind, Missing, Stored, StoreFailed

FULL = (errno.ENOSPC, errno.EDQUOT)
ASIDE = ".putting-"
ABANDONED = 86400.0  # seconds after which a half-put file is nobody's any more
CHUNK = 1 << 20


class FolderStore:
    """<folder>/<name> and the kind's suffix, such as <folder>/<kind>/<key>.lazyart.

    The folder itself is never made: an absent one is a disk that is not mounted.
    """

    def __init__(self, folder: Path, kind: Kind = ARTIFACTS) -> None:
        self._folder = folder
        self._kind = kind
        self._cleared: set[Path] = set()
        self._unsettled: list[tuple[Path, Path]] = []  # where it is, and what it is to be called

    def put(self, name: str, source: BinaryIO, settled: bool = True) -> None:
        with self._watched():
            self._demand_folder()
            place = self._place(name)
            self._make(place.parent)
            aside = place.with_name(f"{ASIDE}{os.urandom(16).hex()}")
            try:
                with aside.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                    if settled:
                        file.flush()
                        os.fsync(file.fileno())
                if not settled:
                    self._unsettled.append((aside, place))
                    return
                aside.rename(place)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            _sync(place.parent)

    def settle(self) -> None:
        unsettled, self._unsettled = self._unsettled, []
        if not unsettled:
            return
        with self._watched():
            _sync_file_system(self._folder)
            for aside, place in unsettled:
                aside.rename(place)
            for folder in {place.parent for _, place in unsettled}:
                _sync(folder)

    def get(self, name: str, to: BinaryIO) -> None:
        with self._watched():
            self._demand_folder()
            try:
                with self._place(name).open("rb") as file:
                    shutil.copyfileobj(file, to, CHUNK)
            except FileNotFoundError:
                raise Missing(f"The {self._kind.called} has no {name}.") from None

    def exists(self, name: str) -> bool:
        with self._watched():
            self._demand_folder()
            return self._place(name).is_file()

    def list(self, below: str = "") -> Iterator[Stored]:
        suffix = self._kind.suffix
        with self._watched():
            self._demand_folder()
            for place in (self._folder / below).glob(f"**/*{suffix}"):
                name = str(place.relative_to(self._folder)).removesuffix(suffix)
                with suppress(FileNotFoundError):
                    if self._kind.is_name(name):
                        facts = place.stat()
                        yield Stored(name, facts.st_size, facts.st_mtime)

    def delete(self, name: str) -> None:
        with self._watched():
            self._demand_folder()
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if not self._kind.is_name(name):
            raise StoreFailed(f"“{name}” is no name in the {self._kind.called}.")
        return self._folder / f"{name}{self._kind.suffix}"

    def _make(self, folder: Path) -> None:
        """A folder within ours, for good; in one that is there, what writers left is cleared now and then."""
        if folder.is_dir():
            if folder not in self._cleared:
                self._clear(folder)
                self._cleared.add(folder)
            return
        self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)

    def _demand_folder(self) -> None:
        if not self._folder.is_dir():
            raise StoreFailed(
                f"The {self._kind.called} {self._folder} is not there.",
                f"Is its disk mounted? Else make it: mkdir -p {self._folder}",
            )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """An OSError as a sentence about the store."""
        try:
            yield
        except OSError as problem:
            if problem.errno in FULL:
                raise StoreFailed(f"The disk of the {self._kind.called} {self._folder} is full.") from problem
            why = (problem.strerror or str(problem)).lower()
            raise StoreFailed(f"The {self._kind.called} {self._folder} cannot be used: {why}.") from problem

    @staticmethod
    def _clear(folder: Path) -> None:
        """What writers left that were killed."""
        for aside in folder.glob(f"{ASIDE}*"):
            with suppress(FileNotFoundError):
                if time.time() - aside.stat().st_mtime > ABANDONED:
                    aside.unlink()


def _sync_file_system(folder: Path) -> None:
    """syncfs(2), which Python lacks: one wait for all that was written there, by whomever."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """The names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
