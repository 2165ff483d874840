"""One deploy: source, dependencies, build, data, release, start, ready, after.

Reads from top to bottom as it happens. Every step is timed, its output streamed, its failure a sentence.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from lazycloud import store
from lazycloud.build.commit import Commit
from lazycloud.build.plan import Plan
from lazycloud.build.stages import Release
from lazycloud.data.names import PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.post import WEB, Post
from lazycloud.deployments.steps import Outcome, Step, StepName
from lazycloud.errors import LazycloudError, StepFailed
from lazycloud.events import EventLog, VersionDropped, VersionForked, WorkerStarted
from lazycloud.processes import Output, unheard
from lazycloud.states import Cause
from lazycloud.store import Store
from lazycloud.walls.view import View
from lazycloud.workers.engine import Engine
from lazycloud.workers.environment import worker_environment
from lazycloud.workers.preload.start import Venv
from lazycloud.workers.worker import Launch, Worker
from lazycloud.workforce import Limits

log = logging.getLogger(__name__)

FIRST_ANSWERS = 2.0  # seconds that a new worker has for its first answers before the disk is made busy
ANCESTORS = 1000  # how far back `from = "parent"` looks for data


@dataclass(frozen=True)
class Deploy:
    """What a deploy needs beside the deployment. `address` is the URL at which it will be found."""

    app: App
    commit: Commit
    deployment: Deployment
    engine: Engine
    log: EventLog
    address: str
    scratch: Path  # a folder that lives no longer than the worker: HOME and TMPDIR
    timezone: str
    home: Path  # the server's
    limits: Limits
    state: Store

    async def build(self) -> Release:
        """The steps that leave a release; they know nothing of data and workers."""
        with self._step(StepName.SOURCE) as (step, output):
            source = await self.app.stages.source(self.commit, output)
            self.deployment.uses = source.uses
            step.state = Outcome.REUSED if source.reused or source.fetched else Outcome.DONE
            step.note = _origin(source.fetched)
        with self._step(StepName.DEPENDENCIES) as (step, output):
            dependencies = await self.app.stages.dependencies(source, output)
            step.state = _outcome(dependencies.reused or dependencies.fetched, dependencies.skipped)
            step.note = _origin(dependencies.fetched)
        with self._step(StepName.BUILD) as (step, output):
            release = await self.app.stages.build(source, dependencies, output)
            step.state = _outcome(release.reused or release.fetched, release.skipped)
            step.note = _origin(release.fetched and not release.skipped)
        self.deployment.release = release.key
        self.engine.prepare(replace(self._launch(release), view=None))
        return release

    async def run(self, release: Release, posts: Sequence[str]) -> None:
        """The steps from data to workers that are ready, at posts of the kind that serves."""
        await self._show_early(release)
        await self.prepare(release)
        self.deployment.advance(Cause.LAUNCHED)
        with self._step(StepName.START) as (_, output):
            output(f"$ {release.plan.run or f'the command of {release.image}'}\n")
            workers = [(name, await self._start(release, name, output)) for name in posts]
        with self._step(StepName.READY) as (_, output):
            await asyncio.gather(*(worker.ready(output) for _, worker in workers))
        for name, worker in workers:
            self.deployment.posts[name].hold(worker)
            self.deployment.posts[name].serves = True

    async def prepare(self, release: Release) -> None:
        """The steps that make its data what its workers are to find."""
        with self._step(StepName.DATA) as (step, output):
            await self._data(release, step, output)
        with self._step(StepName.RELEASE) as (step, output):
            await self._release_command(release, step, output)

    async def _show_early(self, release: Release) -> None:
        """Let walls be made while data are copied: they show the folder that will have been the version's."""
        if self.engine.name != "sandbox" or self._own_copy(release):
            return
        launch, data = self._launch(release), self.app.versions.place(self.deployment.key.version)
        await asyncio.to_thread(self._make_scratch, release)
        begun = await asyncio.to_thread(self.app.versions.begin, self.deployment.key.version)
        if launch.view and begun != data:
            launch = replace(launch, view=replace(launch.view, write=(), copies=((begun, data),)))
        self.engine.prepare(launch)

    async def again(self) -> Release:
        """The release that it was deployed as, for another worker of it; nobody watches."""
        stages = self.app.stages
        source = await stages.source(self.commit, unheard)
        self.deployment.uses = source.uses
        dependencies = await stages.dependencies(source, unheard)
        return await stages.build(source, dependencies, unheard)

    async def is_built(self) -> bool:
        """Whether its whole release is on the disk. Raises BadInput, StepFailed for a commit that cannot be."""
        _, recipe = await self.app.stages.recipe(self.commit)
        return await asyncio.to_thread(self.app.stages.is_made, recipe)

    async def beside(self, name: str) -> Launch:
        """How a command of that name is run in the release that was built, on data that is made if there is none.

        No step of the deployment; what the command uses is noted there, under its name, and stays on the disk.
        """
        stages = self.app.stages
        source = await stages.source(self.commit, unheard)
        self.deployment.errands[name] = source.uses
        release = await stages.build(source, await stages.dependencies(source, unheard), unheard)
        await self._ensure_data(release)
        await asyncio.to_thread(self._make_scratch, release)
        launch = self._launch(release, await self._found(release))
        environment = {**launch.environment, "LAZYCLOUD_WORKER": name.removeprefix(f"{self.deployment.id}.")}
        return replace(launch, name=name, environment=environment, listens=False)

    async def hire(self, release: Release, name: str) -> Worker:
        """Another worker for a post, once it is ready. Raises StepFailed, and leaves nothing that runs then."""
        worker = await self._spawn(release, name, unheard)
        try:
            await worker.ready()
        except BaseException:
            await asyncio.shield(worker.stop())
            raise
        return worker

    async def settle(self, release: Release) -> None:
        """What makes the next start faster and outlives a power cut, when nobody waits for it."""
        await asyncio.sleep(FIRST_ANSWERS)
        try:
            await self.app.stages.settle(release)
        except OSError as problem:
            log.warning("The release of %s could not be settled: %s", self.deployment.id, problem)

    async def after(self, release: Release) -> None:
        """What the app wants done once it answers. Its failure is told, and hurts nobody."""
        with self._step(StepName.AFTER) as (step, output):
            if not release.plan.after:
                step.state = Outcome.SKIPPED
                return
            try:
                await self._command(release, release.plan.after, output)
            except (LazycloudError, OSError) as problem:
                step.state, step.note = Outcome.FAILED, str(problem)

    async def _data(self, release: Release, step: Step, output: Output) -> None:
        step.note = await self._ensure_data(release)
        if step.note:
            output(f"Data of its own: {step.note}\n")
        else:
            step.state = Outcome.REUSED

    async def _ensure_data(self, release: Release) -> str:
        """Fork its version, unless that exists; what was forked, or "". Raises StepFailed."""
        version = self.deployment.key.version
        if self.app.versions.exists(version):
            return await self.app.versions.complete(version, beside(release.plan))
        self.deployment.released = ""  # what was known of its data was of others, which are gone
        if planned := self._planned_fork(version):
            return await self._fork(release, version, *planned)
        source = await self._data_source(release.plan.data_from)
        if source == PRODUCTION and not self.app.versions.exists(PRODUCTION):
            await self._fork(release, PRODUCTION, None)
        return await self._fork(release, version, source)

    def _planned_fork(self, version: str) -> tuple[str, str] | None:
        """The source and the snapshot that somebody chose for it, whose bytes are made now."""
        if self.deployment.forked_at:
            return PRODUCTION, self.deployment.forked_at
        rows = self.state.rows(store.versions, app=self.app.name, name=version, pending=True)
        return (rows[0]["source"], rows[0]["snapshot"]) if rows else None

    async def _data_source(self, wish: str) -> str | None:
        """The version to fork from, None for empty data."""
        if self.deployment.key.is_production or wish == "empty":
            return None
        if wish == "parent":
            for ancestor in await self.app.repository.ancestors(self.commit.id, ANCESTORS):
                if self.app.versions.exists(ancestor):
                    return ancestor
        return PRODUCTION

    async def _fork(self, release: Release, version: str, source: str | None, at: str = "") -> str:
        fork = await self.app.versions.fork(version, source, at or None, beside(release.plan))
        if not fork.made:  # by somebody else, just now
            return _size(fork.bytes)
        self.log.append(
            VersionForked(
                app=self.app.name,
                deployment=self.deployment.id,
                version=version,
                source=source or "",
                size=fork.bytes,
                seconds=fork.seconds,
            ),
            store.put(
                store.versions,
                app=self.app.name,
                name=version,
                source=source or "",
                forked=time.time(),
                size=fork.bytes,
                snapshot=at,
                pending=False,
                used=time.time(),
            ),
        )
        made = (
            f"{_size(fork.bytes)} from {source if source == PRODUCTION else source[:10]}" if source else "new"
        )
        return f"{made}; {fork.note}" if fork.note else made

    async def _release_command(self, release: Release, step: Step, output: Output) -> None:
        command = release.plan.release
        if not command:
            step.state = Outcome.SKIPPED
        elif self.deployment.released == release.key:
            step.state = Outcome.REUSED
        else:
            await self._run_on_data(release, command, output)
            self.deployment.released = release.key

    async def _run_on_data(self, release: Release, command: str, output: Output) -> None:
        """A preview whose first release command fails, or is cut off, gives its half-changed data up.

        A retry forks anew, at the same snapshot if somebody chose that. Not so where there are snapshots of it: then
        it is no fresh fork, as after a restore, and they would go with it. They lead back.
        """
        deployment = self.deployment
        try:
            await self._command(release, command, output)
        except (StepFailed, asyncio.CancelledError):
            is_first = not deployment.key.is_production and not deployment.released
            if is_first and not self.app.versions.snapshots(deployment.key.version):
                await asyncio.shield(self.drop_data("its release command did not succeed", again=True))
            raise

    async def drop_data(self, why: str, again: bool = False) -> None:
        """`again`: at the next deploy it is forked at the same snapshot, if it was at one."""
        version = self.deployment.key.version
        forget = store.forget_version(self.app.name, version)
        for row in self.state.rows(store.versions, app=self.app.name, name=version):
            if again and row["snapshot"]:
                forget = store.put(store.versions, **row | {"pending": True, "size": 0})
        await self.app.versions.drop(version)
        self.deployment.released = ""
        self.log.append(
            VersionDropped(app=self.app.name, deployment=self.deployment.id, version=version, why=why),
            forget,
            store.put(store.deployments, **self.deployment.row()),
        )

    async def _command(self, release: Release, command: str, output: Output) -> None:
        output(f"$ {command}\n")
        await asyncio.to_thread(self._make_scratch, release)
        launch = self._launch(release, await self._found(release))
        launch = replace(launch, environment={**launch.environment, "FORCE_COLOR": "1"})
        await self.engine.run(launch, command, output, release.plan.release_timeout)

    async def _start(self, release: Release, name: str, output: Output) -> Worker:
        """At a post: whoever stops the deployment now finds it there."""
        post = self.deployment.posts.setdefault(name, Post(name))
        worker = await self._spawn(release, name, output)
        post.hold(worker)
        self._tell_start(name, worker)
        return worker

    async def _spawn(self, release: Release, name: str, output: Output) -> Worker:
        await asyncio.to_thread(self._make_scratch, release)
        return await self.engine.start(self._launch(release, await self._found(release), name), output)

    def _tell_start(self, name: str, worker: Worker) -> None:
        self.log.append(
            WorkerStarted(
                app=self.app.name,
                deployment=self.deployment.id,
                process=name,
                pid=worker.record.pid,
                address=worker.address,
            ),
            store.put(store.deployments, **self.deployment.row()),
        )

    async def _found(self, release: Release) -> dict[str, str]:
        """What its worker finds its data by."""
        return await self.app.versions.full_environment(self.deployment.key.version, beside(release.plan))

    def _launch(
        self, release: Release, found: Mapping[str, str] | None = None, name: str = f"{WEB}.1"
    ) -> Launch:
        """`found`: what it finds its data by; None while that is not made yet."""
        plan, post = release.plan, Post(name)
        return Launch(
            command=plan.run if post.is_web else plan.background[post.kind],
            folder=release.folder,
            environment={**self._environment(release, found), "LAZYCLOUD_WORKER": name},
            log=self.deployment.log_of(name),
            listens=post.is_web,
            health=plan.health if post.is_web else None,
            health_interval=plan.health_interval,
            health_timeout=plan.health_timeout,
            ready_timeout=plan.ready_timeout,
            stop_timeout=plan.stop_timeout,
            health_host=urlsplit(self.address).netloc,
            venv=_shared_venv(release) if plan.preload else None,
            name=f"{self.deployment.id}.{name}.{secrets.token_hex(4)}",
            view=self._view(release),
            limits=self.limits,
            data=(self.app.versions.place(self.deployment.key.version), self.scratch),
            image=release.image,
            reaches=self.app.versions.beside.reached(self.deployment.key.version, beside(release.plan)),
        )

    def _view(self, release: Release) -> View:
        """Its release, and its own data; nothing else of the server's folder."""
        data, copy = self.app.versions.place(self.deployment.key.version), self._own_copy(release)
        copies = ((copy, release.folder),) if copy else ()
        read = (*release.shown, *self.app.versions.beside.places(beside(release.plan)))
        return View(self.home, read, (data,), scratch=self.scratch, fresh=release.own, copies=copies)

    def _own_copy(self, release: Release) -> Path | None:
        """Where the files are that this deployment may change, and no other sees; None where it may not.

        Beside its scratch folder and not in it: what is written there decides nothing about what is shown.
        """
        if not release.plan.writable or self.engine.name == "none":
            return None
        return self.scratch.with_name(f"{self.scratch.name}.{release.key[:12]}")

    @contextmanager
    def _step(self, name: StepName) -> Iterator[tuple[Step, Output]]:
        def output(text: str) -> None:
            self.deployment.transcript.write(name, text)

        with self.deployment.step(name) as step:
            yield step, output

    def _environment(self, release: Release, found: Mapping[str, str] | None) -> dict[str, str]:
        key = self.deployment.key
        contract = {
            "COMMIT_ID": key.commit,
            "LAZYCLOUD_APP": key.app,
            "LAZYCLOUD_VERSION": PRODUCTION if key.is_migration else key.version,
            "LAZYCLOUD_URL": self.address,
            **(self.app.versions.environment(key.version) if found is None else found),
        }
        return worker_environment(release.environment, contract, self.scratch, self.timezone)

    def _make_scratch(self, release: Release) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        copy = self._own_copy(release)
        if copy and not copy.exists():
            making = Path(tempfile.mkdtemp(dir=copy.parent, prefix=f"{copy.name}."))
            shutil.copytree(release.folder, making, symlinks=True, dirs_exist_ok=True)
            with suppress(OSError):  # another worker of this deployment was faster
                making.rename(copy)


def _shared_venv(release: Release) -> Venv | None:
    """The Python environment that the release shares with others of its app, if it does; for a folder, ours."""
    app = release.folder.parent.parent.parent  # <app>/releases/<key>/tree
    if release.plan.roots:
        is_venv = sys.prefix != sys.base_prefix
        return Venv(Path(sys.prefix), app / "static" / "preload") if is_venv else None
    venv = Path(release.environment.get("VIRTUAL_ENV", "/"))
    return Venv.at(venv) if venv.parent.parent == app / "environments" else None


def beside(plan: Plan) -> list[str]:
    """The names of what its data have beside a folder."""
    return [
        *(["postgres"] if plan.data_database == "postgres" else []),
        *(["redis"] if plan.data_redis else []),
        *(["versionbase"] if plan.data_versionbase else []),
    ]


def _outcome(reused: bool, skipped: bool) -> Outcome:
    if skipped:
        return Outcome.SKIPPED
    return Outcome.REUSED if reused else Outcome.DONE


def _origin(fetched: bool) -> str:
    return "fetched" if fetched else ""


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
