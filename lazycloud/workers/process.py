"""A worker that is a process of this machine.

It leads a session of its own and writes to a file, so that it outlives control; what is remembered of it
(`record`) is enough to adopt it later, and to leave a later process with the same pid alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lazycloud.errors import StepFailed
from lazycloud.processes import (
    LAST_LINES,
    Ending,
    Identity,
    Output,
    boot_id,
    end_group,
    ending_in_words,
    identify,
    identity_of_child,
    is_running,
    kill_session,
    members,
    unheard,
)
from lazycloud.walls.sandbox import Sandbox
from lazycloud.workers.bounds import NO_BOUNDS, Bound, Bounds
from lazycloud.workers.command import shell, shell_arguments
from lazycloud.workers.logs import last_lines, open_log
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload.parents import Parents
from lazycloud.workers.preload.start import NOTHING, Start, Venv, make_start
from lazycloud.workers.preload.unsuitable import Unsuitable
from lazycloud.workers.readiness import NotReady, Readiness, Why
from lazycloud.workers.record import Record
from lazycloud.workers.usage import Meter, Usage
from lazycloud.workers.watch import Excess, memory_reason
from lazycloud.workers.worker import HOST, Ended, Launch
from lazycloud.workforce import Limits

STAYS = 1.0  # seconds after which a background process counts as running
ENVIRONMENTS = "environments"  # the folder of an app that they are in, <home>/apps/<app>/environments/<key>
ATTEMPTS = 3  # ports that are tried when somebody else takes the one that was free a moment ago


class ProcessWorker:
    """Made by `start` or `adopt`."""

    def __init__(
        self,
        record: Record,
        ports: Ports,
        launch: Launch | None = None,
        parents: Parents | None = None,
        begun: Begun | None = None,
        walls: Sandbox | None = None,
        bounds: Bounds = NO_BOUNDS,
    ) -> None:
        self._ports = ports
        self._walls = walls
        self._launch = launch
        self._parents = parents
        self._begun = begun
        self._bounds = bounds
        self._stopping = asyncio.Lock()
        self._moving = False
        self._record = record
        self._ending = _watch(record, begun)
        self._bound = begun.bound if begun else bounds.find(record.group, Limits.from_dict(record.limits))
        self._meter = self._make_meter()
        self._excess: Excess | None = None

    def __repr__(self) -> str:
        how = "running" if self.is_running else self.how_it_ended
        return f"<Worker {self._record.pid} {self.address} {how}>"

    @classmethod
    async def start(
        cls,
        launch: Launch,
        ports: Ports,
        parents: Parents | None = None,
        say: Output | None = None,
        walls: Sandbox | None = None,
        bounds: Bounds = NO_BOUNDS,
    ) -> ProcessWorker:
        """Start the process; it is not ready yet. Raises StepFailed if it cannot be started, Busy without a port.

        A fork of one of `parents` where that is the same as a plain start, and faster; `say` is told what was done.
        Behind `walls` it sees the view of its launch, without any it sees all.
        """
        begun = await _begin_on_port(launch, ports, parents, say or unheard, walls, bounds)
        return cls(begun.record, ports, launch, parents, begun, walls, bounds)

    @classmethod
    async def adopt(cls, record: Record, ports: Ports, bounds: Bounds = NO_BOUNDS) -> ProcessWorker | None:
        """Find a worker again that an earlier control started; None if that very process does not run any more.

        What such a process left of its session is ended: it would hold on to its port and its data.
        """
        if not is_running(record.identity):
            _end_orphans(record)
            return None
        ports.hold(record.port)
        return cls(record, ports, bounds=bounds)

    @property
    def record(self) -> Record:
        """To be stored after `start`, and again after `ready`, which may have chosen another port or address."""
        return self._record

    @property
    def address(self) -> str:
        """Where to dial it, "127.0.0.1:21733" or "[::1]:21733"; sure once `ready` returned."""
        return self._record.address

    @property
    def is_running(self) -> bool:
        """As the kernel says now, whether or not the loop has been told; also while it moves to another port."""
        return self._moving or not self._ending.look()

    @property
    def how_it_ended(self) -> str:
        """To follow its name in a sentence: "was ended by SIGKILL", "ended with exit status 3", "is gone"."""
        if not self._ending.look():
            return "runs"
        return self._how(self._ending.status)

    @property
    def bound(self) -> Bound:
        """What holds it."""
        return self._bound

    @property
    def outgrew(self) -> bool:
        return self._excess is not None and self._excess.stays

    def end_because(self, excess: Excess) -> None:
        """End all of it at once, for having gone beyond a limit."""
        if not self._ending.look():
            self._excess = excess
            self._bounds.kill(self._bound)
            kill_session(self._record.pid)

    async def ready(self, say: Output | None = None) -> None:
        """Wait until it listens and, if it has a health path, answers. Raises NotReady; it is not stopped then.

        A port that somebody else's process took meanwhile is changed, which starts the process anew.
        """
        if not self._record.listens:
            await self._stays()
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                address = await Readiness(self._record, self._ending, say or unheard, self._how).wait()
            except NotReady as problem:
                if problem.why is not Why.PORT_TAKEN or not self._launch or attempt == ATTEMPTS:
                    raise
                await self._move(self._launch, say or unheard)
            else:
                self._record = replace(self._record, address=address)
                self._learn()
                return

    async def ended(self) -> Ended:
        """Wait until its process has ended, by itself or by `stop`."""
        status = await self._ending.wait()
        return Ended(status, self.how_it_ended)

    async def stop(self) -> None:
        """End its whole session: TERM, then KILL after `stop_timeout`. Idempotent; takes 5 s longer at most."""
        async with self._stopping:  # a second TERM would tell many a server to drop its requests
            await end_group(self._ending, [(signal.SIGTERM, self._record.stop_timeout)])
            self._remember_why()
            await self._bounds.end(self._bound)  # daemons, which have left the session
            self._ports.give_back(self._record.port)

    def leave(self) -> None:
        """Watch it no more, and let it run on: for the next control to adopt."""
        self._ending.close()

    def usage(self) -> Usage:
        """Memory and cpu of all its processes. Blocks for milliseconds: call it in a thread."""
        return self._meter.read()

    def last_lines(self, count: int = LAST_LINES) -> list[str]:
        """The last lines that it wrote since it was started, oldest first, empty ones left out."""
        return last_lines(self._record.log_path, count, self._record.log_start)

    async def _stays(self) -> None:
        """A background process tells nobody that it is ready: one that does not end at once is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STAYS):
                await self._ending.wait()
            sentence = f"The process {self.how_it_ended} at once."
            raise NotReady(Why.EXITED, sentence, last=self.last_lines())

    def _how(self, status: int | None) -> str:
        """In words that follow its name."""
        self._remember_why()
        if self._excess:
            return f"was ended because {self._excess.words}"
        return "is gone" if status is None else ending_in_words(status)

    def _remember_why(self) -> None:
        """What its group tells, as long as there is one."""
        if not self._excess and self._bound.memory_ended():
            self._excess = Excess(memory_reason(self._bound.limits))

    def _make_meter(self) -> Meter:
        group = self._bound.group
        return Meter(self._record.pid, group.pids if group else None)

    def _learn(self) -> None:
        if self._parents and self._begun and self._begun.start:
            self._parents.learn(self._begun.start)

    async def _move(self, launch: Launch, say: Output) -> None:
        self._moving = True
        try:
            await self.stop()
            begun = await _begin_on_port(launch, self._ports, self._parents, say, self._walls, self._bounds)
            self._begun, self._record, self._bound = begun, begun.record, begun.bound
            self._ending = _watch(self._record, begun)
            self._meter = self._make_meter()
        finally:
            self._moving = False


@dataclass(frozen=True)
class Begun:
    """A process that was started. `start` and `report` are those of a fork."""

    record: Record
    bound: Bound
    start: Start | None = None
    report: int = -1


def _watch(record: Record, begun: Begun | None) -> Ending:
    ending = Ending(record.identity, begun.report if begun else -1, relayed=record.walled)
    ending.watch()
    return ending


async def _begin_on_port(
    launch: Launch,
    ports: Ports,
    parents: Parents | None,
    say: Output,
    walls: Sandbox | None,
    bounds: Bounds,
) -> Begun:
    if not launch.listens:
        return await _begin_bound(launch, 0, parents, say, walls, bounds)
    port = launch.port or ports.take()
    ports.hold(port)
    try:
        return await _begin_bound(launch, port, parents, say, walls, bounds)
    except BaseException:
        ports.give_back(port)
        raise


async def _begin_bound(
    launch: Launch,
    port: int,
    parents: Parents | None,
    say: Output,
    walls: Sandbox | None,
    bounds: Bounds,
) -> Begun:
    bound = await bounds.make(launch.name, launch.limits, port, launch.reaches)
    try:
        return await _begin(launch, port, parents, say, walls, bound)
    except BaseException:
        bounds.end_soon(bound)
        raise


async def _begin(
    launch: Launch, port: int, parents: Parents | None, say: Output, walls: Sandbox | None, bound: Bound
) -> Begun:
    environment = _complete(launch, port)
    with open_log(launch.log) as log:
        if parents is not None and launch.venv is not None:
            log_start = os.fstat(log.fileno()).st_size
            try:
                start = make_start(launch.command, environment, launch.folder, launch.venv)
                fork = await parents.fork(start, log.fileno(), launch.view, bound.doors)
            except Unsuitable as reason:
                say(f"Started without preloading: {reason}.\n")
            else:
                if fork.modules:
                    say(f"Preloaded: {fork.modules} modules had been imported ahead.\n")
                record = _record(launch, fork.identity, port, log_start, bound, preloaded=bool(fork.modules))
                return Begun(record, bound, start, fork.report)
        return Begun(_spawn(launch, port, environment, log, walls, bound), bound)


def prepare(launch: Launch, parents: Parents) -> None:
    """Let a parent be there, or get ready in the background, by the time of this launch."""
    if launch.venv is not None:
        with contextlib.suppress(Unsuitable):
            environment = _complete(launch, 0)
            start = make_start(launch.command, environment, launch.folder, launch.venv)
            parents.prepare(start)
            if launch.view:
                parents.expect(start, launch.view)


def prepare_again(worker: ProcessWorker, parents: Parents, home: Path | None = None) -> None:
    """The same for the next commits of a worker that was found again, by what /proc tells of it.

    It may have changed what it tells: who must not see all is believed only what is an environment in `home`.
    """
    process = Path(f"/proc/{worker.record.pid}")
    with contextlib.suppress(OSError, ValueError):
        entries = (process / "environ").read_bytes().decode(errors="surrogateescape").split("\0")
        environment = dict(entry.split("=", 1) for entry in entries if entry)
        if worker.record.preloaded and "VIRTUAL_ENV" in environment:
            venv = Venv.at(Path(environment["VIRTUAL_ENV"]))
            if home and not is_environment(venv.path, home):
                return
            parents.prepare(Start(venv, NOTHING, environment, (process / "cwd").readlink()))


def is_environment(path: Path, home: Path) -> bool:
    """Whether it lies where environments do, and is no link to elsewhere."""
    inside = path.relative_to(home)  # raises ValueError
    return inside.parts[2:3] == (ENVIRONMENTS,) and path.resolve() == home.resolve() / inside


def _complete(launch: Launch, port: int) -> dict[str, str]:
    if not launch.listens:
        return dict(launch.environment)
    return {**launch.environment, "HOST": HOST, "PORT": str(port)}


def _spawn(
    launch: Launch,
    port: int,
    environment: Mapping[str, str],
    log: BinaryIO,
    walls: Sandbox | None,
    bound: Bound,
) -> Record:
    log_start = os.fstat(log.fileno()).st_size
    arguments, walled = shell_arguments(launch.command), False
    if walls and launch.view:
        enclosed, walled = walls.enclose(launch.view, launch.folder, environment), True
        arguments, environment = [*enclosed.words, *shell(launch.command)], enclosed.environment
    try:
        process = subprocess.Popen(
            [*bound.words, *arguments],
            cwd=launch.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the command or environment
        raise StepFailed(
            f"`{launch.command}` could not be started in {launch.folder}: {problem}."
        ) from problem
    process.returncode = 0  # Ending reaps it; Popen's own clean-up would take the status away
    identity = identity_of_child(process.pid)
    return _record(launch, identity, port, log_start, bound, walled=walled)


def _record(
    launch: Launch,
    identity: Identity,
    port: int,
    log_start: int,
    bound: Bound,
    preloaded: bool = False,
    walled: bool = False,
) -> Record:
    record = launch.record(identity, f"{HOST}:{port}", log_start)
    return replace(record, preloaded=preloaded, walled=walled, group=bound.name, limits=asdict(bound.limits))


def _end_orphans(record: Record) -> None:
    """Processes of a session whose leader is gone, if they are surely its: they were given the same port."""
    if record.boot != boot_id() or identify(record.pid) is not None:
        return
    for pid in list(members(record.pid)):
        with contextlib.suppress(OSError):
            if f"PORT={record.port}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
