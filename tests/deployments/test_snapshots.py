"""Snapshots that are taken in time, thinned out, and found by when they were."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud import store
from lazycloud.config import Config
from lazycloud.data.versions import Versions
from lazycloud.deployments.snapshots import Snapshots
from lazycloud.deployments.thinning import DAY, HOUR
from lazycloud.errors import BadInput, Conflict, NotFound
from lazycloud.events import EventLog, SnapshotTaken
from lazycloud.store import Store

COMMIT, OTHER = "c" * 40, "d" * 40


class Stage:
    """An app with production's data, whose commit wants a snapshot every `every` seconds."""

    def __init__(self, home: Path, state: Store, events: EventLog) -> None:
        self.every = HOUR
        self.store, self.events = state, events
        self.versions = Versions(home / "data")
        self.app: Any = SimpleNamespace(
            name="shop",
            production=COMMIT,
            versions=self.versions,
            commit=self.same,
            wanted=self.wanted,
            plan=self.plan,
        )
        fleet: Any = SimpleNamespace(apps={"shop": self.app})
        self.snapshots = Snapshots(Config(home), fleet, events, state)

    async def same(self, commit: str) -> str:
        return commit

    async def wanted(self, ref: str) -> Any:
        if ref != "main":
            raise NotFound(f"There is no “{ref}”.")
        return SimpleNamespace(id=COMMIT)

    async def plan(self, commit: str) -> Any:
        return SimpleNamespace(data_snapshots=self.every)

    def write(self, version: str = "production") -> None:
        with closing(sqlite3.connect(self.versions.place(version) / "database.sqlite")) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS notes (text)")
            db.execute("INSERT INTO notes VALUES ('x')")

    def read(self) -> None:
        with closing(sqlite3.connect(self.versions.place("production") / "database.sqlite")) as db:
            db.execute("SELECT * FROM sqlite_schema").fetchall()

    def age(self, seconds: float) -> None:
        """Of all that there is."""
        for row in self.snapshots.of(self.app):
            self.events.append(
                SnapshotTaken(version="", snapshot="", name="", why="", who="", size=0),
                store.put(store.snapshots, **row | {"at": row["at"] - seconds}),
            )

    def taken(self, version: str = "") -> list[str]:
        return [row["why"] for row in self.snapshots.of(self.app, version)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    state = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    state.open()
    events = EventLog(state.last_number(), state.write, state.read)
    events.start()
    made = Stage(tmp_path, state, events)
    await made.versions.fork("production", None)
    yield made
    await made.versions.close()
    await events.close()
    state.close()


async def test_one_is_taken_when_its_time_has_come_and_something_was_written(stage: Stage) -> None:
    now = time.time()
    await stage.snapshots.look(stage.app, now)
    assert stage.taken() == ["timer"]
    stage.write()
    await stage.snapshots.look(stage.app, now + HOUR / 2)
    assert stage.taken() == ["timer"]
    await stage.snapshots.look(stage.app, now + HOUR + 1)
    assert stage.taken() == ["timer", "timer"]


async def test_none_is_taken_of_what_was_only_read(stage: Stage) -> None:
    stage.write()
    now = time.time()
    await stage.snapshots.look(stage.app, now)
    stage.age(-10)  # the clock of files is coarse
    await stage.events.flush()
    stage.read()
    await stage.snapshots.look(stage.app, now + 2 * HOUR)
    assert stage.taken() == ["timer"]
    new = stage.versions.place("production") / "files" / "new.txt"
    new.touch()
    os.utime(new, (now + 20, now + 20))
    await stage.snapshots.look(stage.app, now + 2 * HOUR)
    assert stage.taken() == ["timer", "timer"]


async def test_the_last_in_time_counts_also_after_a_restart(stage: Stage) -> None:
    now = time.time()
    await stage.snapshots.look(stage.app, now)
    await stage.snapshots.take(stage.app, "production", "asked", "Ada")
    stage.write()
    fleet: Any = SimpleNamespace(apps={"shop": stage.app})
    again = Snapshots(Config(Path("/nonexistent")), fleet, stage.events, stage.store)
    await again.look(stage.app, now + HOUR - 1)
    assert len(stage.taken()) == 2
    await again.look(stage.app, now + HOUR + 1)
    assert stage.taken() == ["timer", "asked", "timer"]


async def test_none_is_taken_where_none_is_wanted(stage: Stage) -> None:
    stage.every = 0.0
    await stage.snapshots.look(stage.app, time.time())
    assert stage.taken() == []


async def test_it_is_found_by_its_name_its_id_and_by_when_it_was(stage: Stage) -> None:
    find, app = stage.snapshots.find, stage.app
    row = await stage.snapshots.take(app, "production", "asked", "Ada", "one")
    assert await find(app, "@one") == await find(app, f"production@{row['id']}") == ("production", row["id"])
    assert await find(app, "@0s-ago") == ("production", row["id"])
    assert await find(app, "production") == ("production", None)
    with pytest.raises(NotFound, match=r"has no snapshot “ome”\. Did you mean one"):
        await find(app, "@ome")
    with pytest.raises(NotFound, match=r"no snapshot of production .* The oldest is one, of .* UTC"):
        await find(app, "@10min-ago")
    with pytest.raises(NotFound, match=r"cccccccccc has no data yet"):
        await find(app, "main")
    with pytest.raises(NotFound, match="There is no “gone”"):
        await find(app, "gone@one")
    with pytest.raises(BadInput, match="no name for a snapshot"):
        await find(app, "@ONE TWO")


async def test_a_version_whose_commit_is_lost_is_found_by_its_name(stage: Stage) -> None:
    await stage.versions.fork(OTHER, None)
    stage.events.append(
        SnapshotTaken(version="", snapshot="", name="", why="", who="", size=0),
        store.put(store.versions, app="shop", name=OTHER, source="", forked=0.0, size=0),
    )
    await stage.events.flush()
    assert await stage.snapshots.version(stage.app, OTHER[:10]) == OTHER
    with pytest.raises(NotFound):
        await stage.snapshots.version(stage.app, OTHER[:6])


async def test_with_age_few_stay_of_those_without_a_name(stage: Stage) -> None:
    for name in ("", "kept", ""):
        await stage.snapshots.take(stage.app, "production", "asked", "Ada", name)
    rows = stage.snapshots.of(stage.app)
    stage.age(40 * DAY)
    planned = {"source": "production", "snapshot": rows[0]["id"], "pending": True}
    stage.events.append(
        SnapshotTaken(version="", snapshot="", name="", why="", who="", size=0),
        store.put(store.versions, app="shop", name=COMMIT, forked=0.0, size=0, **planned),
    )
    await stage.events.flush()
    await stage.snapshots.thin(stage.app, time.time())
    left = [row["id"] for row in stage.snapshots.of(stage.app)]
    assert left == [rows[0]["id"], rows[1]["id"]] and stage.versions.snapshots("production") == sorted(left)
    with pytest.raises(Conflict, match="cccccccccc will be forked from this snapshot"):
        await stage.snapshots.forget(stage.app, "production", rows[0]["id"], "Ada removed it")


async def test_two_that_want_one_name_at_once_do_not_both_get_it(stage: Stage) -> None:
    taking = [stage.snapshots.take(stage.app, "production", "asked", "Ada", "one") for _ in range(2)]
    results = await asyncio.gather(*taking, return_exceptions=True)
    assert {type(one) for one in results} == {dict, Conflict}
    assert [row["name"] for row in stage.snapshots.of(stage.app)] == ["one"]
    assert len(stage.versions.snapshots("production")) == 1
