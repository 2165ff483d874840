"""What a fleet does at the end of a start: with a deploy that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud import store
from lazycloud.config import Config
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Busy
from lazycloud.events import EventLog, Scaled
from lazycloud.states import Cause, State
from lazycloud.store import Store
from lazycloud.workers.engine import Processes
from tests.deployments.test_falls import COMMIT
from tests.waiting import PATIENCE, until


class Stage:
    """A fleet with an app of one web worker and no other; `during` is what happens while one starts."""

    def __init__(self, fleet: Fleet, events: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fleet: Any = fleet
        self.events = events
        self.app = SimpleNamespace(name="shop", production="", servers=())
        self.filled: list[Deployment] = []
        self.during: Any = None
        self.fleet.apps["shop"] = self.app
        monkeypatch.setattr(fleet, "_deploy", self.deploy)
        monkeypatch.setattr(fleet.staffing, "fill", self.fill)
        monkeypatch.setattr(fleet, "_hold_data", lambda deployment: None)

    async def deploy(self, app: Any, deployment: Deployment) -> Any:
        async def build() -> Any:
            return SimpleNamespace(plan=SimpleNamespace(workers=1, background={}))

        async def run(release: Any, posts: list[str]) -> None:
            deployment.advance(Cause.LAUNCHED)
            if self.during:
                self.during(deployment)
                await self.events.flush()

        async def nothing(release: Any) -> None: ...

        return SimpleNamespace(build=build, run=run, settle=nothing, after=nothing)

    async def fill(self, deployment: Deployment) -> None:
        self.filled.append(deployment)

    def scale(self, deployment: Deployment) -> None:
        values: dict[str, Any] = {"app": "shop", "process": "web", "count": 3}
        row = store.put(store.scales, version=deployment.key.version, **values)
        self.events.append(Scaled(deployment=deployment.id, **values), row)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    state = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    state.open()
    events = EventLog(state.last_number(), state.write, state.read)
    events.start()
    stage = Stage(Fleet(Config(tmp_path), events, state, Processes()), events, monkeypatch)
    yield stage
    await stage.fleet.close()
    await events.close()
    state.close()


@pytest.mark.parametrize("scaled", [True, False])
async def test_who_is_scaled_while_it_starts_has_the_number_then(stage: Stage, scaled: bool) -> None:
    preview = stage.fleet.get(stage.app, COMMIT)
    stage.during = stage.scale if scaled else None
    assert await stage.fleet.running(preview, PATIENCE)
    await until(lambda: preview.task and preview.task.done())
    assert stage.filled == ([preview] if scaled else [])


async def test_production_that_starts_ends_what_ran_where_it_was(stage: Stage) -> None:
    """Also when it has no background process itself: control may have been killed before it could."""
    stage.app.production = COMMIT
    production = stage.fleet.get(stage.app, COMMIT, "production")
    assert await stage.fleet.running(production, PATIENCE)
    await until(lambda: stage.filled == [production])


async def test_who_found_all_in_use_is_tried_again_at_the_next_request(stage: Stage) -> None:
    async def full(deployment: Deployment, say: Any) -> None:
        raise Busy("All 3 deployments that may run at a time are in use.", "Try again in a moment.")

    place, stage.fleet.make_place = stage.fleet.make_place, full
    preview = stage.fleet.get(stage.app, COMMIT)
    assert not await stage.fleet.running(preview, PATIENCE)
    assert preview.state is State.FAILED and preview.for_now
    stage.fleet.make_place = place
    assert await stage.fleet.running(preview, PATIENCE)
    assert not preview.for_now
