"""One (commit, version) and its life: its state, its last attempt's steps, a gate for those who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lazycloud import store
from lazycloud.build.commit import SHORT
from lazycloud.data.names import MIGRATION, PRODUCTION
from lazycloud.deployments.post import WEB, Post, rows_of
from lazycloud.deployments.steps import Outcome, Step, StepName, fresh
from lazycloud.deployments.transcript import Transcript
from lazycloud.deployments.turns import Turn
from lazycloud.errors import LazycloudError, StepFailed
from lazycloud.events import EventLog, Output, StateChanged, StepFinished, StepStarted
from lazycloud.states import DEPLOYING, PASSING, Cause, State, advance
from lazycloud.workers.worker import Worker

READ_ONLY = (  # as the C library says it, Node.js, and SQLite of a database that lies beside the code
    "Read-only file system",
    "EROFS",
    "unable to open database file",
    "attempt to write a readonly database",
)


@dataclass(frozen=True)
class Failure:
    """Why the last attempt failed. `step` is "" when the worker ended by itself later on, or somebody cancelled."""

    step: str
    sentence: str
    advice: str = ""
    last: tuple[str, ...] = ()
    cancelled_by: str = ""

    @classmethod
    def of(cls, step: str, problem: LazycloudError) -> Failure:
        last = problem.last if isinstance(problem, StepFailed) else ()
        return cls(step, problem.sentence, advice_of(last) or problem.advice, tuple(last))

    @classmethod
    def cancelled(cls, who: str) -> Failure:
        advice = "It is begun again when somebody asks for that."
        return cls("", f"The deploy was cancelled by {who}.", advice, cancelled_by=who)


def advice_of(last: Sequence[str]) -> str:
    """What to do when an app's last lines say that it wrote into its release, which is read-only behind walls."""
    if not any(word in line for line in last for word in READ_ONLY):
        return ""
    return (
        "Let the app write to the folder that $DATA_DIR names, or to $TMPDIR; "
        "or say `writable = true` under [run] in lazycloud.toml."
    )


def advice_on_data(key: Key) -> str:
    """What to do about data that are larger than a worker may have."""
    anew = "" if key.is_production else f", or fork them anew (`lazycloud data reset {key.ref}`)"
    return (
        f"Remove what it need not keep (`lazycloud run {key.ref} -- rm …`){anew}; "
        "or raise `disk` under [workers] in the server’s config.toml."
    )


@dataclass(frozen=True)
class Key:
    """What a deployment is one of: a commit (full id) of an app, on a version of its data."""

    app: str
    commit: str
    version: str

    @property
    def id(self) -> str:
        """Fit for a file's name: `shop.3f2a…`, and `shop.3f2a….production`."""
        own = self.version == self.commit
        return f"{self.app}.{self.commit}" + ("" if own else f".{self.version}")

    @property
    def ref(self) -> str:
        """What commands call it: `production`, or the first letters of its commit."""
        return PRODUCTION if self.is_production else self.commit[:SHORT]

    @property
    def is_production(self) -> bool:
        return self.version == PRODUCTION

    @property
    def is_migration(self) -> bool:
        """Only its release command is run."""
        return self.version.startswith(MIGRATION)


class Deployment:
    """Made cold; `restore` gives it what the store knew of it."""

    def __init__(self, key: Key, log: EventLog, folder: Path) -> None:
        self.key = key
        self.state = State.COLD
        self.attempt = 0
        self.steps = fresh()
        self.failure: Failure | None = None
        self.posts: dict[str, Post] = {}  # by name: web.1, web.2, clock.1
        self.release = ""  # key of the release that was last deployed
        self.uses: tuple[
            Path, ...
        ] = ()  # folders that its last deploy took: they stay while it goes on, or runs
        self.errands: dict[str, tuple[Path, ...]] = {}  # folders that commands take which people run now
        self.released = ""  # key of the release whose release command has run on this version's data
        self.forked_at = ""  # the snapshot of production that its data are to be forked at; "": as they are
        self.only_build = False  # nobody waits for it to run: the attempt ends when it is built
        self.for_now = False  # it failed because others were in the way: the next request tries again
        self.wanted = False  # somebody asked for it while it was being stopped
        self.ahead = 0  # deploys that come before it, while queued
        self.ready_at = 0.0  # unix time
        self.asked_at = 0.0  # when somebody last wanted it to run
        self.task: asyncio.Task[None] | None = None
        self.clearing: asyncio.Task[None] | None = None  # ends what its last worker left
        self.turn: Turn | None = None  # of the last attempt
        self.transcript = Transcript(folder / f"{key.id}.deploy.log", self._tell_output)
        self._folder = folder
        self._log = log
        self._settled = asyncio.Event()
        self._settled.set()

    def __repr__(self) -> str:
        return f"<Deployment {self.key.id[:40]} {self.state.value} {list(self.posts.values())}>"

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its workers listen, while requests may go there."""
        if self.state is not State.READY:
            return ()
        serving = (post.worker for post in self.posts.values() if post.is_web and post.serves)
        return tuple(worker.address for worker in serving if worker)

    @property
    def workers(self) -> list[Worker]:
        """All that run, whether or not they are ready."""
        return [post.worker for post in self.posts.values() if post.worker]

    def log_of(self, post: str) -> Path:
        """What the workers at a post wrote."""
        return self._folder / (
            f"{self.id}.worker.log" if post == f"{WEB}.1" else f"{self.id}.{post}.worker.log"
        )

    @property
    def worker_logs(self) -> dict[str, Path]:
        return {name: self.log_of(name) for name in self.posts} or {f"{WEB}.1": self.log_of(f"{WEB}.1")}

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs of it, nobody works at it, and nobody waits."""
        over = self.task is None or self.task.done()
        resting = self.state in (State.COLD, State.STOPPED, State.FAILED)
        return resting and over and not (self.workers or self.errands or self.wanted)

    @property
    def runs(self) -> bool:
        """Whether anything of it runs, or is about to again."""
        return bool(self.workers) or self.state in (State.READY, State.RESTARTING)

    @property
    def is_deploying(self) -> bool:
        return self.state in DEPLOYING

    @property
    def is_being_cancelled(self) -> bool:
        return self.state is State.STOPPING and self.failure is not None

    @property
    def failed_step(self) -> StepName:
        """Where the last attempt failed; the first step if it did before any."""
        failed = (step.name for step in self.steps.values() if step.state is Outcome.FAILED)
        return next(failed, StepName.SOURCE)

    def restore(self, row: dict[str, Any]) -> None:
        """Take over what the store has; workers are adopted by the fleet."""
        self.posts = {name: Post.from_row(name, each) for name, each in rows_of(row["worker"]).items()}
        self.attempt = row["attempt"]
        self.steps = {step.name: step for step in map(Step.from_dict, row["steps"])}
        self.release, self.released = row["release"], row["released"]
        if row["failure"]:
            self.failure = Failure(**row["failure"] | {"last": tuple(row["failure"]["last"])})
        # A deploy that was cut off with its server is as good as none: the next request begins it again.
        state = State(row["state"])
        self.state = state if state in (State.COLD, State.FAILED) else State.STOPPED
        if self.failure and state is State.STOPPING:  # cancelled, and cut off before its end
            self.state = State.FAILED
        elif self.state is State.STOPPED:
            self.failure = None

    def advance(self, cause: Cause, failure: Failure | None = None) -> None:
        """The only place where the state changes: through the table, told as one event."""
        before, self.state = self.state, advance(self.state, cause)
        self.failure = failure
        if self.state is State.QUEUED:
            self._begin_attempt()
        elif self.state is State.READY:
            self.ready_at = time.time()
            self.transcript.forget()
        if not self.is_deploying:
            self.transcript.close()
        if self.state in PASSING:
            self._settled.clear()
        else:
            self._settled.set()
        self._tell_state(before, cause.value)

    def found_down(self, before: State) -> None:
        """What the store says of it, and of its workers, is not so any more."""
        self._tell_state(before, "lazycloud was away")

    def moved_up(self, ahead: int) -> None:
        if ahead == self.ahead:
            return
        self.ahead = ahead
        self._tell_state(self.state, "the queue moved")

    async def settled(self) -> None:
        """Wait until it is not about to be another by itself."""
        while self.state in PASSING:
            await self._settled.wait()

    async def cleared(self) -> None:
        """Nothing is left of a worker that ended by itself, which would be a second one on its data."""
        if self.clearing:
            await asyncio.wait([self.clearing])

    def is_at(self, name: StepName) -> bool:
        return self.steps[name].state is Outcome.RUNNING

    @contextmanager
    def step(self, name: StepName) -> Iterator[Step]:
        """Time a step. Its `state` may be set to REUSED or SKIPPED meanwhile, and its `note`."""
        step = self.steps[name]
        step.state, step.began = Outcome.RUNNING, time.time()
        began = time.monotonic()
        self._log.append(StepStarted(**self._of(), attempt=self.attempt, step=name.value))
        try:
            yield step
        except BaseException:
            step.state = Outcome.FAILED
            raise
        finally:
            if step.state is Outcome.RUNNING:
                step.state = Outcome.DONE
            step.seconds = time.monotonic() - began
            self.transcript.flush()
            self._log.append(
                StepFinished(
                    **self._of(),
                    attempt=self.attempt,
                    step=name.value,
                    outcome=step.state.value,
                    seconds=step.seconds,
                    note=step.note,
                )
            )

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "app": self.key.app,
            "commit": self.key.commit,
            "version": self.key.version,
            "state": self.state.value,
            "attempt": self.attempt,
            "steps": [step.as_dict() for step in self.steps.values()],
            "failure": asdict(self.failure) if self.failure else None,
            "release": self.release,
            "released": self.released,
            "worker": {name: post.row() for name, post in self.posts.items()} if self.workers else None,
            "changed": time.time(),
        }

    def _begin_attempt(self) -> None:
        self.attempt += 1
        self.steps = fresh()
        self.uses = ()
        self.ahead = 0
        self.transcript.begin()

    def _tell_state(self, before: State, reason: str) -> None:
        changes: list[Any] = [store.put(store.deployments, **self.row())]
        if self.state is State.QUEUED and before is not State.QUEUED:
            changes.append(store.forget_output(self.id))
        self._log.append(
            StateChanged(
                **self._of(),
                attempt=self.attempt,
                before=before.value,
                after=self.state.value,
                reason=reason,
                commit=self.key.commit,
                version=self.key.version,
                failure=asdict(self.failure) if self.failure else None,
                ahead=self.ahead,
            ),
            *changes,
        )

    def _tell_output(self, step: StepName, text: str) -> None:
        self._log.append(Output(**self._of(), attempt=self.attempt, step=step.value, text=text))

    def _of(self) -> dict[str, str]:
        return {"app": self.key.app, "deployment": self.id}
