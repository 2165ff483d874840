"""The snapshots of versions: taken, found by what people call them, thinned out by age, and dropped.

A row of the store says that there is one, its bytes are the app's `Versions`' matter. Bytes come first and go last
but one: what a crash leaves is bytes without a row, which `reconcile` removes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lazycloud import store
from lazycloud.build.commit import SHORT
from lazycloud.config import Config
from lazycloud.data.names import PASSING, PRODUCTION, Point, check_name, point
from lazycloud.deployments.app import App
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.thinning import Aged, thin
from lazycloud.errors import Ambiguous, Conflict, LazycloudError, NotFound
from lazycloud.events import THINNED, EventLog, SnapshotDropped, SnapshotTaken, VersionDropped
from lazycloud.store import Store

log = logging.getLogger(__name__)

LOOK_EVERY = 15.0  # seconds between two looks whether one is due
THIN_EVERY = 600.0  # seconds between two looks whether some go
LISTED = 5  # names that an error tells
LETTERS = 7  # of a version's name, at the least, where the repository does not know its commit
FILES_MOST = 20_000  # that are looked at to tell whether data have changed
GRAIN = 0.1  # seconds by which times of files may lag behind the clock

Row = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """Which data are meant: of a version as they are, or at a snapshot."""

    version: str
    snapshot: str | None = None


class Snapshots:
    """Of all apps of a fleet. Starts nothing by itself."""

    def __init__(self, config: Config, fleet: Fleet, events: EventLog, state: Store) -> None:
        self._keep = config.data.keep
        self._fleet = fleet
        self._events = events
        self._store = state
        self._naming: set[tuple[str, str, str]] = set()
        self._every: dict[str, tuple[str, float]] = {}  # by app: production's commit, and its seconds
        self._thinned = 0.0
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look_on(), name="snapshots in time")

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def of(self, app: App, version: str = "") -> list[Row]:
        """The rows of an app, or of one of its versions, newest first."""
        where = {"version": version} if version else {}
        rows = self._store.rows(store.snapshots, app=app.name, **where)
        return sorted(rows, key=lambda row: (row["at"], row["id"]), reverse=True)

    async def take(self, app: App, version: str, why: str, who: str, name: str = "") -> Row:
        """Freeze a version as it is now; durable when this returns: the row of the store.

        `why` is one of data.names.WHYS. Raises NotFound without data, Conflict for a name that is taken, BadInput for
        one that cannot be, StepFailed as Versions.snapshot does.
        """
        if name:
            check_name(name)
        self._demand_data(app, version)
        place = (app.name, version, name)
        if name and (place in self._naming or any(row["name"] == name for row in self.of(app, version))):
            raise Conflict(
                f"A snapshot of {shown(version)} is called “{name}” already.",
                f"Give another name, or remove that one: lazycloud data rm {shown(version)}@{name}",
            )
        self._naming.add(place)
        try:
            return await self._take(app, version, why, who, name)
        finally:
            self._naming.discard(place)

    async def _take(self, app: App, version: str, why: str, who: str, name: str) -> Row:
        at = time.time()
        taken = await app.versions.snapshot(version)
        row = {
            "app": app.name, "version": version, "id": taken.id, "name": name, "why": why, "at": at, "who": who,
            "commit": self._commit_of(app, version), "size": taken.bytes, "note": taken.note,
        }  # fmt: skip
        event = SnapshotTaken(
            app=app.name, version=version, snapshot=taken.id, name=name, why=why, who=who, size=taken.bytes
        )
        try:
            await self._events.commit(event, store.put(store.snapshots, **row))
        except BaseException:
            await asyncio.shield(app.versions.drop_snapshot(version, taken.id))
            raise
        return row

    def _commit_of(self, app: App, version: str) -> str:
        """That runs on it, or last did; "" if that cannot be told."""
        return app.production if version == PRODUCTION else version

    async def find(self, app: App, text: str) -> tuple[str, str | None]:
        """The version and the snapshot's id that `REF@NAME` means, None for data as they are now.

        Raises NotFound, which lists what there is, Ambiguous, BadInput.
        """
        meant = point(text, time.time())
        version = await self.version(app, meant.ref)
        if meant.is_now:
            self._demand_data(app, version)
            return version, None
        rows = self.of(app, version)
        for row in rows:  # the newest that fits
            if row["id"] == meant.id or (meant.name and row["name"] == meant.name):
                return version, row["id"]
            if meant.at and row["at"] <= meant.at:
                return version, row["id"]
        raise _no_snapshot(version, meant, rows)

    async def version(self, app: App, ref: str) -> str:
        """The version that a revision means, whether or not there are data of it; also of a commit that is lost.

        Raises NotFound, Ambiguous, BadInput.
        """
        if ref in ("", PRODUCTION):
            return PRODUCTION
        try:
            return (await app.wanted(ref)).id
        except NotFound:
            names: list[str] = [row["name"] for row in self._store.rows(store.versions, app=app.name)]
            found = [name for name in names if len(ref) >= LETTERS and name.startswith(ref.lower())]
            if len(found) > 1:
                raise Ambiguous(ref, [(name[:SHORT], "has data") for name in found]) from None
            if not found:
                raise
            return found[0]

    async def forget(self, app: App, version: str, snapshot: str, why: str) -> None:
        """Remove one. Raises NotFound if there is none, Conflict while a fork that has no bytes yet needs it."""
        row = next((row for row in self.of(app, version) if row["id"] == snapshot), None)
        if row is None:
            raise NotFound(f"{shown(version)} has no snapshot {snapshot[:40]}.")
        if waiting := self.waiting_for(app, version, snapshot):
            raise Conflict(
                f"The data of {', '.join(map(shown, waiting))} will be forked from this snapshot.",
                "Deploy that first, or `lazycloud data reset` it.",
            )
        event = SnapshotDropped(app=app.name, version=version, snapshot=snapshot, name=row["name"], why=why)
        key = {"app": app.name, "version": version, "id": snapshot}
        await self._events.commit(event, store.remove(store.snapshots, **key))
        await app.versions.drop_snapshot(version, snapshot)

    def waiting_for(self, app: App, version: str, snapshot: str = "") -> list[str]:
        """The versions that will be forked from this one (at that snapshot), and have no bytes yet."""
        rows = self._store.rows(store.versions, app=app.name, source=version, pending=True)
        return [row["name"] for row in rows if snapshot in ("", row["snapshot"])]

    def read_from(self, app: App, data: Data) -> Data:
        """Where their bytes are: a fork that is yet to be made has those of what it will be forked from."""
        while data.snapshot is None and not app.versions.exists(data.version):
            rows = self._store.rows(store.versions, app=app.name, name=data.version, pending=True)
            if not rows:
                break
            data = Data(rows[0]["source"], rows[0]["snapshot"] or None)
        return data

    def has_data(self, app: App, version: str) -> bool:
        """Whether there are bytes of it, or will be of a fork that somebody planned."""
        planned = {"app": app.name, "name": version, "pending": True}
        return app.versions.exists(version) or bool(self._store.rows(store.versions, **planned))

    async def reconcile(self, app: App) -> None:
        """After a crash: remove bytes that no row names, and rows that have no bytes. Not while any is taken."""
        rows = self.of(app)
        known = {(row["version"], row["id"]) for row in rows}
        versions = {row["version"] for row in rows} | set(await asyncio.to_thread(app.versions.all))
        for version in sorted(versions):
            there = await asyncio.to_thread(app.versions.snapshots, version)
            for snapshot in there:
                if (version, snapshot) not in known:
                    await app.versions.drop_snapshot(version, snapshot)
            for row in rows:
                if row["version"] == version and row["id"] not in there:
                    key = {name: row[name] for name in ("app", "version", "id")}
                    event = SnapshotDropped(
                        app=app.name, version=version, snapshot=row["id"], name=row["name"], why="it was gone"
                    )
                    self._events.append(event, store.remove(store.snapshots, **key))
        for row in self._store.rows(store.versions, app=app.name, pending=False):
            if not app.versions.exists(row["name"]):
                gone = VersionDropped(app=app.name, version=row["name"], why="it was gone")
                self._events.append(gone, store.forget_version(app.name, row["name"]))
        await self._events.flush()

    async def thin(self, app: App, now: float) -> None:
        """Remove those that are too many for their age."""
        rows = self.of(app)
        needed = {
            (row["source"], row["snapshot"])
            for row in self._store.rows(store.versions, app=app.name, pending=True)
        }
        for version in {row["version"] for row in rows}:
            aged = [
                Aged(row["id"], row["at"], bool(row["name"]) or (version, row["id"]) in needed)
                for row in rows
                if row["version"] == version
            ]
            for snapshot in thin(aged, now, self._keep):
                await self.forget(app, version, snapshot, THINNED)

    async def look(self, app: App, now: float) -> None:
        """Take one of production if its time has come, and anything was written since the last."""
        every = await self._seconds(app)
        if not every or not app.versions.exists(PRODUCTION):
            return
        rows = self.of(app, PRODUCTION)
        last = max((row["at"] for row in rows if row["why"] == "timer"), default=0.0)
        if now - last < every:
            return
        newest = max((row["at"] for row in rows), default=0.0)
        place = app.versions.place(PRODUCTION)
        if not newest or await asyncio.to_thread(changed_since, place, newest):
            await self.take(app, PRODUCTION, "timer", "lazycloud")

    async def _seconds(self, app: App) -> float:
        """How often production's commit wants one, 0 for never."""
        if not app.production:
            return 0.0
        known = self._every.get(app.name)
        if known is None or known[0] != app.production:
            plan = await app.plan(await app.commit(app.production))
            known = self._every[app.name] = app.production, plan.data_snapshots
        return known[1]

    async def _look_on(self) -> None:
        while True:
            now = time.time()
            for app in list(self._fleet.apps.values()):
                try:
                    await self.look(app, now)
                    if now - self._thinned >= THIN_EVERY:
                        await self.thin(app, now)
                except LazycloudError as problem:
                    log.warning("No snapshot of %s: %s", app.name, problem)
                except Exception:
                    log.exception("The snapshots of %s could not be looked after; going on", app.name)
            if now - self._thinned >= THIN_EVERY:
                self._thinned = now
            await asyncio.sleep(LOOK_EVERY)

    def _demand_data(self, app: App, version: str) -> None:
        if not self.has_data(app, version):
            raise no_data(version)


def no_data(version: str) -> NotFound:
    return NotFound(
        f"{shown(version)} has no data yet.",
        "They are made when it is first opened; `lazycloud data ls` lists what there is.",
    )


def shown(version: str) -> str:
    """A version as people call it."""
    return version if version == PRODUCTION or version.startswith(PASSING) else version[:SHORT]


def changed_since(place: Path, at: float, most: int = FILES_MOST) -> bool:
    """Whether anything below a version's folder was written after that time; True where there is too much to tell.

    Reading a database in WAL mode touches its `-shm` and may leave an empty `-wal`: these say nothing, and neither
    does the version's own folder, in which both come and go. Blocks.
    """
    try:
        for count, entry in enumerate(_below(place)):
            if count >= most:
                return True
            found = entry.stat(follow_symlinks=False)
            idle = entry.name.endswith("-shm") or (entry.name.endswith("-wal") and not found.st_size)
            if not idle and max(found.st_mtime, found.st_ctime) > at - GRAIN:
                return True
    except OSError:  # it goes just now, or cannot be looked at
        return True
    return False


def _below(place: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(place)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _no_snapshot(version: str, meant: Point, rows: Iterable[Row]) -> NotFound:
    rows = list(rows)
    names = [row["name"] or row["id"] for row in rows]
    if meant.at:
        sentence = f"There is no snapshot of {shown(version)} that is as old as {_moment(meant.at)}."
        if rows:
            oldest = min(rows, key=lambda row: row["at"])
            said = f"The oldest is {oldest['name'] or oldest['id']}, of {_moment(oldest['at'])}."
            return NotFound(sentence, said)
    else:
        sentence = f"{shown(version)} has no snapshot “{meant.name or meant.id}”."
    more = len(names) - LISTED
    listed = ", ".join(names[:LISTED]) + (f", and {more} more" if more > 0 else "")
    near = get_close_matches(meant.name, names, 2) if meant.name else []
    if near:
        return NotFound(sentence, near=near)
    return NotFound(sentence, f"It has: {listed}." if names else "`lazycloud data snapshot` takes one.")
