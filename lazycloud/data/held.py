"""One live database in WAL mode: where it is, images of it, its WAL moved on. Raw files here, SQLite in the holder.

What holds, and why an image is right. While the holder has a read transaction, nothing is written to the database
file but pages of frames up to a floor, and the WAL does not start over. With the read lock 0, which it gets when all
of the WAL was in the file, nothing is written there at all, and the WAL starts over once, at the next commit. So the
file as it is, and the WAL up to any frame from the floor on, are the database at that frame. Whether the holder was
there all the time is asked after the bytes were read; that the WAL leads to the mark is verified by its checksums.

Moving on (`rotate`) puts the WAL into the file and holds again. Whoever needs an earlier moment after that needs the
archive, so that comes before.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import struct
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lazycloud.data import image, wal, within
from lazycloud.data.archive import SMALL, Archive
from lazycloud.data.holding import Holder, HolderLost, Refusal
from lazycloud.data.wal import Mark, State
from lazycloud.errors import Unavailable

Result = TypeVar("Result")

ROTATE_AT = 800  # frames: past an app's own 1000 each of its commits tries a checkpoint, and fails
PATIENCE = 0.25  # seconds that a rotation waits for a writer's transaction to end
TURNING = 5.0  # seconds for the end of it: writers wait, so a holder that hangs there is killed
BARRED = 0.1  # seconds for which writers are kept out at most, should we be slow meanwhile
STUCK = 0.05  # seconds for which an app's checkpoint is under way before we give way to it
GIVEN = 2.0  # seconds that it gets then
CHECKPOINT = 121  # the byte of the index that is locked during one
_LOCK = struct.Struct("@hhqqi4x")  # struct flock
RETRY = (0.5, 10.0)  # seconds until one that did not come about is tried again, doubled up to the second


class NotHeld(Exception):
    """Images cannot be made of this database now. Says why, in a sentence."""


@dataclass
class Generation:
    """Since when nothing was written to the database file beyond a floor, and over which WAL that is so.

    `start`: what the file alone is, as long as nothing is written there. `salts`: of the WAL that grows over it; None
    until somebody commits. `floor`: its first frame of which an image can be made. `before`: the one at whose end it
    began.
    """

    start: Mark | None = None
    salts: tuple[int, int] | None = None
    floor: int = 0
    before: str = ""
    is_unknown: bool = False  # nothing is known of it yet, but that it may have begun
    id: str = field(default_factory=lambda: f"{time.time_ns():x}-{secrets.token_hex(4)}")

    def fits(self, mark: Mark) -> bool:
        """Whether a database that is in this generation can be there."""
        if self.is_unknown:
            return True
        if mark.frame == 0:
            return self.start is not None and self.salts is None
        if mark == self.start:
            return True
        if self.salts is None:
            return self.start is not None and (mark[:2] != self.start[:2] or mark.frame > self.start.frame)
        return mark[:2] == self.salts and mark.frame >= self.floor

    def learn(self, mark: Mark) -> None:
        """The first commit shows which WAL it is: a new one, or the old one where somebody still reads that."""
        if self.salts is None and mark.frame and mark != self.start and not self.is_unknown:
            self.salts = (mark.salt1, mark.salt2)
            self.floor = self.start.frame if self.start and self.salts == self.start[:2] else 0

    def gives(self, generation: str, mark: Mark) -> bool:
        """Whether the live files have that mark, as `generation` named it."""
        if mark.frame == 0:
            return generation == self.id and self.start is not None
        return mark == self.start or (self.salts == mark[:2] and mark.frame >= self.floor)

    def raise_floor(self, mark: Mark) -> None:
        """From now on pages of frames up to this one may be written to the file."""
        if mark.frame:
            self.start, self.salts, self.floor = None, (mark.salt1, mark.salt2), mark.frame

    def progress(self, mark: Mark) -> int:
        """Frames since it began, or since its floor was raised."""
        return mark.frame - self.floor if mark[:2] == self.salts else 0


class Held:
    """One database, from when it is held until it is lost or dropped."""

    def __init__(
        self, name: str, key: str, root: Path, archive: Archive, holder: Holder, pool: Executor
    ) -> None:
        """`root` is the version's folder, `name` the database's path in it, `key` what the holder calls it."""
        self.name = name
        self.lost = ""  # why
        self.trouble = ""  # what keeps it from being held as it should be
        self.archive_trouble = ""  # why something was not archived
        self.is_torn = False  # its index was left half-written
        self.stalls: list[float] = []  # seconds for which writers were kept out
        self.generation = Generation()
        self._next: Generation | None = None  # between the holder's being told to move on and its answer
        self._key = key
        self._root = root
        self._place = root / name
        self._inodes: list[tuple[str, tuple[int, int]]] = []  # of its file and its index: where, and which
        self._archive = archive
        self._holder = holder
        self._pool = pool
        self._lock = archive.lock  # of the database file as it is, too
        self._open: list[int] = []
        self._base = self._wal = self._shm = -1
        self._archives_until = 0.0  # by the clock of the loop: so long tails are kept, to spare another base
        self._retry_at = 0.0
        self._stuck_since: float | None = None
        self._has_failed = False  # to be archived, in this rotation
        self._is_slow = False  # we came too late the last time
        self._delay = RETRY[0]
        self._seen: State | None = None
        self._looked: State | None = None

    def __repr__(self) -> str:
        return f"<Held {self.name} generation {self.generation.id} {self.lost}>"

    async def open(self) -> None:
        """Hold it. Raises NotHeld where that cannot be, HolderLost."""
        try:
            with within.opened(self._root, self._place, within.FILE) as base:
                self._base = self._keep_open(base)
        except OSError as problem:
            raise NotHeld(f"{self.name} cannot be opened: {problem.strerror}.") from problem
        try:
            path, inode = str(self._place.resolve()), self._identify(self._base, "")
            answer = await self._holder.ask(self._key, "open", path=path, inode=inode, seconds=PATIENCE)
            if answer["mode"] != "wal":
                raise NotHeld(f"{self.name} is in no WAL mode, but in {answer['mode']} mode.")
            await self._ask("hold", seconds=PATIENCE)
            for attribute, suffix in (("_wal", "-wal"), ("_shm", "-shm")):
                with within.opened(
                    self._root, self._place.with_name(f"{self._place.name}{suffix}"), within.FILE
                ) as one:
                    setattr(self, attribute, self._keep_open(one))
            self._identify(self._shm, "-shm")
            mark = self._read().mark
        except Refusal as problem:
            raise NotHeld(_refused(self.name, problem)) from problem
        except OSError as problem:
            raise NotHeld(f"{self.name} changed while it was to be held: {problem.strerror}.") from problem
        except Unavailable as problem:
            raise NotHeld(problem.sentence) from problem
        self.generation = _held_from(mark)
        await self.rotate()

    def mark(self) -> tuple[str, Mark]:
        """Where it is now, and in which generation. Some microseconds. Raises Unavailable when that is not known."""
        return self._attributed(self._read()).id, self._seen.mark  # type: ignore[union-attr]

    def look(self, passed: float) -> float:
        """Seconds until its WAL is to be moved on if it grows as in the `passed` seconds since the last look.

        Infinite if it does not grow. Afterwards it may be `lost`, torn, or due.
        """
        before = self._looked
        with contextlib.suppress(Unavailable):
            self.mark()
        if self._lock.locked() or not self._is_checkpointed():
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = self._now()
        self._looked = self._seen
        if before is None or self._looked is None or before.mark == self._looked.mark:
            return float("inf")
        mark = self._looked.mark
        grown = mark.frame - before.mark.frame if mark[:2] == before.mark[:2] else mark.frame
        left = ROTATE_AT - self.generation.progress(mark)
        return max(left, 0) / max(grown, 1) * passed

    @property
    def is_stuck(self) -> bool:
        """Whether an app's checkpoint waits for us to let go: those that wait for nobody are over in no time."""
        return self._stuck_since is not None and self._now() - self._stuck_since > STUCK

    def _is_checkpointed(self) -> bool:
        """Whether anybody has the lock of a checkpoint; the holder has it in a rotation."""
        if self._shm < 0:
            return False
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, CHECKPOINT, 1, 0)
        kind: int = _LOCK.unpack(fcntl.fcntl(self._shm, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK

    @property
    def is_large(self) -> bool:
        """Whether WALs over one base are better kept than many bases, even where these share their blocks."""
        return self._base >= 0 and os.fstat(self._base).st_size >= SMALL

    @property
    def is_due(self) -> bool:
        """Whether its WAL is to be moved on now."""
        if self.lost or self._lock.locked() or not self._seen or self._now() < self._retry_at:
            return False
        is_weak = self.generation.start is None and bool(self.trouble)
        return is_weak or self.generation.progress(self._seen.mark) >= ROTATE_AT

    def gives(self, generation: str, mark: Mark) -> bool:
        """Whether there is an image to be had, of now or from the archive."""
        if not self.lost and self.generation.gives(generation, mark):
            return True
        return self._archive.find(generation, mark) is not None

    async def image(self, generation: str, mark: Mark, folder: Path, name: str) -> None:
        """Make an image of a mark in `folder`. Raises Unavailable, OSError of a full disk. Locks nobody out."""
        async with self._lock:
            if not self.lost and self.generation.gives(generation, mark):
                await self._live_image(mark, folder, name)
                return
            stored = self._archive.find(generation, mark)
            if stored is None:
                raise Unavailable(
                    f"{self.name} as it was at frame {mark.frame:,} is not there any more.",
                    "It was not kept before its file was written again.",
                )
            await self._in_thread(lambda: self._archive.make_image(stored, mark, folder, name))

    async def keep(self, generation: str, mark: Mark, chain_for: float) -> str:
        """Have the bytes of a mark on disk, for good; the generation in the archive that has them.

        `chain_for`: seconds for which the next are kept, too, where that spares the copy of a large base.
        """
        async with self._lock:
            stored = self._archive.find(generation, mark)
            if stored:
                return stored.id
            if self.lost or not self.generation.gives(generation, mark):
                raise Unavailable(f"{self.name} as it was at frame {mark.frame:,} is not there any more.")
            await self._archive_until(mark)
            if self.is_large:
                self._archives_until = self._now() + chain_for
            return self.generation.id

    async def is_costly(self) -> bool:
        """Whether an image takes time, and room on the disk: then one base is better shared by many."""
        async with self._lock:
            return not self.lost and await self._in_thread(self._is_costly)

    async def collect(self, wanted: set[str]) -> None:
        """Remove from the archive what nobody needs. The generation that is under way stays if it is there."""
        async with self._lock:
            current = {self.generation.id, self.generation.before}
            keeping = current if self._now() < self._archives_until else set[str]()
            await self._in_thread(lambda: self._archive.collect(wanted | keeping))

    async def rotate(self, is_wanted: Callable[[], bool] = lambda: False) -> bool:
        """Put the WAL into the database file, and hold it again; whether all of it went there.

        `is_wanted`: whether somebody may yet ask for a mark of this generation, so that it is archived first. Raises
        HolderLost.
        """
        async with self._lock:
            is_complete = False
            try:
                is_complete = await self._rotate(is_wanted)
            except Refusal as problem:
                self._is_slow = problem.kind == "late"
                self.trouble = _refused(self.name, problem)
                if problem.kind == "lost":
                    self._lose(self.trouble)
            except Unavailable as problem:
                self.trouble = problem.sentence
            except BaseException:  # nobody knows what came of it
                self._lose(f"{self.name} is not held any more.")
                raise
            finally:
                self._next = None
            self._delay = RETRY[0] if is_complete or self._is_slow else min(2 * self._delay, RETRY[1])
            self._retry_at = 0.0 if is_complete else self._now() + self._delay
            return is_complete

    async def give_way(self, is_wanted: Callable[[], bool] = lambda: False) -> None:
        """Let an app's own checkpoint come to its end: one that waits for us keeps writers out meanwhile."""
        async with self._lock:
            try:
                await self._archived_if(is_wanted)
                self._next = Generation(is_unknown=True)
                while (await self._ask("release"))["held"]:
                    pass
                deadline = self._now() + GIVEN
                while self._is_checkpointed() and self._now() < deadline:  # noqa: ASYNC110 - not ours
                    await asyncio.sleep(0.002)
                await self._ask("hold", seconds=PATIENCE)
                self.generation = _held_from(self._read().mark)
            except (Refusal, Unavailable) as problem:
                self._lose(f"{self.name} is not held any more: {problem}")
            except BaseException:
                self._lose(f"{self.name} is not held any more.")
                raise
            finally:
                self._next = None
                self._stuck_since = None
        await self.rotate()

    async def mend(self) -> None:
        """Have the index read by SQLite, which writes it anew if its writer was killed in the midst of it."""
        with contextlib.suppress(Refusal):
            await self._ask("mend")

    async def drop(self) -> None:
        """Let go of a database that is deleted, replaced, or nobody's any more."""
        self._lose(self.lost or f"{self.name} is not held any more.")
        with contextlib.suppress(HolderLost, Refusal):
            await self._ask("forget")
        await self.close()

    async def close(self) -> None:
        """Close the raw files, when nobody reads them any more. The holder is not asked for anything."""
        self._lose(self.lost or f"{self.name} is not held any more.")
        async with self._lock:
            for descriptor in self._open:
                os.close(descriptor)
            self._open.clear()
            self._base = self._wal = self._shm = -1

    async def _rotate(self, is_wanted: Callable[[], bool]) -> bool:
        generation, state = self.generation, self._here()
        is_archived = self._has_failed = False
        if state.backfilled < state.mark.frame:  # else what is held now must be held until nobody can commit
            await self._ask("hold", seconds=PATIENCE)
            is_archived = await self._archived_if(is_wanted)
            await self._advance(generation)
        is_archived = is_archived or await self._archived_if(is_wanted)
        # Nothing is awaited between the last look at who wants it and what would make it too late.
        if self._is_slow and not is_archived:
            return await self._turn_at_once()
        await self._ask("bar", seconds=PATIENCE, lasts=BARRED)
        barred = time.monotonic()
        try:
            final = self._here().mark  # nobody commits until the holder has turned
            if is_archived:
                is_archived = await self._could(lambda: self._archive.append(generation.id, self._wal, final))
            elif is_wanted() and not self._has_failed:
                raise Refusal("late", "Somebody wants a moment of it that is not archived yet.")
            self._next = Generation(start=final, before=generation.id)
            answer = await self._holder.ask(self._key, "turn", TURNING)
        except BaseException:
            await self._ask("lift")
            raise
        self.stalls.append(time.monotonic() - barred)
        is_complete = self._turned(answer, self._next, final)
        if is_archived:
            await self._could(lambda: self._archive.settle(generation.id, final, is_complete))
        return is_complete

    async def _advance(self, generation: Generation) -> None:
        """Put into the file what can be while writers go on: that is most of it."""
        now = self._here().mark
        if now[:2] != generation.salts:
            raise self._lose(f"The WAL of {self.name} started over while it was held.")
        generation.raise_floor(now)
        await self._ask("release")
        await self._ask("checkpoint")

    async def _turn_at_once(self) -> bool:
        """Let the holder do all that writers wait for, as we are slow.

        Where exactly it was then nobody knows; so there are images from where it is when we come.
        """
        self._next = following = Generation(is_unknown=True)
        answer = await self._ask("turn", seconds=PATIENCE)
        self._is_slow = False
        self.stalls.append(answer["barred"])
        try:
            state = self._read()
        except Unavailable as problem:
            raise self._lose(f"{self.name} is not held any more: {problem.sentence}") from problem
        following.is_unknown = False
        if state.backfilled == state.mark.frame:
            following.start = state.mark
        else:
            following.salts, following.floor = (state.mark.salt1, state.mark.salt2), state.mark.frame
        return self._turned(answer, following, state.mark)

    def _turned(self, answer: dict[str, Any], following: Generation, final: Mark) -> bool:
        self._next = None
        if answer["complete"]:
            self.generation, self.trouble = following, ""
        else:
            self.generation.raise_floor(final)
            self.trouble = _incomplete(self.name, answer)
        return bool(answer["complete"])

    async def _archived_if(self, is_wanted: Callable[[], bool]) -> bool:
        """Whether this generation is in the archive, where it is to be before its file is written."""
        if self._now() < self._archives_until and not is_wanted():
            has = self._archive.has(self.generation.id)
            if has or await self._in_thread(self._can_chain):
                return await self._archived()
        return await self._archived() if is_wanted() and not self._has_failed else False

    async def _archived(self) -> bool:
        try:
            await self._archive_until(self._here().mark)
        except (OSError, Unavailable) as problem:  # the app's WAL must not grow because our disk is full
            self.archive_trouble = f"{self.name} could not be archived: {problem}"
            self._has_failed = True
            return False
        return True

    async def _could(self, work: Callable[[], None]) -> bool:
        try:
            await self._in_thread(work)
        except (OSError, Unavailable) as problem:
            self.archive_trouble = f"{self.name} could not be archived: {problem}"
            return False
        return True

    async def _live_image(self, mark: Mark, folder: Path, name: str) -> None:
        base_only = mark.frame == 0 or mark == self.generation.start
        at = mark._replace(frame=0) if base_only else mark
        await self._in_thread(lambda: image.make(self._base, self._wal, at, folder, name=name))
        try:
            await self._demand_held()
        except BaseException:
            for place in (folder / name, folder / f"{name}-wal"):
                place.unlink(missing_ok=True)
            raise

    async def _archive_until(self, mark: Mark) -> None:
        """Have this generation in the archive, up to a mark."""
        generation, archive = self.generation, self._archive
        if await self._in_thread(lambda: archive.needs_base(generation.id, generation.salts)):
            await self._archive_base()
        await self._in_thread(lambda: archive.append(generation.id, self._wal, mark))
        await self._in_thread(lambda: archive.settle(generation.id, mark))

    async def _archive_base(self) -> None:
        generation, archive = self.generation, self._archive
        if await self._in_thread(self._can_chain):
            await self._in_thread(
                lambda: archive.admit(generation.id, generation.start, generation.floor, generation.before)
            )
            return
        try:
            await self._in_thread(lambda: archive.copy_base(generation.id, self._base))
            await self._demand_held()
        except BaseException:
            await self._in_thread(lambda: archive.discard(generation.id))
            raise
        await self._in_thread(lambda: archive.admit(generation.id, generation.start, generation.floor))

    def _can_chain(self) -> bool:
        """Whether the base is the end of the generation before, and better written from there than copied."""
        generation, archive = self.generation, self._archive
        if not archive.continues(generation.before, generation.salts, generation.start):
            return False
        return self.is_large and archive.weight(generation.before) < os.fstat(self._base).st_size

    def _is_costly(self) -> bool:
        """Whether to copy the base takes time, and room on the disk."""
        return self.is_large and not self._archive.can_clone()

    async def _demand_held(self) -> None:
        """What was read from the files until now is as it was when it was first held. Raises Unavailable."""
        try:
            await self._holder.demand_alive()
        except HolderLost as problem:
            raise Unavailable(f"{self.name} was not held while it was read.", "Try again.") from problem
        self._here()

    def _here(self) -> State:
        """Where it is in this generation, while none begins. Raises Unavailable."""
        state = self._read()
        self._attributed(state)
        return state

    def _read(self) -> State:
        """Raises Unavailable if it is not known where the database is."""
        if self.lost:
            raise Unavailable(self.lost)
        for place, inode in self._inodes:
            if not _is_there(place, inode):
                raise self._lose(f"{Path(place).name} was deleted or replaced.")
        self.is_torn = True
        self._seen = wal.state(self._shm)
        self.is_torn = False
        return self._seen

    def _attributed(self, state: State) -> Generation:
        """The generation that a database is in. Raises Unavailable if it is in none that is known."""
        generation, following, mark = self.generation, self._next, state.mark
        if (
            following
            and mark != following.start
            and following.fits(mark)
            and not self._goes_on(following, mark)
        ):
            following.learn(mark)
            return following
        is_frozen = following or mark[:2] != generation.salts or state.backfilled <= generation.floor
        if not is_frozen or not generation.fits(mark):
            raise self._lose(f"{self.name} was written while it was to be held.")
        generation.learn(mark)
        return generation

    def _goes_on(self, following: Generation, mark: Mark) -> bool:
        """Whether that is in this generation still, as far as can be told while nothing is known of the next."""
        return following.is_unknown and self.generation.fits(mark)

    def _lose(self, why: str) -> Unavailable:
        self.lost = self.lost or why
        return Unavailable(why, "Try again.")

    def _identify(self, descriptor: int, suffix: str) -> tuple[int, int]:
        """Which file that is, by device and number; it is looked for there from now on."""
        facts = os.fstat(descriptor)
        inode = facts.st_dev, facts.st_ino
        self._inodes.append((f"{self._place}{suffix}", inode))
        return inode

    def _keep_open(self, descriptor: int) -> int:
        kept = os.dup(descriptor)
        self._open.append(kept)
        return kept

    def _ask(self, do: str, **arguments: float) -> Awaitable[dict[str, Any]]:
        return self._holder.ask(self._key, do, **arguments)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _held_from(mark: Mark) -> Generation:
    """What a reader that was just opened gives, where nobody knows what it found; `mark` was read after that."""
    if mark.frame:
        return Generation(salts=(mark.salt1, mark.salt2), floor=mark.frame)
    return Generation(
        start=mark
    )  # it found nothing in the WAL, or all of it in the file: it has the read lock 0


def _is_there(place: str, inode: tuple[int, int]) -> bool:
    try:
        facts = os.stat(place, follow_symlinks=False)  # noqa: PTH116 - each mark waits for it
    except OSError:
        return False
    return (facts.st_dev, facts.st_ino) == inode


def _refused(name: str, problem: Refusal) -> str:
    if problem.kind == "busy":
        return f"{name} is locked by its app: by a long transaction, or PRAGMA locking_mode=EXCLUSIVE."
    if problem.kind == "damaged":
        return f"{name} is damaged, or no database: {problem.why}."
    if problem.kind == "full":
        return f"The disk of {name} is full."
    return f"{name} cannot be held now: {problem.why}"


def _incomplete(name: str, answer: dict[str, Any]) -> str:
    if why := answer.get("why"):
        return f"The WAL of {name} cannot be written to its file: {why}."
    return f"The WAL of {name} grows, since its app has a read transaction open for long."
