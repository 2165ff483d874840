"""What starts workers, finds them again, and runs an app's other commands in the same surroundings.

There is one engine for each kind of surroundings; `none` is plain processes, which see all that the server does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lazycloud import processes
from lazycloud.processes import Output
from lazycloud.walls.sandbox import Sandbox
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload.parents import Parents
from lazycloud.workers.process import ProcessWorker, prepare, prepare_again
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Launch, Worker


class Engine(Protocol):
    """`name` is what the setting `isolation` calls it."""

    name: str

    async def start(self, launch: Launch, say: Output) -> Worker:
        """Start a worker; it is not ready yet. Raises StepFailed if it cannot be started, Busy without a port."""

    async def adopt(self, record: Record) -> Worker | None:
        """Find a worker again that an earlier control started; None if that very one does not run any more."""

    async def restored(self) -> None:
        """All that is to be found again was asked for: what else an earlier control left running is ended."""

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        """Run another command to its end where the worker of `launch` would run. Raises StepFailed."""

    def prepare(self, launch: Launch) -> None:
        """A worker like this will be started in a moment: what can be got ready is, in the background."""

    def adopted(self, worker: Worker) -> None:
        """The same for the next workers that are like one that was found again."""

    async def leave(self, folder: Path) -> None:
        """A folder that nobody uses is to be removed: nothing of ours waits in it any more."""

    async def close(self) -> None:
        """Workers live on."""


class Processes:
    """Workers that are processes of this machine, and see all of it."""

    name = "none"

    def __init__(self) -> None:
        self._ports = Ports()
        self._parents = Parents()

    async def start(self, launch: Launch, say: Output) -> Worker:
        return await ProcessWorker.start(self._seen(launch), self._ports, self._parents, say)

    async def adopt(self, record: Record) -> Worker | None:
        return await ProcessWorker.adopt(record, self._ports)

    async def restored(self) -> None:
        """The fleet looks for stray processes."""

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        before = processes.heeding_modes()
        await processes.run(command, launch.folder, launch.environment, output, timeout, before=before)

    def prepare(self, launch: Launch) -> None:
        prepare(self._seen(launch), self._parents)

    def adopted(self, worker: Worker) -> None:
        if isinstance(worker, ProcessWorker):
            prepare_again(worker, self._parents)

    async def leave(self, folder: Path) -> None:
        await self._parents.leave(folder)

    async def close(self) -> None:
        await self._parents.close()

    def _seen(self, launch: Launch) -> Launch:
        return replace(launch, view=None)


class Sandboxed(Processes):
    """The same behind `walls`: each sees what its launch says."""

    name = "sandbox"

    def __init__(self, walls: Sandbox) -> None:
        super().__init__()
        self._walls = walls

    async def start(self, launch: Launch, say: Output) -> Worker:
        return await ProcessWorker.start(self._seen(launch), self._ports, None, say, self._walls)

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        if launch.view is None:
            await super().run(launch, command, output, timeout)
            return
        enclosed = self._walls.enclose(launch.view, launch.folder, launch.environment)
        await processes.run(
            command, launch.folder, enclosed.environment, output, timeout, before=enclosed.words, relayed=True
        )

    def _seen(self, launch: Launch) -> Launch:
        return replace(launch, venv=None)
