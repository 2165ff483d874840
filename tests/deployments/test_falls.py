"""What a fleet does when the last worker of a deployment has ended: with workers that end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lazycloud.config import Config
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.post import Post
from lazycloud.deployments.turns import Rank
from lazycloud.errors import NotFound, StepFailed
from lazycloud.events import EventLog
from lazycloud.states import Cause, State
from lazycloud.store import Store
from lazycloud.workers.engine import Processes
from lazycloud.workers.worker import Ended
from tests.deployments.test_crew import Fake
from tests.waiting import until

COMMIT = f"{7:040x}"
KILLED = Ended(-9, "was ended by SIGKILL")


class Stage:
    """A fleet with one deployment, of production or not, that is ready. `works` are what its deploys come to."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = SimpleNamespace(name="shop", production="", servers=())
        self.fleet: Any = fleet
        self.works: list[Exception | None] = []
        self.begun: list[Deployment] = []
        self.fleet.apps["shop"] = self.app
        monkeypatch.setattr(fleet, "_work", self.work)
        monkeypatch.setattr("lazycloud.deployments.fleet.pause", lambda crashes: 0.0)

    async def work(self, deployment: Deployment, turn: Any) -> None:
        self.begun.append(deployment)
        if self.works and (problem := self.works.pop(0)):
            raise problem
        deployment.advance(Cause.LAUNCHED)
        deployment.advance(Cause.ANSWERED)

    def ready(self, version: str = "") -> tuple[Deployment, Fake]:
        self.app.production = COMMIT if version else ""
        deployment = self.fleet.get(self.app, COMMIT, version)
        for cause in (Cause.ASKED, Cause.TURN_CAME, Cause.LAUNCHED, Cause.ANSWERED):
            deployment.advance(cause)
        return deployment, Fake()

    def fall(self, deployment: Deployment, worker: Fake, ended: Ended = KILLED) -> None:
        post: Any = SimpleNamespace(name="web.1", ended=ended.words, restarts=0)
        worker.over.set()
        self.fleet._fell(deployment, post, cast(Any, worker), ended)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    state = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    state.open()
    events = EventLog(state.last_number(), state.write, state.read)
    events.start()
    stage = Stage(Fleet(Config(tmp_path), events, state, Processes()), monkeypatch)
    yield stage
    await stage.fleet.close()
    await events.close()
    state.close()


async def test_production_is_started_again_though_a_router_hangs(stage: Stage) -> None:
    async def never(deployment: Deployment) -> None:
        await asyncio.Event().wait()

    production, worker = stage.ready("production")
    stage.fleet.retire = never
    stage.fall(production, worker)
    await until(lambda: stage.begun == [production] and production.state is State.READY)


async def test_production_is_started_again_though_what_it_left_cannot_be_ended(stage: Stage) -> None:
    class Stubborn(Fake):
        async def stop(self) -> None:
            raise OSError("Too many open files")

    production, _ = stage.ready("production")
    stage.fall(production, Stubborn())
    await until(lambda: stage.begun == [production] and production.state is State.READY)


@pytest.mark.parametrize("again", [State.RESTARTING, State.STOPPED])
async def test_nothing_starts_beside_what_the_last_worker_left(stage: Stage, again: State) -> None:
    preview, worker = stage.ready()
    worker.may_end.clear()
    if again is State.STOPPED:
        preview.ready_at -= 100  # it ended without an error, after a while
    stage.fall(preview, worker, Ended(0, "ended") if again is State.STOPPED else KILLED)
    assert preview.state is again
    stage.fleet.ask(preview, retry=True)
    await worker.stopping.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stage.begun
    worker.may_end.set()
    await until(lambda: preview.state is State.READY)


async def test_what_the_last_worker_left_has_ended_when_it_is_stopped(stage: Stage) -> None:
    preview, worker = stage.ready()
    worker.may_end.clear()
    stage.fall(preview, worker)
    stop = asyncio.create_task(stage.fleet.stop(preview))
    await worker.stopping.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not stop.done()
    worker.may_end.set()
    assert await stop
    assert preview.state is State.STOPPED


async def test_a_preview_whose_data_are_too_large_is_not_started_again_before_somebody_asks(
    stage: Stage,
) -> None:
    preview, worker = stage.ready()
    worker.outgrew = True
    stage.fall(
        preview, worker, Ended(-9, "was ended because its data took more than the limit of disk (60 MB)")
    )
    assert preview.state is State.FAILED
    assert preview.failure and "the limit of disk (60 MB)" in preview.failure.sentence
    for advised in (f"lazycloud run {COMMIT[:10]} -- rm", f"lazycloud data reset {COMMIT[:10]}", "[workers]"):
        assert advised in preview.failure.advice
    await until(lambda: not stage.fleet._tasks)
    stage.fleet.ask(preview)
    assert preview.state is State.FAILED and not stage.begun
    stage.fleet.ask(preview, retry=True)
    await until(lambda: stage.begun == [preview] and preview.state is State.READY)


async def test_production_whose_data_are_too_large_is_started_again_all_the_same(stage: Stage) -> None:
    production, worker = stage.ready("production")
    worker.outgrew = True
    stage.fall(production, worker)
    assert production.failure and "lazycloud run production -- rm" in production.failure.advice
    await until(lambda: stage.begun == [production] and production.state is State.READY)


async def test_one_whose_data_are_too_large_before_it_is_ready_is_told_so(stage: Stage) -> None:
    preview, worker = stage.ready()
    worker.outgrew = True
    post = preview.posts["web.1"] = Post("web.1")
    preview.advance(Cause.ENDED)
    preview.advance(Cause.AGAIN)
    preview.advance(Cause.TURN_CAME)
    preview.advance(Cause.LAUNCHED)
    post.hold(cast(Any, worker))
    worker.over.set()
    await stage.fleet._broke(
        preview, StepFailed("The app was ended before it was ready.", "Let it use less.")
    )
    assert preview.failure and "lazycloud data reset" in preview.failure.advice


@pytest.mark.parametrize("trouble", [OSError(24, "Too many open files"), NotFound("The repository is away.")])
async def test_production_that_was_built_is_tried_for_ever_whatever_stops_it(
    stage: Stage, trouble: Exception
) -> None:
    """Before its start, too: git, a full disk, a machine that gives no more processes."""
    production, worker = stage.ready("production")
    production.release = "key"
    stage.works = [trouble, trouble]
    stage.fall(production, worker)
    await until(lambda: len(stage.begun) == 3 and production.state is State.READY)


async def test_production_that_was_never_built_is_not_built_for_ever(stage: Stage) -> None:
    production, worker = stage.ready("production")
    stage.works = [NotFound("It does not build.")]
    stage.fall(production, worker)
    await until(lambda: production.state is State.FAILED and not stage.fleet._tasks)
    assert len(stage.begun) == 1


async def test_production_that_was_built_starts_again_though_builds_take_all_turns(stage: Stage) -> None:
    production, worker = stage.ready("production")
    production.release = "key"
    for _ in range(100):
        stage.fleet._turns.join(Rank.PRODUCTION, lambda ahead: None)
    stage.fall(production, worker)
    await until(lambda: production.state is State.READY)
    assert stage.fleet._turns.waiting
