"""What a crew does when something else happens meanwhile: with workers that end when the test says so."""

from __future__ import annotations

import asyncio
import gc
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lazycloud.deployments.crew import Crew
from lazycloud.deployments.deployment import Deployment, Key
from lazycloud.deployments.post import Post
from lazycloud.errors import LazycloudError, StepFailed
from lazycloud.states import Cause, State
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Ended, Worker
from tests.waiting import until


class Log:
    """In place of the event log: the kinds of what was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def append(self, event: Any, *changes: Any) -> None:
        self.told.append(event.kind)


class Fake:
    """A worker that runs until it is stopped, and as long after that as `may_end` is not set."""

    def __init__(self) -> None:
        self.record = Record(1, 1, "", "127.0.0.1:1", "")
        self.address = "127.0.0.1:1"
        self.may_end, self.over, self.stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_end.set()

    @property
    def is_running(self) -> bool:
        return not self.over.is_set()

    outgrew = False

    async def ended(self) -> Ended:
        await self.over.wait()
        return Ended(-9, "was ended by SIGKILL")

    async def stop(self) -> None:
        self.stopping.set()
        await self.may_end.wait()
        self.over.set()

    def leave(self) -> None: ...

    def last_lines(self) -> list[str]:
        return []


class Stage:
    """A deployment that is ready, and its crew. Whoever is hired is what `hired` gives, in turn."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.deployment = Deployment(Key("shop", "a" * 40, "production"), cast(Any, self.log), folder)
        for cause in (Cause.ASKED, Cause.TURN_CAME, Cause.LAUNCHED, Cause.ANSWERED):
            self.deployment.advance(cause)
        self.hires: asyncio.Queue[Fake | Exception] = asyncio.Queue()
        self.asked: list[str] = []
        self.may_drain = asyncio.Event()
        self.may_drain.set()
        self.fallen: list[str] = []
        self.for_ever = True
        self.crew = Crew(
            self.deployment,
            cast(Any, self.log),
            self.hire,
            self.route,
            lambda post, worker, ended: self.fallen.append(post.name),
            lambda: self.for_ever,
        )

    async def hire(self, post: Post) -> Worker:
        self.asked.append(post.name)
        hired = await self.hires.get()
        if isinstance(hired, Exception):
            raise hired
        return cast(Worker, hired)

    async def route(self) -> None:
        await self.may_drain.wait()

    def place(self, name: str) -> Fake:
        worker = Fake()
        post = self.deployment.posts[name] = Post(name)
        post.hold(cast(Worker, worker))
        post.serves = True
        return worker

    def at(self, name: str) -> Any:
        return self.deployment.posts[name].worker

    async def close(self) -> None:
        await self.crew.leave()


@pytest.fixture
async def stage(tmp_path: Path) -> Any:
    stage = Stage(tmp_path)
    yield stage
    await stage.close()


async def turns() -> None:
    """Let everybody go on who can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_worker_that_was_replaced_ends_though_its_deployment_stops_meanwhile(stage: Stage) -> None:
    old, new = stage.place("web.1"), Fake()
    stage.may_drain.clear()
    restart = asyncio.create_task(stage.crew.restart())
    await stage.hires.put(new)
    await until(lambda: stage.at("web.1") is new)
    restart.cancel()  # as a probe is that replaces one which hangs
    stop = asyncio.create_task(stage.crew.stop("was stopped"))
    await asyncio.gather(restart, return_exceptions=True)
    stage.may_drain.set()
    await stop
    assert not old.is_running and not new.is_running


async def test_what_is_dismissed_ends_though_whoever_dismissed_it_is_cancelled(stage: Stage) -> None:
    """A deploy that was not ready, and is cancelled while its worker takes its time to end."""
    worker = stage.place("web.1")
    worker.may_end.clear()
    dismissing = asyncio.create_task(stage.crew.dismiss("was not ready", web=True))
    await worker.stopping.wait()
    dismissing.cancel()
    await asyncio.gather(dismissing, return_exceptions=True)
    stop = asyncio.create_task(stage.crew.stop("was stopped"))
    await turns()
    assert not stop.done()  # it waits for what is still ending
    worker.may_end.set()
    await stop
    assert not worker.is_running


async def test_a_background_process_that_cannot_be_started_again_is_tried_again(stage: Stage) -> None:
    stage.place("clock.1")
    await stage.hires.put(StepFailed("The process ended with exit status 3 at once."))
    with pytest.raises(LazycloudError, match=r"clock\.1 could not be started.*exit status 3"):
        await stage.crew.restart()
    again = Fake()
    await stage.hires.put(again)
    await until(lambda: stage.at("clock.1") is again)
    assert "worker_failed" in stage.log.told


async def test_a_worker_that_was_hired_late_takes_nobody_elses_post(stage: Stage) -> None:
    """Its deployment came down while it was hired, and is up again as a whole."""
    stage.place("web.1")
    filling = asyncio.create_task(stage.crew.staff(lambda: ["web.1", "web.2"]))
    await until(lambda: stage.asked == ["web.2"])
    other = Fake()
    stage.deployment.posts["web.2"].hold(cast(Worker, other))
    late = Fake()
    await stage.hires.put(late)
    await filling
    assert stage.at("web.2") is other and not late.is_running


async def test_a_worker_that_is_replaced_late_takes_nobody_elses_post(stage: Stage) -> None:
    stage.place("web.1")
    restart = asyncio.create_task(stage.crew.restart())
    await until(lambda: stage.asked == ["web.1"])
    other, late = Fake(), Fake()
    stage.deployment.posts["web.1"].hold(cast(Worker, other))
    await stage.hires.put(late)
    await restart
    assert stage.at("web.1") is other and other.is_running and not late.is_running


async def test_one_end_is_told_once(stage: Stage) -> None:
    worker = stage.place("clock.1")
    worker.may_end.clear()
    stops = [
        asyncio.create_task(stage.crew.stop("was stopped")),
        asyncio.create_task(stage.crew.dismiss("was stopped: production moved on", web=False)),
    ]
    await worker.stopping.wait()
    worker.may_end.set()
    await asyncio.gather(*stops)
    assert stage.log.told.count("worker_ended") == 1


async def test_what_a_worker_left_behind_ends_though_the_deployment_stops(stage: Stage) -> None:
    gone, other = stage.place("web.1"), stage.place("web.2")
    stage.crew.take_up()
    gone.may_end.clear()
    gone.over.set()
    await gone.stopping.wait()
    stage.deployment.advance(Cause.STOP)
    stop = asyncio.create_task(stage.crew.stop("was stopped"))
    await until(lambda: not other.is_running)
    await turns()
    assert not stop.done()
    gone.may_end.set()
    await stop
    assert stage.deployment.state is State.STOPPING and not stage.fallen


async def test_work_that_is_given_up_before_it_begins_leaves_no_warning() -> None:
    nothing: Any = None
    deployment: Any = SimpleNamespace(id="shop.1", posts={}, workers=[])
    crew = Crew(deployment, nothing, nothing, nothing, nothing, lambda: False)

    async def mend() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = crew._task("mend", mend())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()
    assert not caught


async def test_a_bug_of_ours_gives_no_post_up(stage: Stage) -> None:
    stage.place("web.1")
    await stage.hires.put(KeyError("no such thing"))
    await stage.crew.staff(lambda: ["web.1", "web.2"])
    again = Fake()
    await stage.hires.put(again)
    await until(lambda: stage.at("web.2") is again)


async def test_health_is_asked_after_a_bug_of_ours_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(record: Record, patience: float) -> str:
        return "did not answer within 1 s"

    monkeypatch.setattr("lazycloud.deployments.crew.ask_health", hangs)
    worker, new = stage.place("web.1"), Fake()
    worker.record = replace(worker.record, health="/", health_interval=0.001)
    await stage.hires.put(KeyError("no such thing"))
    await stage.hires.put(new)
    stage.crew.take_up()
    await until(lambda: stage.at("web.1") is new and not worker.is_running)


async def test_what_a_worker_left_behind_ends_though_the_last_one_ends_at_the_same_moment(
    stage: Stage,
) -> None:
    first, second = stage.place("web.1"), stage.place("web.2")
    stage.crew.take_up()
    for post in ("web.1", "web.2"):
        stage.crew._ended(stage.deployment.posts[post], stage.at(post), Ended(-9, "was ended by SIGKILL"))
    assert stage.fallen == ["web.2"]
    stage.crew.give_up_mending()
    await until(first.stopping.is_set)
    assert not second.stopping.is_set()  # that is for the fleet, to whom it fell


async def test_nobody_is_sent_to_a_preview_that_hangs_while_it_takes_its_time_to_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(record: Record, patience: float) -> str:
        return "did not answer within 1 s"

    monkeypatch.setattr("lazycloud.deployments.crew.ask_health", hangs)
    stage.for_ever = False
    worker = stage.place("web.1")
    worker.may_end.clear()
    worker.record = replace(worker.record, health="/", health_interval=0.001)
    stage.crew.take_up()
    await until(lambda: stage.fallen == ["web.1"])
    assert stage.deployment.addresses == () and worker.is_running
    assert stage.deployment.posts["web.1"].ended.startswith("was ended because / did not answer within 1 s")


async def test_a_deployment_has_come_down_though_a_background_process_runs_on(stage: Stage) -> None:
    web, clock = stage.place("web.1"), stage.place("clock.1")
    stage.crew.take_up()
    web.over.set()
    await until(lambda: stage.fallen == ["web.1"])
    assert clock.is_running and not stage.asked
