"""The versions of an app's data: each a database and a folder of files of its own, under <folder>/<version>/.

A worker finds its own through DATABASE_URL and DATA_DIR. Forks and snapshots are full copies for now; what
callers see of them is made so that they can become cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lazycloud.data import durable, sqlite, within
from lazycloud.data.files import Copy
from lazycloud.data.names import (
    PASSING,
    PRODUCTION,
    check_snapshot,
    check_version,
    is_version,
    new_snapshot,
)
from lazycloud.errors import Conflict, DiskFull, NotFound, StepFailed

Result = TypeVar("Result")

DATABASE = "database.sqlite"
FILES = "files"
SNAPSHOTS = ".snapshots"  # after a version's name; no version can be called that
MAKING, DROPPING, READING, SWAPPING = ".making-", ".dropping-", ".reading-", ".swapping-"
LINGERS = 5.0  # seconds for which the name under which a version was made leads to it
PATIENCE = 10.0  # seconds that a copy waits for an app's lock on its database


@dataclass(frozen=True)
class Fork:
    """`bytes`: the size of the version; `seconds`: what making it took; `made`: False if it was there before."""

    version: str
    source: str | None
    bytes: int
    seconds: float
    made: bool


@dataclass(frozen=True)
class Snapshot:
    """A frozen point of a version. `bytes`: the size of its contents; `note`: what is not exact of it, or ""."""

    id: str
    version: str
    bytes: int
    note: str


class Versions:
    """The versions in one folder. `patience`: seconds to wait for an app's lock on its database.

    All copies are made by one thread, one after the other. Two at once from one source would take each other's
    locks: reading a file raw (to see whether it is a database) and closing it drops every POSIX lock that this
    process has on it, those of an SQLite connection in another thread too. A process for each copy would keep
    them apart as well, and cost its start; copies are bound by the disk anyway.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE) -> None:
        self._folder = folder.absolute()
        self._patience = patience
        self._links: set[Path] = set()  # where versions were made, which lead to them for a while
        self._begun: dict[Path, Path] = {}  # version -> the folder that it will have been made in
        self._copier = ThreadPoolExecutor(max_workers=1, thread_name_prefix="copy of data")

    def __repr__(self) -> str:
        return f"<Versions in {self._folder}>"

    def clear_leftovers(self) -> None:
        """Remove what an earlier process left half-made or half-dropped. Not while copies are made."""
        for pattern in (f"{MAKING}*", f"{DROPPING}*", f"{READING}*", f"*{SNAPSHOTS}/{MAKING}*"):
            for leftover in self._folder.glob(pattern):
                if leftover.is_symlink():
                    leftover.unlink()
                shutil.rmtree(leftover, ignore_errors=True)

    async def clear_passing(self) -> None:
        """Drop the versions of promotes that nobody ended."""
        for start in PASSING:
            for place in self._folder.glob(f"{start}*"):
                if SNAPSHOTS not in place.name:
                    await self.drop(place.name)

    async def close(self) -> None:
        """Finish the copy under way, and make no other."""
        await asyncio.to_thread(self._copier.shutdown, cancel_futures=True)
        for making in self._begun.values():
            shutil.rmtree(making, ignore_errors=True)
        self._begun.clear()
        for begun in list(self._links):
            self._unlink(begun)

    def exists(self, version: str) -> bool:
        return self.place(version).is_dir()

    def all(self) -> list[str]:
        """The names of those that there are, and of those of which only snapshots are left. Blocks."""
        names = (place.name.removesuffix(SNAPSHOTS) for place in self._folder.glob("[!.]*"))
        return sorted({name for name in names if is_version(name)})

    def environment(self, version: str) -> dict[str, str]:
        """What a worker on this version finds its data by."""
        place = self.place(version)
        return {"DATABASE_URL": f"sqlite:///{place / DATABASE}", "DATA_DIR": str(place / FILES)}

    def begin(self, version: str) -> Path:
        """The folder of a version, or the one that `fork` will fill and give its name: to see it early."""
        place = self.place(version)
        if place.is_dir():
            return place
        making = self._begun.get(place)
        if making is None:
            making = self._begun[place] = _make_aside(place)
        return making

    async def fork(self, version: str, source: str | None, at: str | None = None) -> Fork:
        """Make a version: from `source` as it is now, or at a snapshot of it; empty if None. Idempotent.

        A version that exists is left as it is. A caller that is cancelled leaves a copy that has begun to end
        well. Raises NotFound without the source, StepFailed if it is locked or damaged, or the disk is full.
        """
        origin = None if source is None else self._origin(source, at)
        place = self.place(version)
        begun = self._begun.get(place)
        try:
            return await self._copying(lambda: self._fork(version, place, source, origin))
        finally:
            if begun:
                self._links.add(begun)
                asyncio.get_running_loop().call_later(LINGERS, self._unlink, begun)

    def _unlink(self, begun: Path) -> None:
        self._links.discard(begun)
        with contextlib.suppress(OSError):  # there is none of a fork that failed
            begun.unlink()

    async def snapshot(self, version: str) -> Snapshot:
        """Freeze a version as it is now. Raises as `fork` does."""
        origin, snapshot = self._origin(version, None), new_snapshot()
        place = self._snapshots(version) / snapshot
        await self._copying(lambda: self._make(place, version, origin))
        return Snapshot(snapshot, version, await asyncio.to_thread(_size, place), "")

    def snapshots(self, version: str) -> list[str]:
        """The ids of those that there are, oldest first."""
        places = self._snapshots(version).glob("*")
        return sorted(place.name for place in places if not place.name.startswith("."))

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        """Nothing happens if there is none."""
        place = self._origin(version, snapshot)
        await self._copying(lambda: self._drop([place]))

    @contextlib.asynccontextmanager
    async def unfolded(self, version: str, at: str | None = None) -> AsyncIterator[Path]:
        """A copy of a version as it is now, or at a snapshot, for whoever wants to read it: a folder as a version's.

        Gone afterwards. Raises as `fork` does.
        """
        origin = self._origin(version, at)
        place = self._folder / f"{READING}{secrets.token_hex(8)}"
        await self._copying(lambda: self._make(place, version, origin))
        try:
            yield place
        finally:
            await asyncio.shield(self._copying(lambda: shutil.rmtree(place, ignore_errors=True)))

    async def swap(self, version: str, other: str) -> None:
        """Each has what the other had, at once; snapshots stay. Nobody uses either now.

        Until `swapped` is called it is taken back by `undo_swap`, also after a crash.
        """
        places = self.place(version), self.place(other)
        await self._copying(lambda: self._swap(*places))

    def _swap(self, place: Path, other: Path) -> None:
        """What is to be is written down first: it has happened if a folder's number is in the other's place."""
        durable.write(self._swapping(place.name), f"{other.name} {other.stat().st_ino}")
        durable.exchange(place, other)

    async def swapped(self, version: str) -> None:
        """The swap of a version holds for good."""
        await self._copying(lambda: durable.remove(self._swapping(version)))

    def swapping(self) -> dict[str, str]:
        """The swaps that do not hold yet: version -> the other one. Blocks."""
        notes = self._folder.glob(f"{SWAPPING}*")
        return {
            note.name.removeprefix(SWAPPING): note.read_text().split()[0]
            for note in notes
            if not note.name.endswith(".new")
        }

    async def undo_swap(self, version: str) -> bool:
        """Take back a swap that does not hold yet; False if there is none. Nobody uses either version now."""
        return await self._copying(lambda: self._undo_swap(self._swapping(version)))

    async def undo_swaps(self, holds: str) -> list[str]:
        """After a crash: the versions whose swap was taken back. One with the version `holds` is left as it is."""
        undone = []
        for note in sorted(self._folder.glob(f"{SWAPPING}*")):
            version = note.name.removeprefix(SWAPPING)
            if note.read_text().partition(" ")[0] == holds:
                await self.swapped(version)
            elif await self.undo_swap(version):
                undone.append(version)
        return undone

    def _undo_swap(self, note: Path) -> bool:
        if not note.exists():
            return False
        place, (other, number) = self.place(note.name.removeprefix(SWAPPING)), note.read_text().split()
        happened = place.is_dir() and place.stat().st_ino == int(number)
        if happened:
            durable.exchange(place, self.place(other))
        durable.remove(note)
        return happened

    def _swapping(self, version: str) -> Path:
        return self._folder / f"{SWAPPING}{check_version(version)}"

    async def drop(self, version: str, force: bool = False) -> None:
        """Remove a version and its snapshots; nothing happens if it is not there. Production only by force."""
        if version == PRODUCTION and not force:
            raise Conflict("Production's data is not dropped.", "Only with force.")
        places = [self.place(version), self._snapshots(version)]
        await self._copying(lambda: self._drop(places))

    async def size(self, version: str) -> int:
        """Bytes of its database and files, without snapshots; 0 if there is no such version."""
        return await asyncio.to_thread(_size, self.place(version))

    async def taken(self, version: str) -> int:
        """Bytes that come free when it is dropped: of it, and of its snapshots."""
        places = self.place(version), self._snapshots(version)
        return await asyncio.to_thread(lambda: sum(map(_size, places)))

    def used(self, version: str) -> float:
        """Unix time of its last change that a look at its folder tells; 0.0 if it is not there."""
        try:
            return max(each.stat().st_mtime for each in (self.place(version), self.place(version) / DATABASE))
        except FileNotFoundError:
            return 0.0

    def place(self, version: str) -> Path:
        """The folder that holds all of a version's data."""
        return self._folder / check_version(version)

    def _snapshots(self, version: str) -> Path:
        return self._folder / f"{check_version(version)}{SNAPSHOTS}"

    def _origin(self, source: str, at: str | None) -> Path:
        if at is None:
            return self.place(source)
        return self._snapshots(source) / check_snapshot(at)

    async def _copying(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._copier, work)

    def _fork(self, version: str, place: Path, source: str | None, origin: Path | None) -> Fork:
        began, made = time.monotonic(), not place.is_dir()
        if made:
            self._make(place, source or "", origin)
        return Fork(version, source, _size(place), time.monotonic() - began, made)

    def _make(self, place: Path, source: str, origin: Path | None) -> None:
        """Make a version's or a snapshot's folder, whole or not at all."""
        if origin and not origin.is_dir():
            raise NotFound(f"There is no data of {source[:40]} to copy ({origin.name}).")
        try:
            with _whole(place, self._begun.pop(place, None)) as making:
                self._fill(making, origin)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._full(origin) from problem

    def _fill(self, making: Path, origin: Path | None) -> None:
        database, files = making / DATABASE, making / FILES
        if origin:
            _demand_own(origin, DATABASE)
            _demand_own(origin, FILES)
        if origin and _has_content(origin / DATABASE):
            with within.opened(origin, origin / DATABASE, within.FILE) as itself:
                _demand_space(itself, making)
                sqlite.copy(origin / DATABASE, itself, database, self._patience, use_wal=True)
        else:
            sqlite.create(database)
        if origin and (origin / FILES).is_dir():
            Copy(origin / FILES, files, self._patience, root=origin).make()
        else:
            files.mkdir()

    def _full(self, origin: Path | None) -> DiskFull:
        """Asked for the free space when what was half-made is gone: that much there is."""
        disk = next(place for place in (self._folder, *self._folder.parents) if place.exists())
        free, needed = shutil.disk_usage(disk).free, _size(origin) if origin else 0
        return DiskFull(
            f"The disk of {self._folder} is full: {free / 1e6:.1f} MB free, "
            f"the data takes {needed / 1e6:.1f} MB.",
            "`lazycloud disk` tells where it went, `lazycloud prune --all` removes what can be built again.",
            needed,
        )

    def _drop(self, places: list[Path]) -> None:
        for place in places:
            if place.is_dir():
                gone = Path(tempfile.mkdtemp(prefix=DROPPING, dir=self._folder))
                place.rename(gone / place.name)  # at once, so that nobody sees it half there
                durable.sync(self._folder)
                shutil.rmtree(gone, ignore_errors=True)


@contextlib.contextmanager
def _whole(place: Path, begun: Path | None) -> Iterator[Path]:
    """A folder to fill, which gets its name if that went well and is gone if not.

    If there is one that was `begun`, what was made is moved there: a worker to come sees that one already, and its
    code must not have a say in where the server writes.
    """
    making = _make_aside(place)
    seen = begun if begun and begun.is_dir() else None
    try:
        yield making
        durable.persist(making)
        if seen:
            _move_all(making, seen)
        durable.publish(seen or making, place, linked=seen is not None)
    except BaseException:
        if seen:
            shutil.rmtree(seen, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _move_all(making: Path, seen: Path) -> None:
    """In place of whatever is there. Raises OSError when somebody puts more there meanwhile."""
    for planted in list(seen.iterdir()):
        if planted.is_dir() and not planted.is_symlink():
            shutil.rmtree(planted)
        else:
            planted.unlink()
    for made in list(making.iterdir()):
        made.rename(seen / made.name)


def _demand_own(origin: Path, name: str) -> None:
    """An app may put a link in place of what it was given; the server would follow it to what the app cannot see."""
    if not (origin / name).resolve().is_relative_to(origin.resolve()):
        raise StepFailed(
            f"{name} of the data of {origin.name[:40]} is a link that leads out of that data: it is not copied.",
            f"Let the app keep a {'folder' if name == FILES else 'database'} of its own there.",
        )


def _make_aside(place: Path) -> Path:
    if not place.parent.is_dir():
        place.parent.mkdir(parents=True, mode=0o700, exist_ok=True)  # others make versions, too
        durable.sync(place.parent.parent)
    return Path(tempfile.mkdtemp(prefix=MAKING, dir=place.parent))


def _has_content(database: Path) -> bool:
    """Whatever it is: one that is no database any more is an error to tell, and not an empty one to go on with."""
    try:
        return database.stat().st_size > 0
    except FileNotFoundError:
        return False


def _demand_space(database: int, folder: Path) -> None:
    """Said before, not after the last free byte was taken from the app that writes to the same disk."""
    if os.fstat(database).st_size > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _size(place: Path) -> int:
    """Bytes of the regular files below a folder; 0 if it is not there. What vanishes meanwhile counts nothing."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(place):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    total += _size(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
