"""A worker that is a container, from its start to its removal."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from lazycloud.errors import StepFailed
from lazycloud.processes import LAST_LINES, Output, is_running, unheard
from lazycloud.walls.groups import group_of
from lazycloud.workers.bounds import Bound
from lazycloud.workers.containers.copying import Copying
from lazycloud.workers.containers.daemon import Daemon
from lazycloud.workers.containers.ending import ContainerEnding
from lazycloud.workers.containers.readiness import ContainerReadiness
from lazycloud.workers.containers.removal import AFTER_KILL, Removals
from lazycloud.workers.listeners import descendants
from lazycloud.workers.logs import last_lines
from lazycloud.workers.process import STAYS
from lazycloud.workers.readiness import NotReady, Why
from lazycloud.workers.record import Record
from lazycloud.workers.usage import Meter, Usage
from lazycloud.workers.watch import Excess
from lazycloud.workers.worker import Ended
from lazycloud.workforce import Limits


class ContainerWorker:
    """Made by the engine. `gone` is called once it is removed; `since` is for what is copied into its log."""

    def __init__(
        self, record: Record, daemon: Daemon, removals: Removals, gone: Callable[[], None], since: int = 0
    ) -> None:
        self._record = record
        self._daemon = daemon
        self._removals = removals
        self._gone = gone
        self._stopping = asyncio.Lock()
        group = group_of(record.pid) if record.pid else None
        self._bound = Bound(Limits.from_dict(record.limits), group)
        copying = Copying(daemon, record.container, record.log_path, since) if record.copied else None
        self._ending = ContainerEnding(record.identity, record.container, daemon, self._bound.limits, copying)
        self._ending.watch()
        # By /proc, as of other workers, so that the figures mean the same: the engine counts file caches as memory.
        self._meter = Meter(record.pid, group.pids if group else self._family)
        self._excess: Excess | None = None

    def __repr__(self) -> str:
        how = "running" if self.is_running else self.how_it_ended
        return f"<ContainerWorker {self._record.container[:12]} {self.address} {how}>"

    @property
    def record(self) -> Record:
        return self._record

    @property
    def address(self) -> str:
        return self._record.address

    @property
    def is_running(self) -> bool:
        """As the kernel says now, whether or not the engine has noticed."""
        return not self._ending.look()

    @property
    def how_it_ended(self) -> str:
        return self._how(self._ending.status) if self._ending.look() else "runs"

    @property
    def bound(self) -> Bound:
        """What holds it: the engine's own control group."""
        return self._bound

    @property
    def outgrew(self) -> bool:
        return self._excess is not None and self._excess.stays

    def end_because(self, excess: Excess) -> None:
        """End all of it at once, for having gone beyond a limit."""
        if not self._ending.look():
            self._excess = excess
            self._signal(signal.SIGKILL)

    async def ready(self, say: Output | None = None) -> None:
        """Wait until it listens and, if it has a health path, answers. Raises NotReady; it is not stopped then."""
        readiness = ContainerReadiness(self._record, self._ending, say or unheard, self._how)
        await (readiness.wait() if self._record.listens else self._stays())

    async def ended(self) -> Ended:
        """Wait until its first process has ended: nothing else of the container lives on after that."""
        status = await self._ending.wait()
        return Ended(status, self.how_it_ended)

    async def stop(self) -> None:
        """TERM, then KILL after `stop_timeout`, and remove it. Idempotent; takes 15 s longer at most."""
        async with self._stopping:
            if not self._ending.look():
                await self._end()
            with suppress(TimeoutError):
                async with asyncio.timeout(AFTER_KILL):
                    await self._ending.wait()  # how it ended cannot be asked any more once it is removed
            await self._removals.remove(self._record.container)
            self._gone()

    def leave(self) -> None:
        self._ending.close()

    def usage(self) -> Usage:
        return self._meter.read()

    def last_lines(self, count: int = LAST_LINES) -> list[str]:
        return last_lines(self._record.log_path, count, self._record.log_start)

    async def _stays(self) -> None:
        """A background process tells nobody that it is ready: one that does not end at once is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STAYS):
                await self._ending.wait()
            raise NotReady(Why.EXITED, f"The process {self.how_it_ended} at once.", last=self.last_lines())

    async def _end(self) -> None:
        """By the engine, which knows the image's own stop signal; by ourselves if that is away."""
        seconds = self._record.stop_timeout
        container = self._daemon.client.containers.container(self._record.container)
        try:
            async with asyncio.timeout(seconds + AFTER_KILL), self._daemon.asked("to stop a container"):
                await container.stop(t=math.ceil(seconds))
        except (StepFailed, TimeoutError):
            await self._kill(signal.SIGTERM, seconds)
            await self._kill(signal.SIGKILL, AFTER_KILL)

    async def _kill(self, number: signal.Signals, seconds: float) -> None:
        """The first process: the kernel ends all others with it."""
        self._signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def _signal(self, number: signal.Signals) -> None:
        if is_running(self._record.identity):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._record.pid, number)

    def _how(self, status: int | None) -> str:
        """In words that follow its name."""
        return f"was ended because {self._excess.words}" if self._excess else self._ending.words

    def _family(self) -> list[int]:
        return [self._record.pid, *descendants(self._record.pid)]
