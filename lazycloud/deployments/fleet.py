"""Every deployment of a server: get or start, stop, find again after a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lazycloud import processes, store
from lazycloud.allowance import in_words
from lazycloud.build.disk import FULL, disk_full
from lazycloud.config import Config
from lazycloud.data.names import PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.deploy import Deploy
from lazycloud.deployments.deployment import Deployment, Failure, Key
from lazycloud.deployments.steps import StepName
from lazycloud.deployments.turns import Rank, Turn, Turns
from lazycloud.errors import Conflict, DiskFull, LazycloudError, NotFound, StepFailed
from lazycloud.events import EventLog, PromoteFailed, WorkerEnded
from lazycloud.states import DEPLOYING, Cause, State
from lazycloud.store import Store
from lazycloud.workers.engine import Engine
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

SOON = 60.0  # seconds: a worker that ends earlier than this after its start has crashed
START_SHARE = 10.0  # seconds of its turn that a start may use up; a slow starter then waits without one
RESTARTS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # pauses before production is started again; the last for ever

Retire = Callable[[Deployment], Awaitable[None]]
"""Take a deployment out of all routes, and return when no request is on its way to its worker any more."""


MakeRoom = Callable[[Deployment, DiskFull | None], Awaitable[int]]
"""Make room on the disk for a deploy that begins, or that a full disk has stopped; the bytes that came free."""


async def _no_routes(deployment: Deployment) -> None: ...


async def _no_room(deployment: Deployment, problem: DiskFull | None) -> int:
    return 0


class Fleet:
    """Starts nothing by itself. `retire` and `make_room` are set by the server, once there is who does it."""

    def __init__(
        self, config: Config, events: EventLog, state: Store, engine: Engine, timezone: str = ""
    ) -> None:
        self.apps: dict[str, App] = {}
        self.retire: Retire = _no_routes
        self.make_room: MakeRoom = _no_room
        self._config = config
        self._events = events
        self._store = state
        self._timezone = timezone
        self._turns = Turns(config.builds)
        self._engine = engine
        self._deployments: dict[str, Deployment] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._restarts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def app(self, name: str) -> App:
        try:
            return self.apps[name]
        except KeyError:
            raise NotFound(f"No app is called “{name}” here.", near=sorted(self.apps)[:3]) from None

    def get(self, app: App, commit_id: str, version: str = "") -> Deployment:
        """The one deployment of a commit (full id) on a version, its own by default; made cold if unknown."""
        key = Key(app.name, commit_id, version or commit_id)
        deployment = self._deployments.get(key.id)
        if deployment is None:
            folder = self._config.app_folder(app.name) / "logs"
            deployment = self._deployments[key.id] = Deployment(key, self._events, folder)
            for row in self._store.rows(store.deployments, id=key.id):
                deployment.restore(row)
        return deployment

    def production(self, app: App) -> Deployment | None:
        return self.get(app, app.production, PRODUCTION) if app.production else None

    def find(self, deployment_id: str) -> Deployment:
        """By its id; raises NotFound for one that never was."""
        if deployment_id not in self._deployments:
            for row in self._store.rows(store.deployments, id=deployment_id):
                return self.get(self.app(row["app"]), row["commit"], row["version"])
            raise NotFound(f"There is no deployment “{deployment_id[:80]}”.")
        return self._deployments[deployment_id]

    def known(self) -> Iterable[Deployment]:
        """Those that this server has had to do with since its start."""
        return list(self._deployments.values())

    def ask(
        self, deployment: Deployment, retry: bool = False, only_build: bool = False, warm: bool = False
    ) -> None:
        """See to it that it runs, or will. A failure is remembered: it is tried again only when `retry`.

        `warm`: nobody waits for it. It comes after what somebody waits for, until somebody asks for it too.
        """
        if deployment.is_deploying:
            deployment.only_build &= only_build
            if deployment.turn:
                deployment.turn.hurry(_rank(deployment, warm))
        elif deployment.state is State.STOPPING:
            deployment.wanted |= retry or not deployment.is_being_cancelled
        elif deployment.state in (State.COLD, State.STOPPED) or (deployment.state is State.FAILED and retry):
            self._begin(deployment, only_build, warm)

    def supersede(self, deployment: Deployment) -> None:
        """A newer commit of its branch is warmed instead, unless this one has begun or somebody waits for it."""
        turn, task = deployment.turn, deployment.task
        if deployment.state is State.QUEUED and turn and turn.rank is Rank.WARMER:
            deployment.advance(Cause.SUPERSEDED)
            if task:
                task.cancel()

    async def running(self, deployment: Deployment, timeout: float) -> bool:
        """Ask for it and wait until it is ready; False if it failed or was stopped, or it took too long."""
        self.ask(deployment)
        with suppress(TimeoutError):
            await asyncio.wait_for(deployment.settled(), timeout)
        return deployment.state is State.READY

    def suspect(self, deployment: Deployment, address: str) -> None:
        """A router could not connect there: if the worker is gone, see it now and not in a moment."""
        worker = deployment.worker
        if deployment.address == address and worker and not worker.is_running:
            self._ended(deployment, worker)

    async def stop(self, deployment: Deployment) -> bool:
        """Stop its worker, or the deploy that is under way; False if nothing was to be stopped. Idempotent."""
        begun = deployment.is_deploying or deployment.state is State.READY
        if begun:
            self._begin_stop(deployment, Cause.STOP)
        await self._stopped(deployment)
        return begun

    async def cancel(self, deployment: Deployment, who: str) -> bool:
        """End the deploy that is under way, as a failure that says so; False if there is none.

        Raises Conflict while it changes production's data: half of a migration is worse than all of it.
        """
        begun = deployment.is_deploying
        if begun and deployment.key.is_production and deployment.is_at(StepName.RELEASE):
            raise Conflict(
                "Its release command is changing production’s data, and is not cut off.",
                "Wait for it to end, then roll back.",
            )
        if begun:
            self._begin_stop(deployment, Cause.CANCEL, Failure.cancelled(who))
        await self._stopped(deployment)
        return begun

    async def _stopped(self, deployment: Deployment) -> None:
        if deployment.state is State.STOPPING and deployment.task:
            await asyncio.shield(deployment.task)

    def _begin_stop(self, deployment: Deployment, cause: Cause, failure: Failure | None = None) -> None:
        deployment.wanted = False
        deployment.advance(cause, failure)
        deploying = deployment.task
        if deploying and not deploying.done():
            deploying.cancel()
        deployment.task = asyncio.create_task(self._stop(deployment, deploying), name=f"stop {deployment.id}")

    async def restore(self) -> None:
        """Find the workers again that an earlier control left running; go on with deploys that it did not end."""
        known = [state.value for state in (State.READY, State.STOPPING, *DEPLOYING)]
        rows = await asyncio.to_thread(self._store.rows, store.deployments, state=known)
        cut_off = [row for row in rows if row["app"] in self.apps and not await self._adopted(row)]
        await asyncio.to_thread(self._end_strays)
        self._clear_scratch()
        for app in self.apps.values():
            await app.versions.clear_rehearsals()
        for row in cut_off:
            self._go_on(row)

    async def _adopted(self, row: dict[str, Any]) -> bool:
        """Whether the deployment's worker was found, and is ours again."""
        worker = await self._engine.adopt(Record.from_dict(row["worker"])) if row["worker"] else None
        if worker is None:
            return False
        deployment = self.get(self.apps[row["app"]], row["commit"], row["version"])
        deployment.worker = worker
        deployment.advance(Cause.ADOPTED)
        deployment.ready_at = processes.began_at(worker.record.identity)
        self._watch(deployment, worker)
        if row["state"] != State.READY.value or not self._is_wanted(deployment):
            # Nobody saw it become ready, or it was being stopped, or its promote was cut off.
            self._begin_stop(deployment, Cause.STOP)
            return False
        self._engine.adopted(worker)
        return True

    def _go_on(self, row: dict[str, Any]) -> None:
        """A deploy that was cut off begins again; one whose worker ended meanwhile waits to be asked for."""
        deployment = self.get(self.apps[row["app"]], row["commit"], row["version"])
        if not self._is_wanted(deployment):
            self._events.append(
                PromoteFailed(
                    app=row["app"],
                    commit=row["commit"],
                    who="lazycloud",
                    problem="Control was restarted in the middle of it.",
                    advice="Promote it again.",
                )
            )
        elif State(row["state"]) in DEPLOYING:
            self.ask(deployment, warm=True)

    def _is_wanted(self, deployment: Deployment) -> bool:
        """A preview, production, or the one before it that is kept warm: not a rehearsal, nor a candidate."""
        if deployment.key.version == deployment.key.commit:
            return True
        past = {row["commit"] for row in self._store.history(deployment.key.app, limit=2)}
        return deployment.key.is_production and deployment.key.commit in past

    def _end_strays(self) -> None:
        """Of a control that was killed: its builds, migrations, and workers that it had not written down."""
        ours = {one.worker.record.pid for one in self.known() if one.worker}
        processes.end_strays(self._config.home / "apps", ours)

    async def close(self, keep_workers: bool = False) -> None:
        """Stop every deploy, and every worker unless they are to be found again."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if keep_workers:
            deploys = [one.task for one in self.known() if one.task and not one.task.done()]
            for deploy in deploys:
                deploy.cancel()
            await asyncio.gather(*deploys, return_exceptions=True)
            for deployment in self.known():
                if deployment.worker:
                    deployment.worker.leave()
        else:
            await asyncio.gather(*map(self.stop, self.known()), return_exceptions=True)
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), *self._tasks, return_exceptions=True)
        await self._engine.close()

    async def leave(self, folder: Path) -> None:
        """A folder that nobody uses is to be removed: nothing of ours waits in it any more."""
        await self._engine.leave(folder)

    async def discard(self, deployment: Deployment) -> None:
        """Stop it and remove its data: for rehearsals. Never production's."""
        await self.stop(deployment)
        app = self.app(deployment.key.app)
        deploy = await self._deploy(app, deployment)
        await deploy.drop_data("the rehearsal is over")

    def _begin(self, deployment: Deployment, only_build: bool, warm: bool) -> None:
        if self._closing:
            return
        deployment.only_build, deployment.wanted = only_build, False
        deployment.advance(Cause.ASKED)
        turn = deployment.turn = self._turns.join(_rank(deployment, warm), deployment.moved_up)
        deployment.task = asyncio.create_task(
            self._deploying(deployment, turn), name=f"deploy {deployment.id}"
        )
        # Not in the task: one that is cancelled before it begins never runs a line.
        deployment.task.add_done_callback(lambda _: turn.release())

    async def _deploying(self, deployment: Deployment, turn: Turn) -> None:
        """A whole deploy; whatever goes wrong becomes a failure that people can read."""
        try:
            await turn.come()
            deployment.ahead = 0
            deployment.advance(Cause.TURN_CAME)
            await self._work(deployment, turn)
        except asyncio.CancelledError:
            raise
        except LazycloudError as problem:
            await self._broke(deployment, problem)
        except OSError as problem:
            await self._broke(deployment, _machine_trouble(problem, self._config.home))
        except Exception as bug:
            log.exception("The deploy of %s met a bug", deployment.id)
            await self._broke(deployment, StepFailed(f"lazycloud itself failed: {bug!r}."))

    async def _work(self, deployment: Deployment, turn: Turn) -> None:
        app = self.app(deployment.key.app)
        deploy = await self._deploy(app, deployment)
        await self.make_room(deployment, None)
        release = await self._with_room(deployment, deploy.build)
        if deployment.only_build:
            deployment.advance(Cause.BUILT)
            self._later(deployment, deploy.settle(release))
            return
        asyncio.get_running_loop().call_later(START_SHARE, turn.release)
        worker = await self._with_room(deployment, lambda: deploy.run(release))
        deployment.advance(Cause.ANSWERED)
        self._watch(deployment, worker)
        turn.release()
        self._later(deployment, deploy.settle(release))
        await deploy.after(release)

    async def _with_room(self, deployment: Deployment, work: Callable[[], Awaitable[T]]) -> T:
        """What a full disk has stopped is done once more if room could be made; stages that went well are reused."""
        try:
            return await work()
        except DiskFull as problem:
            freed = await self.make_room(deployment, problem)
            if not freed:
                raise
            said = f"The disk was full. {in_words(freed)} came free, and it is tried again.\n"
            deployment.transcript.write(deployment.failed_step, said)
            return await work()

    async def _deploy(self, app: App, deployment: Deployment) -> Deploy:
        key = deployment.key
        addresses = self._config.addresses
        commit = await app.commit(key.commit)
        address = (
            addresses.production(app.domain)
            if key.is_production
            else addresses.label(app.domain, commit.short)
        )
        scratch = self._config.scratch_folder(key.id)
        return Deploy(
            app,
            commit,
            deployment,
            self._engine,
            self._events,
            address,
            scratch,
            self._timezone,
            self._config.home,
            self._config.workers.limits,
        )

    async def _broke(self, deployment: Deployment, problem: LazycloudError) -> None:
        if deployment.state is State.READY:
            log.error("%s is ready all the same: %s", deployment.id, problem)
            return
        if worker := deployment.worker:
            await worker.stop()  # it stays ours meanwhile: who stops the deploy now finds it
            deployment.worker = None
        failed = deployment.failed_step.value
        deployment.advance(Cause.BROKE, Failure.of(failed, problem))
        if failed in (StepName.START.value, StepName.READY.value):  # what was built can only fail again
            self._later(deployment, self._restart_production(deployment))

    async def _stop(self, deployment: Deployment, deploying: asyncio.Task[None] | None) -> None:
        if deploying:
            await asyncio.gather(deploying, return_exceptions=True)
        worker, watcher = deployment.worker, self._watchers.pop(deployment.id, None)
        if watcher:
            watcher.cancel()
        if worker:
            with suppress(Exception):
                await self.retire(deployment)
            await worker.stop()
            self._tell_end(deployment, worker, "was stopped", expected=True)
        deployment.worker = None
        if deployment.is_being_cancelled:
            deployment.advance(Cause.CANCELLED, deployment.failure)
        else:
            deployment.advance(Cause.GONE)
        self._scratch(deployment)
        if deployment.wanted:
            self.ask(deployment, retry=True)

    def _watch(self, deployment: Deployment, worker: Worker) -> None:
        self._watchers[deployment.id] = asyncio.create_task(
            self._watching(deployment, worker), name=f"watch {deployment.id}"
        )

    async def _watching(self, deployment: Deployment, worker: Worker) -> None:
        await worker.ended()
        self._ended(deployment, worker)

    def _ended(self, deployment: Deployment, worker: Worker) -> None:
        """A worker ended by itself. Soon after its start that is a failure to show, later just an end."""
        if deployment.worker is not worker or deployment.state is not State.READY:
            return
        watcher = self._watchers.pop(deployment.id, None)
        if watcher and watcher is not asyncio.current_task():
            watcher.cancel()
        if deployment.task and deployment.task is not asyncio.current_task():
            deployment.task.cancel()  # it may be at the step `after`
        how, lived = worker.how_it_ended, time.time() - deployment.ready_at
        self._tell_end(deployment, worker, how, expected=False)
        deployment.worker = None
        if lived < SOON:
            sentence = f"The app was ready, and {lived:.0f} s later its process {how}."
            deployment.advance(Cause.CRASHED, Failure("", sentence, "", tuple(worker.last_lines())))
        else:
            self._restarts.pop(deployment.id, None)
            deployment.advance(Cause.ENDED)
        self._later(deployment, self._after_end(deployment, worker))
        if self.is_production(deployment) and not self._restarts.get(deployment.id):
            # The first end in a while: who asks just now waits a little instead of reading about it.
            self._restarts[deployment.id] = 1
            self.ask(deployment, retry=True)

    async def _after_end(self, deployment: Deployment, worker: Worker) -> None:
        """No request goes there any more; what the worker left of its group is ended."""
        await asyncio.gather(self.retire(deployment), worker.stop())
        if deployment.state is State.FAILED:
            await self._restart_production(deployment)

    async def _restart_production(self, deployment: Deployment) -> None:
        """Production is tried for ever, at a bounded rate."""
        if not self.is_production(deployment):
            return
        tries = self._restarts.get(deployment.id, 0)
        self._restarts[deployment.id] = tries + 1
        await asyncio.sleep(RESTARTS[min(tries, len(RESTARTS) - 1)])
        if self.is_production(deployment):
            self.ask(deployment, retry=True)

    def is_production(self, deployment: Deployment) -> bool:
        """Whether its app's pointer stands at it: not so a candidate, nor one that is kept warm."""
        app = self.apps.get(deployment.key.app)
        return app is not None and self.production(app) is deployment

    def _later(self, deployment: Deployment, work: Coroutine[None, None, None]) -> None:
        """Own a task that outlives its deployment's attempt."""
        task = asyncio.create_task(work, name=f"after {deployment.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell_end(self, deployment: Deployment, worker: Worker, how: str, expected: bool) -> None:
        self._events.append(
            WorkerEnded(
                app=deployment.key.app,
                deployment=deployment.id,
                pid=worker.record.pid,
                how=how,
                expected=expected,
            )
        )

    def _scratch(self, deployment: Deployment) -> None:
        shutil.rmtree(self._config.scratch_folder(deployment.id), ignore_errors=True)

    def _clear_scratch(self) -> None:
        """What workers that are gone left in their temporary folders."""
        live = {self._config.scratch_folder(one.id) for one in self.known() if one.worker}
        for folder in (self._config.home / "scratch").glob("*"):
            if folder not in live:
                shutil.rmtree(folder, ignore_errors=True)


def _rank(deployment: Deployment, warm: bool) -> Rank:
    """Of what may move production, its rehearsals too, nothing waits behind a preview."""
    if deployment.key.version != deployment.key.commit:
        return Rank.PRODUCTION
    return Rank.WARMER if warm else Rank.WAITED_FOR


def _machine_trouble(problem: OSError, home: Path) -> StepFailed:
    """What the machine did to us, in words."""
    if problem.errno in FULL:
        return disk_full(home)
    return StepFailed(f"The machine could not do it: {problem}.")
