"""What a command of a build may use, and the watch over it.

The watch looks at /proc and at the disk a few times a second: that needs no rights, unlike control groups, and a
limit that is meant to save the machine may be passed for a moment.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lazycloud.errors import StepFailed
from lazycloud.processes import end_strays, kill_session, kin
from lazycloud.walls.fence import Fence
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.space import BLOCK, all_but_full

PAUSE = 0.25  # seconds between looks, or
IDLE = 20  # times as long as the look took: a watch costs at most a twentieth of a core
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """Of one command, with all its processes together. Bytes; 0 is no limit.

    `makes` is the folder that it works for: what that grows by counts as written. `homes` is where each command
    gets a HOME and a TMPDIR of its own, removed when it has ended; None leaves those of its environment.
    With `walls` it sees of the server no more than `read` and, writable, `makes` and `write`; without `network`
    it then has none, nor the settings that packages are installed with. With one, `fence` keeps it from the ports of
    workers.
    """

    seconds: float = float("inf")
    memory: int = 0
    disk: int = 0
    makes: Path | None = None
    homes: Path | None = None
    walls: Sandbox | None = None
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = True
    fence: Fence | None = None

    def of(self, seconds: float, makes: Path) -> Limits:
        """For a command with a time limit of its own."""
        return replace(self, seconds=min(seconds, self.seconds), makes=makes)

    def seeing(self, read: Sequence[Path], write: Sequence[Path], network: bool = True) -> Limits:
        """For a command that works with these folders, too."""
        return replace(self, read=(*self.read, *read), write=(*self.write, *write), network=network)


class Watch:
    """Ends a command that goes beyond its limits; `problem` says so then. `private` is its HOME."""

    def __init__(self, limits: Limits, private: Path | None) -> None:
        self.problem: StepFailed | None = None
        self._limits = limits
        self.private = private
        self._places = [place for place in (limits.makes, private) if place]
        self._sessions: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, leader: int) -> None:
        self._sessions = {leader}
        if self._limits.memory:
            self._tasks.append(asyncio.create_task(self._again(self._memory), name=f"memory of {leader}"))
        if self._places:
            self._tasks.append(asyncio.create_task(self._disk(), name=f"disk of {leader}"))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.private:  # daemons have left the session, and have its HOME still
            await asyncio.to_thread(end_strays, self.private, set())

    async def _disk(self) -> None:
        before = await asyncio.to_thread(written, self._places)
        await self._again(lambda: self._room() or self._size(before))

    async def _again(self, look: Callable[[], StepFailed | None]) -> None:
        pause = PAUSE
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            if problem := await asyncio.to_thread(look):
                self.problem = self.problem or problem
                for session in self._sessions:
                    kill_session(session)
                return
            pause = max(PAUSE, IDLE * (time.monotonic() - began))

    def _memory(self) -> StepFailed | None:
        """Pages that several processes share count for each at first, and are told apart only when it matters."""
        pids, sessions = kin(self._sessions)
        self._sessions |= sessions
        limit = self._limits.memory
        if sum(map(_resident, pids)) <= limit or sum(map(_own, pids)) <= limit:
            return None
        return StepFailed(
            f"It was ended because it took more memory than the limit of {limit / 1e6:,.0f} MB.",
            "Let it use less, or raise `build_memory` of the server (docs/settings.md).",
        )

    def _size(self, before: int) -> StepFailed | None:
        limit = self._limits.disk
        if not limit or written(self._places) - before <= limit:
            return None
        return StepFailed(
            f"It was ended because it wrote more than the limit of {limit / 1e6:,.0f} MB.",
            "Let it write less, or raise `build_disk` of the server (docs/settings.md).",
        )

    def _room(self) -> StepFailed | None:
        place = next(place for place in self._places if place.exists())
        usage = shutil.disk_usage(place)
        if not all_but_full(usage.free, usage.total):
            return None
        return StepFailed(
            f"It was ended because the disk of {place} is all but full ({usage.free / 1e6:,.0f} MB free).",
            "Make room there: what runs needs some too.",
        )


def written(places: Sequence[Path]) -> int:
    """Bytes that files take below some folders; those that are linked from a cache as well take none of their own."""
    return sum(_below(str(place)) for place in places)


def _below(folder: str) -> int:
    size = 0
    with suppress(OSError):  # a build removes what it made
        for entry in os.scandir(folder):
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    size += _below(entry.path)
                elif (stat := entry.stat(follow_symlinks=False)).st_nlink == 1:
                    size += stat.st_blocks * BLOCK
    return size


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    return 0


def _own(pid: int) -> int:
    """Its proportional share of what it uses."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
