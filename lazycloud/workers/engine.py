"""What starts workers, finds them again, and runs an app's other commands in the same surroundings.

There is one engine for each kind of surroundings; `none` is plain processes, which see all that the server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from lazycloud import processes
from lazycloud.errors import StepFailed
from lazycloud.processes import Output
from lazycloud.walls.sandbox import Sandbox
from lazycloud.workers.bounds import NO_BOUNDS, Bounds
from lazycloud.workers.errand import Errand, ProcessErrand, Terminal
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload.parents import Parents
from lazycloud.workers.process import ProcessWorker, prepare, prepare_again
from lazycloud.workers.record import Record
from lazycloud.workers.watch import Watch, memory_reason
from lazycloud.workers.worker import Launch, Worker


class Engine(Protocol):
    """`name` is what the setting `isolation` calls it. `networks`: where nobody is but its workers."""

    name: str
    networks: tuple[IPv4Network, ...]

    async def start(self, launch: Launch, say: Output) -> Worker:
        """Start a worker; it is not ready yet. Raises StepFailed if it cannot be started, Busy without a port."""

    async def adopt(self, record: Record) -> Worker | None:
        """Find a worker again that an earlier control started; None if that very one does not run any more."""

    async def restored(self) -> None:
        """All that is to be found again was asked for: what else an earlier control left running is ended."""

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        """Run another command to its end where the worker of `launch` would run. Raises StepFailed."""

    async def spawn(self, launch: Launch, command: str, terminal: Terminal | None) -> Errand:
        """Begin a command that somebody is at, where the worker of `launch` would run. Raises StepFailed.

        With a terminal, that is its controlling one, input, output and errors; else they are apart. `launch.name`
        is the errand's own, and its HOME and TMPDIR are no other's.
        """

    def prepare(self, launch: Launch) -> None:
        """A worker like this will be started in a moment: what can be got ready is, in the background."""

    def adopted(self, worker: Worker) -> None:
        """The same for the next workers that are like one that was found again."""

    async def leave(self, folder: Path) -> None:
        """A folder that nobody uses is to be removed: nothing of ours waits in it any more."""

    async def end_rest(self) -> None:
        """Every worker was stopped: what is left of them all the same is ended."""

    async def close(self) -> None:
        """Workers live on."""


class Processes:
    """Workers that are processes of this machine, and see all of it."""

    name = "none"
    networks: tuple[IPv4Network, ...] = ()

    def __init__(self, bounds: Bounds = NO_BOUNDS, walls: Sandbox | None = None) -> None:
        self._bounds = bounds
        self._watch = Watch()
        self._ports = Ports()
        self._parents = Parents(bounds=bounds, walls=walls)
        self._adopted: set[str] = set()
        self._hastening: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch, say: Output) -> Worker:
        return await self._start(launch, say)

    async def _start(self, launch: Launch, say: Output, walls: Sandbox | None = None) -> Worker:
        launch = self._seen(launch)
        worker = await ProcessWorker.start(launch, self._ports, self._parents, say, walls, self._bounds)
        self._bounds.entered()
        self._watch.add(worker)
        return worker

    async def adopt(self, record: Record) -> Worker | None:
        worker = await ProcessWorker.adopt(record, self._ports, self._bounds)
        if worker:
            self._adopted.add(worker.bound.name)
            self._watch.add(worker)
        return worker

    async def restored(self) -> None:
        await self._bounds.end_others(self._adopted)

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        await self._run(launch, command, output, timeout, processes.heeding_modes(), launch.environment)

    async def _run(
        self,
        launch: Launch,
        command: str,
        output: Output,
        timeout: float,
        words: Sequence[str],
        environment: Mapping[str, str],
        relayed: bool = False,
    ) -> None:
        """`words` come before the command, and after those that put it within its bounds."""
        bound = await self._bounds.make(f"{launch.name} command", launch.limits, reaches=launch.reaches)
        before = [*bound.words, *words]
        try:
            await processes.run(
                command, launch.folder, environment, output, timeout, before=before, relayed=relayed
            )
        except processes.CommandFailed as problem:
            if not bound.memory_ended():
                raise
            raise StepFailed(
                f"`{command}` was ended because {memory_reason(bound.limits)}.",
                "Let it use less, or raise the limits of the server ([workers] in docs/settings.md).",
                problem.last,
            ) from problem
        finally:
            await asyncio.shield(self._bounds.end(bound))

    async def spawn(self, launch: Launch, command: str, terminal: Terminal | None) -> Errand:
        return await self._spawn(launch, command, terminal)

    async def _spawn(
        self, launch: Launch, command: str, terminal: Terminal | None, walls: Sandbox | None = None
    ) -> Errand:
        bound = await self._bounds.make(launch.name, launch.limits, reaches=launch.reaches)

        async def last() -> None:
            await self._bounds.end(bound)

        try:
            return ProcessErrand.start(launch, command, terminal, walls, bound.words, last)
        except BaseException:
            await asyncio.shield(last())
            raise

    def prepare(self, launch: Launch) -> None:
        prepare(self._seen(launch), self._parents)
        task = asyncio.create_task(self._bounds.hasten(), name="hasten")
        self._hastening.add(task)
        task.add_done_callback(self._hastening.discard)

    def adopted(self, worker: Worker) -> None:
        if isinstance(worker, ProcessWorker):
            prepare_again(worker, self._parents)

    async def leave(self, folder: Path) -> None:
        await self._parents.leave(folder)

    async def end_rest(self) -> None:
        """The server's own process does that: it outlives control."""

    async def close(self) -> None:
        await self._watch.close()
        await self._parents.close()
        await self._bounds.close()

    def _seen(self, launch: Launch) -> Launch:
        return replace(launch, view=None)


class Sandboxed(Processes):
    """The same behind `walls`: each sees what its launch says."""

    name = "sandbox"

    def __init__(self, walls: Sandbox, bounds: Bounds = NO_BOUNDS) -> None:
        super().__init__(bounds, walls)
        self._walls = walls

    async def start(self, launch: Launch, say: Output) -> Worker:
        return await self._start(launch, say, self._walls)

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        if launch.view is None:
            await super().run(launch, command, output, timeout)
            return
        enclosed = self._walls.enclose(launch.view, launch.folder, launch.environment)
        await self._run(launch, command, output, timeout, enclosed.words, enclosed.environment, relayed=True)

    async def spawn(self, launch: Launch, command: str, terminal: Terminal | None) -> Errand:
        return await self._spawn(launch, command, terminal, self._walls)

    def adopted(self, worker: Worker) -> None:
        if isinstance(worker, ProcessWorker):
            prepare_again(worker, self._parents, self._walls.home)

    def _seen(self, launch: Launch) -> Launch:
        return launch
