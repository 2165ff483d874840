"""A commit's release command on production's data: rehearsed, timed, and then all of it or nothing.

Production's own data are not touched: the command runs on a fork of them while requests wait, and the two are swapped
when it went well. Until the pointer has moved, whatever fails puts everything back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from lazycloud.build.commit import Commit
from lazycloud.data.names import MIGRATION, PRODUCTION, REHEARSAL
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.schemas import Outline, Schemas, changes
from lazycloud.deployments.snapshots import Snapshots
from lazycloud.deployments.steps import StepName
from lazycloud.errors import LazycloudError
from lazycloud.events import EventLog, Migrated, MigrationRehearsed
from lazycloud.states import State

log = logging.getLogger(__name__)

TRIES, PAUSE = 30, 2.0  # to write down what became of a swap, and seconds between them

Start = Callable[[Deployment], Awaitable[None]]
"""See to it that a deployment has what it is for. Raises StepFailed."""


@dataclass(frozen=True)
class Migration:
    """Of one promote. `start` is how it starts a deployment."""

    app: App
    commit: Commit
    candidate: Deployment
    who: str
    fleet: Fleet
    snapshots: Snapshots
    schemas: Schemas
    events: EventLog
    start: Start

    async def is_due(self) -> bool:
        """Whether there is a command that has not run on production's data yet, and there are such data."""
        candidate, app = self.candidate, self.app
        if candidate.released or candidate.state is State.READY or not app.versions.exists(PRODUCTION):
            return False
        return bool((await app.plan(self.commit)).release)

    async def rehearse(self) -> None:
        """On a fork of production's data, up to workers that are ready. Raises StepFailed."""
        rehearsal = self.fleet.get(self.app, self.commit.id, f"{REHEARSAL}{self.commit.id}")
        before = await self._outline(PRODUCTION)
        await self._demand_none(rehearsal)
        try:
            await self.start(rehearsal)
            after = await self._outline(rehearsal.key.version)
            if isinstance(before, Outline) and isinstance(after, Outline):
                told = changes(before, after)
            else:  # which is no reason not to go on
                problem = next(one for one in (before, after) if not isinstance(one, Outline))
                told = [f"what it changes is not known ({str(problem).rstrip('.')})"]
            self.events.append(
                MigrationRehearsed(
                    app=self.app.name,
                    commit=self.commit.id,
                    seconds=rehearsal.steps[StepName.RELEASE].seconds or 0.0,
                    changes=told,
                )
            )
        finally:
            await asyncio.shield(self.fleet.discard(rehearsal))

    @asynccontextmanager
    async def carried_out(self) -> AsyncIterator[None]:
        """Within, production's data are changed, and its requests wait: the candidate is started, the pointer moved.

        Raises StepFailed, Conflict. Then, and when something is raised within, production is as it was, on its data.
        """
        app, fleet, began = self.app, self.fleet, time.monotonic()
        async with fleet.standstills.of(app.name, PRODUCTION):
            fork = fleet.get(app, self.commit.id, f"{MIGRATION}{self.commit.id}")
            await self._demand_none(fork)
            taken = await self.snapshots.take(app, PRODUCTION, "release", self.who)
            try:
                fork.forked_at = taken["id"]
                await self.start(fork)
                await app.versions.swap(PRODUCTION, fork.key.version)
                try:
                    self.candidate.released = fork.released
                    fleet.standstills.exempt(self.candidate)
                    yield
                except BaseException:
                    await asyncio.shield(self._take_back())
                    raise
                await self._settle()
            finally:
                await asyncio.shield(fleet.discard(fork))
        self.events.append(
            Migrated(
                app=app.name,
                commit=self.commit.id,
                seconds=fork.steps[StepName.RELEASE].seconds or 0.0,
                waited=time.monotonic() - began,
                snapshot=taken["id"],
            )
        )

    async def _outline(self, version: str) -> Outline | Exception:
        """Why there is none, where data cannot be looked at just now."""
        try:
            return await self.schemas.outline(self.app, version)
        except (LazycloudError, OSError) as problem:
            log.warning("What %s changes is not known: %s", self.commit.short, problem)
            return problem

    async def _demand_none(self, fork: Deployment) -> None:
        """Nothing is left of an earlier try, which would be taken for production's data of now."""
        if self.app.versions.exists(fork.key.version):
            await self.fleet.discard(fork)

    async def _settle(self) -> None:
        """The pointer has moved. Until this is written down the next promote does so first, or the next control."""
        with suppress(OSError, LazycloudError):
            await _again_and_again(lambda: self.app.versions.swapped(PRODUCTION), "be written down")

    async def _take_back(self) -> None:
        """Nobody is let in before production has its data again."""
        self.candidate.released = ""
        try:
            await self.fleet.stop(self.candidate)
        finally:
            await _again_and_again(lambda: self.app.versions.undo_swap(PRODUCTION), "be taken back")


async def _again_and_again(work: Callable[[], Awaitable[object]], what: str) -> None:
    """Until it is done. Raises what it raised the last time."""
    for left in range(TRIES - 1, -1, -1):
        try:
            await work()
            return
        except (OSError, LazycloudError) as problem:
            log.error("That production has other data could not %s: %s", what, problem)
            if not left:
                raise
        await asyncio.sleep(PAUSE)
