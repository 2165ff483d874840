"""The parents of a server: one for each environment and set of variables that is in use, a bounded number."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from lazycloud.errors import StepFailed
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.view import View
from lazycloud.workers.bounds import NO_BOUNDS, Bounds
from lazycloud.workers.preload.ahead import Ahead
from lazycloud.workers.preload.parent import NOTES, Fork, Parent
from lazycloud.workers.preload.start import Start, Venv
from lazycloud.workers.preload.unsuitable import Unsuitable

LIMIT = 8  # alive at once; each has the memory of one app's packages, which its workers share
IDLE = 3600.0  # seconds without a start after which one is ended
TRIES = 3  # parents of one key that may fail, one after the other, before that key is left alone …
TRIES_AGAIN = 600.0  # seconds … for that long
LARGEST = 400000  # bytes of notes that are taken over: whoever wrote them need not have kept to less
GUESS = "guess"  # the file with what the app's last environment noted
FIRST_REQUESTS = 1.0  # seconds: an app imports some things at its first request only
FIRST_WORKER = 5.0  # seconds after which a new environment's parent goes by what another one noted
LEARNED = "learned"  # the mark in an environment's memory: a worker became ready, and noted what it imported


class Parents:
    """Nothing is started before it is asked for. Belongs to one event loop. `walls` are around all that is."""

    def __init__(self, limit: int = LIMIT, bounds: Bounds = NO_BOUNDS, walls: Sandbox | None = None) -> None:
        self._bounds, self._walls = bounds, walls
        self._limit = limit
        self._parents: OrderedDict[str, Parent] = OrderedDict()
        self._retired: set[Parent] = set()  # that still have workers
        self._failures: dict[str, list[float]] = {}  # when, since the last success
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closed = False
        self._ahead = Ahead()

    def __repr__(self) -> str:
        return f"<Parents {list(self._parents.values())}>"

    def prepare(self, start: Start) -> None:
        """See to it that a parent is there, or will be, that has imported what is known of the environment."""
        if not self._closed and self._alive(start.key) is None and not self._has_failed(start.key):
            with contextlib.suppress(
                OSError, ValueError, StepFailed, Unsuitable
            ):  # ValueError: a NUL in a variable
                self._begin(start)

    def expect(self, start: Start, view: View) -> None:
        """A worker that sees that is to be started in a moment: a fork goes behind its walls, if it can."""
        parent = self._alive(start.key)
        if self._walls and parent and parent.is_waiting and (start.venv.memory / LEARNED).exists():
            self._ahead.make(parent, start.folder, view)

    async def fork(
        self, start: Start, log: int, view: View | None = None, doors: Sequence[Path] = ()
    ) -> Fork:
        """Start the worker, which writes to `log`, a descriptor, and behind walls sees `view`.

        It enters by `doors`, of a control group.

        Raises Unsuitable: then it is to be started plainly. The first worker of an environment is the fork of a
        bare Python, and notes what it imports.
        """
        if self._has_failed(start.key):
            raise Unsuitable(f"forks failed {TRIES} times, one after the other")
        learned = (start.venv.memory / LEARNED).exists()
        parent = self._alive(start.key)
        if parent is None:
            self.prepare(start)
            if learned:
                raise Unsuitable("no Python with its modules was waiting; the next start will find one")
            parent = self._alive(start.key)
        if parent is None:
            raise Unsuitable("its environment's Python could not be started")
        self._use(parent)
        try:
            fork = await self._fork(
                parent, start, log, None if learned else start.venv.memory / NOTES, view, doors
            )
        except Unsuitable:
            self.prepare(start)  # unless it is only slow
            raise
        self._failures.pop(start.key, None)
        return fork

    async def _fork(
        self,
        parent: Parent,
        start: Start,
        log: int,
        record: Path | None,
        view: View | None,
        doors: Sequence[Path],
    ) -> Fork:
        waiting = await self._ahead.take(parent, start.folder, view) if view else None
        if waiting:
            with contextlib.suppress(Unsuitable):
                return await parent.order(waiting, start, log, None, doors)
        return await parent.fork(start, log, record, view, doors)

    def learn(self, start: Start) -> None:
        """A worker of the environment is ready: what it imported is imported for those after it."""
        learned = start.venv.memory / LEARNED
        if self._closed or learned.exists():
            return
        with contextlib.suppress(OSError):
            learned.touch()
        if parent := self._alive(start.key):
            asyncio.get_running_loop().call_later(FIRST_REQUESTS, parent.preload)

    async def leave(self, folder: Path) -> None:
        """End those of environments in a folder that is to be removed."""
        here = [parent for parent in self._parents.values() if parent.memory.is_relative_to(folder)]
        for parent in here:
            self._forget(parent)
        await asyncio.gather(*(parent.close() for parent in here))

    async def close(self) -> None:
        """End all; their workers live on."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._ahead.close()
        await asyncio.gather(*(parent.close() for parent in (*self._parents.values(), *self._retired)))
        self._parents.clear()
        self._retired.clear()

    def _alive(self, key: str) -> Parent | None:
        parent = self._parents.get(key)
        if parent is not None and parent.is_gone:  # by itself
            self._failures.setdefault(key, []).append(time.monotonic())
            self._forget(parent)
            return None
        return parent

    def _has_failed(self, key: str) -> bool:
        failures = self._failures.get(key, [])
        return len(failures) >= TRIES and time.monotonic() - failures[-TRIES] < TRIES_AGAIN

    def _begin(self, start: Start) -> None:
        notes = _notes(start.venv)
        parent = self._parents[start.key] = Parent.spawn(start, notes, self._bounds, self._walls)
        self._use(parent)
        if (start.venv.memory / LEARNED).exists():
            parent.preload()
        elif any(
            path.exists() for path in notes
        ):  # the first worker, if one is to come, is to have the processor
            asyncio.get_running_loop().call_later(FIRST_WORKER, parent.preload)
        while len(self._parents) > self._limit:
            self._retire(next(iter(self._parents.values())))

    def _use(self, parent: Parent) -> None:
        self._parents.move_to_end(parent.key)
        if timer := self._timers.get(parent.key):
            timer.cancel()
        self._timers[parent.key] = asyncio.get_running_loop().call_later(IDLE, self._idle, parent)

    def _idle(self, parent: Parent) -> None:
        if self._parents.get(parent.key) is parent:
            self._retire(parent)

    def _forget(self, parent: Parent) -> None:
        self._ahead.leave(parent)
        del self._parents[parent.key]
        self._timers.pop(parent.key).cancel()

    def _retire(self, parent: Parent) -> None:
        self._forget(parent)
        parent.retire()
        self._retired = {each for each in (*self._retired, parent) if not each.is_gone}


def _changed(path: Path) -> float:
    """Unix time; 0.0 of what is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _notes(venv: Venv) -> list[Path]:
    """Files that name what workers import: the environment's own, and before there is one, a guess.

    A guess is what the app's newest other environment noted: most of its packages are the same.
    """
    own, guess = venv.memory / NOTES, venv.memory / GUESS
    if not own.exists() and not guess.exists():
        others = venv.memory.parent.parent.glob(f"*/{venv.memory.name}/{NOTES}")
        for newest in sorted(others, key=_changed, reverse=True):
            with contextlib.suppress(FileNotFoundError):  # it went, as environments do
                with newest.open("rb") as file:
                    notes = file.read(LARGEST)
                guess.parent.mkdir(parents=True, exist_ok=True)
                guess.write_bytes(notes)
                break
    return [own, guess]
