"""A command that somebody runs in a container of its own, attached to its streams or terminal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream

from lazycloud.workers.containers.daemon import Daemon
from lazycloud.workers.containers.ending import how_it_ended
from lazycloud.workers.containers.removal import Removals
from lazycloud.workers.errand import STDERR, STDOUT, Terminal
from lazycloud.workers.worker import Launch

GONE = (DockerError, aiohttp.ClientError, OSError, RuntimeError)  # of a stream whose other end is


def attached(terminal: Terminal | None) -> dict[str, Any]:
    """What a container is made with that somebody will be at."""
    return {
        "Tty": terminal is not None,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
    }


class ContainerErrand:
    """Made by `begin`. What it is not read of makes the engine wait, and that the command."""

    def __init__(
        self,
        daemon: Daemon,
        removals: Removals,
        container: DockerContainer,
        stream: Stream,
        launch: Launch,
        is_terminal: bool,
    ) -> None:
        self._daemon = daemon
        self._removals = removals
        self._container = container
        self._stream = stream
        self._is_terminal = is_terminal
        self._patience = launch.stop_timeout
        self._limits = launch.limits
        self._rest = (0, b"")
        self._input_closed = False
        self._stopping = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()
        self._ending = asyncio.create_task(self._wait(), name=f"end of container {container.id[:12]}")
        self._ending.add_done_callback(lambda done: done.cancelled() or done.exception())

    @classmethod
    async def begin(
        cls,
        daemon: Daemon,
        removals: Removals,
        container: DockerContainer,
        launch: Launch,
        terminal: Terminal | None,
    ) -> ContainerErrand:
        """Attach to one that was created, and start it: so nothing that it writes is missed. Raises StepFailed."""
        async with daemon.asked("to run a command"):
            stream = container.attach(stdin=True, stdout=True, stderr=True)
            await stream.__aenter__()
            await container.start()
            if terminal:
                await container.resize(h=terminal.rows, w=terminal.columns)
        return cls(daemon, removals, container, stream, launch, terminal is not None)

    async def read(self, most: int) -> tuple[int, bytes]:
        if not self._rest[1]:
            try:
                message = await self._stream.read_out()
            except GONE:
                message = None
            if message is None:
                return 0, b""
            self._rest = (STDERR if message.stream == STDERR else STDOUT, bytes(message.data))
        number, data = self._rest
        self._rest = number, data[most:]
        return number, data[:most]

    async def write(self, data: bytes) -> None:
        if not self._input_closed:
            with suppress(*GONE):
                await self._stream.write_in(data)

    def close_input(self) -> None:
        if not self._is_terminal:
            self._close_input()

    def resize(self, rows: int, columns: int) -> None:
        if self._is_terminal:
            self._tell(self._container.resize(h=rows, w=columns))

    def signal(self, number: signal.Signals) -> None:
        self._tell(self._container.kill(signal=number.name))

    async def ended(self) -> int:
        return await asyncio.shield(self._ending)

    async def end(self) -> None:
        async with self._stopping:
            self._close_input()
            if not self._ending.done():
                number = signal.SIGHUP if self._is_terminal else signal.SIGTERM
                with suppress(*GONE):
                    await self._container.kill(signal=number.name)
                await asyncio.wait({self._ending}, timeout=self._patience)
            if not self._ending.done():
                with suppress(*GONE):
                    await self._container.kill(signal="SIGKILL")
                await asyncio.wait({self._ending}, timeout=self._patience)
            await self._removals.remove(self._container.id)

    def close(self) -> None:
        self._ending.cancel()
        for task in self._telling:
            task.cancel()
        self._tell(self._stream.close())

    async def _wait(self) -> int:
        async with self._daemon.asked("how a command ended"):
            await self._container.wait()
            status, _ = how_it_ended((await self._container.show())["State"], self._limits)
        return status or 0

    def _close_input(self) -> None:
        """Only this half of the connection: what it writes yet is to come."""
        if self._input_closed or self._is_terminal:
            return
        self._input_closed = True
        response = self._stream._resp
        transport = response.connection.transport if response and response.connection else None
        if transport and transport.can_write_eof():
            transport.write_eof()

    def _tell(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="tell a container engine")
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        """One that has ended meanwhile hears nothing more."""
        self._telling.discard(task)
        if not task.cancelled():
            task.exception()
