"""Facts, one frozen dataclass each, and the log that numbers, keeps and publishes them.

A fact is published after the transaction that holds it has committed, and can be followed from any number.
The log does no I/O itself: how to write and read is given to it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from lazycloud.allowance import in_words

log = logging.getLogger(__name__)

RECENT = 4096  # facts kept in memory: followers that are up to date never touch the database
UNWRITTEN = 10_000  # facts kept while the disk takes none; the oldest go first

THINNED = "others of its time are kept"  # why most snapshots go
_WHY = {
    "promote": "before a promote",
    "release": "before a release command",
    "restore": "before other data came in its place",
    "fork": "for a fork",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_kinds: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class Event:
    """The base of all facts. `app` and `deployment` are "" where a fact belongs to none."""

    kind: ClassVar[str] = ""
    private: ClassVar[bool] = False  # told to owners only: who comes in, and from where
    app: str = ""
    deployment: str = ""

    def __init_subclass__(cls) -> None:
        cls.kind = "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")
        _kinds[cls.kind] = cls

    def sentence(self) -> str:
        """What happened, for a person; "" for facts that are only of use to programs."""
        return ""

    def data(self) -> dict[str, Any]:
        """The fields of its own, without those every fact has."""
        return {name: value for name, value in asdict(self).items() if name not in ("app", "deployment")}


@dataclass(frozen=True, kw_only=True)
class ServerStarted(Event):
    version: str
    address: str

    def sentence(self) -> str:
        return f"lazycloud {self.version} started at {self.address}"


@dataclass(frozen=True, kw_only=True)
class ServerStopped(Event):
    """`leaves`: what runs goes on, for another lazycloud that takes it over."""

    leaves: bool = False

    def sentence(self) -> str:
        return "lazycloud is replaced; what runs goes on" if self.leaves else "lazycloud stopped"


@dataclass(frozen=True, kw_only=True)
class AppAdded(Event):
    source: str
    address: str

    def sentence(self) -> str:
        return f"{self.app} is served from {self.source} at {self.address}"


@dataclass(frozen=True, kw_only=True)
class CommitAnnounced(Event):
    """A new head of a branch or tag: said by a hook, or seen in the repository."""

    commit: str
    ref: str
    subject: str
    address: str
    action: str

    def sentence(self) -> str:
        return f"{self.ref} is now at {self.commit[:10]} “{self.subject}”"


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """`failure` is that of a deployment's `Failure` as a dict, or None; `ahead` its place in the queue."""

    attempt: int
    before: str
    after: str
    reason: str
    commit: str
    version: str
    failure: dict[str, Any] | None = None
    ahead: int = 0

    def sentence(self) -> str:
        what = _deployment(self.deployment)
        if self.failure and self.after == "failed":
            who = self.failure.get("cancelled_by")
            return f"{what} was cancelled by {who}" if who else f"{what} failed: {self.failure['sentence']}"
        words = {"queued": "is being deployed", "ready": "is ready", "stopped": "is stopped"}
        return f"{what} {words[self.after]}" if self.after in words and self.after != self.before else ""


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    attempt: int
    step: str


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    """`outcome` is done, reused, skipped or failed."""

    attempt: int
    step: str
    outcome: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Output(Event):
    """What a step wrote: some lines, ANSI colours included."""

    attempt: int
    step: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WorkerStarted(Event):
    process: str = "web.1"
    pid: int
    address: str


@dataclass(frozen=True, kw_only=True)
class WorkerReady(Event):
    """One that joined others, or took the place of one; a deployment's first ones are ready as it is."""

    process: str
    pid: int
    address: str


@dataclass(frozen=True, kw_only=True)
class WorkerFailed(Event):
    """It could not be started, or was not ready in time; those that run go on."""

    process: str
    problem: str

    def sentence(self) -> str:
        return (
            f"{_process(self.process)} of {_deployment(self.deployment)} could not be started: {self.problem}"
        )


@dataclass(frozen=True, kw_only=True)
class WorkerUnhealthy(Event):
    process: str
    pid: int
    problem: str

    def sentence(self) -> str:
        return f"{_process(self.process)} of {_deployment(self.deployment)} hangs: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Scaled(Event):
    """From now on it has so many workers of a kind."""

    process: str
    count: int
    who: str = ""

    def sentence(self) -> str:
        by = f", by {self.who}" if self.who else ""
        return f"{_deployment(self.deployment)} has {self.count} × {self.process} from now on{by}"


@dataclass(frozen=True, kw_only=True)
class WorkerEnded(Event):
    process: str = "web.1"
    pid: int
    how: str
    expected: bool

    def sentence(self) -> str:
        what = f"{_process(self.process)} of {_deployment(self.deployment)}"
        return "" if self.expected else f"{what} {self.how}"


@dataclass(frozen=True, kw_only=True)
class CommandStarted(Event):
    """Somebody runs a command in its release, environment and data."""

    command: str
    who: str

    def sentence(self) -> str:
        what = f"“{self.command}”" if self.command else "a command"
        return f"{self.who} runs {what} in {_deployment(self.deployment)}"


@dataclass(frozen=True, kw_only=True)
class CommandEnded(Event):
    how: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VersionForked(Event):
    version: str
    source: str
    size: int
    seconds: float

    def sentence(self) -> str:
        origin = f"forked from {_version(self.source)}" if self.source else "made empty"
        return f"The data of {_version(self.version)} of {self.app} was {origin}"


@dataclass(frozen=True, kw_only=True)
class VersionDropped(Event):
    version: str
    why: str

    def sentence(self) -> str:
        return f"The data of {_version(self.version)} of {self.app} was removed: {self.why}"


@dataclass(frozen=True, kw_only=True)
class ForkPlanned(Event):
    """Somebody chose what a version is forked from, `snapshot` of `source`, at its next deploy."""

    version: str
    source: str
    snapshot: str
    who: str

    def sentence(self) -> str:
        return (
            f"The data of {_version(self.version)} of {self.app} will be those of {_version(self.source)} "
            f"of {self.snapshot}, by {self.who}"
        )


@dataclass(frozen=True, kw_only=True)
class SnapshotTaken(Event):
    """`why` is one of data.names.WHYS; `size` the bytes of its contents."""

    version: str
    snapshot: str
    name: str
    why: str
    who: str
    size: int

    def sentence(self) -> str:
        if self.why == "timer":
            return ""
        named = f" “{self.name}”" if self.name else ""
        by = f", by {self.who}" if self.why == "asked" else f": {_WHY.get(self.why, self.why)}"
        return f"A snapshot{named} was taken of the data of {_version(self.version)} of {self.app}{by}"


@dataclass(frozen=True, kw_only=True)
class BackupMade(Event):
    """`size`: the bytes of its contents; `put`: those that the store did not have yet. `note`: what is not exact."""

    backup: str
    store: str
    who: str
    size: int
    put: int
    seconds: float
    note: str

    def sentence(self) -> str:
        said = f" ({self.note})" if self.note else ""
        return f"{self.app}’s production data were backed up to {self.store}, by {self.who}{said}"


@dataclass(frozen=True, kw_only=True)
class BackupFailed(Event):
    """Told once for each problem, and not at each try."""

    store: str
    problem: str
    advice: str

    def sentence(self) -> str:
        return f"{self.app}’s production data are not backed up: {self.problem} {self.advice}".rstrip()


@dataclass(frozen=True, kw_only=True)
class SnapshotDropped(Event):
    version: str
    snapshot: str
    name: str
    why: str

    def sentence(self) -> str:
        if self.why == THINNED:
            return ""
        which = f"“{self.name}”" if self.name else self.snapshot
        of = f"of the data of {_version(self.version)} of {self.app}"
        return f"The snapshot {which} {of} was removed: {self.why}"


@dataclass(frozen=True, kw_only=True)
class VersionRestored(Event):
    """A version has the data that `source` had at `snapshot`, "" for then. `before`: the snapshot of its own."""

    version: str
    source: str
    snapshot: str
    before: str
    who: str
    seconds: float

    def sentence(self) -> str:
        of = "" if self.source == self.version else f" of {_version(self.source)}"
        which = f"the snapshot {self.snapshot}{of}" if self.snapshot else f"the data{of} as they were"
        return f"{_version(self.version)} of {self.app} was given {which}, by {self.who}"


@dataclass(frozen=True, kw_only=True)
class VersionImported(Event):
    """A version has the data of a file. `before`: the snapshot of what it had, "" if it had none."""

    version: str
    before: str
    who: str
    size: int
    seconds: float

    def sentence(self) -> str:
        return (
            f"{in_words(self.size)} were imported as the data of {_version(self.version)} of {self.app}, "
            f"by {self.who}"
        )


@dataclass(frozen=True, kw_only=True)
class VersionExported(Event):
    """Somebody took a copy of data away; `snapshot` is "" for the data as they were."""

    version: str
    snapshot: str
    format: str
    who: str

    def sentence(self) -> str:
        return f"The data of {_version(self.version)} of {self.app} were exported by {self.who}"


@dataclass(frozen=True, kw_only=True)
class MigrationRehearsed(Event):
    """A release command went well on a fork of production's data. `changes`: what it changed there, in words."""

    commit: str
    seconds: float
    changes: list[str]

    def sentence(self) -> str:
        changes = f": {'; '.join(self.changes)}" if self.changes else ""
        return (
            f"The release command of {self.commit[:10]} took {self.seconds:.1f} s in its rehearsal{changes}"
        )


@dataclass(frozen=True, kw_only=True)
class Migrated(Event):
    """The release command's `seconds`, those that requests `waited`, and the `snapshot` of before."""

    commit: str
    seconds: float
    waited: float
    snapshot: str

    def sentence(self) -> str:
        return (
            f"The data of {self.app} were migrated by {self.commit[:10]} in {self.seconds:.1f} s; "
            f"requests waited {self.waited:.1f} s"
        )


@dataclass(frozen=True, kw_only=True)
class ChangeUndone(Event):
    """Control ended between the change of a version's data and what belongs to it."""

    version: str

    def sentence(self) -> str:
        return (
            f"lazycloud ended while the data of {_version(self.version)} of {self.app} were changed: "
            "they are as they were before"
        )


@dataclass(frozen=True, kw_only=True)
class SchemaMoved(Event):
    """A commit becomes production again on data that others have changed since. `snapshot`: of its time, or ""."""

    commit: str
    changes: list[str]
    snapshot: str

    def sentence(self) -> str:
        changes = "; ".join(self.changes)
        return f"The schema of {self.app} has moved since {self.commit[:10]} was production: {changes}"


@dataclass(frozen=True, kw_only=True)
class Promoted(Event):
    commit: str
    before: str
    who: str
    why: str

    def sentence(self) -> str:
        return f"{self.commit[:10]} is production of {self.app}, by {self.who}" + (
            f": {self.why}" if self.why else ""
        )


@dataclass(frozen=True, kw_only=True)
class PromoteFailed(Event):
    commit: str
    who: str
    problem: str
    advice: str = ""

    def sentence(self) -> str:
        return f"{self.commit[:10]} did not become production of {self.app}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class CommitPinned(Event):
    """What is built of it stays on the disk; until it is unpinned (`pinned` false)."""

    commit: str
    pinned: bool
    who: str

    def sentence(self) -> str:
        return f"{self.commit[:10]} of {self.app} was {'' if self.pinned else 'un'}pinned by {self.who}"


@dataclass(frozen=True, kw_only=True)
class PreviewsChanged(Event):
    """Who may see an app's previews: `mode` is public, login or password. Cookies of before are worth nothing."""

    mode: str
    who: str

    def sentence(self) -> str:
        whom = {"public": "for everybody", "login": "for who logs in", "password": "for who has the password"}
        return f"Previews of {self.app} are {whom.get(self.mode, self.mode)} now, by {self.who}"


@dataclass(frozen=True, kw_only=True)
class ShareMade(Event):
    """A link to a commit's preview; `share` is its id, which opens nothing."""

    share: str
    commit: str
    expires: float
    who: str

    def sentence(self) -> str:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.expires))
        return f"{self.commit[:10]} of {self.app} was shared until {until}, by {self.who}"


@dataclass(frozen=True, kw_only=True)
class ShareRevoked(Event):
    share: str
    commit: str
    who: str

    def sentence(self) -> str:
        return f"A link to {self.commit[:10]} of {self.app} was taken back by {self.who}"


@dataclass(frozen=True, kw_only=True)
class WebhookMade(Event):
    """An app has a webhook, whose secret is a new one."""

    who: str

    def sentence(self) -> str:
        return f"{self.app} has a webhook, by {self.who}"


@dataclass(frozen=True, kw_only=True)
class WebhookReceived(Event):
    """A forge said something that was proven and new; `what` is its own word for it."""

    forge: str
    what: str


@dataclass(frozen=True, kw_only=True)
class FetchFailed(Event):
    """A forge said that something moved, and its repository could not be asked."""

    problem: str

    def sentence(self) -> str:
        return f"{self.app} could not be fetched: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class PullWaits(Event):
    """A pull request of a fork has a new head, which is not fetched until somebody allows that commit."""

    number: int
    commit: str
    title: str
    author: str
    url: str

    def sentence(self) -> str:
        return (
            f"Pull request {self.number} “{self.title}” by {self.author} waits at {self.commit[:10]}: "
            f"`lazycloud allow {self.app} {self.number}`"
        )


@dataclass(frozen=True, kw_only=True)
class PullAllowed(Event):
    number: int
    commit: str
    who: str

    def sentence(self) -> str:
        return f"{self.commit[:10]} of pull request {self.number} of {self.app} was allowed by {self.who}"


@dataclass(frozen=True, kw_only=True)
class PullClosed(Event):
    number: int


@dataclass(frozen=True, kw_only=True)
class DiskReclaimed(Event):
    """Room was made: `removed` counts what went by its kind, `freed` and `free` (afterwards) are bytes."""

    why: str
    who: str
    removed: dict[str, int]
    freed: int
    free: int

    def sentence(self) -> str:
        counts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in self.removed.items()]
        what = " and ".join(filter(None, (", ".join(counts[:-1]), *counts[-1:]))) or "nothing"
        return f"{in_words(self.freed)} of the disk came free, {what} went: {self.why}"


@dataclass(frozen=True, kw_only=True)
class DiskShort(Event):
    """The disk stays shorter than it should be by `missing` bytes: all that is left is kept."""

    why: str
    missing: int
    free: int

    def sentence(self) -> str:
        return (
            f"{self.why[:1].upper()}{self.why[1:]}, and nothing more may go ({in_words(self.free)} free): "
            "`lazycloud disk` tells where it went"
        )


@dataclass(frozen=True, kw_only=True)
class Asked(Event):
    """Somebody who may gave a command, `what`; `target` is what it was given for, in their words."""

    who: str
    what: str
    target: str

    def sentence(self) -> str:
        of = f" of {self.app}" if self.app else ""
        target = self.target[:10] if _COMMIT.fullmatch(self.target) else self.target
        return f"{self.who}: {self.what} {target}".rstrip() + of


@dataclass(frozen=True, kw_only=True)
class Refused(Event):
    """Somebody known asked for what their role does not allow. Few are told: `count` is how many since the last."""

    private: ClassVar[bool] = True
    who: str
    what: str
    problem: str
    count: int = 1

    def sentence(self) -> str:
        return f"{self.who} may not: {self.what}"


@dataclass(frozen=True, kw_only=True)
class AccountChanged(Event):
    """`what`: added, changed, disabled, enabled, removed, or given a password."""

    private: ClassVar[bool] = True
    account: str
    what: str
    role: str
    who: str

    def sentence(self) -> str:
        return f"The account {self.account} ({self.role}) was {self.what} by {self.who}"


@dataclass(frozen=True, kw_only=True)
class TokenChanged(Event):
    """`what`: made or revoked. `expires` is None for one that does not."""

    private: ClassVar[bool] = True
    token: str
    what: str
    role: str
    previews: bool
    expires: float | None
    who: str

    def sentence(self) -> str:
        good_for = "previews" if self.previews else self.role
        of = f" of {self.app}" if self.app else ""
        return f"The token {self.token} ({good_for}{of}) was {self.what} by {self.who}"


@dataclass(frozen=True, kw_only=True)
class LoggedIn(Event):
    """A browser has a session now. `how`: link, password or token; `client` is its address."""

    private: ClassVar[bool] = True
    who: str
    how: str
    client: str

    def sentence(self) -> str:
        return f"{self.who} logged in ({self.how})"


@dataclass(frozen=True, kw_only=True)
class LoggedOut(Event):
    """Sessions of `account` ended on the server, `count` of them, because of `why`."""

    private: ClassVar[bool] = True
    account: str
    count: int
    why: str
    who: str

    def sentence(self) -> str:
        sessions = "session" if self.count == 1 else f"{self.count} sessions"
        return f"The {sessions} of {self.account} ended: {self.why}"


@dataclass(frozen=True, kw_only=True)
class LoginFailed(Event):
    """Not all are told when there are many: `count` is how many there were since the last that was."""

    private: ClassVar[bool] = True
    account: str
    client: str
    count: int

    def sentence(self) -> str:
        times = "" if self.count == 1 else f", one of {self.count}"
        return f"A login from {self.client} failed{times}"


def _process(name: str) -> str:
    """“web.1” is the worker of most apps."""
    return "The worker" if name == "web.1" else f"The worker {name}"


def _version(name: str) -> str:
    kind, separator, commit = name.partition("-")
    if separator:
        return f"the {kind} of {commit[:10]}"
    return name if len(name) < 20 else name[:10]


def _deployment(deployment_id: str) -> str:
    """“3f2a9c1d0b of shop”, with what line of data if it is not its own."""
    app, commit, version = (*deployment_id.split("."), "", "")[:3]
    return f"{commit[:10]} of {app}" + (f" ({version.partition('-')[0]})" if version else "")


def kinds(wanted: Callable[[type[Event]], bool]) -> list[str]:
    """The kinds of facts that there are."""
    return [kind for kind, cls in _kinds.items() if wanted(cls)]


def revive(kind: str, app: str, deployment: str, data: dict[str, Any]) -> Event | None:
    """The fact that was written; None for a kind that this version of lazycloud does not know."""
    cls = _kinds.get(kind)
    if cls is None:
        return None
    known = {one.name for one in fields(cls)}
    return cls(app=app, deployment=deployment, **{name: data[name] for name in data.keys() & known})


@dataclass(frozen=True)
class Recorded:
    """A fact with its number and time (unix seconds). `changes` are rows that go into its transaction."""

    number: int
    at: float
    event: Event
    changes: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """What followers are sent: number, kind, at, app, deployment, sentence and the fact's own fields."""
        event = self.event
        return {
            "number": self.number,
            "kind": event.kind,
            "at": self.at,
            "app": event.app,
            "deployment": event.deployment,
            **event.data(),
            "sentence": event.sentence(),
        }


Write = Callable[[Sequence[Recorded]], None]
Read = Callable[[int, int], list[Recorded]]


class EventLog:
    """Numbers facts at once, writes them in batches off the loop, publishes them once they are on disk.

    `write(batch)` commits facts with their changes in one transaction; `read(after, limit)` gives older ones.
    A disk that takes nothing does not blind those who watch: facts are then published all the same, kept,
    and written when it can be done again.
    """

    def __init__(self, last: int, write: Write, read: Read, clock: Callable[[], float] = time.time) -> None:
        self._last = last
        self._published = last
        self._write = write
        self._read = read
        self._clock = clock
        self._pending: deque[Recorded] = deque(maxlen=UNWRITTEN)
        self._awaited: dict[int, asyncio.Future[None]] = {}
        self._recent: deque[Recorded] = deque(maxlen=RECENT)
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._problem: Exception | None = None
        self._closing = False

    @property
    def last(self) -> int:
        """The number of the newest fact, on disk or not."""
        return self._last

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_on(), name="event log")

    async def close(self) -> None:
        """Write what is left and end every follower. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._writer:
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None
        self._tell()

    def append(self, event: Event, *changes: Any) -> Recorded:
        """Number a fact. `changes` (SQL statements) are made in the transaction that writes it."""
        self._last += 1
        recorded = Recorded(self._last, self._clock(), event, changes)
        self._pending.append(recorded)
        self._wake.set()
        return recorded

    async def commit(self, event: Event, *changes: Any) -> Recorded:
        """A fact that is true only once it is on disk. One that cannot be written never was: this raises why."""
        recorded = self.append(event, *changes)
        written = self._awaited[recorded.number] = asyncio.get_running_loop().create_future()
        await asyncio.shield(written)
        return recorded

    async def flush(self) -> None:
        """Return when all that was appended is on disk; raises what kept the disk from taking it."""
        number = self._last
        while (self._pending and self._pending[0].number <= number) or self._published < number:
            news = self._news
            await news.wait()
            if self._problem:
                raise self._problem

    async def follow(self, after: int, wanted: Callable[[Event], bool]) -> AsyncIterator[Recorded]:
        """The facts with a number above `after` that are wanted: first the past, then as they happen."""
        while True:
            news = self._news
            batch = await self._since(after)
            for recorded in batch:
                after = recorded.number
                if wanted(recorded.event):
                    yield recorded
            if not batch:
                if self._closing:
                    return
                await news.wait()

    async def _since(self, after: int) -> list[Recorded]:
        if after >= self._published:
            return []
        if self._recent and self._recent[0].number <= after + 1:
            return [recorded for recorded in self._recent if recorded.number > after]
        older = await asyncio.to_thread(self._read, after, 1000)
        return older or [recorded for recorded in self._recent if recorded.number > after]

    async def _write_on(self) -> None:
        while not (self._closing and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            if self._pending:
                await self._write_batch(list(self._pending))
                if self._problem and self._closing:
                    return

    async def _write_batch(self, batch: list[Recorded]) -> None:
        try:
            await asyncio.to_thread(self._write, batch)
        except OSError as problem:
            if self._problem is None:
                log.error("The event log cannot be written, facts are kept in memory meanwhile: %s", problem)
            self._problem = problem
            self._publish([recorded for recorded in batch if not self._refused(recorded, problem)])
        except Exception as problem:
            if len(batch) > 1:
                for recorded in batch:
                    await self._write_batch([recorded])
                return
            log.exception("This fact cannot be written and is lost: %r", batch[0])
            self._refused(batch[0], problem)
            self._take_off(batch)
            self._publish([])
        else:
            self._problem = None
            self._take_off(batch)
            self._publish(batch)
            for recorded in batch:
                if written := self._awaited.pop(recorded.number, None):
                    written.set_result(None)

    def _refused(self, recorded: Recorded, problem: Exception) -> bool:
        """Whether somebody waits for the fact to be on disk: then it never was."""
        written = self._awaited.pop(recorded.number, None)
        if written is None:
            return False
        written.set_exception(problem)
        self._pending.remove(recorded)
        return True

    def _take_off(self, batch: list[Recorded]) -> None:
        while self._pending and self._pending[0].number <= batch[-1].number:
            self._pending.popleft()

    def _publish(self, batch: Iterable[Recorded]) -> None:
        for recorded in batch:
            if recorded.number > self._published:
                self._recent.append(Recorded(recorded.number, recorded.at, recorded.event))
                self._published = recorded.number
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
