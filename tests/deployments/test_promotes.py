"""A promote ends in one of two ways, also when control is replaced in the middle of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.config import Config
from lazycloud.data.versions import Versions
from lazycloud.deployments.production import Production
from lazycloud.errors import Conflict
from lazycloud.states import State

OLD, NEW = "0" * 40, "1" * 40


class Fleet:
    """Of one app; a candidate is ready once `start` is set. `retired` are commits whose routes were taken back."""

    def __init__(self) -> None:
        self.start = asyncio.Event()
        self.retired: list[str] = []
        self.staffing = self

    def get(self, app: Any, commit: str, version: str = "") -> Any:
        return SimpleNamespace(key=SimpleNamespace(app="shop", commit=commit), state=State.COLD, released="x")

    def ask(self, deployment: Any, retry: bool) -> None: ...

    async def running(self, deployment: Any, timeout: float) -> bool:
        await self.start.wait()
        return True

    def known(self) -> list[Any]:
        return []

    async def retire(self, deployment: Any) -> None:
        self.retired.append(deployment.key.commit)
        await asyncio.Event().wait()  # an old request goes on for ever

    async def hand_over(self, app: Any) -> None: ...


class Events:
    """A disk that takes its time: until `written` is set."""

    def __init__(self) -> None:
        self.written = asyncio.Event()
        self.committing = asyncio.Event()

    async def commit(self, *_: Any) -> None:
        self.committing.set()
        await self.written.wait()


class Stage:
    def __init__(self, home: Path) -> None:
        self.fleet, self.events = Fleet(), Events()
        fleet, events, store = self.fleet, self.events, SimpleNamespace(history=lambda app: [])
        snapshots, schemas = SimpleNamespace(), SimpleNamespace()
        given: Any = (Config(home=home), fleet, events, store, snapshots, schemas)
        self.production = Production(*given)
        self.app: Any = SimpleNamespace(
            name="shop", production=OLD, follow="main", versions=Versions(home / "data")
        )
        self.commit: Any = SimpleNamespace(id=NEW, short=NEW[:10], subject="new")

    def promote(self) -> None:
        self.production.promote(self.app, self.commit, "Ada", "")


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_promote_that_is_writing_its_pointer_ends_before_the_routers_are_left(stage: Stage) -> None:
    stage.fleet.start.set()
    stage.promote()
    await stage.events.committing.wait()
    ending = asyncio.create_task(stage.production.end_promotes())
    await asyncio.sleep(0)
    stage.events.written.set()
    await ending
    assert stage.app.production == NEW
    assert stage.fleet.retired == [OLD]
    await stage.production.close()


async def test_a_promote_that_has_not_come_to_its_pointer_is_given_up_and_none_begins(stage: Stage) -> None:
    stage.promote()
    await asyncio.sleep(0)
    await stage.production.end_promotes()
    stage.fleet.start.set()
    assert stage.app.production == OLD
    with pytest.raises(Conflict, match="being replaced"):
        stage.promote()
    await stage.production.close()
