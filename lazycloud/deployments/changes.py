"""What people change in the data of versions: fork, restore, reset, remove.

Nothing runs on a version while its data change, and what ran is started again. What fails leaves the data that there
were, and whatever ran on them running.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lazycloud import store, trees
from lazycloud.data.names import PRODUCTION, REHEARSAL
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.snapshots import Data, Snapshots, no_data, shown
from lazycloud.errors import BadInput, Conflict, StepFailed
from lazycloud.events import Event, EventLog, ForkPlanned, VersionDropped, VersionImported, VersionRestored
from lazycloud.states import State
from lazycloud.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

Fill = Callable[[Path], Awaitable[object]]
"""Put data into a version's empty folder, whole or not at all."""

FillDatabase = Callable[[str], Awaitable[object]]
"""The same for a version of that name, which is there."""

START = 600.0  # seconds that production has to be ready on other data
LAST_CHANGES = 10.0  # seconds that a change has to end when control does
REPLACING = f"{REHEARSAL}replacing-"  # a version whose data are about to be another's


@dataclass(frozen=True)
class Replaced:
    """A version has other data. `before`: the snapshot of what it had; `still`: seconds that nothing ran on it."""

    version: str
    before: str
    seconds: float
    still: float


class Changes:
    """`is_promoting` is the server's to set: whether an app's production is about to move."""

    def __init__(self, fleet: Fleet, snapshots: Snapshots, events: EventLog, state: Store) -> None:
        self.is_promoting: Callable[[App], bool] = lambda app: False
        self._fleet = fleet
        self._snapshots = snapshots
        self._events = events
        self._store = state
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """What is under way ends, or is undone."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_CHANGES)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def recover(self, app: App) -> None:
        """A control that ended in the middle of a restore has swapped the data, or not: that holds.

        What they were is a snapshot since before the swap, and no release command counts as run on them.
        """
        for version, other in app.versions.swapping().items():
            if other.startswith(REPLACING):
                await app.versions.swapped(version)

    async def fork(self, app: App, data: Data, to: str, who: str) -> Data:
        """Let a version begin with these data, at its next deploy; the snapshot that it will have.

        Raises Conflict if it has data, or is being deployed.
        """
        if to == PRODUCTION:
            raise BadInput(
                "Production’s data are never replaced by a fork.",
                "`lazycloud data restore` gives it those of a snapshot.",
            )
        return await self._through(self._fork(app, data, to, who), f"fork {to}")

    async def restore(self, app: App, data: Data, to: str, who: str) -> Replaced:
        """Give a version the data of a snapshot, or those that another version has now.

        Production is running on them when this returns. Raises Conflict while it is in use otherwise, StepFailed if
        they cannot be read, or production does not start on them: then it goes on with the data that it had.
        """
        self.demand_restorable(app, data, to)
        return await self._through(self._restore(app, data, to, who), f"restore {to}")

    def demand_restorable(self, app: App, data: Data, to: str) -> None:
        """Raises BadInput for the data that it has, Conflict if it has none."""
        if data == Data(to):
            raise BadInput(
                f"These are the data that {shown(to)} has.",
                "Name a snapshot: REF@NAME. `lazycloud data snapshots` lists them.",
            )
        if not app.versions.exists(to):
            raise Conflict(
                f"{shown(to)} has no data that could be replaced.",
                f"`lazycloud data fork … --to {shown(to)}` says what it begins with.",
            )

    async def fill(self, app: App, version: str, fill: Fill, size: int, who: str) -> Replaced:
        """Give a version what `fill` puts into an empty folder, `size` bytes of a file. Raises as `restore` does."""

        async def filling(other: str) -> None:
            place = app.versions.place(other)
            await asyncio.to_thread(trees.empty, place)
            await fill(place)

        return await self._through(self._filled(app, version, filling, size, who), f"fill {version}")

    async def fill_database(
        self, app: App, version: str, fill: FillDatabase, size: int, who: str
    ) -> Replaced:
        """Give a version what `fill` puts into an empty database in Postgres, `size` bytes of a file.

        All else that it has stays. Raises as `restore` does.
        """

        async def filling(other: str) -> None:
            await app.versions.complete(other, ["postgres"])
            await fill(other)

        filled = self._filled(app, version, filling, size, who, whole=False)
        return await self._through(filled, f"fill {version}")

    async def load_documents(self, app: App, version: str, file: Path, size: int, who: str) -> Replaced:
        """Give a version's versionbase what `file` has, `size` bytes of it. Raises as `restore` does."""
        return await self._through(self._loaded(app, version, file, size, who), f"load {version}")

    def demand_fillable(self, app: App, version: str, brings: Sequence[str] = ()) -> None:
        """Raises Conflict for one that has data beside its folder, too, which nothing brings: they would be gone."""
        if others := [each for each in app.versions.beside.of(version) if each not in brings]:
            raise Conflict(
                f"{shown(version)} also has data in {' and '.join(others)}, which a file does not bring along.",
                "`lazycloud data shell` or `lazycloud run` can load them.",
            )

    async def reset(self, app: App, version: str, who: str) -> None:
        """Drop a preview's data and snapshots; it is forked anew at its next deploy, which is now if it runs."""
        self._demand_droppable(app, version)
        await self._through(self._drop(app, version, f"{who} reset them", False), f"reset {version}")

    async def remove(self, app: App, version: str, why: str, only_idle: bool = False) -> None:
        """Stop a preview, and drop its data and snapshots. Raises Conflict if it may only be idle, and runs."""
        self._demand_droppable(app, version)
        if only_idle and self.is_live(app, version):
            raise Conflict(f"{shown(version)} of {app.name} runs.")
        await self._through(self._drop(app, version, why, True), f"remove {version}")

    def is_live(self, app: App, version: str) -> bool:
        """Whether anything runs on it, or is about to."""
        return any(one.runs or one.is_deploying or one.errands for one in self._on(app, version))

    async def _fork(self, app: App, data: Data, to: str, who: str) -> Data:
        if self._snapshots.has_data(app, to):
            raise Conflict(
                f"{shown(to)} has data already.",
                f"`lazycloud data rm {shown(to)}` removes them; then fork again.",
            )
        origin = self._snapshots.read_from(app, data)
        async with self._standstill(app, to):
            if origin.snapshot is None:
                row = await self._snapshots.take(app, origin.version, "fork", who)
                origin = Data(origin.version, row["id"])
            now = time.time()
            planned = store.put(
                store.versions,
                app=app.name,
                name=to,
                source=origin.version,
                forked=now,
                size=0,
                snapshot=origin.snapshot,
                pending=True,
                used=now,
            )
            await self._events.commit(
                ForkPlanned(
                    app=app.name, version=to, source=origin.version, snapshot=origin.snapshot or "", who=who
                ),
                planned,
            )
        return origin

    async def _restore(self, app: App, data: Data, to: str, who: str) -> Replaced:
        origin, began = self._snapshots.read_from(app, data), time.monotonic()

        def restored(before: str) -> Event:
            return VersionRestored(
                app=app.name,
                version=to,
                source=origin.version,
                snapshot=origin.snapshot or "",
                before=before,
                who=who,
                seconds=time.monotonic() - began,
            )

        async with self.replacement(app, origin) as other:
            return await self.replace(app, to, other, who, restored)

    async def _filled(
        self, app: App, version: str, fill: FillDatabase, size: int, who: str, whole: bool = True
    ) -> Replaced:
        began = time.monotonic()

        def imported(before: str) -> Event:
            seconds = time.monotonic() - began
            return VersionImported(
                app=app.name, version=version, before=before, who=who, size=size, seconds=seconds
            )

        async with self.replacement(app, None) as other:
            await fill(other)
            if app.versions.exists(version):
                return await self.replace(app, version, other, who, imported, whole)
            return await self._begin_with(app, version, other, imported(""))

    async def _loaded(self, app: App, version: str, file: Path, size: int, who: str) -> Replaced:
        began = time.monotonic()
        async with self._standstill(app, version):
            stood = time.monotonic()
            before = await self._snapshots.take(app, version, "restore", who)
            await app.versionbase.load(version, file)  # all of it, or nothing
            seconds = time.monotonic() - began
            told = VersionImported(
                app=app.name, version=version, before=before["id"], who=who, size=size, seconds=seconds
            )
            await self._events.commit(told)
        return Replaced(version, before["id"], seconds, time.monotonic() - stood)

    async def _begin_with(self, app: App, version: str, other: str, told: Event) -> Replaced:
        """Let a version that has no data have those of another."""
        began = time.monotonic()
        async with self._standstill(app, version):
            await self._forget_released(app, version)
            fork, now = await app.versions.fork(version, other), time.time()
            row = {
                "source": "",
                "snapshot": "",
                "forked": now,
                "used": now,
                "size": fork.bytes,
                "pending": False,
            }
            try:
                await self._events.commit(told, store.put(store.versions, app=app.name, name=version, **row))
            except BaseException:
                await asyncio.shield(app.versions.drop(version, force=True))
                raise
        seconds = time.monotonic() - began
        return Replaced(version, "", seconds, seconds)

    @asynccontextmanager
    async def replacement(self, app: App, origin: Data | None) -> AsyncIterator[str]:
        """A version with such data, or none, which `replace` can give to another; gone afterwards."""
        other = f"{REPLACING}{secrets.token_hex(8)}"
        source, at = (origin.version, origin.snapshot) if origin else (None, None)
        try:
            await app.versions.fork(other, source, at)
            yield other
        finally:
            await asyncio.shield(app.versions.drop(other))

    async def replace(
        self,
        app: App,
        version: str,
        other: str,
        who: str,
        told: Callable[[str], Event],
        whole: bool = True,
    ) -> Replaced:
        """Exchange the data of two versions, of which one is a replacement; `told` makes the event of it.

        Unless `whole`, only what the replacement has beside its folder.
        """
        began = time.monotonic()
        async with self._standstill(app, version) as ran:
            stood = time.monotonic()
            before = await self._snapshots.take(app, version, "restore", who)
            released = await self._forget_released(app, version)
            try:
                await app.versions.swap(version, other, whole)
                if version == PRODUCTION:
                    await self._start(app, demand=ran)
                await self._events.commit(told(before["id"]))
            except BaseException:
                await asyncio.shield(self._undo(app, version, other, released))
                raise
            await asyncio.shield(app.versions.swapped(version))
        now = time.monotonic()
        return Replaced(version, before["id"], now - began, now - stood)

    async def _undo(self, app: App, version: str, other: str, released: dict[str, str]) -> None:
        """Nothing happened: what ran is started again on the data that it had."""
        for one in self._on(app, version):
            self._fleet.standstills.include(one)
            await self._fleet.stop(one)
        await app.versions.undo_swap(version)
        await self._set_released(app, version, released)

    async def _start(self, app: App, demand: bool) -> None:
        """Production, while nobody else is let in. Raises StepFailed if it has to be ready and is not."""
        production = self._fleet.production(app)
        if production is None:
            return
        self._fleet.standstills.exempt(production)
        self._fleet.ask(production, retry=True)
        try:
            async with asyncio.timeout(START):
                await production.settled()
        except TimeoutError:
            pass
        if demand and production.state is not State.READY:
            failure = production.failure
            sentence = failure.sentence if failure else "It was not ready in time."
            last = failure.last if failure else ()
            raise StepFailed(
                f"Production did not start on these data: {sentence}{_wrote(last)}",
                "It goes on with the data that it had.",
                last,
            )

    async def _drop(self, app: App, version: str, why: str, for_good: bool) -> None:
        if for_good:  # else it would be started again on data forked anew
            self._demand_rest(app, version)
            for one in self._on(app, version):
                await self._fleet.stop(one)
        async with self._standstill(app, version):
            await self._forget_released(app, version)
            await app.versions.drop(version)
            await self._events.commit(
                VersionDropped(app=app.name, version=version, why=why),
                store.forget_version(app.name, version),
                store.remove(store.snapshots, app=app.name, version=version),
            )

    def _demand_droppable(self, app: App, version: str) -> None:
        if version == PRODUCTION:
            raise BadInput(
                "Production’s data are not dropped.", "`lazycloud data restore` gives it those of a snapshot."
            )
        if not self._snapshots.has_data(app, version):
            raise no_data(version)
        if waiting := self._snapshots.waiting_for(app, version):
            raise Conflict(
                f"The data of {', '.join(map(shown, waiting))} will be forked from those of {shown(version)}.",
                "Deploy that first, or remove it.",
            )

    @asynccontextmanager
    async def _standstill(self, app: App, version: str) -> AsyncIterator[bool]:
        """Nothing runs on it; whether anything did. Raises Conflict while it is deployed, or somebody is at it."""
        self._demand_rest(app, version)
        ran = any(one.runs for one in self._on(app, version))
        async with self._fleet.standstills.of(app.name, version):
            yield ran

    def _demand_rest(self, app: App, version: str) -> None:
        for one in self._on(app, version):
            if one.is_deploying:
                raise Conflict(
                    f"{shown(one.key.commit)} of {app.name} is being deployed.",
                    f"Wait for it to end, or `lazycloud cancel {shown(one.key.commit)}`.",
                )
            if one.errands:
                raise Conflict(
                    f"Somebody’s command (`lazycloud run`) uses the data of {shown(version)}.",
                    "Wait for it to end, or end it.",
                )
        if version == PRODUCTION and self.is_promoting(app):
            raise Conflict(f"A promote of {app.name} is under way.", "Wait for it to end, then try again.")

    def _on(self, app: App, version: str) -> list[Deployment]:
        return [one for one in self._fleet.known() if (one.key.app, one.key.version) == (app.name, version)]

    async def _forget_released(self, app: App, version: str) -> dict[str, str]:
        """No release command is known to have run on its data; what was known, by deployment. Durable."""
        rows = self._store.rows(store.deployments, app=app.name, version=version)
        known = {row["id"]: row["released"] for row in rows}
        known |= {one.id: one.released for one in self._on(app, version)}
        await self._set_released(app, version, {})
        return known

    async def _set_released(self, app: App, version: str, released: dict[str, str]) -> None:
        """What was written of deployments before is flushed first, and does not come after this."""
        for one in self._on(app, version):
            one.released = released.get(one.id, "")
        await self._events.flush()
        changes = [store.forget_releases(app.name, version)]
        changes += [store.change(store.deployments, each, released=key) for each, key in released.items()]
        await asyncio.to_thread(self._store.note, changes)

    async def _through(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Do it to its end, also when who asked for it has gone."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)


def _wrote(last: Sequence[str]) -> str:
    """Its last words, unable to steer a terminal."""
    line = "".join(letter for letter in last[-1] if letter.isprintable()).strip() if last else ""
    return f" It wrote: {line[:200]}" if line else ""
