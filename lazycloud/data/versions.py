"""The versions of an app's data: each a database and a folder of files of its own, under <folder>/<version>/.

A worker finds its own through DATABASE_URL and DATA_DIR. A fork and a snapshot share their bytes with what they were
made of where the file system can; else they are copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from lazycloud import trees
from lazycloud.data import durable, image
from lazycloud.data.beside import Beside
from lazycloud.data.extents import Usage, usage
from lazycloud.data.files import Copy
from lazycloud.data.layers import Layers
from lazycloud.data.lines import ARCHIVE, MOMENT, Layering, Lines, size_of
from lazycloud.data.names import (
    PASSING,
    PRODUCTION,
    check_snapshot,
    check_version,
    is_version,
    new_snapshot,
)
from lazycloud.data.provider import Provider
from lazycloud.data.readers import Readers
from lazycloud.data.swaps import Swaps
from lazycloud.errors import Conflict, DiskFull, NotFound, StepFailed

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DATABASE = "database.sqlite"
FILES = "files"
BESIDE = ".beside"  # a file: what versions have beside their folders
SNAPSHOTS = ".snapshots"  # after a version's name; no version can be called that
MAKING, DROPPING, READING = ".making-", ".dropping-", ".reading-"
LINGERS = 5.0  # seconds for which the name under which a version was made leads to it
USAGE_HOLDS = 20  # times as long as it took to measure
PATIENCE = 10.0  # seconds that a copy waits for an app's lock on its database


@dataclass(frozen=True)
class Fork:
    """`bytes`: the size of the version; `seconds`: what making it took; `made`: False if it was there before.

    `note`: what is to be told of what it has beside its folder, or "".
    """

    version: str
    source: str | None
    bytes: int
    seconds: float
    made: bool
    note: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A frozen point of a version. `bytes`: the size of its contents; `note`: what is not exact of it, or ""."""

    id: str
    version: str
    bytes: int
    note: str


class Versions:
    """The versions in one folder. `patience`: seconds to wait for an app's lock on its database.

    `providers`: what a version can have beside its folder, by the names of lazycloud.toml.

    No SQLite is spoken here: a process that closes any file of a database drops all its locks on it, and an app's
    database is hostile input. Copies of databases are made of their bytes (`lines`), at a moment that is known.
    """

    def __init__(
        self, folder: Path, patience: float = PATIENCE, providers: Mapping[str, Provider] | None = None
    ) -> None:
        self._folder = folder.absolute()
        self.beside = Beside(self._folder / BESIDE, providers or {})
        self.lines = Lines(self._folder, patience)
        self._links: set[Path] = set()  # where versions were made, which lead to them for a while
        self._begun: dict[Path, Path] = {}  # version -> the folder that it will have been made in
        self._copies: set[asyncio.Task[Any]] = set()
        self._measuring = asyncio.Lock()
        self._measured: tuple[float, float, Usage | None] = (0.0, 0.0, None)
        self._makers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._readers = Readers()
        self._swaps = Swaps(self._folder)
        self._copier = ThreadPoolExecutor(max_workers=2, thread_name_prefix="copy of data")

    def __repr__(self) -> str:
        return f"<Versions in {self._folder}>"

    def clear_leftovers(self) -> None:
        """Remove what an earlier process left half-made or half-dropped. Not while copies are made."""
        for pattern in (
            f"{MAKING}*",
            f"{DROPPING}*",
            f"{READING}*",
            f"*{SNAPSHOTS}/{MAKING}*",
        ):
            for leftover in self._folder.glob(pattern):
                trees.remove(leftover)
        for archive in self._folder.glob(f"*{ARCHIVE}"):
            version = archive.name.removesuffix(ARCHIVE)
            self.lines.clear(version, (self._folder / f"{version}{SNAPSHOTS}").glob("*"))

    async def clear_passing(self) -> None:
        """Drop the versions of promotes that nobody ended; not what could not be put back yet."""
        stays = self._unsettled().values()
        for start in PASSING:
            for place in self._folder.glob(f"{start}*"):
                if SNAPSHOTS not in place.name and place.name not in stays:
                    await self.drop(place.name)

    async def close(self) -> None:
        """Finish the copies under way, and make no other."""
        await asyncio.gather(*self._copies, return_exceptions=True)
        await self.beside.close()
        await self.lines.close()
        await asyncio.to_thread(self._copier.shutdown, cancel_futures=True)
        for making in self._begun.values():
            trees.remove(making)
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
        """What a worker finds that by which is in its version's folder."""
        place = self.place(version)
        return {"DATABASE_URL": f"sqlite:///{place / DATABASE}", "DATA_DIR": str(place / FILES)}

    async def full_environment(self, version: str, wanted: Sequence[str]) -> dict[str, str]:
        """What a worker on this version finds its data by; `wanted` are names of what it is to use beside its folder.

        Raises StepFailed for what this server, or the version, does not have.
        """
        return self.environment(version) | await self.beside.environment(version, wanted)

    def begin(self, version: str) -> Path:
        """The folder of a version, or the one that `fork` will fill and give its name: to see it early."""
        place = self.place(version)
        if place.is_dir():
            return place
        making = self._begun.get(place)
        if making is None:
            making = self._begun[place] = _make_aside(place)
        return making

    async def fork(
        self, version: str, source: str | None, at: str | None = None, wanted: Sequence[str] | None = None
    ) -> Fork:
        """Make a version: from `source` as it is now, or at a snapshot of it; empty if None. Idempotent.

        A version that exists is left as it is. `wanted`: names of what it has beside its folder; None: what the
        source has. A caller that is cancelled leaves a copy that has begun to end
        well. Raises NotFound without the source, StepFailed if it is locked or damaged, or the disk is full.
        """
        origin = None if source is None else self._origin(source, at)
        place = self.place(version)
        begun = self._begun.get(place)
        try:
            return await self._through(self._fork(version, place, source, origin, at, wanted))
        finally:
            if begun:
                self._links.add(begun)
                asyncio.get_running_loop().call_later(LINGERS, self._unlink, begun)

    async def complete(self, version: str, wanted: Sequence[str]) -> str:
        """Make, empty, what a version lacks of what it is to have beside its folder. What is to be told of it."""
        return "; ".join(await self.beside.complete(version, wanted))

    def _unlink(self, begun: Path) -> None:
        self._links.discard(begun)
        with contextlib.suppress(OSError):  # there is none of a fork that failed
            begun.unlink()

    async def snapshot(self, version: str) -> Snapshot:
        """Freeze a version as it is now. Raises as `fork` does."""
        origin, snapshot = self._origin(version, None), new_snapshot()
        place = self._snapshots(version) / snapshot
        note = await self._through(self._make(place, version, origin, frozen=True))
        try:
            notes = await self._through(self.beside.snapshot(version, snapshot))
        except Exception:
            await self.drop_snapshot(version, snapshot)
            raise
        told = "; ".join(filter(None, [note, *notes]))
        size = await asyncio.to_thread(lambda: trees.size(place) + size_of(place))
        return Snapshot(snapshot, version, size, told)

    def snapshots(self, version: str) -> list[str]:
        """The ids of those that there are, oldest first."""
        places = self._snapshots(version).glob("*")
        return sorted(place.name for place in places if not place.name.startswith("."))

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        """Nothing happens if there is none."""
        place = self._origin(version, snapshot)
        async with self._readers.alone(place):
            await self.lines.forget(version, place)
            await self._copying(lambda: self._drop([place]))
        await self.beside.drop_snapshot(version, snapshot)

    @contextlib.asynccontextmanager
    async def unfolded(
        self, version: str, at: str | None = None, beside: Sequence[str] | None = ()
    ) -> AsyncIterator[Path]:
        """A copy of a version as it is now, or at a snapshot, for whoever wants to read it: a folder as a version's.

        `beside`: what of that which the version has beside it is there, too, as files; None for all of it. Gone
        afterwards. Raises as `fork` does.
        """
        origin = self._origin(version, at)
        place = self._folder / f"{READING}{secrets.token_hex(8)}"
        await self._through(self._make(place, version, origin))
        try:
            await self.beside.unfold(version, at, place, beside)
            yield place
        finally:
            await asyncio.shield(self._copying(lambda: trees.remove(place)))

    @contextlib.asynccontextmanager
    async def layered(
        self, version: str, wanted: Iterable[str], both: bool = False
    ) -> AsyncIterator[tuple[Path, dict[str, Layers]]]:
        """As `unfolded`, with all that it has beside it; but of large databases that are `wanted` there is no file.

        What these consist of is given by name, if the version is held: without reading what did not change since.
        `both`: there is a file, too.
        """
        place = self._folder / f"{READING}{secrets.token_hex(8)}"
        layering = Layering(frozenset(wanted), place.with_name(f"{place.name}-layers"), both)
        await self._copying(lambda: layering.folder.mkdir(mode=0o700, parents=True))
        try:
            await self._through(self._make(place, version, self._origin(version, None), layering=layering))
            await self.beside.unfold(version, None, place, None)
            yield place, layering.found
        finally:
            await asyncio.shield(self._copying(lambda: _remove([place, layering.folder])))

    async def swap(self, version: str, other: str, whole: bool = True) -> None:
        """Each has what the other had, at once; snapshots stay. Nobody uses either now.

        Unless `whole`, their folders stay: only what the other has beside its own changes places.
        Until `swapped` is called it is taken back by `undo_swap`, also after a crash. When this raises, be it that
        its caller is cancelled, each has what it had.
        """
        swapping = asyncio.create_task(self._swap_all(version, other, whole), name=f"swap {version}")
        try:
            await asyncio.shield(swapping)
        except asyncio.CancelledError:
            await _ended(swapping)
            if not swapping.exception():
                undoing = asyncio.create_task(self.undo_swap(version), name=f"undo the swap of {version}")
                await _ended(undoing)
                undoing.result()
            raise

    async def _swap_all(self, version: str, other: str, whole: bool) -> None:
        places = self.place(version), self.place(other)
        async with self._readers.alone(*places), self.lines.still(version, other):
            try:
                await self.beside.swap(version, other)
                if whole:
                    await self._copying(lambda: self._swaps.begin(version, other))
            except BaseException:
                await self._take_back(version)
                raise

    async def swapped(self, version: str) -> None:
        """The swap of a version holds for good."""
        await self.beside.settle(version)
        await self._copying(lambda: self._swaps.hold(version))
        await self.beside.swapped(version)

    def swapping(self) -> dict[str, str]:
        """The swaps that do not hold yet: version -> the other one. Blocks."""
        return self._swaps.pending()

    def _unsettled(self) -> dict[str, str]:
        return self.beside.swaps | self.swapping()

    async def undo_swap(self, version: str) -> bool:
        """Take back a swap that does not hold yet; False if there is none. Nobody uses either version now."""
        other = self.swapping().get(version, version)
        async with (
            self._readers.alone(self.place(version), self.place(other)),
            self.lines.still(version, other),
        ):
            return await self._take_back(version)

    async def _take_back(self, version: str) -> bool:
        was_beside = await self.beside.undo_swap(version)
        return await self._copying(lambda: self._swaps.undo(version)) or was_beside

    async def settle(self, version: str, other: str) -> None:
        """Let the swap of these two hold, if there is one that does not yet."""
        if self._unsettled().get(version) == other:
            await self.swapped(version)

    async def undo_swaps(self, holds: str) -> dict[str, str]:
        """After a crash: the versions whose swap was taken back, and with which. One with `holds` stays as it is."""
        undone = {}
        for version, other in sorted(self._unsettled().items()):
            if other == holds or self.beside.is_settled(version):
                await self.swapped(version)
            elif await self._undone(version):
                undone[version] = other
        return undone

    async def _undone(self, version: str) -> bool:
        try:
            return await self.undo_swap(version)
        except StepFailed as problem:  # a server is away: it is for another time
            log.warning("The data of %s are not what they were: %s", version, problem)
            return False

    async def drop(self, version: str, force: bool = False) -> None:
        """Remove a version and its snapshots; nothing happens if it is not there. Production only by force.

        Raises Conflict for the other one of a swap that does not hold: it has what is to be put back.
        """
        if version == PRODUCTION and not force:
            raise Conflict("Production's data is not dropped.", "Only with force.")
        for swapped, other in self._unsettled().items():
            if other == version:
                raise Conflict(
                    f"What {swapped[:40]} had before a change that failed is kept as {version[:40]}.",
                    "It is put back at the next start of lazycloud.",
                )
        places = [self.place(version), self._snapshots(version), self._folder / f"{version}{ARCHIVE}"]
        # Whoever wanted it may be gone, and its copy goes on to its end.
        async with self._making(version), self._readers.alone(*places[:2]):
            async with self.lines.still(version):
                await self._copying(lambda: self._drop(places))
            await self.beside.drop(version)

    async def size(self, version: str) -> int:
        """Bytes of its database and files, without snapshots; 0 if there is no such version."""
        return await asyncio.to_thread(trees.size, self.place(version)) + await self.beside.size(version)

    async def usage(self) -> Usage:
        """What all take of the disk, and each has alone with its snapshots. Of a moment ago where it takes long."""
        async with self._measuring:
            at, took, found = self._measured
            if found is None or time.monotonic() - at > took * USAGE_HOLDS:
                began = time.monotonic()
                found = await self._usage()
                self._measured = time.monotonic(), time.monotonic() - began, found
            return found

    async def _usage(self) -> Usage:
        names = await asyncio.to_thread(self.all)
        endings = ("", SNAPSHOTS, ARCHIVE)
        places = {name: [self._folder / f"{name}{ending}" for ending in endings] for name in names}
        found = await asyncio.to_thread(usage, places)
        beside = {name: await self.beside.taken(name) for name in names}
        own = {name: found.own[name] + beside[name] for name in names}
        return Usage(found.total + sum(beside.values()), own)

    def used(self, version: str) -> float:
        """Unix time of its last change that a look at its folder tells; 0.0 if it is not there."""
        try:
            place = self.place(version)
            return max(each.stat(follow_symlinks=False).st_mtime for each in (place, place / DATABASE))
        except OSError:
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

    async def _through(self, work: Coroutine[Any, Any, Result]) -> Result:
        """To its end, though who asked for it may be cancelled."""
        task = asyncio.create_task(work, name="copy of data")
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)
        return await asyncio.shield(task)

    def _making(self, version: str) -> asyncio.Lock:
        """For one who makes or drops a version at a time: who comes later finds it made, or gone."""
        return self._makers.setdefault(version, asyncio.Lock())

    async def _copying(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._copier, work)

    async def _fork(
        self,
        version: str,
        place: Path,
        source: str | None,
        origin: Path | None,
        at: str | None,
        wanted: Sequence[str] | None,
    ) -> Fork:
        began, notes = time.monotonic(), []
        async with self._making(version):
            made = not place.is_dir()
            if made:
                notes = await self.beside.make(version, source, at, wanted)
                await self._make(place, source or "", origin)
        size = await asyncio.to_thread(trees.size, place)
        return Fork(version, source, size, time.monotonic() - began, made, "; ".join(notes))

    async def _make(
        self,
        place: Path,
        source: str,
        origin: Path | None,
        frozen: bool = False,
        layering: Layering | None = None,
    ) -> str:
        """Make a version's or a snapshot's folder, whole or not at all. What is not exact of it, in words, or "".

        `frozen`: nobody works with it.
        """
        if origin and not origin.is_dir():
            raise NotFound(f"There is no data of {source[:40]} to copy ({origin.name}).")
        begun = self._begun.pop(place, None)
        making = await self._copying(lambda: _make_aside(place))
        try:
            try:
                async with self._readers.read(*_read_for(origin)):
                    note = await self._fill(making, source, origin, frozen, layering)
            except RecursionError as problem:
                raise StepFailed(
                    f"Folders of the data of {source[:40]} are too deep within each other to be copied.",
                    "Let the app keep its files less deep.",
                ) from problem
            await self._copying(lambda: _publish(making, place, begun))
        except BaseException as problem:
            await asyncio.shield(self._copying(lambda: _remove([making, begun])))
            if isinstance(problem, DiskFull) or getattr(problem, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(origin) from problem
            raise
        return note

    async def _fill(
        self, making: Path, source: str, origin: Path | None, frozen: bool, layering: Layering | None
    ) -> str:
        if origin is None:
            await self._copying(lambda: _begin_empty(making))
            return ""
        if origin != self.place(source):  # frozen: nobody writes there
            await self._copying(Copy(origin, making, None).make)
            (making / MOMENT).unlink(missing_ok=True)
            await self.lines.thaw(source, origin, making)
            return ""
        _demand_database(origin)
        _demand_files(origin)
        note = await self.lines.copy(source, making, frozen, layering)
        layered = layering.found if layering else ()
        if not (making / DATABASE).exists() and not (making / MOMENT).exists() and DATABASE not in layered:
            _stand_in(origin, making, layered)
        return note

    def _full(self, origin: Path | None) -> DiskFull:
        """Asked for the free space when what was half-made is gone: that much there is."""
        disk = next(place for place in (self._folder, *self._folder.parents) if place.exists())
        free, needed = shutil.disk_usage(disk).free, trees.size(origin) if origin else 0
        return DiskFull(
            f"The disk of {self._folder} is full: {free / 1e6:.1f} MB free, "
            f"the data takes {needed / 1e6:.1f} MB.",
            "`lazycloud disk` tells where it went, `lazycloud prune --all` removes what can be built again.",
            needed,
        )

    def _drop(self, places: list[Path]) -> None:
        for place in places:
            durable.discard(place, DROPPING, self._folder)


def _read_for(origin: Path | None) -> list[Path]:
    """What is to stay for a copy: of a snapshot also the folder with all of its version."""
    if origin is None:
        return []
    return [origin, origin.parent] if origin.parent.name.endswith(SNAPSHOTS) else [origin]


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for it, also when we are told again to give up."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])


def _stand_in(origin: Path, making: Path, layered: Container[str] = ()) -> None:
    """For a database that was not copied: an empty one if there is none, or a link to another that was.

    `layered`: others, that come in layers. One that is no database any more is an error to tell, and not an empty one
    to go on with. Raises StepFailed.
    """
    there = origin / DATABASE
    inside = os.path.relpath(there.resolve(), origin.resolve())
    if there.is_symlink() and ((making / inside).is_file() or inside in layered):
        (making / DATABASE).symlink_to(inside)
    elif there.exists() and there.stat().st_size > 0:
        raise StepFailed(
            f"The database {there.name} is damaged, or none: it does not begin as one.",
            "Look at it with `sqlite3 FILE 'PRAGMA integrity_check'`, or restore it.",
        )
    else:
        image.empty(making / DATABASE)


def _begin_empty(making: Path) -> None:
    image.empty(making / DATABASE)
    (making / FILES).mkdir()


def _publish(making: Path, place: Path, begun: Path | None) -> None:
    """Give a filled folder its name.

    If there is one that was `begun`, what was made is moved there: a worker to come sees that one already, and its
    code must not have a say in where the server writes.
    """
    durable.persist(making)
    seen = begun if begun and begun.is_dir() else None
    if seen:
        _move_all(making, seen)
        shutil.rmtree(making)
    durable.publish(seen or making, place, linked=seen is not None)


def _remove(folders: Iterable[Path | None]) -> None:
    for folder in folders:
        if folder:
            trees.remove(folder)


def _move_all(making: Path, seen: Path) -> None:
    """In place of whatever is there. Raises OSError when somebody puts more there meanwhile."""
    trees.empty(seen)
    for made in list(making.iterdir()):
        made.rename(seen / made.name)


def _demand_database(origin: Path) -> None:
    """Raises StepFailed for something else in its place; there may be none."""
    mode = _own_mode(origin, DATABASE)
    if mode and not stat.S_ISREG(mode):
        raise StepFailed(
            f"{DATABASE} is {_kind(mode)} now, and no database: it is not copied.",
            "Let the app keep its database there, or restore one that it had.",
        )


def _demand_files(origin: Path) -> None:
    """Likewise."""
    mode = _own_mode(origin, FILES)
    if mode and not stat.S_ISDIR(mode):
        raise StepFailed(
            f"{FILES} is {_kind(mode)} now, and no folder: it is not copied.",
            "Let the app keep its files in a folder of that name.",
        )


def _own_mode(origin: Path, name: str) -> int:
    """What there is, 0 if nothing. Raises StepFailed for a link that leads out: the app may see less than we."""
    try:
        leads_out = not (origin / name).resolve().is_relative_to(origin.resolve())
    except (OSError, RuntimeError):  # in a circle
        leads_out = True
    if leads_out:
        raise StepFailed(
            f"{name} of the data of {origin.name[:40]} is a link that leads out of that data: it is not copied.",
            f"Let the app keep a {'folder' if name == FILES else 'database'} of its own there.",
        )
    try:
        return (origin / name).stat().st_mode
    except FileNotFoundError:
        return 0


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _make_aside(place: Path) -> Path:
    if not place.parent.is_dir():
        place.parent.mkdir(parents=True, mode=0o700, exist_ok=True)  # others make versions, too
        durable.sync(place.parent.parent)
    return Path(tempfile.mkdtemp(prefix=MAKING, dir=place.parent))
