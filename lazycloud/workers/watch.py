"""The watch over all workers of a server: what no control group bounds, and who reached a limit.

It looks a few times a second. Its look costs microseconds for each worker; the size of data is asked for more
rarely, the longer that takes. A worker that goes beyond its limits is ended, and says why from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lazycloud.walls.space import all_but_full, taken
from lazycloud.workers.bounds import Bound
from lazycloud.workers.cutting import Cutter
from lazycloud.workers.logs import cut
from lazycloud.workers.record import Record
from lazycloud.workers.usage import Usage
from lazycloud.workforce import Limits

log = logging.getLogger(__name__)

PAUSE = 0.25  # seconds between looks
SIZE_PAUSE = 1.0  # seconds between looks at the size of data, or
IDLE = 20  # times as long as the look took: a watch costs at most a twentieth of a core
USAGE_PAUSE = 1.0  # seconds between looks at what processes use, where no group counts it
FORKING_FOR = 2.0  # seconds for which a worker may fork in vain before that counts as a fork bomb
MEASURE_EVERY = 600.0  # seconds: whose data grew since is whose data grows
MUCH = 10_000_000  # bytes: one whose data grew by less has not filled the disk
FLOOD = 1_000_000_000  # bytes beyond its limit that a log takes though it is cut all the time
LOOKED = 2.0  # seconds since the look before, within which it counts: a log may grow for long while nobody is there
FORKING_QUIET = 1.0  # seconds without such a fork after which it counts no more


@dataclass(frozen=True)
class Excess:
    """What a worker is ended for. `words` follow "was ended because"; `stays`: the next one would find it so, too."""

    words: str
    stays: bool = False


class Watched(Protocol):
    """A worker, as far as the watch knows it."""

    @property
    def record(self) -> Record: ...

    @property
    def bound(self) -> Bound: ...

    @property
    def is_running(self) -> bool: ...

    def usage(self) -> Usage: ...

    def end_because(self, excess: Excess) -> None:
        """End all of it at once."""


class Watch:
    """Nothing runs before the first worker is added. Belongs to one event loop."""

    def __init__(self) -> None:
        self._looks: dict[Watched, Look] = {}
        self._cutter = Cutter()
        self._cut: dict[Watched, int] = {}  # what the cutter knows their logs by
        self._room = Room()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Watch over {len(self._looks)}>"

    def add(self, worker: Watched) -> None:
        self._looks[worker] = Look(worker)
        if most := worker.bound.limits.log:
            self._cut[worker] = self._cutter.add(worker.record.log_path, most)
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="watch over workers")

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.to_thread(self._cutter.close)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            over = [worker for worker in self._looks if not worker.is_running]
            gone = [self._looks.pop(worker) for worker in over]
            for worker in over:
                self._cutter.remove(self._cut.pop(worker, -1))
            try:
                excesses = await asyncio.to_thread(self._look, dict(self._looks), gone)
                for worker, excess in excesses.items():
                    worker.end_because(excess)
            except Exception:
                log.exception("Workers could not be watched; going on")

    def _look(self, looks: Mapping[Watched, Look], gone: Iterable[Look]) -> dict[Watched, Excess]:
        """Who is to be ended, and why. All in one go of a thread: to begin one takes as long as to look at two."""
        excesses: dict[Watched, Excess] = {}
        for look in gone:  # what it wrote last is looked at all the same
            with contextlib.suppress(OSError):
                look.log()
        for worker, look in looks.items():
            try:
                if excess := look.now():
                    excesses[worker] = excess
            except (OSError, subprocess.SubprocessError) as problem:
                log.warning("%r could not be watched: %s", worker, problem)
        return self._room.look(looks) | excesses


class Room:
    """Keeps a disk from being filled by whoever has no limit of his own: the one whose data grew most is ended.

    How large each one's data was is measured once in a while, and again when the disk is full.
    """

    def __init__(self) -> None:
        self._before: dict[Watched, tuple[float, int]] = {}  # when it was measured, and what it was
        self._next = 0.0

    def look(self, workers: Iterable[Watched]) -> dict[Watched, Excess]:
        """Blocks, for as long as it takes to measure."""
        now = time.monotonic()
        if now < self._next:
            return {}
        places = {worker: [Path(path) for path in worker.record.data] for worker in workers}
        full = [worker for worker, data in places.items() if _is_full(data)]
        grown = {
            worker: taken(places[worker]) - self._before[worker][1]
            for worker in full
            if worker in self._before
        }
        self._before = {worker: seen for worker, seen in self._before.items() if worker in places}
        for worker, data in places.items():
            if worker not in self._before or now - self._before[worker][0] > MEASURE_EVERY:
                self._before[worker] = (now, taken(data))
        self._next = now + max(SIZE_PAUSE, IDLE * (time.monotonic() - now))
        most = max(grown, key=lambda worker: grown[worker], default=None)
        if most is None or grown[most] < MUCH:
            return {}
        return {most: Excess(f"the disk is all but full, and its data grew by {shown(grown[most])}")}


def _is_full(places: Sequence[Path]) -> bool:
    for place in places:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(place)
            return all_but_full(usage.free, usage.total)
    return False


class Look:
    """What is remembered of one worker between two looks."""

    def __init__(self, worker: Watched) -> None:
        self._worker = worker
        self._next_size = self._next_usage = 0.0
        self._refused = 0
        self._looked = float("-inf")  # when, at its log
        self._forking_since = self._refused_at = 0.0

    @property
    def _bound(self) -> Bound:
        return self._worker.bound

    @property
    def _limits(self) -> Limits:
        return self._bound.limits

    def now(self) -> Excess | None:
        """Why it is to be ended, None for not at all. Blocks."""
        why = self.log() or self._memory() or self._forks() or self._use()
        return Excess(why) if why else self._size()

    def log(self) -> str:
        """Let go of what it wrote too much; that is no reason to end it, unless it writes faster than that goes."""
        limit, now = self._limits.log, time.monotonic()
        if not limit:
            return ""
        is_watched, self._looked = now - self._looked < LOOKED, now
        freed = cut(self._worker.record.log_path, limit)
        if is_watched and freed > limit + FLOOD:
            return f"it wrote its log faster than that could be cut to its limit ({shown(limit)})"
        return ""

    def _memory(self) -> str:
        """The kernel ends one process only where it cannot end the group: a server whose child went is no server."""
        return memory_reason(self._limits) if self._bound.memory_ended() else ""

    def _forks(self) -> str:
        """Forks that fail all the time: once may be an accident, and the app may come to terms with it."""
        group, now = self._bound.group, time.monotonic()
        if group is None or not self._limits.processes:
            return ""
        refused = group.processes_refused()
        if refused > self._refused:
            self._refused, self._refused_at = refused, now
            self._forking_since = self._forking_since or now
        elif now - self._refused_at > FORKING_QUIET:
            self._forking_since = 0.0
        if self._forking_since and now - self._forking_since >= FORKING_FOR:
            return f"it went on forking at its limit of {self._limits.processes:,} processes"
        return ""

    def _use(self) -> str:
        """Where the kernel does not count."""
        group, limits, now = self._bound.group, self._limits, time.monotonic()
        memory = limits.memory and not (group and group.bounds("memory"))
        processes = limits.processes and not (group and group.bounds("pids"))
        if not (memory or processes) or now < self._next_usage:
            return ""
        usage = self._worker.usage()
        self._next_usage = now + max(USAGE_PAUSE, IDLE * (time.monotonic() - now))
        if memory and usage.memory > limits.memory:
            return memory_reason(limits)
        if processes and usage.processes > limits.processes:
            return f"it had more than its limit of {limits.processes:,} processes"
        return ""

    def _size(self) -> Excess | None:
        """Only what is temporary goes with the worker."""
        limit, now = self._limits.disk, time.monotonic()
        data = tuple(map(Path, self._worker.record.data))
        if not limit or not data or now < self._next_size:
            return None
        try:
            size = taken(data)
        finally:
            self._next_size = now + max(SIZE_PAUSE, IDLE * (time.monotonic() - now))
        if size <= limit:
            return None
        stays = taken(data[:1]) > limit
        what = "its data" if stays else "its data and temporary files"
        return Excess(f"{what} took more than the limit of disk ({shown(limit)})", stays)


def memory_reason(limits: Limits) -> str:
    return f"it reached its limit of memory ({shown(limits.memory)})"


def shown(size: float) -> str:
    """As settings say it: 512 MB, 1 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f}".removesuffix(".0") + f" {name}"
    return f"{size:,.0f} bytes"
