"""The pointer app -> commit: promote, roll back, follow a branch.

A promote reads as four sentences: rehearse on a fork what would change production's data, start the new worker
on production's data, move the pointer, let the old one finish. Until the pointer moves, a failure changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from lazycloud import store
from lazycloud.build.commit import Commit
from lazycloud.config import Config
from lazycloud.data.names import MIGRATION, PASSING, PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.migration import Migration
from lazycloud.deployments.schemas import Schemas
from lazycloud.deployments.snapshots import Snapshots
from lazycloud.errors import Conflict, LazycloudError, NotFound, StepFailed
from lazycloud.events import CommitAnnounced, EventLog, FetchFailed, Promoted, PromoteFailed, SchemaMoved
from lazycloud.states import State
from lazycloud.store import Store

log = logging.getLogger(__name__)

TELLING = 1.0  # seconds for routers to learn of the last promote, and to have drained
PATIENCE = 3600.0  # seconds that a promote may take in all: a build, a migration, a start
LOOK_EVERY = 0.25  # seconds between looks at a local repository's refs; a look is a few stat calls


_WHERE = {
    "rehearsal": "In the rehearsal on a fork of production’s data: ",
    "migration": "Production’s data are as they were: ",
}


class Production:
    """Moves the pointers of all apps of a fleet."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        events: EventLog,
        state: Store,
        snapshots: Snapshots,
        schemas: Schemas,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._events = events
        self._store = state
        self._snapshots = snapshots
        self._schemas = schemas
        self._promoting: dict[str, asyncio.Task[None]] = {}
        self._candidates: dict[str, Deployment] = {}  # of promotes that may still be cancelled, by app
        self._cancelled: dict[str, str] = {}  # app -> by whom its promote was cancelled
        self._next: dict[str, Commit] = {}  # what a followed branch came to while a promote was under way
        self._pointing: set[str] = set()  # apps whose pointer is just being written
        self._ending = False
        self._letting_go: set[asyncio.Task[None]] = set()
        self._watchers: list[asyncio.Task[None]] = []
        self._heads: dict[str, dict[str, str]] = {}
        self._warming: dict[tuple[str, str], Deployment] = {}  # by app and ref
        self._fetch_soon: set[str] = set()  # apps whose remote has moved, as it says
        self.moved: Callable[[App], None] = lambda app: None  # told when a branch or tag of an app moves

    async def open(self, app: App, wish: str = "") -> None:
        """Set the pointer: where it was, else the wished revision, else the default branch's head."""
        history = self._store.history(app.name, limit=1)
        if history:
            app.production = history[0]["commit"]
            return
        commit = await app.repository.revision(wish) if wish else await app.repository.head()
        if commit:
            await self._point(app, commit.id, "lazycloud", "first start")

    def start(self, app: App) -> None:
        """Start production's worker, and look out for new commits."""
        if deployment := self._fleet.production(app):
            self._fleet.ask(deployment, retry=True)
        self._watchers.append(asyncio.create_task(self._watch(app), name=f"watch {app.name}"))

    def fetch_soon(self, app: App) -> None:
        """Its remote says that something moved there: it is looked at now, and what moved is announced."""
        self._fetch_soon.add(app.name)

    async def end_promotes(self) -> None:
        """While routers can still be told: they would go on to the old one for as long as the next control takes.

        A promote that has not come to its pointer is given up; one that is writing it ends as it would.
        """
        self._ending = True
        self._next.clear()
        promoting = dict(self._promoting)
        for app, task in promoting.items():
            if app not in self._pointing:
                task.cancel()
        await asyncio.gather(*promoting.values(), return_exceptions=True)
        if self._letting_go:
            await asyncio.wait(self._letting_go, timeout=TELLING)

    async def close(self) -> None:
        self._next.clear()
        for task in (tasks := [*self._watchers, *self._promoting.values(), *self._letting_go]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def promote(self, app: App, commit: Commit, who: str, why: str) -> Deployment:
        """Begin; how it ends is an event, Promoted or PromoteFailed. Raises Conflict while one is under way."""
        if self._ending:
            raise Conflict("lazycloud is being replaced, or stopped.", "Try again in a moment.")
        if app.name in self._promoting:
            raise Conflict(f"A promote of {app.name} is under way.", "Wait for it to end, then try again.")
        candidate = self._fleet.get(app, commit.id, PRODUCTION)
        if commit.id == app.production and candidate.state is State.READY:
            raise Conflict(f"{commit.short} is production of {app.name} already.")
        task = asyncio.create_task(
            self._promoting_to(app, commit, candidate, who, why), name=f"promote {app.name} {commit.short}"
        )
        self._promoting[app.name], self._candidates[app.name] = task, candidate
        task.add_done_callback(lambda _: self._promoted(app))
        return candidate

    def is_promoting(self, app: App) -> bool:
        """Whether its pointer is about to move."""
        return app.name in self._promoting

    async def cancel(self, app: App, commit: Commit, who: str) -> list[Deployment]:
        """End what is under way of a commit, its deploy and its promote; those that were ended.

        Production stays what it is: it is not cancelled itself, nor is a promote whose pointer is being written.
        """
        candidate = self._fleet.get(app, commit.id, PRODUCTION)
        versions = (PRODUCTION, *(f"{start}{commit.id}" for start in PASSING), commit.id)
        deployments = [self._fleet.get(app, commit.id, version) for version in versions]
        under_way = [one for one in deployments if one.is_deploying and not self._fleet.is_production(one)]
        cancelled = [one for one in under_way if await self._fleet.cancel(one, who)]
        if self._candidates.get(app.name) is candidate:
            self._cancelled[app.name] = who  # it may be between its rehearsal and its start
            cancelled = cancelled or [candidate]
        return cancelled

    def _promoted(self, app: App) -> None:
        """A promote has ended, well or not: the one that waited for it may begin."""
        del self._promoting[app.name]
        self._pointing.discard(app.name)
        self._candidates.pop(app.name, None)
        self._cancelled.pop(app.name, None)
        commit = self._next.pop(app.name, None)
        if commit and commit.id != app.production:
            self._follow(app, commit)

    def _follow(self, app: App, commit: Commit) -> None:
        if self._ending:
            return  # the next control looks where the branch is
        if app.name in self._promoting:
            self._next[app.name] = commit
        else:
            self.promote(app, commit, f"following {app.follow}", commit.subject)

    async def before(self, app: App) -> Commit:
        """The commit that a rollback goes to: production before the present one. Raises NotFound."""
        for row in self._store.history(app.name):
            if row["commit"] != app.production:
                return await app.commit(row["commit"])
        raise NotFound(f"{app.name} has had one production commit only.", "There is nothing to go back to.")

    async def announce(self, app: App, commit: Commit, ref: str) -> str:
        """A branch or tag is at a commit now; says what is done about it: announce, build, start, promote."""
        heads = self._heads.setdefault(app.name, {})
        known = heads.get(ref) == commit.id
        heads[ref] = commit.id
        if not known:
            self.moved(app)
        follows = bool(app.follow) and ref == f"refs/heads/{app.follow}"
        action = "promote" if follows else await _on_commit(app, commit)
        if known:
            return action
        address = self._config.addresses.label(app.domain, commit.short)
        short_ref = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        self._events.append(
            CommitAnnounced(
                app=app.name,
                commit=commit.id,
                ref=short_ref,
                subject=commit.subject,
                address=address,
                action=action,
            )
        )
        before = self._warming.pop((app.name, ref), None)
        if action == "promote" and commit.id != app.production:
            self._follow(app, commit)
        elif action in ("build", "start"):
            warmer = self._warming[app.name, ref] = self._fleet.get(app, commit.id)
            self._fleet.ask(warmer, only_build=action == "build", warm=True)
        if before and before not in self._warming.values():
            self._fleet.supersede(before)
        return action

    async def _promoting_to(
        self, app: App, commit: Commit, candidate: Deployment, who: str, why: str
    ) -> None:
        before = app.production
        try:
            async with asyncio.timeout(PATIENCE):
                await app.versions.settle(PRODUCTION, f"{MIGRATION}{before}")
                migration = self._migration(app, commit, candidate, who)
                if await migration.is_due():
                    await migration.rehearse()
                    async with migration.carried_out():
                        await self._start_and_point(app, candidate, who, why)
                else:
                    if app.versions.exists(PRODUCTION):
                        await self._snapshots.take(app, PRODUCTION, "promote", who)
                    await self._start_and_point(app, candidate, who, why)
                self._fleet.ask(candidate, retry=True)  # should it have crashed at this very moment
        except TimeoutError:
            self._tell_failure(
                app, commit, who, StepFailed(f"It took more than {PATIENCE / 60:.0f} minutes.")
            )
        except LazycloudError as problem:
            self._tell_failure(app, commit, who, problem)
        except OSError as problem:
            self._tell_failure(app, commit, who, StepFailed(f"It could not be written down: {problem}."))
        except Exception as bug:
            log.exception("The promote of %s met a bug", commit.id)
            self._tell_failure(app, commit, who, StepFailed(f"lazycloud itself failed: {bug!r}."))
        else:
            if any(row["commit"] == commit.id for row in self._store.history(app.name)[1:]):
                self._own(self._tell_moved(app, commit), f"how the data of {app.name} moved")
            # An old request may take long to end; the next promote need not wait for it.
            self._own(
                self._let_go(app, before, self._older(app, before)), f"let {before[:10]} of {app.name} go"
            )

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _tell_moved(self, app: App, commit: Commit) -> None:
        """A commit is production again: whether others have changed the schema of its data since."""
        try:
            moved = await self._schemas.moved(app, commit.id)
        except (LazycloudError, OSError) as problem:
            log.warning("Whether the schema of %s has moved is not known: %s", app.name, problem)
            return
        if moved:
            self._events.append(
                SchemaMoved(app=app.name, commit=commit.id, changes=moved.changes, snapshot=moved.snapshot)
            )

    def _migration(self, app: App, commit: Commit, candidate: Deployment, who: str) -> Migration:
        return Migration(
            app,
            commit,
            candidate,
            who,
            self._fleet,
            self._snapshots,
            self._schemas,
            self._events,
            self._start,
        )

    async def _start_and_point(self, app: App, candidate: Deployment, who: str, why: str) -> None:
        await self._start_candidate(app, candidate)
        self._pointing.add(app.name)
        await self._point(app, candidate.key.commit, who, why)

    async def _start_candidate(self, app: App, candidate: Deployment) -> None:
        """The last moment at which a promote can be cancelled is its end."""
        was_warm = candidate.state is State.READY
        await self._start(candidate)
        del self._candidates[app.name]
        if who := self._cancelled.get(app.name):
            if not was_warm:
                await self._fleet.stop(candidate)
            raise _cancelled(who)

    async def _start(self, deployment: Deployment) -> None:
        if who := self._cancelled.get(deployment.key.app):
            raise _cancelled(who)
        self._fleet.ask(deployment, retry=True)
        if await self._fleet.running(deployment, PATIENCE) or _has_migrated(deployment):
            return
        failure = deployment.failure
        if failure is None:
            raise StepFailed("It was stopped before it was ready.")
        if failure.cancelled_by:
            raise _cancelled(failure.cancelled_by)
        where = _WHERE.get(deployment.key.version.partition("-")[0], "")
        raise StepFailed(f"{where}{failure.sentence}", failure.advice, failure.last)

    async def _point(self, app: App, commit_id: str, who: str, why: str) -> None:
        """Durable first, then true: a crash between the two finds the new pointer on disk."""
        before = app.production
        await self._events.commit(
            Promoted(app=app.name, commit=commit_id, before=before, who=who, why=why),
            store.promotions.insert().values(
                app=app.name, commit=commit_id, at=time.time(), who=who, why=why
            ),
        )
        app.production = commit_id

    def _older(self, app: App, before: str) -> list[Deployment]:
        """Deployments on production's data that are neither production nor the one before it."""
        ours = [one for one in self._fleet.known() if one.key.app == app.name and one.key.is_production]
        return [one for one in ours if one.key.commit not in (app.production, before)]

    async def _let_go(self, app: App, before: str, older: list[Deployment]) -> None:
        """New requests go to the new one; the one before stays warm for a rollback, older ones stop."""
        if not before or before == app.production:
            await self._fleet.staffing.hand_over(app)
            return
        await asyncio.gather(
            self._fleet.retire(self._fleet.get(app, before, PRODUCTION)), self._fleet.staffing.hand_over(app)
        )
        for old in older:
            # Another promote may have come meanwhile, and may want just that one.
            if app.name not in self._promoting and self._fleet.production(app) is not old:
                await self._fleet.stop(old)

    def _tell_failure(self, app: App, commit: Commit, who: str, problem: LazycloudError) -> None:
        self._events.append(
            PromoteFailed(
                app=app.name, commit=commit.id, who=who, problem=problem.sentence, advice=problem.advice
            )
        )

    async def _watch(self, app: App) -> None:
        """Announce what moves in the repository, whoever moved it; fetch a followed branch from its remote."""
        signature, fetched = app.repository.signature(), time.monotonic()
        refs = await app.repository.refs()
        self._heads[app.name] = {ref.full_name: ref.commit for ref in refs}
        if app.follow:
            if f"refs/heads/{app.follow}" not in self._heads[app.name]:
                log.warning("%s has no branch “%s” to follow yet", app.name, app.follow)
            await self._catch_up(app)
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                due = app.name in self._fetch_soon or time.monotonic() - fetched > self._config.fetch_every
                if app.repository.is_remote and due:
                    fetched = time.monotonic()
                    await self._fetch(app)
                if (now := app.repository.signature()) != signature:
                    await self._look(app)
                    signature = now
            except LazycloudError:
                pass  # the remote is away, the repository is being moved: it is looked at again
            except Exception:
                log.exception("%s could not be looked at; going on", app.name)

    async def _fetch(self, app: App) -> None:
        """What fails is told when a webhook asked for it: a remote that is away for a while is nobody's news."""
        asked = app.name in self._fetch_soon
        self._fetch_soon.discard(app.name)
        try:
            await app.repository.fetch()
        except LazycloudError as problem:
            if asked:
                self._events.append(FetchFailed(app=app.name, problem=problem.sentence))
            raise

    async def _look(self, app: App) -> None:
        refs, heads = await app.repository.refs(), self._heads[app.name]
        if removed := heads.keys() - {ref.full_name for ref in refs}:
            for name in removed:
                del heads[name]
            self.moved(app)
        for ref in refs:
            if heads.get(ref.full_name) != ref.commit:
                await self.announce(app, await app.commit(ref.commit), ref.full_name)

    async def _catch_up(self, app: App) -> None:
        """A followed branch may have moved while the server was down."""
        head = self._heads[app.name].pop(f"refs/heads/{app.follow}", "")
        if head and head != app.production:
            await self.announce(app, await app.commit(head), f"refs/heads/{app.follow}")


def _cancelled(who: str) -> StepFailed:
    return StepFailed(f"It was cancelled by {who}.", "Production is what it was.")


async def _on_commit(app: App, commit: Commit) -> str:
    """What the commit itself asks for; one that cannot be run is only announced, its page tells why."""
    try:
        return (await app.plan(commit)).on_commit
    except LazycloudError:
        return "announce"


def _has_migrated(deployment: Deployment) -> bool:
    """Of one that is to be no more than that."""
    return deployment.key.is_migration and deployment.failure is None and bool(deployment.released)
