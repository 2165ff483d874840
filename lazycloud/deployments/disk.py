"""Keeps the disk within its bounds: looks now and then, and removes what can be made again and nobody claims.

Data is never touched. What goes is renamed away before it is removed, so that nobody meets half of it; and what a
deploy works with, or a worker runs from, is looked at again at that very moment.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lazycloud import store
from lazycloud.allowance import in_words
from lazycloud.build.marker import TRASH, discard, remove
from lazycloud.config import Config
from lazycloud.deployments.claims import in_use, is_busy, running
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.footprint import Pace, Pause, in_haste
from lazycloud.deployments.inventory import FOLDERS, last_use
from lazycloud.deployments.retention import Decision, Going, Item, Kind, Name, Shared, Turn, decide
from lazycloud.deployments.steps import Outcome, StepName
from lazycloud.deployments.stock import Stock, Stocktaking
from lazycloud.errors import DiskFull
from lazycloud.events import DiskReclaimed, DiskShort, Event, EventLog, StepFinished
from lazycloud.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY = 300.0  # seconds; others fill the disk too
CALM = 2.0  # seconds between a step that made something and the look after it: the deploy comes first
LIMIT_SLACK = 0.1  # of the limit: when over it, so much more goes, and the next deploy is not over it again
RESERVE_SLACK = 0.5  # of the reserve, likewise
LOW = 0.25  # of the reserve: with less free, a deploy waits until room was made
MAKING = {StepName.SOURCE.value, StepName.DEPENDENCIES.value, StepName.BUILD.value, StepName.DATA.value}

Removing = Callable[[Path], Awaitable[None]]
"""Told of a folder that is about to go: whoever holds something of it open lets it go."""


async def _nobody(place: Path) -> None: ...


@dataclass(frozen=True)
class Space:
    """Bytes of the disk that the home is on, and what is allowed of it."""

    total: int
    free: int
    limit: int
    reserve: int


@dataclass(frozen=True)
class Pruned:
    """What went, or for a dry run would go, and why: `decision` as it was made, `gone` what of it was done."""

    stock: Stock
    decision: Decision
    gone: tuple[Going, ...]
    why: str

    @property
    def freed(self) -> int:
        return sum(going.frees for going in self.gone)


class Disk:
    """Starts nothing by itself. `removing` is set by the server, for those who hold on to environments."""

    def __init__(self, config: Config, fleet: Fleet, events: EventLog, state: Store) -> None:
        self.removing: Removing = _nobody
        self._config = config
        self._fleet = fleet
        self._events = events
        self._stocktaking = Stocktaking(config, fleet, state)
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()
        self._said_short = ""

    def start(self) -> None:
        self._news.set()
        self._own(self._look_after(), "look after the disk")
        self._own(self._listen(), "what deploys make")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def space(self) -> Space:
        disk = shutil.disk_usage(self._config.home)
        allowed = self._config.disk
        return Space(disk.total, disk.free, allowed.limit.of(disk.total), allowed.reserve.of(disk.total))

    async def stock(self) -> Stock:
        """All that can be made again, for somebody who waits to see it."""
        return await self._stocktaking.take(self.space().limit)

    async def prune(
        self, who: str, app: str = "", everything: bool = False, with_caches: bool = False, dry: bool = False
    ) -> Pruned:
        """Remove down to what is allowed, or all that is not kept; of one app, if it is named.

        A dry run only says what would go. It is carried through even if who asked leaves meanwhile.
        """
        work = self._prune(who, app, everything, with_caches, dry)
        return await asyncio.shield(self._own(work, "prune the disk"))

    async def make_room(self, deployment: Deployment, problem: DiskFull | None) -> int:
        """For a deploy that begins, or that a full disk has stopped; the bytes that came free, which may be 0.

        Nobody knows what a build will need: as much again as is free now. A build that would fill any disk thus
        costs others no more than that.
        """
        space = self.space()
        if problem is None and space.free >= space.reserve * LOW:
            return 0
        try:
            async with self._one_at_a_time:
                space = self.space()
                goal = _missing_of_reserve(space)
                if problem:
                    goal = max(goal, problem.needed - space.free, space.free)
                why = f"a deploy of {deployment.key.app} needed room"
                return (await self._remove(goal, why, "lazycloud", in_haste, deployment)).freed
        except Exception:
            log.exception("No room could be made for %s", deployment.id)
            return 0

    async def reconcile(self) -> None:
        """Remove what is too much, if anything is."""
        space = self.space()
        most = await asyncio.to_thread(self._stocktaking.most, Pace())
        if space.free >= space.reserve and most <= space.limit:
            self._said_short = ""
            return
        async with self._one_at_a_time:
            stock = await self._stocktaking.take(space.limit, Pace())
            goal, why = _goal(self.space(), stock.used)
            if not goal:
                self._said_short = ""
                return
            pruned = await self._remove(goal, why, "lazycloud", Pace())
        missing = goal - pruned.freed
        if missing > 0 and self._said_short != why:
            self._events.append(DiskShort(why=why, missing=missing, free=self.space().free))
        self._said_short = why if missing > 0 else ""

    async def _prune(self, who: str, app: str, everything: bool, with_caches: bool, dry: bool) -> Pruned:
        async with self._one_at_a_time:
            space = self.space()
            stock = await self._stocktaking.take(space.limit)
            goal, why = _goal(space, stock.used)
            why = why if goal and not everything else f"{who} pruned it"
            decision = _decide(stock, None if everything else goal, app, with_caches)
            if dry:
                return Pruned(stock, decision, decision.goes, why)
            return await self._carry_out(stock, decision, why, who)

    async def _remove(
        self, goal: int, why: str, who: str, pause: Pause, asking: Deployment | None = None
    ) -> Pruned:
        stock = await self._stocktaking.take(self.space().limit, pause)
        return await self._carry_out(stock, _decide(stock, goal), why, who, asking)

    async def _carry_out(
        self, stock: Stock, decision: Decision, why: str, who: str, asking: Deployment | None = None
    ) -> Pruned:
        """Remove one after the other, and tell of it in one event."""
        gone = [going for going in decision.goes if await self._removed(stock, going.item, asking)]
        pruned = Pruned(stock, decision, tuple(gone), why)
        if gone:
            counts = Counter(going.item.name.kind for going in gone)
            removed = {kind.value: counts[kind] for kind in Kind if counts[kind]}
            forget = [
                store.forget_output(one.item.name.key) for one in gone if one.item.name.kind is Kind.LOG
            ]
            event = DiskReclaimed(
                why=why, who=who, removed=removed, freed=pruned.freed, free=self.space().free
            )
            self._events.append(event, *forget)
        return pruned

    async def _removed(self, stock: Stock, item: Item, asking: Deployment | None) -> bool:
        """Remove it, unless somebody came to use it since the decision; whether it is gone."""
        found = stock.found[item.name]
        for place in found.places:
            await self.removing(place)
        if not self._may_go(stock, item, asking):
            return False
        # Nothing else gets to run between that look and the renaming, with which these begin.
        for place in found.places:
            if item.name.kind is Kind.LOG:
                with suppress(OSError):
                    place.unlink(missing_ok=True)
            else:
                await discard(place)
        self._stocktaking.forget(found)
        return True

    def _may_go(self, stock: Stock, item: Item, asking: Deployment | None) -> bool:
        name, found = item.name, stock.found[item.name]
        busy = [one for one in self._fleet.known() if one.is_deploying and one is not asking]
        if name.kind is Kind.CACHE:
            return not busy
        if name.kind is Kind.LOG:
            return not any(one.id == name.key and is_busy(one) for one in self._fleet.known())
        if last_use(found.places[0], name.kind) != found.used:
            return False
        runs = [Name(name.app, Kind.RELEASE, key) for key in running(self._fleet, name.app)]
        needed = {needed for one in runs if one in stock.items for needed in stock.items[one].needs}
        return name not in {*runs, *needed} and found.places[0] not in in_use(self._fleet)

    async def _look_after(self) -> None:
        await asyncio.to_thread(self._clear_leftovers)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._news.wait()
                    await asyncio.sleep(CALM)
            self._news.clear()
            try:
                await self.reconcile()
            except Exception:
                log.exception("The disk could not be looked after; going on")

    async def _listen(self) -> None:
        async for _ in self._events.follow(self._events.last, _made_something):
            self._news.set()

    def _clear_leftovers(self) -> None:
        """What a removal that was cut off has left."""
        apps = [self._config.app_folder(app) for app in self._fleet.apps]
        folders = [folder / name for folder in apps for name in FOLDERS.values()]
        for folder in (self._config.cache_folder, *apps, *folders):
            for place in folder.glob(f"{TRASH}*"):
                remove(place)

    def _own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _made_something(event: Event) -> bool:
    return isinstance(event, StepFinished) and event.step in MAKING and event.outcome == Outcome.DONE.value


def _goal(space: Space, used: int) -> tuple[int, str]:
    """Bytes that have to come free, 0 for none, and why."""
    over = used - space.limit
    missing = _missing_of_reserve(space)
    if over > 0 and over + space.limit * LIMIT_SLACK >= missing:
        why = f"builds and caches took {in_words(used)}, over the limit of {in_words(space.limit)}"
        return int(over + space.limit * LIMIT_SLACK), why
    if missing:
        return missing, f"the disk had less than its reserve of {in_words(space.reserve)} left"
    return 0, ""


def _missing_of_reserve(space: Space) -> int:
    if space.free >= space.reserve:
        return 0
    return int(space.reserve * (1 + RESERVE_SLACK)) - space.free


def _decide(stock: Stock, goal: int | None, app: str = "", with_caches: bool = False) -> Decision:
    """What goes, of one app if it is named; caches if they are asked for, or if a goal needs them."""
    now = time.time()
    items = [
        replace(item, keep=item.keep or "it is another app’s") if app and item.name.app != app else item
        for item in stock.items.values()
    ]
    if not with_caches:
        return decide(
            _only(items, lambda kind: goal is not None or kind is not Kind.CACHE), stock.shared, goal, now
        )
    caches = decide(_only(items, lambda kind: kind is Kind.CACHE), stock.shared, None, now)
    gone = {going.item.name for going in caches.goes}
    rest = decide(
        [item for item in items if item.name not in gone],
        [Shared(group.holders - gone, group.bytes) for group in stock.shared],
        None if goal is None else max(0, goal - caches.frees),
        now,
    )
    return Decision((*caches.goes, *rest.goes), rest.stays, rest.missing)


def _only(items: Iterable[Item], may_go: Callable[[Kind], bool]) -> list[Item]:
    return [item if may_go(item.name.kind) else replace(item, turn=Turn.NEVER) for item in items]
