"""Which workers sleep: those that nobody visited for a while, and the least recently used when room is needed.

Production and pinned commits never sleep, and none that is in use does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lazycloud import store
from lazycloud.config import Config, memory
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Busy, LazycloudError
from lazycloud.processes import Output
from lazycloud.states import Cause, State
from lazycloud.store import Store

log = logging.getLogger(__name__)

LOOK_EVERY = 15.0  # seconds, or an eighth of `idle_after`
PATIENCE = 60.0  # seconds that a start waits for a worker which nobody uses any more
LOOK_AGAIN = 0.25  # seconds between two looks meanwhile
FREED = 5.0  # seconds that the memory of one that was stopped may take to come free
MEMORY = Path("/proc/meminfo")


class Traffic(Protocol):
    """What went to a deployment: `last` is the unix time of the last real activity, 0.0 for never."""

    @property
    def open(self) -> int: ...
    @property
    def sockets(self) -> int: ...
    @property
    def last(self) -> float: ...


@dataclass(frozen=True)
class Sleeper:
    """One that runs, and may be put to sleep. `used` is unix time; `busy`: somebody waits for its answer."""

    deployment: Deployment
    used: float
    busy: bool
    sockets: int


def idle(sleepers: Iterable[Sleeper], before: float) -> list[Sleeper]:
    """Those that nobody used since. A websocket that is silent does not count as use."""
    return [one for one in sleepers if not one.busy and one.used < before]


def first_to_go(sleepers: Iterable[Sleeper]) -> Sleeper | None:
    """The least recently used of those that are not in use; one with open websockets only if all have some."""
    free = [one for one in sleepers if not one.busy]
    return min(free, key=lambda one: (one.sockets > 0, one.used), default=None)


class Rest:
    """`traffic` is the server's to set: by a deployment's id."""

    def __init__(self, config: Config, fleet: Fleet, state: Store, traffic: Callable[[str], Traffic]) -> None:
        self._workforce = config.workers
        self._fleet = fleet
        self._store = state
        self._traffic = traffic
        self._looking: asyncio.Task[None] | None = None
        self._making_room: asyncio.Task[None] | None = None
        self._placing = asyncio.Lock()
        self._placed: set[Deployment] = set()  # that were given a place, and may not run yet

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look_on(), name="rest")

    async def close(self) -> None:
        tasks = [task for task in (self._looking, self._making_room) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def make_place(self, deployment: Deployment, say: Output) -> None:
        """See to it that one more may run. Raises Busy if all that do are in use.

        Production is let in at once, and its rehearsals are: room is made while they start.
        """
        if deployment.key.version != deployment.key.commit:
            self._placed.add(deployment)
            if self._making_room is None or self._making_room.done():
                self._making_room = asyncio.create_task(self._make_room(), name="make room")
            return
        deadline, told = time.monotonic() + PATIENCE, False
        while not await self._place(deployment):
            sentence = f"All {self._workforce.max} deployments that may run at a time are in use."
            if time.monotonic() >= deadline:
                raise Busy(
                    sentence,
                    "Try again in a moment, stop one (`lazycloud ps`), or raise `max` in [workers] of the server.",
                    retry_after=10,
                )
            if not told:
                say(f"{sentence} Waiting for one to be free.\n")
                told = True
            await asyncio.sleep(LOOK_AGAIN)

    async def _place(self, deployment: Deployment) -> bool:
        async with self._placing:
            if not await self._sleep_down_to(self._workforce.max - 1, deployment):
                return False
            self._placed.add(deployment)
            await self._spare_memory()
            return True

    async def _sleep_down_to(self, count: int, apart_from: Deployment | None = None) -> bool:
        """Whether no more than so many run now, or are about to, beside one of them."""
        self._placed = {one for one in self._placed if one.is_deploying}
        while self._workforce.max:
            live = {one for one in self._fleet.known() if one.workers} | self._placed
            if len(live - {apart_from}) <= count:
                break
            if not await self._sleep_one():
                return False
        return True

    async def _look_on(self) -> None:
        after = self._workforce.idle_after
        while True:
            await asyncio.sleep(min(LOOK_EVERY, after / 8) if after else LOOK_EVERY)
            try:
                await self._look(after)
            except Exception:
                log.exception("Who may sleep could not be found out; going on")

    async def _look(self, after: float) -> None:
        if after:
            for one in idle(await self._sleepers(), time.time() - after):
                self._fleet.rest(one.deployment)
        await self._make_room()

    async def _make_room(self) -> None:
        async with self._placing:
            await self._sleep_down_to(self._workforce.max)
            await self._spare_memory()

    async def _spare_memory(self) -> None:
        """Previews sleep until as much memory is free as is to be, or none is left that may."""
        reserve = self._workforce.reserve.of(memory())
        while (before := available()) < reserve:
            if not await self._sleep_one():
                return
            deadline = time.monotonic() + FREED
            while available() <= before and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(LOOK_AGAIN)

    async def _sleep_one(self) -> bool:
        one = first_to_go(await self._sleepers())
        if one is None:
            return False
        try:
            await self._fleet.stop(one.deployment, Cause.ROOM)
        except LazycloudError:
            return False
        return True

    async def _sleepers(self) -> list[Sleeper]:
        rows = await asyncio.to_thread(self._store.rows, store.pins)
        pinned = {(row["app"], row["commit"]) for row in rows}
        found = []
        for one in self._fleet.known():
            keeps = self._fleet.is_production(one) or (one.key.app, one.key.commit) in pinned
            if one.state is State.READY and not keeps:
                traffic = self._traffic(one.id)
                used = max(traffic.last, one.ready_at, one.asked_at)
                found.append(Sleeper(one, used, traffic.open > 0, traffic.sockets))
        return found


def available(file: Path = MEMORY) -> int:
    """Bytes of memory that could be had at once; a great many where nobody can tell."""
    try:
        for line in file.read_text().splitlines():
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return 1 << 62
