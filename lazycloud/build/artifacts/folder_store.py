"""A store in a folder: a disk of this machine, or one that is mounted from another."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lazycloud.build.artifacts.store import Missing, Stored, StoreFailed, is_name
from lazycloud.build.disk import FULL

SUFFIX = ".lazyart"
ASIDE = ".putting-"
ABANDONED = 86400.0  # seconds after which a half-put file is nobody's any more
CHUNK = 1 << 20


class FolderStore:
    """<folder>/<kind>/<key>.lazyart. The folder itself is never made: an absent one is a disk that is not mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, source: BinaryIO) -> None:
        with self._watched():
            self._demand_folder()
            place = self._place(name)
            place.parent.mkdir(exist_ok=True)
            self._clear(place.parent)
            aside = place.with_name(f"{ASIDE}{os.urandom(16).hex()}")
            try:
                with aside.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
                aside.rename(place)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            _sync(place.parent)

    def get(self, name: str, to: BinaryIO) -> None:
        with self._watched():
            self._demand_folder()
            try:
                with self._place(name).open("rb") as file:
                    shutil.copyfileobj(file, to, CHUNK)
            except FileNotFoundError:
                raise Missing(f"The artifact store has no {name}.") from None

    def exists(self, name: str) -> bool:
        with self._watched():
            self._demand_folder()
            return self._place(name).is_file()

    def list(self) -> Iterator[Stored]:
        with self._watched():
            self._demand_folder()
            for place in self._folder.glob(f"*/*{SUFFIX}"):
                name = f"{place.parent.name}/{place.name.removesuffix(SUFFIX)}"
                with suppress(FileNotFoundError):
                    if is_name(name):
                        facts = place.stat()
                        yield Stored(name, facts.st_size, facts.st_mtime)

    def delete(self, name: str) -> None:
        with self._watched():
            self._demand_folder()
            self._place(name).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if not is_name(name):
            raise StoreFailed(f"“{name}” is no name of an artifact.")
        return self._folder / f"{name}{SUFFIX}"

    def _demand_folder(self) -> None:
        if not self._folder.is_dir():
            raise StoreFailed(
                f"The artifact store {self._folder} is not there.",
                f"Is its disk mounted? Else make it: mkdir -p {self._folder}",
            )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """An OSError as a sentence about the store."""
        try:
            yield
        except OSError as problem:
            if problem.errno in FULL:
                raise StoreFailed(f"The disk of the artifact store {self._folder} is full.") from problem
            why = (problem.strerror or str(problem)).lower()
            raise StoreFailed(f"The artifact store {self._folder} cannot be used: {why}.") from problem

    @staticmethod
    def _clear(folder: Path) -> None:
        """What writers left that were killed."""
        for aside in folder.glob(f"{ASIDE}*"):
            with suppress(FileNotFoundError):
                if time.time() - aside.stat().st_mtime > ABANDONED:
                    aside.unlink()


def _sync(folder: Path) -> None:
    """The names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
