"""Which versions' databases are held, and consistent copies of a version's whole folder, made without SQLite.

Production is held as long as it may be copied from, so that a copy of it costs no more than its bytes; another
version only while it is copied. The holder of each is a process of its own, behind walls that show it that version.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from lazycloud import trees
from lazycloud.data.files import Copy
from lazycloud.data.holding import PROGRAM, Enclosed
from lazycloud.data.layers import Layers
from lazycloud.data.line import COPIES, DATABASE, FILES, KEPT, Line, Marks
from lazycloud.errors import DiskFull, Unavailable

ARCHIVE = ".archive"  # after a version's name
MOMENT = "moment.json"  # in a frozen folder
OURS = {
    DATABASE,
    MOMENT,
    "postgres.dump",
    "redis.dump",
    "versionbase.dump",
}  # in the folder of a version, or of a copy of one
SEEN = (PROGRAM.parent, Path(sys.base_prefix), Path(sys.prefix))  # that a holder needs to run
TRIES = 5  # of a copy in whose midst the app makes a database, or the holder dies
AGAIN = 0.1  # seconds between tries to hold what was lost

Enclose = Callable[[tuple[Path, ...], tuple[Path, ...]], Enclosed]
"""What puts a command behind walls that show it some folders, and let it write to others."""


@dataclass
class Layering:
    """Which databases are wanted in layers, and the folder for links to these; then those that came, by name.

    `both`: they come as files, too, of the same moment.
    """

    wanted: frozenset[str]
    folder: Path
    both: bool = False
    found: dict[str, Layers] = field(default_factory=dict)


class Lines:
    """Of one app. `patience`: seconds to wait for what is not held at the moment."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.enclose: Enclose | None = None
        self._folder = folder
        self._patience = patience
        self._kept: dict[str, Line] = {}
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def hold(self, version: str) -> None:
        """Hold its databases until they are to be `still`. Raises Unavailable when there can be no holder."""
        async with self._lock(version):
            if version not in self._kept and (self._folder / version).is_dir():
                self._kept[version] = await self._open(version)

    @contextlib.asynccontextmanager
    async def still(self, *versions: str) -> AsyncIterator[None]:
        """Nobody holds their databases, nor copies them, within: their folders may be moved, or go."""
        async with contextlib.AsyncExitStack() as locked:
            for version in sorted(set(versions)):
                await locked.enter_async_context(self._lock(version))
            for version in versions:
                if line := self._kept.pop(version, None):
                    await self._close(version, line)
            yield

    async def close(self) -> None:
        async with self.still(*self._kept):
            pass

    async def copy(
        self, version: str, making: Path, frozen: bool = False, layering: Layering | None = None
    ) -> str:
        """All of a version as it is now, in a folder that is there and empty. What is not exact, in words, or "".

        `frozen`: nobody works with that folder. Then it may have a file MOMENT in place of large databases that the
        file system cannot share: all such have one base, and what was written since, in the version's archive.
        `layering`: large databases, of a version that is held, that come in layers and not as files.
        Raises Unavailable, DiskFull, StepFailed. Not synced.
        """
        async with self._line(version) as line:
            for left in range(TRIES - 1, -1, -1):
                try:
                    return await self._copy(line, version, making, frozen, layering)
                except Unavailable:
                    if not left:
                        raise
                await asyncio.to_thread(trees.empty, making)
            raise AssertionError

    async def _copy(
        self, line: Line, version: str, making: Path, frozen: bool, layering: Layering | None
    ) -> str:
        marks = await self._mark(line)
        if layering and line is self._kept.get(version):
            layering.found = await self._layers(line, marks, making, layering)
        without = layering.found if layering and not layering.both else ()
        if frozen and await line.is_costly():
            note = await line.freeze(marks, making)
            await asyncio.to_thread(self._write_moment, version, marks, making)
        else:
            note = await line.image(marks, making, without=without)
        names = {at.name for at in marks.databases} | line.databases
        await asyncio.to_thread(self._copy_files, version, making, names)
        return note

    async def _layers(self, line: Line, marks: Marks, making: Path, layering: Layering) -> dict[str, Layers]:
        large = [at for at in marks.databases if at.name in line.large() & layering.wanted]
        if not large:
            return {}
        kept = Marks(tuple(large), note=f"for layers {secrets.token_hex(8)}")  # as nobody else keeps
        try:
            await line.keep(kept)
            found = await line.layers(kept, layering.folder)
        except (Unavailable, DiskFull):
            if layering.both:  # the files are what counts
                return {}
            raise
        finally:
            await line.forget(kept)
        for name in found:  # also of one whose folder goes just now
            (making / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return found

    async def thaw(self, version: str, frozen: Path, making: Path) -> None:
        """The databases in place of which a frozen folder of a version has a MOMENT. Raises as `copy`."""
        if moment := await asyncio.to_thread(_moment, frozen):
            async with self._line(version) as line:
                await line.thaw(moment.marks, making)

    async def forget(self, version: str, frozen: Path) -> None:
        """A frozen folder of a version is about to go: nothing is kept for it alone any more."""
        if moment := await asyncio.to_thread(_moment, frozen):
            async with self._line(version) as line:
                if await asyncio.to_thread(_is_anothers, frozen, moment.marks):
                    return
                await line.forget(moment.marks)

    def clear(self, version: str, frozen: Iterable[Path]) -> None:
        """After a crash: forget what is kept for others than these frozen folders. Blocks; before it is held."""
        archive = self._folder / f"{version}{ARCHIVE}"
        wanted = {moment.marks.id for one in frozen if (moment := _moment(one))}
        for kept in (archive / KEPT).glob("*.json"):
            if kept.stem not in wanted:
                kept.unlink()
        if not wanted:
            shutil.rmtree(archive, ignore_errors=True)

    def _write_moment(self, version: str, marks: Marks, making: Path) -> None:
        sizes = [(self._folder / version / at.name).stat().st_size for at in marks.databases]
        (making / MOMENT).write_text(json.dumps({"marks": marks.as_json(), "bytes": sum(sizes)}))

    def _copy_files(self, version: str, making: Path, databases: set[str]) -> None:
        """What an app put beside its folder of files, too; but for names that mean something to us."""
        Copy(self._folder / version, making, databases | OURS).make()
        if not (making / FILES).exists():
            (making / FILES).mkdir()

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
        """What is not kept for a snapshot goes with it."""
        await line.close()
        archive = self._folder / f"{version}{ARCHIVE}"
        if not any((archive / KEPT).glob("*.json")):
            await asyncio.to_thread(shutil.rmtree, archive, ignore_errors=True)

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


@dataclass(frozen=True)
class _Moment:
    """What is in the file MOMENT. `bytes` of the databases that it stands for, about."""

    marks: Marks
    bytes: int


def size_of(frozen: Path) -> int:
    """Bytes of the databases in place of which a frozen folder has a MOMENT."""
    moment = _moment(frozen)
    return moment.bytes if moment else 0


def _is_anothers(frozen: Path, marks: Marks) -> bool:
    """Whether a frozen folder beside is of the same moment: nothing was written between the two."""
    others = (one for one in frozen.parent.iterdir() if one != frozen)
    return any(moment.marks.id == marks.id for one in others if (moment := _moment(one)))


def _moment(frozen: Path) -> _Moment | None:
    try:
        facts = json.loads((frozen / MOMENT).read_text())
    except FileNotFoundError:
        return None
    return _Moment(Marks.from_json(facts["marks"]), facts["bytes"])
