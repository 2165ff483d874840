"""Every deployment of a server: get or start, stop, find again after a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from lazycloud import processes, store, trees
from lazycloud.allowance import in_words
from lazycloud.build.commit import SHORT
from lazycloud.build.disk import FULL, disk_full
from lazycloud.config import Config
from lazycloud.data.names import MIGRATION, PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.crew import SOON, TRIES, Crew, pause
from lazycloud.deployments.deploy import Deploy
from lazycloud.deployments.deployment import Deployment, Failure, Key, advice_of, advice_on_data
from lazycloud.deployments.post import WEB, Post, names, record_in, rows_of
from lazycloud.deployments.staffing import Staffing
from lazycloud.deployments.standstill import Standstills
from lazycloud.deployments.steps import StepName
from lazycloud.deployments.turns import Rank, Turn, Turns
from lazycloud.errors import Busy, Conflict, DiskFull, LazycloudError, NotFound, StepFailed
from lazycloud.events import ChangeUndone, EventLog, PromoteFailed
from lazycloud.processes import Output
from lazycloud.states import DEPLOYING, PASSING, Cause, State
from lazycloud.store import Store
from lazycloud.workers.engine import Engine
from lazycloud.workers.worker import Ended, Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

STOPPED_HOW = {Cause.IDLE: "was put to sleep", Cause.ROOM: "was put to sleep to make room"}
KEPT = 256  # deployments with which nothing happens, at most, of some ten kilobytes each
START_SHARE = 10.0  # seconds of its turn that a start may use up; a slow starter then waits without one

Route = Callable[[Deployment], Awaitable[None]]
"""Tell all routers where its requests go now; return when none is on its way to where they went before."""

MakePlace = Callable[[Deployment, Output], Awaitable[None]]
"""See to it that one more deployment may have workers. Raises Busy if all that run are in use."""

MakeRoom = Callable[[Deployment, DiskFull | None], Awaitable[int]]
"""Make room on the disk for a deploy that begins, or that a full disk has stopped; the bytes that came free."""


async def _no_routes(deployment: Deployment) -> None: ...


async def _no_limit(deployment: Deployment, say: Output) -> None: ...


async def _no_room(deployment: Deployment, problem: DiskFull | None) -> int:
    return 0


class Fleet:
    """Starts nothing by itself. `retire`, `route`, `make_room` and `make_place` are the server's to set.

    `retire` takes a deployment out of all routes, as `route` does once it has no address.
    """

    def __init__(
        self, config: Config, events: EventLog, state: Store, engine: Engine, timezone: str = ""
    ) -> None:
        self.apps: dict[str, App] = {}
        self.retire: Route = _no_routes
        self.route: Route = _no_routes
        self.make_place: MakePlace = _no_limit
        self.make_room: MakeRoom = _no_room
        self._config = config
        self._events = events
        self._store = state
        self._timezone = timezone
        self._turns = Turns(config.builds)
        self._engine = engine
        self._deployments: OrderedDict[str, Deployment] = OrderedDict()  # the least recently asked for first
        self._held: WeakValueDictionary[str, Deployment] = WeakValueDictionary()  # by us, or somebody else
        self._full = KEPT
        self._crews: dict[str, Crew] = {}
        self.staffing = Staffing(events, state, self.apps, self.known, self.production, self._crew)
        self.standstills = Standstills(self.known, self.stop, self._ask_again)
        self._crashes: dict[str, int] = {}  # in a row, by deployment
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
        if deployment := self._deployments.get(key.id):
            self._deployments.move_to_end(key.id)
            return deployment
        self._forget_some()
        deployment = self._held.get(key.id)
        if deployment is None:
            folder = self._config.app_folder(app.name) / "logs"
            deployment = self._held[key.id] = Deployment(key, self._events, folder)
            for row in self._store.rows(store.deployments, id=key.id):
                deployment.restore(row)
        self._deployments[key.id] = deployment
        return deployment

    def _forget_some(self) -> None:
        """Of those with which nothing happens only the last few are kept: the store knows them as well as we.

        They are not the newest, so that what was last said of them is stored by now.
        """
        if len(self._deployments) < self._full:
            return
        idle = [one for one in self._deployments.values() if one.is_idle]
        for deployment in idle[: max(0, len(idle) - KEPT // 2)]:
            del self._deployments[deployment.id]
            self._crews.pop(deployment.id, None)
        self._full = len(self._deployments) + KEPT // 2

    def production(self, app: App) -> Deployment | None:
        return self.get(app, app.production, PRODUCTION) if app.production else None

    def find(self, deployment_id: str) -> Deployment:
        """By its id; raises NotFound for one that never was."""
        if known := self._held.get(deployment_id):
            return known
        for row in self._store.rows(store.deployments, id=deployment_id):
            return self.get(self.app(row["app"]), row["commit"], row["version"])
        raise NotFound(f"There is no deployment “{deployment_id[:80]}”.")

    def known(self) -> Iterable[Deployment]:
        """Those with which something happens, and the last few of the others that somebody asked for."""
        return list(self._held.values())

    def ask(
        self, deployment: Deployment, retry: bool = False, only_build: bool = False, warm: bool = False
    ) -> None:
        """See to it that it runs, or will. A failure is remembered: it is tried again only when `retry`.

        Not so when others were in its way, who may be gone by now.

        `warm`: nobody waits for it. It comes after what somebody waits for, until somebody asks for it too.
        """
        deployment.asked_at = time.time()
        if self.standstills.holds(deployment):
            self.standstills.want(deployment)
        elif deployment.is_deploying:
            deployment.only_build &= only_build
            if deployment.turn:
                deployment.turn.hurry(_rank(deployment, warm))
        elif deployment.state is State.STOPPING:
            deployment.wanted |= retry or not deployment.is_being_cancelled
        elif deployment.state in (State.COLD, State.STOPPED) or deployment.for_now:
            self._begin(deployment, only_build, warm)
        elif deployment.state in (State.FAILED, State.RESTARTING) and retry:
            self._crashes.pop(deployment.id, None)
            self._begin(deployment, only_build, warm)

    def _ask_again(self, deployment: Deployment) -> None:
        """After a standstill: of those on production's data only what the pointer stands at."""
        if not deployment.key.is_production or self.is_production(deployment):
            self.ask(deployment, retry=True)

    def supersede(self, deployment: Deployment) -> None:
        """A newer commit of its branch is warmed instead, unless this one has begun or somebody waits for it."""
        turn, task = deployment.turn, deployment.task
        if deployment.state is State.QUEUED and turn and turn.rank is Rank.WARMER:
            deployment.advance(Cause.SUPERSEDED)
            if task:
                task.cancel()

    async def running(self, deployment: Deployment, timeout: float) -> bool:
        """Ask for it and wait until it is ready; False if it failed or was stopped, or it took too long."""
        began = time.monotonic()
        self.ask(deployment)
        await self.standstills.over(deployment, timeout)
        timeout -= time.monotonic() - began
        with suppress(TimeoutError):
            await asyncio.wait_for(deployment.settled(), timeout)
        return deployment.state is State.READY

    def suspect(self, deployment: Deployment, address: str) -> list[asyncio.Task[None]]:
        """A router could not connect there: if the worker is gone, that is seen when these are done."""
        crew = self._crews.get(deployment.id)
        return crew.suspect(address) if crew else []

    async def stop(self, deployment: Deployment, cause: Cause = Cause.STOP) -> bool:
        """Stop its workers, or the deploy that is under way; False if nothing was to be stopped. Idempotent.

        `cause`: also IDLE or ROOM, of what is ready.
        """
        begun = deployment.state in (*DEPLOYING, State.READY, State.RESTARTING)
        if begun:
            self._begin_stop(deployment, cause)
        elif deployment.state is State.FAILED:  # of production that came down, others may still run
            await self._crew(deployment).stop("was stopped")
        await self._stopped(deployment)
        return begun

    def rest(self, deployment: Deployment) -> None:
        """Put it to sleep, if it is ready; its next visitor wakes it."""
        if deployment.state is State.READY:
            self._begin_stop(deployment, Cause.IDLE)

    async def restart(self, deployment: Deployment) -> None:
        """Replace its workers by new ones, one at a time: those that serve without a gap. Raises Conflict."""
        if deployment.state is not State.READY:
            raise Conflict(
                f"{deployment.key.commit[:SHORT]} does not run: it is {deployment.state.value}.",
                "Open it, or `lazycloud deploy` it.",
            )
        await self._crew(deployment).restart()

    def _crew(self, deployment: Deployment) -> Crew:
        crew = self._crews.get(deployment.id)
        if crew is None:
            crew = self._crews[deployment.id] = Crew(
                deployment,
                self._events,
                lambda post: self._hire(deployment, post),
                lambda: self.route(deployment),
                lambda post, worker, ended: self._fell(deployment, post, worker, ended),
                lambda: self.is_production(deployment),
            )
        return crew

    async def _hire(self, deployment: Deployment, post: Post) -> Worker:
        deploy = await self._deploy(self.app(deployment.key.app), deployment)
        return await deploy.hire(await deploy.again(), post.name)

    async def cancel(self, deployment: Deployment, who: str) -> bool:
        """End the deploy that is under way, as a failure that says so; False if there is none.

        Raises Conflict while it changes production's data: half of a migration is worse than all of it.
        """
        begun = deployment.is_deploying or deployment.state is State.RESTARTING
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
        deployment.task = asyncio.create_task(
            self._stop(deployment, deploying, STOPPED_HOW.get(cause, "was stopped")),
            name=f"stop {deployment.id}",
        )

    async def restore(self) -> None:
        """Find the workers again that an earlier control left running; go on with deploys that it did not end."""
        known = [state.value for state in (State.READY, *PASSING)]
        rows = await asyncio.to_thread(self._store.unfinished, known)
        cut_off = [row for row in rows if row["app"] in self.apps and not await self._adopted(row)]
        for app in self.apps.values():
            for servers in app.servers:
                await servers.adopt()
        await self._engine.restored()
        await asyncio.to_thread(self._end_strays)
        self._clear_scratch()
        for app in self.apps.values():
            undone = await app.versions.undo_swaps(holds=f"{MIGRATION}{app.production}")
            for version, other in undone.items():
                await self._was_undone(app, version, other)
            await app.versions.clear_passing()
            for servers in app.servers:
                await servers.go_on(lambda version, app=app: self._uses(app, version))  # type: ignore[misc]
        # Not before: what an earlier control had begun to start may run yet, or be taken for what this one starts.
        for deployment in self.known():
            if deployment.state is State.READY:
                self._crew(deployment).take_up()
                self._hold_data(deployment)
                if not deployment.key.is_production:
                    self._later(deployment, self.staffing.fill(deployment))
                elif self.is_production(deployment):
                    self._later(deployment, self._staff_all(deployment))
        for row in cut_off:
            self._go_on(row)
        for app in self.apps.values():
            for version in {version for servers in app.servers for version in servers.awake}:
                self._let_servers_rest(app, version)

    async def _adopted(self, row: dict[str, Any]) -> bool:
        """Whether workers that serve the deployment were found, and are ours again."""
        deployment = self.get(self.apps[row["app"]], row["commit"], row["version"])
        crew = self._crew(deployment)
        for name, stored in rows_of(row["worker"]).items():
            record, post = record_in(stored), deployment.posts[name]
            worker = await self._engine.adopt(record) if record else None
            if worker:
                since = post.since or processes.began_at(worker.record.identity)
                post.hold(worker)
                post.serves, post.since = True, since
                self._engine.adopted(worker)
            elif record:
                crew.was_gone(post, record.pid)
        serving = [post for post in deployment.posts.values() if post.serves]
        if not self._is_wanted(deployment) or not any(post.is_web for post in serving):
            await crew.stop("was stopped")
            return False
        deployment.advance(Cause.ADOPTED)
        deployment.ready_at = max(post.since for post in serving)
        if row["state"] != State.READY.value:  # nobody saw it become ready, or it was being stopped
            self._begin_stop(deployment, Cause.STOP)
            return False
        return True

    async def _staff_all(self, production: Deployment) -> None:
        """Production, and then those on its data that are kept warm."""
        await self.staffing.fill(production)
        for one in self.known():
            key = one.key
            if key.is_production and key.app == production.key.app and one is not production:
                await self.staffing.fill(one)

    def _go_on(self, row: dict[str, Any]) -> None:
        """A deploy that was cut off begins again; one whose worker ended meanwhile waits to be asked for."""
        deployment = self.get(self.apps[row["app"]], row["commit"], row["version"])
        if deployment.state is not State.STOPPING:
            deployment.found_down(State(row["state"]))
        if State(row["state"]) not in (State.READY, *PASSING):
            return  # only what was left of it ran
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
        ours = {worker.record.pid for one in self.known() for worker in one.workers}
        ours |= {pid for app in self.apps.values() for servers in app.servers for pid in servers.pids()}
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
            await asyncio.gather(*(crew.leave() for crew in self._crews.values()))
        else:
            await asyncio.gather(*map(self.stop, self.known()), return_exceptions=True)
            await asyncio.gather(*(one.cleared() for one in self.known()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not keep_workers:
            await self._engine.end_rest()
        await self._engine.close()

    async def leave(self, folder: Path) -> None:
        """A folder that nobody uses is to be removed: nothing of ours waits in it any more."""
        await self._engine.leave(folder)

    async def _was_undone(self, app: App, version: str, other: str) -> None:
        """Whoever runs on a version began before it got its data back; and a migration's command ran on others."""
        for one in self.known():
            if (one.key.app, one.key.version) == (app.name, version):
                await self.stop(one)
        changes = []
        if other.startswith(MIGRATION):
            candidate = self.get(app, other.removeprefix(MIGRATION), version)
            candidate.released = ""
            changes.append(store.put(store.deployments, **candidate.row()))
        self._events.append(ChangeUndone(app=app.name, version=version), *changes)

    async def discard(self, deployment: Deployment) -> None:
        """Stop it and remove its data: for what a promote makes. Never production's."""
        await self.stop(deployment)
        app = self.app(deployment.key.app)
        deploy = await self._deploy(app, deployment)
        await deploy.drop_data("the promote is over")

    def _begin(
        self, deployment: Deployment, only_build: bool, warm: bool, cause: Cause = Cause.ASKED
    ) -> None:
        if self._closing:
            return
        if self.standstills.holds(deployment):
            self.standstills.want(deployment)
            return
        self._deployments[deployment.id] = deployment
        deployment.only_build, deployment.wanted, deployment.for_now = only_build, False, False
        deployment.advance(cause)
        # People are at it, and it is built.
        at_once = bool(deployment.release) and self.is_production(deployment)
        turn = deployment.turn = self._turns.join(_rank(deployment, warm), deployment.moved_up, at_once)
        deployment.task = asyncio.create_task(
            self._deploying(deployment, turn), name=f"deploy {deployment.id}"
        )
        # Not in the task: one that is cancelled before it begins never runs a line.
        deployment.task.add_done_callback(lambda _: turn.release())

    async def _deploying(self, deployment: Deployment, turn: Turn) -> None:
        """A whole deploy; whatever goes wrong becomes a failure that people can read."""
        try:
            await deployment.cleared()
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
            self.let_servers_rest(deployment)
            self._later(deployment, deploy.settle(release))
            return
        asyncio.get_running_loop().call_later(START_SHARE, turn.release)
        if deployment.key.is_migration:
            await self._with_room(deployment, lambda: deploy.prepare(release))
            deployment.advance(Cause.BUILT)
            return
        counts = self.staffing.counts(deployment, release.plan)
        await self.make_place(deployment, lambda text: deployment.transcript.write(StepName.START, text))
        await self._with_room(deployment, lambda: deploy.run(release, names({WEB: counts[WEB]})))
        deployment.advance(Cause.ANSWERED)
        self._crew(deployment).take_up()
        turn.release()
        self._hold_data(deployment)
        # Somebody may have scaled it while it started, and production may have been elsewhere when control ended.
        now = self.staffing.counts(deployment, release.plan)
        if now != counts or sum(now.values()) > now[WEB] or self.is_production(deployment):
            self._later(deployment, self.staffing.fill(deployment))
        self._later(deployment, deploy.settle(release))
        await deploy.after(release)

    def _hold_data(self, deployment: Deployment) -> None:
        """Of production, which others are forked from: when its app has opened them, as it wants them opened."""
        if self.is_production(deployment) or self.standstills.is_exempt(deployment):
            lines = self.app(deployment.key.app).versions.lines
            self._later(deployment, _unless_unavailable(lines.hold(PRODUCTION)))

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

    async def deploy_of(self, deployment: Deployment, scratch: Path) -> Deploy:
        """What a deploy of it would be, for a command beside its workers: with temporary folders of its own.

        Raises Conflict while its data are being changed.
        """
        if self.standstills.holds(deployment):
            raise Conflict("Its data are being changed just now.", "Try again in a moment.")
        return replace(await self._deploy(self.app(deployment.key.app), deployment), scratch=scratch)

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
            self._store,
        )

    async def _broke(self, deployment: Deployment, problem: LazycloudError) -> None:
        if deployment.state is State.READY:
            log.error("%s is ready all the same: %s", deployment.id, problem)
            return
        failed = deployment.failed_step.value
        failure = Failure.of(failed, problem)
        if any(worker.outgrew for worker in deployment.workers):
            failure = replace(failure, advice=advice_on_data(deployment.key))
        # They stay its own meanwhile: who stops the deploy now finds them.
        await self._crew(deployment).dismiss("was not ready", web=True)
        deployment.advance(Cause.BROKE, failure)
        deployment.for_now = isinstance(problem, Busy)
        self._scratch(deployment)
        # Not what never was built, which can only fail again, nor half of a migration.
        if deployment.release and failed != StepName.RELEASE.value:
            self._restart_production(deployment)

    async def _stop(self, deployment: Deployment, deploying: asyncio.Task[None] | None, how: str) -> None:
        if deploying:
            await asyncio.gather(deploying, return_exceptions=True)
        if deployment.workers:
            await self._retire(deployment)
        await deployment.cleared()
        await self._crew(deployment).stop(how)
        if deployment.is_being_cancelled:
            deployment.advance(Cause.CANCELLED, deployment.failure)
        else:
            deployment.advance(Cause.GONE)
        self._scratch(deployment)
        if deployment.wanted:
            self.ask(deployment, retry=True)

    def _fell(self, deployment: Deployment, post: Post, worker: Worker, ended: Ended) -> None:
        """The last worker that served ended by itself: it is started again, unless that happens again and again."""
        if deployment.state is not State.READY:
            return
        crew = self._crew(deployment)
        crew.give_up_mending()
        if deployment.task and deployment.task is not asyncio.current_task():
            deployment.task.cancel()  # it may be at the step `after`
        lived = time.time() - deployment.ready_at
        crashes = self._crashes[deployment.id] = (
            self._crashes.get(deployment.id, 0) + 1 if lived < SOON else 1
        )
        sentence = f"The app was ready, and {in_seconds(lived)} later its process {post.ended}."
        last = tuple(worker.last_lines())
        advice = advice_on_data(deployment.key) if worker.outgrew else advice_of(last)
        if ended.status == 0 and lived >= SOON and not self.is_production(deployment):
            deployment.advance(Cause.QUIT)
        elif worker.outgrew and not self.is_production(deployment):  # so would the next one
            deployment.advance(Cause.OUTGREW, Failure("", sentence, f"{advice} Then start it again.", last))
        elif crashes <= TRIES:
            post.restarts += 1
            deployment.advance(Cause.ENDED, Failure("", sentence, advice or "It is started again.", last))
        else:
            times = f"It has crashed {crashes} times in a row."
            post.restarts += self.is_production(deployment)
            deployment.advance(Cause.CRASHED, Failure("", f"{times} {sentence}", advice, last))
        # Routers are not waited for: one may hang, and nothing is on its way to a worker that has ended.
        self._later(deployment, self._retire(deployment))
        deployment.clearing = asyncio.create_task(
            self._clear_away(deployment, worker), name=f"clear {deployment.id} away"
        )
        self._later(deployment, self._after_fall(deployment, deployment.clearing, pause(crashes)))

    async def _retire(self, deployment: Deployment) -> None:
        with suppress(Exception):
            await self.retire(deployment)

    async def _clear_away(self, deployment: Deployment, worker: Worker) -> None:
        """End what its last worker left, and of a preview all others; it is not started again before."""
        background = () if self.is_production(deployment) else (self._crew(deployment).stop("was stopped"),)
        for problem in await asyncio.gather(worker.stop(), *background, return_exceptions=True):
            if problem:
                log.error("What %s left may run on: %r", deployment.id, problem)

    async def _after_fall(self, deployment: Deployment, clearing: asyncio.Task[None], seconds: float) -> None:
        """When nothing of it is left, and after a pause, it is started again."""
        fallen = deployment.attempt, deployment.state
        await asyncio.wait([clearing])
        if (deployment.attempt, deployment.state) == fallen:
            self._scratch(deployment)
        if fallen[1] is State.RESTARTING or self.is_production(deployment):
            await asyncio.sleep(seconds)
            if (deployment.attempt, deployment.state) == fallen:
                again = Cause.AGAIN if fallen[1] is State.RESTARTING else Cause.ASKED
                self._begin(deployment, only_build=False, warm=False, cause=again)

    def _restart_production(self, deployment: Deployment) -> None:
        """Production that could not be started is tried for ever, at a bounded rate."""

        async def again() -> None:
            await asyncio.sleep(seconds)
            if self.is_production(deployment) and (deployment.attempt, deployment.state) == failed:
                self._begin(deployment, only_build=False, warm=False)

        if self.is_production(deployment):
            failed = deployment.attempt, deployment.state
            crashes = self._crashes[deployment.id] = self._crashes.get(deployment.id, 0) + 1
            seconds = pause(crashes)
            self._later(deployment, again())

    def is_production(self, deployment: Deployment) -> bool:
        """Whether its app's pointer stands at it: not so a candidate, nor one that is kept warm."""
        app = self.apps.get(deployment.key.app)
        return app is not None and self.production(app) is deployment

    def _later(self, deployment: Deployment, work: Coroutine[None, None, None]) -> None:
        """Own a task that outlives its deployment's attempt."""
        self._later_for(deployment.id, work)

    def _later_for(self, what: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"after {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def let_servers_rest(self, deployment: Deployment) -> None:
        """Nothing of it runs any more: what its data are kept by rests with it, unless others use that."""
        app, version = self.apps.get(deployment.key.app), deployment.key.version
        if app and any(version in servers.awake for servers in app.servers):
            self._let_servers_rest(app, version)

    def _let_servers_rest(self, app: App, version: str) -> None:
        async def rest() -> None:
            for servers in app.servers:
                await servers.rest(version, lambda: self._uses(app, version))

        if not self._uses(app, version):
            self._later_for(f"{version} of {app.name}", rest())

    def _uses(self, app: App, version: str) -> bool:
        """Whether anything runs on that version, or will in a moment."""
        return any(
            one.key.app == app.name
            and one.key.version == version
            and (one.workers or one.errands or one.state in (State.READY, *PASSING))
            for one in self.known()
        )

    def _scratch(self, deployment: Deployment) -> None:
        """What its workers had for a moment goes with the last of them."""
        if deployment.workers:
            return
        self.let_servers_rest(deployment)
        for folder in self._config.scratch_folders(deployment.id):
            trees.remove(folder)

    def _clear_scratch(self) -> None:
        """What workers that are gone left in their temporary folders."""
        workers = [one for one in self.known() if one.workers]
        live = {folder for one in workers for folder in self._config.scratch_folders(one.id)}
        for folder in self._config.scratch.glob("*"):
            if folder not in live:
                trees.remove(folder)


async def _unless_unavailable(work: Coroutine[None, None, None]) -> None:
    """Whoever needs it tries again."""
    try:
        await work
    except LazycloudError as problem:
        log.warning("%s", problem)


def in_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


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
