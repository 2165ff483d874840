"""Keeps data within what config.toml allows: notes when they were used, and removes what has expired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update

from lazycloud import store
from lazycloud.config import Config
from lazycloud.data.extents import Usage
from lazycloud.data.names import PASSING, PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.changes import Changes
from lazycloud.deployments.expiry import Expired, Holding, Verdict, expire
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.snapshots import Snapshots
from lazycloud.errors import Conflict, LazycloudError
from lazycloud.events import Event, EventLog, StateChanged
from lazycloud.states import State
from lazycloud.store import Store

log = logging.getLogger(__name__)

FIRST_LOOK = 60.0  # seconds after the start, which has other things to do
LOOK_EVERY = 3600.0  # seconds
USED = {
    State.READY.value,
    State.STOPPED.value,
    State.FAILED.value,
}  # states at whose begin it was used just now


@dataclass(frozen=True)
class Pruned:
    """What went, or for a dry run would go; `skipped` came into use meanwhile."""

    holdings: tuple[Holding, ...]
    verdict: Verdict
    gone: tuple[Expired, ...]

    @property
    def freed(self) -> int:
        return sum(one.holding.bytes for one in self.gone)

    @property
    def skipped(self) -> int:
        return len(self.verdict.goes) - len(self.gone)


class Keeper:
    """Starts nothing by itself. `needed` is the server's to set: versions of an app that something else needs."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        snapshots: Snapshots,
        changes: Changes,
        events: EventLog,
        state: Store,
    ) -> None:
        self.needed: Callable[[App], Collection[str]] = lambda app: ()
        self._upkeep = config.data
        self._fleet = fleet
        self._snapshots = snapshots
        self._changes = changes
        self._events = events
        self._store = state
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._own(self._listen(), "when data were used")
        self._own(self._look_on(), "which data have expired")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prune(self, app: App, dry: bool = False) -> Pruned:
        """Remove what has expired, or only say what has."""
        usage = await app.versions.usage()
        holdings = await self.holdings(app, usage)
        verdict = expire(holdings, self._upkeep.keep, self._upkeep.limit, time.time(), usage.total)
        if dry:
            return Pruned(holdings, verdict, verdict.goes)
        gone = [one for one in verdict.goes if await self._removed(app, one)]
        return Pruned(holdings, verdict, tuple(gone))

    async def holdings(self, app: App, usage: Usage) -> tuple[Holding, ...]:
        """All versions of an app, with why each stays."""
        rows = {row["name"]: row for row in self._store.rows(store.versions, app=app.name)}
        names = {*rows, *await asyncio.to_thread(app.versions.all)}
        pinned = {row["commit"] for row in self._store.rows(store.pins, app=app.name)}
        named = {row["version"] for row in self._snapshots.of(app) if row["name"]}
        waited_for = {row["source"] for row in rows.values() if row["pending"]}
        needed = self.needed(app)
        found = []
        for name in sorted(name for name in names if not name.startswith(PASSING)):
            reasons = {
                "production": name == PRODUCTION,
                "runs": self._changes.is_live(app, name),
                "pinned": name in pinned,
                "has a snapshot with a name": name in named,
                "others will be forked from it": name in waited_for,
                "a recording needs it": name in needed,
            }
            row = rows.get(name)
            used = max(row["used"], row["forked"]) if row else app.versions.used(name)
            why = ", ".join(reason for reason, holds in reasons.items() if holds)
            found.append(Holding(name, usage.own.get(name, 0), used, why))
        return tuple(found)

    async def _removed(self, app: App, expired: Expired) -> bool:
        """False if it came into use meanwhile."""
        try:
            await self._changes.remove(app, expired.holding.version, expired.why, only_idle=True)
        except Conflict:
            return False
        return True

    async def _look_on(self) -> None:
        await asyncio.sleep(FIRST_LOOK)
        while True:
            for app in list(self._fleet.apps.values()):
                try:
                    await self._note_live(app)
                    await self.prune(app)
                except (LazycloudError, OSError) as problem:
                    log.warning("The data of %s could not be looked after: %s", app.name, problem)
                except Exception:
                    log.exception("The data of %s could not be looked after; going on", app.name)
            await asyncio.sleep(LOOK_EVERY)

    async def _note_live(self, app: App) -> None:
        """So that a crash costs no more than an hour of what is known."""
        live = {one.key.version for one in self._fleet.known() if one.key.app == app.name and one.workers}
        if live:
            await self._note(app.name, live, time.time())

    async def _listen(self) -> None:
        async for recorded in self._events.follow(self._events.last, _tells_of_use):
            event = recorded.event
            assert isinstance(event, StateChanged)
            try:
                await self._note(event.app, {event.version}, recorded.at)
            except OSError as problem:
                log.warning("When the data of %s were used is not known: %s", event.deployment, problem)

    async def _note(self, app: str, versions: Collection[str], at: float) -> None:
        table = store.versions
        used = update(table).where(table.c.app == app, table.c.name.in_(list(versions))).values(used=at)
        await asyncio.to_thread(self._store.note, [used])

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))


def _tells_of_use(event: Event) -> bool:
    return isinstance(event, StateChanged) and event.after in USED and event.before != event.after
