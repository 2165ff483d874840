"""Backups of each app's production data: made when they changed, thinned out by age, verified, restored.

Nobody waits for one, and what goes wrong with one hurts nothing: it is told, and tried again. What is known of the
last one lies in <home>/backups.json, where `lazycloud doctor` finds it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lazycloud import __version__
from lazycloud.blobs.store import BACKUPS, StoreFailed, parse_store
from lazycloud.config import Config
from lazycloud.data import durable
from lazycloud.data.archive import SMALL
from lazycloud.data.backup.jobs import run_job
from lazycloud.data.backup.standing import FULL_EVERY, Standing, read, write
from lazycloud.data.layers import Layers
from lazycloud.data.names import PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.changes import Changes, Replaced
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.snapshots import changed_since
from lazycloud.deployments.thinning import Aged, thin
from lazycloud.errors import Ambiguous, BadInput, DiskFull, LazycloudError, NotFound, StepFailed
from lazycloud.events import BackupFailed, BackupMade, EventLog

log = logging.getLogger(__name__)

ASIDE = "backup-"  # of an app's folder: what is about to be kept, or to be restored
PAUSE = 0.5  # seconds between looks whether one is due
SHARE = 10  # times as long as the last one took: they take a tenth of the time at the most
LONGEST = 3600.0  # seconds between two tries of what fails
ROOT = "data"  # what a version's folder is called in a backup
THIN_EVERY = 600.0
MOST_NAMED = 500  # that one order to a job names: it is one argument of a command

Json = dict[str, Any]


@dataclass
class _Tries:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next: float = 0.0  # monotonic
    failures: int = 0
    thinned: float = -THIN_EVERY
    told: bool = False  # since this control began
    crowded: float = 0.0  # monotonic: until then there is no room for one that is read as a whole

    @property
    def is_crowded(self) -> bool:
        return time.monotonic() < self.crowded


class Backups:
    """Of all apps of a fleet. Starts nothing by itself."""

    def __init__(self, config: Config, fleet: Fleet, events: EventLog, changes: Changes) -> None:
        self._config = config
        self._upkeep = config.data
        self._fleet = fleet
        self._events = events
        self._changes = changes
        self._tries: dict[str, _Tries] = defaultdict(_Tries)
        self._looking: asyncio.Task[None] | None = None
        self.standing = read(config.home)

    def start(self) -> None:
        for app in self._fleet.apps:
            for left in self._config.app_folder(app).glob(f"{ASIDE}*"):
                shutil.rmtree(left, ignore_errors=True)
        if self._upkeep.backup:
            self._looking = asyncio.create_task(self._look_on(), name="backups")

    async def close(self) -> None:
        """What is under way is given up; the store has what it had."""
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def make(self, app: App, who: str, store: str = "", full: bool = False) -> Json:
        """Back up production as it is now, into the store of the settings or another; facts of it.

        `full`: read all of it, also of large databases what did not change.
        Raises NotFound without data, BadInput without a store, StoreFailed, StepFailed as Versions.snapshot does.
        """
        store = parse_store(store, BACKUPS) if store else self._demand_store()
        if not app.versions.exists(PRODUCTION):
            raise NotFound(
                f"Production of {app.name} has no data yet.", "They are made when it is first opened."
            )
        tries = self._tries[app.name]
        async with tries.lock:
            is_ours = store == self._upkeep.backup
            standing = self.standing.get(app.name, Standing())
            again = standing.damaged if is_ours else ()
            try:
                if again and standing.sound:  # their layers have other pieces than all of them
                    await self._made(app, await self._make(app, store, again, full=False), (), False)
                may_be_layered = (
                    is_ours and bool(standing.sound) and not (full or again or standing.begin_anew)
                )
                full = full or bool(again) or standing.is_full_due(store, time.time(), SHARE)
                full = full and not (may_be_layered and tries.is_crowded)
                facts = await self._make_in_room(app, store, again, full, may_be_layered)
            except (LazycloudError, OSError) as problem:
                if is_ours:
                    await self._failed(app, problem)
                raise
            if is_ours:
                await self._made(app, facts, again, full)
            made = BackupMade(
                app=app.name, backup=facts["id"], store=store, who=who, size=facts["size"],
                put=facts["put_bytes"], seconds=facts["seconds"], note=facts["note"],
            )  # fmt: skip
            if who != "lazycloud" or not tries.told:  # else there would be one a minute
                self._events.append(made)
                tries.told = True
        return facts

    async def list(self, store: str = "", of: str | None = None) -> Json:
        """What a store has: `backups`, newest first, and the `key` of this server."""
        store = parse_store(store, BACKUPS) if store else self._demand_store()
        return await self._job("show", store, **({"app": of} if of else {}))

    async def verify(self, store: str = "", signed_by: str = "") -> Json:
        """Read every bit of this server's backups; or of all in another store. The next one mends what it can."""
        foreign = bool(store) and store != self._upkeep.backup
        store = parse_store(store, BACKUPS) if store else self._demand_store()
        known = self.standing.values()
        expected = [] if foreign else [one.id for one in known if one.id and one.store == store]
        verdict = await self._job(
            "verify", store, expected=expected, foreign=foreign, trusted=[signed_by] if signed_by else []
        )
        if not foreign:
            await self._verified(verdict)
        return verdict

    async def restore(
        self,
        app: App,
        who: str,
        store: str = "",
        which: str = "",
        at: float = 0.0,
        of: str = "",
        signed_by: str = "",
    ) -> tuple[Json, Replaced]:
        """Give production what a backup holds, having read and checked all of it; production runs on it then.

        `which` is the beginning of a backup's id, or the last is meant that is not younger than `at`. `of`: another
        app's, or the scope of another server's. What production had is kept as a snapshot. Raises as
        `Changes.restore` does, and Damaged, Untrusted, Missing.
        """
        store = parse_store(store, BACKUPS) if store else self._demand_store()
        backup = await self.find(app, store, which, at, of)
        folder = Path(tempfile.mkdtemp(prefix=ASIDE, dir=self._config.app_folder(app.name)))
        unfolded = _Unfolded(app, folder)
        try:
            trusted, target = [signed_by] if signed_by else [], str(unfolded.target)
            facts = await self._job("unfold", store, name=backup["name"], target=target, trusted=trusted)
            return facts, await self._changes.fill(app, PRODUCTION, unfolded.fill, facts["size"], who)
        finally:
            await unfolded.close()

    async def find(self, app: App, store: str = "", which: str = "", at: float = 0.0, of: str = "") -> Json:
        """The backup that is meant. Raises NotFound, Ambiguous."""
        store = parse_store(store, BACKUPS) if store else self._demand_store()
        wanted = of or app.name
        listed = (await self._job("show", store))["backups"]
        found = [one for one in listed if wanted in (one["app"], one["scope"])]
        found = [one for one in found if one["own"]] or found
        scopes = list(dict.fromkeys(one["scope"] for one in found))
        if len(scopes) > 1:
            raise Ambiguous(wanted, [(each, "a server’s backups; give it as --of") for each in scopes])
        fitting = [one for one in found if one["id"].startswith(which) and (not at or one["at"] <= at)]
        if fitting:
            return dict(fitting[0])
        if found:
            oldest = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(min(one["at"] for one in found)))
            raise NotFound(
                f"{store} has no such backup of {wanted}.",
                f"The oldest of it is of {oldest} UTC; `lazycloud data backup --list` lists all.",
            )
        apps = sorted({one["app"] for one in listed})
        raise NotFound(
            f"{store} has no such backup of {wanted}.",
            f"It has backups of {', '.join(apps)}: give one as --of." if apps else "It is empty.",
        )

    async def _make_in_room(
        self, app: App, store: str, again: Collection[str], full: bool, may_be_layered: bool
    ) -> Json:
        """A full one takes room beside the data for a while: without it, one in layers is better than none."""
        try:
            return await self._make(app, store, again, full)
        except DiskFull as problem:
            if not (full and may_be_layered):
                raise
            log.warning("%s cannot be backed up as a whole: %s", app.name, problem)
            self._tries[app.name].crowded = time.monotonic() + FULL_EVERY
            return await self._make(app, store, again, full=False)

    async def _make(self, app: App, store: str, again: Collection[str], full: bool) -> Json:
        at, standing = time.time(), self.standing.get(app.name, Standing())
        sound = standing.sound if store == self._upkeep.backup else ()
        async with app.versions.layered(PRODUCTION, sound, both=full) as (place, layers):
            return await self._job(
                "make", store, app=app.name, at=at, roots={ROOT: str(place)}, note="", facts=self._facts(app),
                again=again, examine=SMALL, full=full, known=standing.layered, layers=written(layers),
            )  # fmt: skip

    def _facts(self, app: App) -> dict[str, str]:
        host = socket.gethostname()
        return {"app": app.name, "commit": app.production, "host": host, "lazycloud": __version__}

    async def _made(
        self, app: App, facts: Mapping[str, Any], again: Collection[str], was_asked: bool
    ) -> None:
        """What was found to be damaged meanwhile may be a piece of this one, too: it is put anew by another.

        `was_asked`: that it be full; else it was so because no large database is held.
        """
        tries, before = self._tries[app.name], self.standing.get(app.name, Standing())
        damaged = tuple(name for name in before.damaged if name not in again)
        kept = {name: facts[name] for name in ("at", "id", "seconds", "size", "note")}
        now = replace(
            before, **kept, store=self._upkeep.backup, damaged=damaged, problem="", advice="", since=0.0
        )
        pause = max(self._upkeep.backup_every, SHARE * facts["seconds"])
        if facts["full"]:
            sound = tuple(
                path.removeprefix(f"{ROOT}/") for path in facts["sound"] if path not in facts["unlike"]
            )
            now = replace(
                now, full_at=facts["at"], full_seconds=facts["seconds"], sound=sound, begin_anew=False
            )
            if was_asked and sound:
                pause = self._upkeep.backup_every  # the next costs what changed
        else:
            now = replace(now, layered=facts["name"])
        tries.failures = 0
        tries.next = time.monotonic() + pause
        if facts["unlike"]:
            self._tell_unlike(app, facts["unlike"], before.full_at)
        if damaged:
            tries.next = 0.0
            now = replace(now, problem=before.problem, advice=before.advice, since=before.since)
        elif before.problem:
            tries.told = False  # that it works again is news
        await self._note(app.name, now)
        if time.monotonic() - tries.thinned >= THIN_EVERY:
            tries.thinned = time.monotonic()
            await self._thin(app)

    def _tell_unlike(self, app: App, paths: Sequence[str], since: float) -> None:
        """Never seen, and the one thing that must not go unnoticed."""
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(since))
        named = ", ".join(paths)
        problem = f"What backups after {last} UTC have of {named} may be wrong: it is not what the app has."
        advice = "The one of just now is right, and that of then. Please report this."
        log.error("%s: %s", app.name, problem)
        self._events.append(
            BackupFailed(app=app.name, store=self._upkeep.backup, problem=problem, advice=advice)
        )

    async def _failed(self, app: App, problem: LazycloudError | OSError) -> None:
        tries, before = self._tries[app.name], self.standing.get(app.name, Standing())
        sentence = problem.sentence if isinstance(problem, LazycloudError) else f"{problem}."
        advice = problem.advice if isinstance(problem, LazycloudError) else ""
        pause = self._upkeep.backup_every * 2**tries.failures
        tries.failures = min(tries.failures + 1, 20)
        tries.next = time.monotonic() + min(max(pause, self._upkeep.backup_every), LONGEST)
        if before.problem != sentence:
            self._events.append(
                BackupFailed(app=app.name, store=self._upkeep.backup, problem=sentence, advice=advice)
            )
        since = before.since if before.problem else time.time()
        now = replace(before, problem=sentence, advice=advice, since=since)
        if not isinstance(problem, StoreFailed):  # it may be of what did not change: so all is read again
            now = replace(now, begin_anew=before.begin_anew or not isinstance(problem, DiskFull))
        await self._note(app.name, now)

    async def _verified(self, verdict: Mapping[str, Any]) -> None:
        damaged, now = tuple(verdict["damaged"][:MOST_NAMED]), time.time()
        for app in list(self.standing):
            standing = replace(self.standing[app], damaged=damaged, verified=now)
            if verdict["troubles"] and app in self._fleet.apps:
                problem = f"What was kept is damaged: {verdict['troubles'][0]}"
                advice = "`lazycloud data backup --verify` says all; the next backup puts anew what it can."
                standing = replace(standing, problem=problem, advice=advice, since=now, begin_anew=True)
                self._tries[app].next = 0.0
                self._events.append(
                    BackupFailed(app=app, store=self._upkeep.backup, problem=problem, advice=advice)
                )
            await self._note(app, standing)

    async def _thin(self, app: App) -> None:
        listed = (await self.list(of=app.name))["backups"]
        aged = [Aged(one["id"], one["at"]) for one in listed if one["own"]]
        newest = max(aged, key=lambda one: one.at, default=None)
        gone = [
            one for one in thin(aged, time.time(), self._upkeep.backup_keep) if newest and one != newest.id
        ]
        if gone:
            await self._job("forget", self._upkeep.backup, app=app.name, ids=gone[:MOST_NAMED])

    async def _look_on(self) -> None:
        while True:
            for app in list(self._fleet.apps.values()):
                try:
                    if await self._is_due(app):
                        await self.make(app, "lazycloud")
                except (LazycloudError, OSError) as problem:
                    log.warning("No backup of %s: %s", app.name, problem)
                except Exception:
                    log.exception("%s could not be backed up; going on", app.name)
                    self._tries[app.name].next = time.monotonic() + LONGEST
            await asyncio.sleep(PAUSE)

    async def _is_due(self, app: App) -> bool:
        """Whether its time has come, and anything was written since the last began."""
        standing = self.standing.get(app.name, Standing())
        if time.monotonic() < self._tries[app.name].next or not app.versions.exists(PRODUCTION):
            return False
        if standing.store != self._upkeep.backup or standing.problem:
            return True
        if app.versions.beside.has("postgres", PRODUCTION):  # which does not tell
            return True
        changing = [place for servers in app.servers for place in servers.changing(PRODUCTION)]
        places = [app.versions.place(PRODUCTION), *changing]
        changed = [await asyncio.to_thread(changed_since, place, standing.at) for place in places]
        return any(changed)

    async def _note(self, app: str, standing: Standing) -> None:
        self.standing[app] = standing
        with suppress(OSError):  # a full disk: who runs the server is told that otherwise
            await asyncio.to_thread(write, self._config.home, dict(self.standing))

    async def _job(self, do: str, store: str, **order: Any) -> Json:
        return await run_job(do, store, self._config.artifact_key_file, **order)

    def _demand_store(self) -> str:
        if not self._upkeep.backup:
            raise BadInput(
                "This server has no store of backups.",
                f'Give it one in config.toml: [data] backup = "{BACKUPS.example}"; or name one.',
            )
        return self._upkeep.backup


def written(layers: Mapping[str, Layers]) -> str:
    """A file that says them, beside those that they are: they may be too many for a command."""
    if not layers:
        return ""
    file = next(iter(layers.values())).base.with_name("layers.json")
    file.write_text(json.dumps({f"{ROOT}/{name}": one.as_json() for name, one in layers.items()}))
    return str(file)


class _Unfolded:
    """What a backup holds, checked, in a folder that goes with it.

    `fill` is done to its end when whoever asked for it has gone: from its beginning on, the folder is its own.
    """

    def __init__(self, app: App, folder: Path) -> None:
        self.target = folder / "backup"
        self._app = app
        self._folder = folder
        self._is_taken = False
        self._is_closed = False

    async def fill(self, place: Path) -> None:
        """All of it into the empty folder of a version, and beside that."""
        if self._is_closed:
            raise StepFailed("The restore was given up before it had begun.")
        self._is_taken = True
        try:
            await self._app.versions.beside.take(place.name, self.target / "data")
            await asyncio.to_thread(_move, self.target / "data", place)
        finally:
            await self._remove()

    async def close(self) -> None:
        self._is_closed = True
        if not self._is_taken:
            await self._remove()

    async def _remove(self) -> None:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True))


def _move(source: Path, place: Path) -> None:
    """All that is in one folder into another, which is empty."""
    for inner in source.iterdir():
        inner.rename(place / inner.name)
    durable.sync(place)
