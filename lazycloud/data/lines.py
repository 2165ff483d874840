"""Which versions' databases are held, and consistent copies of a version's whole folder, made without SQLite.

Production is held as long as it may be copied from, so that a copy of it costs no more than its bytes; another
version only while it is copied. The holder of each is a process of its own, behind walls that show it that version.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from lazycloud.data.files import Copy, Unforeseen
from lazycloud.data.holding import PROGRAM, Enclosed
from lazycloud.data.line import COPIES, FILES, Line, Marks
from lazycloud.errors import Unavailable

ARCHIVE = ".archive"  # after a version's name
SEEN = (PROGRAM.parent, Path(sys.base_prefix), Path(sys.prefix))  # that a holder needs to run
TRIES = 5  # of a copy in whose midst the app makes a new database
AGAIN = 0.1  # seconds between tries to hold what was lost

Enclose = Callable[[tuple[Path, ...], tuple[Path, ...]], Enclosed]
"""What puts a command behind walls that show it some folders, and let it write to others."""


class Lines:
    """Of one app. `patience`: seconds to wait for what is not held at the moment."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.enclose: Enclose | None = None
        self._folder = folder
        self._patience = patience
        self._kept: dict[str, Line] = {}
        self._changing: dict[str, asyncio.Lock] = {}

    async def hold(self, version: str) -> None:
        """Hold its databases until `release`. Raises Unavailable when there can be no holder."""
        async with self._lock(version):
            if version not in self._kept and (self._folder / version).is_dir():
                self._kept[version] = await self._open(version)

    async def release(self, version: str) -> None:
        """Before its folder is moved, or goes. Nothing happens if it is not held."""
        async with self._lock(version):
            if line := self._kept.pop(version, None):
                await self._close(version, line)

    async def close(self) -> None:
        await asyncio.gather(*map(self.release, list(self._kept)))

    def troubles(self, version: str) -> dict[str, str]:
        """Name of a database of a held version -> what is not as it should be, in a sentence."""
        line = self._kept.get(version)
        return line.troubles if line else {}

    async def copy(self, version: str, making: Path) -> str:
        """All of a version as it is now, in a folder that is there and empty. What is not exact, in words, or "".

        Raises Unavailable, DiskFull, StepFailed. Not synced.
        """
        async with self._line(version) as line:
            for last in range(TRIES, 0, -1):
                marks = await self._mark(line)
                note = await line.image(marks, making)
                names = {at.name for at in marks.databases} | line.databases
                try:
                    await asyncio.to_thread(self._copy_files, version, making, names)
                    return note
                except Unforeseen:
                    if last == 1:
                        raise
                    await asyncio.to_thread(_empty, making)
            raise AssertionError

    def _copy_files(self, version: str, making: Path, databases: set[str]) -> None:
        root = self._folder / version
        (making / FILES).mkdir(exist_ok=True)
        if (root / FILES).is_dir():
            Copy(root / FILES, making / FILES, databases, root).make()

    @contextlib.asynccontextmanager
    async def _line(self, version: str) -> AsyncIterator[Line]:
        async with self._lock(version):
            if line := self._kept.get(version):
                yield line
                return
            line = await self._open(version)
            try:
                yield line
            finally:
                await asyncio.shield(self._close(version, line))

    async def _close(self, version: str, line: Line) -> None:
        """No moment is kept beyond it: what is to last is copied."""
        await line.close()
        await asyncio.to_thread(shutil.rmtree, self._folder / f"{version}{ARCHIVE}", ignore_errors=True)

    async def _open(self, version: str) -> Line:
        place, archive = self._folder / version, self._folder / f"{version}{ARCHIVE}"
        enclosed = self.enclose(SEEN, (place, archive / COPIES)) if self.enclose else None
        return await Line.open(place, archive, enclosed, patience=self._patience)

    async def _mark(self, line: Line) -> Marks:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                await line.adopt()
                return line.mark()
            except Unavailable:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(AGAIN)

    def _lock(self, version: str) -> asyncio.Lock:
        return self._changing.setdefault(version, asyncio.Lock())


def _empty(folder: Path) -> None:
    for place in list(folder.iterdir()):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()
