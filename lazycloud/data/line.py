"""The databases of one live version, held so that any moment of them can be had as an image.

    line = await Line.open(place, archive)    holds all that are in WAL mode, and goes on holding
    marks = line.mark()                       this moment, in microseconds
    await line.image(marks, target)           its databases as files, as long as the moment is not past
    await line.keep(marks)                    so that it never is; until `forget`

This process reads raw files and speaks no SQLite; the holder, a process of its own, speaks SQLite and reads no files
(`data/holder`). A moment is exact: of each database it says at which frame of which WAL it was, and the image is that
or there is none. Several databases are of one moment when none changed while all were looked at; otherwise
`Marks.note` says so. What is in no WAL mode has no moments: it is copied when the image is made, and a note says it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lazycloud.data import durable, image, wal, within
from lazycloud.data.archive import Archive
from lazycloud.data.held import Held, NotHeld
from lazycloud.data.holding import COMMAND, Enclosed, Holder, HolderLost, Refusal
from lazycloud.data.layers import Layers
from lazycloud.data.wal import Mark
from lazycloud.errors import DiskFull, StepFailed, Unavailable

Result = TypeVar("Result")

DATABASE, FILES = "database.sqlite", "files"
KEPT, COPIES, OF_DATABASES = "kept", "copies", "databases"  # folders of an archive
COMPANIONS = ("-wal", "-shm", "-journal")
# Seconds between looks: while somebody writes, the less the nearer its WAL is to being moved on; when nobody does.
SHORTEST, SHORT, LONG = 0.002, 0.05, 1.0
ADOPT_EVERY = 30.0  # seconds between searches for new databases
ADOPT_AGAIN = (0.1, 10.0)  # seconds until what was lost is held again, doubled up to the second
OPENING = 2  # times that holding them is tried once more before a line is given up
STEADY = 3.0  # seconds after which it begins with the first again
ROUNDS = 50  # of looking at several databases until none has changed: some microseconds each
CHAIN_FOR = (
    3600.0  # seconds for which the WALs of a large database are kept after somebody wanted a moment of it
)
LEFT = 16  # databases let go of, whose connections the holder keeps: then a new one takes its place
PATIENCE = 10.0  # seconds for the lock of a database that is copied
COPYING = 600.0  # seconds that such a copy may take
CLOSING = 10.0  # seconds for what is under way when a line is closed
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class At:
    """Where one database was: `name` is its path in the version's folder."""

    name: str
    generation: str
    mark: Mark


@dataclass(frozen=True, eq=False)
class Marks:
    """One moment of a version's databases. As long as it is referred to, what it needs is not thrown away.

    `plain`: names of databases that have no moments. `note`: what is not exact, in sentences, or "".
    """

    databases: tuple[At, ...]
    plain: tuple[str, ...] = ()
    note: str = ""

    def as_json(self) -> str:
        places = [[at.name, at.generation, str(at.mark)] for at in self.databases]
        return json.dumps({"databases": places, "plain": self.plain, "note": self.note})

    @classmethod
    def from_json(cls, text: str) -> Marks:
        """Raises ValueError, or KeyError, for what `as_json` did not write."""
        facts = json.loads(text)
        places = (At(name, generation, wal.mark(mark)) for name, generation, mark in facts["databases"])
        return cls(tuple(places), tuple(facts["plain"]), facts["note"])

    @property
    def id(self) -> str:
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:32]


class Line:
    """The databases of one live version. `keep_for`: seconds for which any moment can be had afterwards."""

    def __init__(
        self,
        place: Path,
        archive: Path,
        enclose: Enclosed | None = None,
        keep_for: float = 0.0,
        command: Sequence[str] = COMMAND,
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self._root = place.resolve()
        self._folder = archive
        self._enclose = enclose
        self._keep_for = keep_for
        self._command = command
        self._holder: Holder | None = None
        self._held: dict[str, Held] = {}
        self._plain: dict[str, str] = {}  # name -> why it is not held
        self._absent: set[str] = set()  # those that are to be held, and are not at the moment
        self._archives: dict[str, Archive] = {}
        self._kept: dict[str, dict[str, str]] = {}  # id of marks -> name of a database -> generation
        self._fresh: weakref.WeakSet[Marks] = weakref.WeakSet()
        self._past: list[tuple[float, str, str]] = []  # when a generation ended that is kept for a time
        self._known: dict[str, tuple[int, int]] = {}  # files that are no databases, as they were then
        self._keys = itertools.count()
        self._left = 0
        self._delay = ADOPT_AGAIN[0]
        self._adopting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turning: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="images of data")

    def __repr__(self) -> str:
        return f"<Line {self._root.name} holds {sorted(self._held)} by {self._holder}>"

    @classmethod
    async def open(
        cls,
        place: Path,
        archive: Path,
        enclose: Enclosed | None = None,
        keep_for: float = 0.0,
        command: Sequence[str] = COMMAND,
        patience: float = PATIENCE,
    ) -> Line:
        """Hold the databases below `place`, a version's folder; what is kept of them is in the folder `archive`.

        `enclose` puts the holder behind walls: `place` and the archive's folder `copies` must be writable there.
        `patience`: seconds to wait for the lock of a database that has to be copied.
        Returns when all are held that can be: `troubles` says of the others why not. Raises Unavailable when there
        can be no holder.
        """
        line = cls(place, archive, enclose, keep_for, command, patience)
        try:
            await line._in_thread(line._load)
            for last in range(OPENING, -1, -1):
                try:
                    await line.adopt()
                    break
                except Unavailable:  # the holder was killed just then, or there can be none
                    if last == 0:
                        raise
                await asyncio.sleep(ADOPT_AGAIN[0])
        except BaseException:
            await line.close()
            raise
        line._watching = asyncio.create_task(line._watch(), name=f"line of {line._root.name}")
        return line

    @property
    def troubles(self) -> dict[str, str]:
        """Name of a database -> what is not as it should be, in a sentence."""
        held = {name: one.lost or one.trouble or one.archive_trouble for name, one in self._held.items()}
        return {name: why for name, why in {**self._plain, **held}.items() if why}

    @property
    def databases(self) -> set[str]:
        """Names of all that are known, of whatever mode: `image` makes these."""
        return {*self._held, *self._plain, *self._absent}

    @property
    def holder_pid(self) -> int | None:
        return self._holder.pid if self._holder and not self._holder.lost.is_set() else None

    @property
    def stalls(self) -> list[float]:
        """Seconds for which writers were kept out, each time the WAL of a database was moved on."""
        return [seconds for held in self._held.values() for seconds in held.stalls]

    def mark(self) -> Marks:
        """Where all databases are now. Microseconds, and locks nobody. Raises Unavailable if one is not held."""
        if self._absent:
            raise Unavailable(f"{', '.join(sorted(self._absent))} is not held at the moment.", "Try again.")
        held = list(self._held.values())
        now = [one.mark() for one in held]
        is_one = len(held) < 2
        for _ in range(ROUNDS):
            if is_one:
                break
            before, now = now, [one.mark() for one in held]
            is_one = before == now
        marks = Marks(
            tuple(At(one.name, *at) for one, at in zip(held, now, strict=True)),
            tuple(self._plain),
            self._note(is_one),
        )
        self._fresh.add(marks)
        return marks

    async def adopt(self) -> None:
        """Hold databases that are new, let go of those that were deleted, hold again what was lost.

        Raises Unavailable when there can be no holder.
        """
        async with self._adopting:
            if self._is_closed:
                return
            found = await self._in_thread(self._find)
            if self._holder is None or self._holder.lost.is_set() or self._left > LEFT:
                await self._begin()
            for name in [name for name, held in self._held.items() if name not in found or held.lost]:
                self._absent.add(name)
                self._left += 1
                await self._held.pop(name).drop()
            self._absent &= found.keys()
            self._plain = {name: why for name, why in self._plain.items() if name in found}
            fresh = [name for name in found if name not in self._held]
            self._absent |= {name for name in fresh if found[name] == "wal"}
            for name in fresh:
                self._plain.pop(name, None)
                await self._hold(name, found[name])

    async def is_costly(self) -> bool:
        """Whether images of some of its databases take time, and room on the disk."""
        for held in list(self._held.values()):
            if await held.is_costly():
                return True
        return False

    def large(self) -> set[str]:
        """Names of databases of which a base and WALs over it are better kept than copies."""
        return {name for name, held in self._held.items() if not held.lost and held.is_large}

    async def layers(self, marks: Marks, folder: Path) -> dict[str, Layers]:
        """What the databases of a moment that was kept consist of, by name: links in `folder`. Raises as `image`."""
        return await self._whole(self._layers(marks, folder))

    async def freeze(self, marks: Marks, target: Path) -> str:
        """`keep`, and what has no moments copied to `target`, as it is now. What is not exact, or ""."""
        await self._whole(self._keep(marks))
        for name in list(self._plain):
            await self._whole(self._copy(name, target / name))
        return marks.note

    async def thaw(self, marks: Marks, target: Path) -> None:
        """The databases of a moment that was kept, and no others, as files below `target`. Raises as `image`."""
        await self._whole(self._thaw(marks, target))

    async def image(self, marks: Marks, target: Path, without: Collection[str] = ()) -> str:
        """The databases of that moment as files below `target`, named as in the version's folder. Locks nobody out.

        `without`: names of those that are not wanted.
        What else is a database, in no WAL mode or newer than `marks`, is copied as it is now. Returns what is not
        exact, in sentences, or "". Raises Unavailable where bytes of the moment are gone, DiskFull, StepFailed for a
        database that stays locked. `target` may be left half-filled then; it is not synced.
        """
        return await self._whole(self._image(marks, target, without))

    async def keep(self, marks: Marks) -> None:
        """From now on, images of that moment can be made until `forget`, by this line or one after it. On disk then.

        Raises Unavailable, DiskFull.
        """
        await self._whole(self._keep(marks))

    async def forget(self, marks: Marks) -> None:
        """It need not be kept any more. Nothing happens if it is not."""
        self._kept.pop(marks.id, None)
        (self._folder / KEPT / f"{marks.id}.json").unlink(missing_ok=True)
        await self._whole(self._collect())

    async def rotate(self) -> bool:
        """Put all WALs into their databases' files; whether all went there. It is done by itself now and then."""
        done = [await self._turn(held) for held in list(self._held.values())]
        return all(done)

    async def close(self) -> None:
        """Hold nothing any more. What is kept is on disk. Idempotent, and takes some seconds at most."""
        self._is_closed = True
        ending = [task for task in (self._watching, *self._tasks) if task]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=CLOSING)
        if self._holder:
            await self._holder.close()
        with contextlib.suppress(TimeoutError):  # then a thread still reads from what would be closed
            async with asyncio.timeout(CLOSING):
                await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
                for held in list(self._held.values()):
                    await held.close()

    async def _image(self, marks: Marks, target: Path, without: Collection[str]) -> str:
        if self._absent:
            with contextlib.suppress(Unavailable):  # there may be an archive
                await self.adopt()
        await self._thaw(marks, target, without)
        with _explained(target):
            return await self._newer(marks, target)

    async def _thaw(self, marks: Marks, target: Path, without: Collection[str] = ()) -> None:
        with _explained(target):
            for at in [at for at in marks.databases if at.name not in without]:
                place = target / at.name
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                held = self._held.get(at.name)
                if held:
                    await held.image(at.generation, at.mark, place.parent, place.name)
                else:
                    await self._from_archive(at, place)

    async def _layers(self, marks: Marks, folder: Path) -> dict[str, Layers]:
        found = {}
        with _explained(folder):
            for at in marks.databases:
                archive = self._archive(at.name)
                async with archive.lock:
                    stored = archive.find(at.generation, at.mark)
                    if stored is None:
                        raise Unavailable(f"{at.name} was not kept.", "Try again.")
                    work = partial(archive.layers, stored, at.mark, folder)
                    found[at.name] = await self._in_thread(work)
        return found

    async def _newer(self, marks: Marks, target: Path) -> str:
        """Copy what has no mark, as it is now."""
        with contextlib.suppress(Unavailable):  # then it is said of each what is wrong
            await self.adopt()
        had, notes = {at.name for at in marks.databases}, [marks.note]
        if new := self._absent - had:
            raise Unavailable(f"{', '.join(sorted(new))} is not held at the moment.", "Try again.")
        for name in [name for name in self._held if name not in had]:
            at, place = At(name, *self._held[name].mark()), target / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._held[name].image(at.generation, at.mark, place.parent, place.name)
            notes.append(f"{name} is newer, and as it was when the copy was made.")
        for name in self._plain:
            await self._copy(name, target / name)
        return " ".join(filter(None, dict.fromkeys(notes)))

    async def _from_archive(self, at: At, place: Path) -> None:
        archive = self._archive(at.name)
        async with archive.lock:
            stored = archive.find(at.generation, at.mark)
            if stored is None:
                why = self._plain.get(at.name, "")
                raise Unavailable(f"{at.name} is not held any more, and was not kept.", why)
            await self._in_thread(partial(archive.make_image, stored, at.mark, place.parent, place.name))

    async def _copy(self, name: str, target: Path) -> None:
        """Have the holder copy a database by SQLite, to a folder that it may see, and move it from there."""
        source, copy = self._root / name, self._folder / COPIES / secrets.token_hex(8)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with within.opened(self._root, source, within.FILE) as one:
                facts = os.fstat(one)
            if self._holder is None:
                raise HolderLost("There is none.")
            await self._holder.ask(
                f"copy {next(self._keys)}",
                "copy",
                COPYING,
                path=str(source.resolve()),
                inode=[facts.st_dev, facts.st_ino],
                target=str(copy.resolve()),
                seconds=self._patience,
            )
            await self._in_thread(lambda: shutil.move(copy, target))
        except Refusal as problem:
            raise self._uncopied(name, problem) from problem
        except HolderLost as problem:
            raise Unavailable(f"{name} could not be copied: its holder ended.", "Try again.") from problem
        finally:
            copy.unlink(missing_ok=True)

    def _uncopied(self, name: str, problem: Refusal) -> Exception:
        if problem.kind == "busy":
            return StepFailed(
                f"The database {name} is locked by its app, and cannot be copied.",
                "Let the app keep its transactions short, and open the database without"
                " `PRAGMA locking_mode=EXCLUSIVE`; or stop it, and try again.",
            )
        if problem.kind == "damaged":
            return StepFailed(
                f"The database {name} is damaged, or none: {problem.why}.",
                "Look at it with `sqlite3 FILE 'PRAGMA integrity_check'`, or restore it.",
            )
        if problem.kind == "full":
            return DiskFull(f"The disk is full: {name} could not be copied.")
        if problem.kind in ("mode", "gone"):
            return Unavailable(f"{name} changed while it was to be copied: {problem.why}", "Try again.")
        return StepFailed(f"The database {name} could not be copied: {problem.why}")

    async def _keep(self, marks: Marks) -> None:
        if marks.id in self._kept:
            return
        generations = self._kept[marks.id] = {}  # what is there of it already is not collected
        try:
            await self._keep_each(marks, generations)
        except BaseException:
            del self._kept[marks.id]
            raise

    async def _keep_each(self, marks: Marks, generations: dict[str, str]) -> None:
        with _explained(self._folder):
            for at in marks.databases:
                held = self._held.get(at.name)
                if held:
                    generations[at.name] = await held.keep(at.generation, at.mark, CHAIN_FOR)
                elif stored := self._archive(at.name).find(at.generation, at.mark):
                    generations[at.name] = stored.id
                else:
                    raise Unavailable(f"{at.name} is not held any more, and was not kept.")
            await self._in_thread(lambda: self._write_kept(marks, generations))

    def _write_kept(self, marks: Marks, generations: Mapping[str, str]) -> None:
        place = self._folder / KEPT / f"{marks.id}.json"
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(place, json.dumps({"marks": marks.as_json(), "generations": generations}))
        for folder in (self._folder, self._folder.parent):
            durable.sync(folder)

    def _load(self) -> None:
        """What an earlier line kept."""
        shutil.rmtree(self._folder / COPIES, ignore_errors=True)
        (self._folder / COPIES).mkdir(mode=0o700, parents=True)
        for place in (self._folder / KEPT).glob("*.json"):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._kept[place.stem] = dict(json.loads(place.read_text())["generations"])
        for name in {name for kept in self._kept.values() for name in kept}:
            self._archive(name)
        wanted = {self._archive_folder(name) for name in self._archives}
        for folder in (self._folder / OF_DATABASES).glob("*"):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _archive(self, name: str) -> Archive:
        if name not in self._archives:
            self._archives[name] = Archive(self._archive_folder(name))
        return self._archives[name]

    def _archive_folder(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / OF_DATABASES / digest[:32]

    async def _collect(self) -> None:
        """Remove from the archive what no kept or fresh marks need."""
        now = time.monotonic()
        self._past = [past for past in self._past if past[0] > now - self._keep_for]
        for name, archive in list(self._archives.items()):
            wanted = {kept[name] for kept in self._kept.values() if name in kept}
            wanted |= {past for _, of, past in self._past if of == name}
            for marks in list(self._fresh):
                wanted |= {at.generation for at in marks.databases if at.name == name}
            if held := self._held.get(name):
                await held.collect(wanted)
            else:
                async with archive.lock:
                    await self._in_thread(partial(archive.collect, wanted))

    async def _begin(self) -> None:
        """A new holder, which holds nothing yet."""
        if self._holder:
            await self._holder.close()
        self._absent |= self._held.keys()
        for held in list(self._held.values()):
            await held.close()
        self._held.clear()
        self._left = 0
        try:
            self._holder = await Holder.start(self._enclose, self._command)
            await self._holder.demand_alive()
        except HolderLost as problem:
            raise Unavailable(
                f"No process could be started that holds the databases of {self._root.name}: {problem}",
                "See `lazycloud doctor`.",
            ) from problem

    async def _hold(self, name: str, mode: str) -> None:
        if mode != "wal":
            self._plain[name] = f"{name} is in no WAL mode: it has no moments, and is copied as it is then."
            self._absent.discard(name)
            return
        assert self._holder
        held = Held(name, str(next(self._keys)), self._root, self._archive(name), self._holder, self._pool)
        try:
            await held.open()
        except HolderLost as problem:
            await held.close()
            raise Unavailable(
                f"{name} is not held at the moment: its holder ended.", "Try again."
            ) from problem
        except NotHeld as problem:
            await held.drop()
            self._left += 1
            self._plain[name] = str(problem)
        else:
            self._held[name] = held
        self._absent.discard(name)

    async def _watch(self) -> None:
        """Look whether a WAL has grown, a database come or gone, or the holder."""
        interval, looked = SHORT, time.monotonic()
        adopted = looked
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            due = min((held.look(now - looked) for held in self._held.values()), default=float("inf"))
            interval = max(SHORTEST, min(due / 2, SHORT)) if due < float("inf") else min(interval * 1.2, LONG)
            looked = now
            for held in list(self._held.values()):
                if held.is_torn:
                    await self._mend(held)
                elif held.is_stuck and held.name not in self._turning:
                    self._turning.add(held.name)
                    self._start(self._give_way(held), f"giving way at {held.name}")
                elif held.is_due and held.name not in self._turning:
                    self._turning.add(held.name)
                    self._start(self._turn(held), f"rotation of {held.name}")
            is_lost = bool(self._absent) or not self.holder_pid
            is_lost = is_lost or any(held.lost for held in self._held.values())
            if not is_lost and now - adopted > STEADY:
                self._delay = ADOPT_AGAIN[0]
            if now - adopted > (self._delay if is_lost else ADOPT_EVERY):
                self._delay = min(2 * self._delay, ADOPT_AGAIN[1])
                with contextlib.suppress(Unavailable, OSError):
                    await self.adopt()
                adopted = time.monotonic()

    async def _mend(self, held: Held) -> None:
        with contextlib.suppress(HolderLost):
            await held.mend()

    async def _give_way(self, held: Held) -> None:
        generation = held.generation.id
        try:
            await held.give_way(lambda: self._is_wanted(held.name, generation))
        except HolderLost:
            return
        finally:
            self._turning.discard(held.name)

    async def _turn(self, held: Held) -> bool:
        """Move one database on; what a mark that somebody has needs is archived before."""
        generation = held.generation.id
        if self._keep_for:
            self._past.append((time.monotonic(), held.name, generation))
        try:
            is_done = await held.rotate(lambda: self._is_wanted(held.name, generation))
        except HolderLost:
            return False
        finally:
            self._turning.discard(held.name)
        await self._collect()
        return is_done

    def _is_wanted(self, name: str, generation: str) -> bool:
        """Whether somebody may yet ask for a moment of it."""
        return self._keep_for > 0 or any(
            at.name == name and at.generation == generation for marks in self._fresh for at in marks.databases
        )

    def _find(self) -> dict[str, str]:
        """Name -> journal mode of each database that there is."""
        return dict(self._databases())

    def _databases(self) -> Iterator[tuple[str, str]]:
        known, self._known = self._known, {}
        for place, _, names, descriptor in os.fwalk(self._root):
            within_root = Path(place).relative_to(self._root)
            for name in names:
                full = (within_root / name).as_posix()
                if name.endswith(COMPANIONS):
                    continue
                with contextlib.suppress(OSError):
                    facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    looks = (facts.st_ino, facts.st_ctime_ns)
                    if known.get(full) != looks and (mode := self._mode(descriptor, name, full)):
                        yield full, mode
                    else:
                        self._known[full] = looks

    def _mode(self, folder: int, name: str, full: str) -> str:
        """The journal mode of a database; "" of what is none, or empty."""
        try:
            with within.opened_in(folder, name, within.FILE, self._root / full) as one:
                return image.journal_mode(one)
        except (OSError, Unavailable):  # it is gone, or something else
            return ""

    def _note(self, is_one: bool) -> str:
        notes = list(self._plain.values())
        if not is_one:
            notes.append(
                "The databases were written all the time: each is exact, but they are not of one moment."
            )
        return " ".join(notes)

    def _start(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _whole(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Done to its end, though who asked for it is cancelled: a thread reads from files that are held for it."""
        if self._is_closed:
            work.close()
            raise Unavailable(f"The databases of {self._root.name} are not held any more.")
        return await asyncio.shield(self._start(work, f"images of {self._root.name}"))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    """A full disk as what it is."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in FULL:
            raise
        raise DiskFull(
            f"The disk of {place} is full.",
            "`lazycloud disk` tells where it went, `lazycloud prune --all` removes what can be built again.",
        ) from problem
