"""Data that are replaced: whole, or not at all, and what ran runs on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lazycloud import store
from lazycloud.config import Config
from lazycloud.data.versions import Versions
from lazycloud.deployments.changes import REPLACING, Changes
from lazycloud.deployments.snapshots import Data, Snapshots
from lazycloud.errors import Conflict, StepFailed
from lazycloud.events import Scaled
from lazycloud.states import Cause, State
from tests.deployments.test_falls import COMMIT
from tests.deployments.test_starts import Stage, stage

__all__ = ["stage"]
PREVIEW = "e" * 40


class Scene:
    """Production, which runs, on data of which there is a snapshot."""

    def __init__(self, stage: Stage, home: Path) -> None:
        self.stage, self.fleet, self.events = stage, stage.fleet, stage.events
        self.app: Any = stage.app
        self.app.production = COMMIT
        self.store = self.fleet._store
        self.versions = self.app.versions = Versions(home / "data")
        self.snapshots = Snapshots(Config(home), self.fleet, self.events, self.store)
        self.changes = Changes(self.fleet, self.snapshots, self.events, self.store)
        self.production = self.fleet.get(self.app, COMMIT, "production")
        self.snapshot = ""

    async def begin(self) -> None:
        await self.versions.fork("production", None)
        self.write("production", "old")
        self.snapshot = (await self.snapshots.take(self.app, "production", "asked", "Ada", "old"))["id"]
        self.write("production", "new")
        assert await self.fleet.running(self.production, 5)

    async def restore(self, to: str = "production") -> Any:
        return await self.changes.restore(self.app, Data("production", self.snapshot), to, "Ada")

    def write(self, version: str, text: str) -> None:
        with closing(sqlite3.connect(self.versions.place(version) / "database.sqlite")) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS notes (text)")
            db.execute("INSERT INTO notes VALUES (?)", (text,))

    def notes(self, version: str = "production") -> list[str]:
        with closing(sqlite3.connect(self.versions.place(version) / "database.sqlite")) as db:
            return [row[0] for row in db.execute("SELECT text FROM notes ORDER BY rowid")]

    def whys(self) -> list[str]:
        return [row["why"] for row in self.snapshots.of(self.app)]

    def leftovers(self) -> list[str]:
        known = ("production", "production.snapshots", PREVIEW, f"{PREVIEW}.snapshots")
        return [
            place.name
            for place in self.versions.place("production").parent.iterdir()
            if place.name not in known
        ]


@pytest.fixture
async def scene(stage: Stage, tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(stage, tmp_path)
    await made.begin()
    yield made
    await made.changes.close()
    await made.versions.close()


async def test_what_there_was_is_a_snapshot_and_leads_back(scene: Scene) -> None:
    replaced = await scene.restore()
    assert (scene.notes(), scene.production.state) == (["old"], State.READY)
    assert scene.whys() == ["restore", "asked"] and not scene.leftovers()
    await scene.changes.restore(scene.app, Data("production", replaced.before), "production", "Ada")
    assert scene.notes() == ["old", "new"]


async def test_nothing_happened_if_production_does_not_start_on_it(scene: Scene) -> None:
    scene.production.released = "key"
    scene.events.append(*told(scene.production))
    attempts = []

    def break_once(deployment: Any) -> None:
        attempts.append((scene.notes(), deployment.released))
        if len(attempts) == 1:
            raise StepFailed(
                "The app ended with exit status 1 before it was ready.", last=["no such\x1b table"]
            )

    scene.stage.during = break_once
    with pytest.raises(StepFailed, match=r"did not start on these data: .* It wrote: no such table"):
        await scene.restore()
    await scene.production.settled()
    assert scene.production.state is State.READY
    assert attempts == [(["old"], ""), (["old", "new"], "key")]
    assert scene.notes() == ["old", "new"] and not scene.leftovers()
    (row,) = scene.store.rows(store.deployments, id=scene.production.id)
    assert row["released"] == "key"


def told(deployment: Any) -> tuple[Any, ...]:
    return Scaled(process="web", count=1), store.put(store.deployments, **deployment.row())


async def test_nothing_happened_if_it_cannot_be_written_down(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = scene.events.commit

    async def full(event: Any, *changes: Any) -> Any:
        if event.kind == "version_restored":
            raise OSError(28, "No space left on device")
        return await commit(event, *changes)

    monkeypatch.setattr(scene.events, "commit", full)
    with pytest.raises(OSError, match="No space"):
        await scene.restore()
    await scene.production.settled()
    assert (scene.notes(), scene.production.state) == (["old", "new"], State.READY)
    assert not scene.leftovers()


async def test_a_control_that_ends_in_the_middle_leaves_whole_data_and_the_way_back(scene: Scene) -> None:
    other = f"{REPLACING}0123456789abcdef"
    await scene.versions.fork(other, "production", scene.snapshot)
    await scene.versions.swap("production", other)
    again = Versions(scene.versions.place("production").parent)
    scene.app.versions = again
    await scene.changes.recover(scene.app)
    await again.clear_passing()
    assert not await again.undo_swap("production")
    assert scene.notes() == ["old"] and not scene.leftovers()
    await again.close()


async def test_two_at_once_do_not_mix(scene: Scene) -> None:
    results = await asyncio.gather(scene.restore(), scene.restore(), return_exceptions=True)
    assert sorted(isinstance(one, Conflict) for one in results) == [False, True]
    assert scene.notes() == ["old"] and not scene.leftovers()


async def test_whoever_asked_may_leave_and_it_is_done_all_the_same(scene: Scene) -> None:
    asking = asyncio.create_task(scene.restore())
    while not scene.changes._tasks:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, *scene.changes._tasks, return_exceptions=True)
    assert scene.notes() == ["old"]


async def test_nothing_is_begun_while_it_is_promoted_or_deployed(scene: Scene) -> None:
    scene.changes.is_promoting = lambda app: True
    with pytest.raises(Conflict, match="A promote of shop is under way"):
        await scene.restore()
    scene.changes.is_promoting = lambda app: False
    candidate = scene.fleet.get(scene.app, PREVIEW, "production")
    candidate.advance(Cause.ASKED)
    with pytest.raises(Conflict, match="eeeeeeeeee of shop is being deployed"):
        await scene.restore()
    assert scene.production.state is State.READY and scene.notes() == ["old", "new"]
    candidate.advance(Cause.BROKE)


async def test_a_fork_is_a_row_and_what_it_needs_is_kept(scene: Scene) -> None:
    origin = await scene.changes.fork(scene.app, Data("production"), PREVIEW, "Ada")
    assert scene.whys() == ["fork", "asked"] and not scene.versions.exists(PREVIEW)
    (row,) = scene.store.rows(store.versions, name=PREVIEW)
    assert (row["pending"], row["source"], row["snapshot"]) == (True, "production", origin.snapshot)
    assert scene.snapshots.read_from(scene.app, Data(PREVIEW)) == origin
    with pytest.raises(Conflict, match="has data already"):
        await scene.changes.fork(scene.app, Data("production"), PREVIEW, "Ada")
    await scene.changes.remove(scene.app, PREVIEW, "Ada removed them")
    assert scene.store.rows(store.versions, name=PREVIEW) == []


async def test_a_version_without_data_can_be_filled_and_one_with_data_is_kept(scene: Scene) -> None:
    async def fill(place: Path) -> None:
        assert list(place.iterdir()) == []
        (place / "files").mkdir()
        with closing(sqlite3.connect(place / "database.sqlite")) as db, db:
            db.execute("CREATE TABLE notes (text)")
            db.execute("INSERT INTO notes VALUES ('from a file')")

    replaced = await scene.changes.fill(scene.app, PREVIEW, fill, 100, "Ada")
    assert replaced.before == "" and scene.notes(PREVIEW) == ["from a file"]
    (row,) = scene.store.rows(store.versions, name=PREVIEW)
    assert not row["pending"] and row["size"] > 0
    replaced = await scene.changes.fill(scene.app, "production", fill, 100, "Ada")
    assert scene.notes() == ["from a file"] and scene.production.state is State.READY
    assert scene.snapshots.of(scene.app)[0]["id"] == replaced.before and not scene.leftovers()


async def test_what_has_data_in_postgres_too_is_not_filled_by_a_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.versions.beside, "of", lambda version: ["postgres"])
    with pytest.raises(Conflict, match="production also has data in postgres"):
        scene.changes.demand_fillable(scene.app, "production")


async def test_what_cannot_be_filled_changes_nothing(scene: Scene) -> None:
    async def fail(place: Path) -> None:
        raise StepFailed("The file is damaged.")

    for version in ("production", PREVIEW):
        with pytest.raises(StepFailed, match="damaged"):
            await scene.changes.fill(scene.app, version, fail, 100, "Ada")
    assert scene.notes() == ["old", "new"] and not scene.versions.exists(PREVIEW) and not scene.leftovers()
    assert scene.whys() == ["asked"]
