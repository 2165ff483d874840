"""A command that somebody runs once where a deployment's workers run, and is at: with input, output, a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lazycloud.errors import StepFailed
from lazycloud.processes import (
    Ending,
    as_relayed,
    end_given,
    end_group,
    identity_of_child,
    signal_group,
    signal_members,
)
from lazycloud.walls.sandbox import Sandbox
from lazycloud.workers.command import shell, shell_arguments
from lazycloud.workers.worker import Launch

STDOUT, STDERR = 1, 2
READ_SIZE = 65536
HANG_UP_SECONDS = 1.0  # that a command has when its terminal is gone, before SIGTERM

# A session's leader that has no terminal gets the one that it opens. Behind walls that has no name; there the command
# leads a session of its own, so that Ctrl-C reaches it, and not the program that builds the walls and waits for it.
_TAKES_TERMINAL = ("/bin/sh", "-c", 'exec "$@" 0<>"$0" 1>&0 2>&1')
_TAKES_TERMINAL_WALLED = ("setsid", "--ctty")


@dataclass(frozen=True)
class Terminal:
    """Its size in characters, and what TERM says."""

    rows: int
    columns: int
    kind: str


class Errand(Protocol):
    """Made by an engine; it runs. Not for several tasks at once but for one each that reads, writes and waits."""

    async def read(self, most: int) -> tuple[int, bytes]:
        """What it wrote next, of STDOUT or STDERR, `most` bytes of it; (0, b"") when nothing can come any more.

        What is not read makes the command wait. With a terminal all is STDOUT.
        """

    async def write(self, data: bytes) -> None:
        """Give it input; returns when it has taken that, or has ended. What nobody can read any more is dropped."""

    def close_input(self) -> None:
        """There is no more. Of a terminal only its user can say so."""

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal, if it has one, has another size now."""

    def signal(self, number: signal.Signals) -> None:
        """To all of its process group; nothing happens if it has ended."""

    async def ended(self) -> int:
        """Wait until it has ended: its exit status, negative for a signal."""

    async def end(self) -> None:
        """End all that there is of it, and what it left behind. Idempotent, and bounded.

        What it wrote until then can still be read.
        """

    def close(self) -> None:
        """After `end`: nothing is read any more."""


async def _nothing() -> None: ...


class ProcessErrand:
    """Made by `start`: processes of this machine. Their HOME or TMPDIR tells those that left their session."""

    def __init__(
        self, pid: int, flows: Flows, launch: Launch, walled: bool, last: Callable[[], Awaitable[None]]
    ) -> None:
        self._flows = flows
        self._launch = launch
        self._walled = walled
        self._last = last
        self._ending = Ending(identity_of_child(pid))
        self._ending.watch()
        self._stopping = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Errand {self._ending.identity.pid} {'ended' if self._ending.over else 'running'}>"

    @classmethod
    def start(
        cls,
        launch: Launch,
        command: str,
        terminal: Terminal | None,
        walls: Sandbox | None = None,
        before: Sequence[str] = (),
        last: Callable[[], Awaitable[None]] = _nothing,
    ) -> ProcessErrand:
        """Begin it in the folder and environment of `launch`, behind walls if it has a view. Raises StepFailed.

        `before` are words that all of it is run by; `last` is done when it has ended.
        """
        streams = _with_terminal(terminal) if terminal else _with_pipes()
        environment = {**launch.environment, **({"TERM": terminal.kind} if terminal else {})}
        walled = False
        if walls and launch.view:
            enclosed, walled = walls.enclose(launch.view, launch.folder, environment), True
            takes = list(_TAKES_TERMINAL_WALLED) if terminal else []
            arguments, environment = [*enclosed.words, *takes, *shell(command)], dict(enclosed.environment)
        else:
            takes = [*_TAKES_TERMINAL, streams.name] if terminal else []
            arguments = [*takes, *shell_arguments(command)]
        try:
            process = subprocess.Popen(
                [*before, *arguments],
                cwd=launch.folder,
                env=environment,
                stdin=streams.theirs[0],
                stdout=streams.theirs[1],
                stderr=streams.theirs[2],
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:  # ValueError: a NUL
            streams.flows.close()
            raise StepFailed(f"The command could not be run in {launch.folder}: {problem}.") from problem
        finally:
            for descriptor in set(streams.theirs):
                os.close(descriptor)
        process.returncode = 0  # Ending reaps it
        return cls(process.pid, streams.flows, launch, walled, last)

    async def read(self, most: int) -> tuple[int, bytes]:
        return await self._flows.read(most)

    async def write(self, data: bytes) -> None:
        await self._flows.write(data)

    def close_input(self) -> None:
        if not self._flows.is_terminal:
            self._flows.close_input()

    def resize(self, rows: int, columns: int) -> None:
        self._flows.resize(rows, columns)

    def signal(self, number: signal.Signals) -> None:
        leader = self._ending.identity.pid
        if self._ending.look():
            return
        if self._walled:  # the program that built the walls would heed it, and leave the command alone
            signal_members(leader, number)
        else:
            signal_group(leader, number)

    async def ended(self) -> int:
        status = await self._ending.wait() or 0
        return as_relayed(status) if self._walled else status

    async def end(self) -> None:
        async with self._stopping:
            self._flows.close_input()
            if self._flows.is_terminal and not self._ending.look():
                await self._hang_up()
            await end_group(self._ending, [(signal.SIGTERM, self._launch.stop_timeout)])
            for name in ("HOME", "TMPDIR"):
                await asyncio.to_thread(end_given, name, self._launch.environment.get(name, ""))
            await self._last()

    async def _hang_up(self) -> None:
        """As a terminal does that is switched off: an interactive shell heeds nothing else."""
        self._flows.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_UP_SECONDS):
                await self._ending.wait()

    def close(self) -> None:
        self._flows.close()
        self._ending.close()


class Flows:
    """Our ends of a command's input and output: descriptors that never block us, and that make it wait."""

    def __init__(self, outputs: dict[int, int], entry: int, is_terminal: bool) -> None:
        """`outputs` by STDOUT and STDERR; of a terminal the only one, and `entry`, are the same."""
        self.is_terminal = is_terminal
        self._outputs = outputs
        self._entry = entry
        self._waiting: set[asyncio.Future[None]] = set()
        for descriptor in {*outputs.values(), entry}:
            os.set_blocking(descriptor, False)

    async def read(self, most: int) -> tuple[int, bytes]:
        while self._outputs:
            for number, descriptor in list(self._outputs.items()):
                try:
                    data = os.read(descriptor, min(most, READ_SIZE))
                except BlockingIOError:
                    continue
                except OSError:  # how a terminal says that nobody has its other end any more
                    data = b""
                if data:
                    return number, data
                self._close_output(number)
            if self._outputs:
                await self._until_readable()
        return 0, b""

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._entry >= 0:
            try:
                rest = rest[os.write(self._entry, rest) :]
            except BlockingIOError:
                await self._until_writable()
            except OSError:  # nobody reads it
                return

    def close_input(self) -> None:
        """Of a terminal nothing is closed: that would hang it up."""
        entry, self._entry = self._entry, -1
        if entry >= 0 and not self.is_terminal:
            asyncio.get_running_loop().remove_writer(entry)
            os.close(entry)
        self._wake()

    def resize(self, rows: int, columns: int) -> None:
        if self.is_terminal and STDOUT in self._outputs:
            _set_size(self._outputs[STDOUT], rows, columns)

    def close(self) -> None:
        self.close_input()
        for number in list(self._outputs):
            self._close_output(number)

    def _close_output(self, number: int) -> None:
        descriptor = self._outputs.pop(number)
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        if self.is_terminal:
            loop.remove_writer(descriptor)
            self._entry = -1
        os.close(descriptor)
        self._wake()

    def _wake(self) -> None:
        """Whoever waits for what is closed now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _until_readable(self) -> None:
        loop, watched = asyncio.get_running_loop(), list(self._outputs.values())
        with self._wait() as ready:
            for descriptor in watched:
                loop.add_reader(descriptor, _settle, ready)
            try:
                await ready
            finally:
                for descriptor in watched:
                    if descriptor in self._outputs.values():  # else it is closed, or somebody else's by now
                        loop.remove_reader(descriptor)

    async def _until_writable(self) -> None:
        loop, entry = asyncio.get_running_loop(), self._entry
        with self._wait() as ready:
            loop.add_writer(entry, _settle, ready)
            try:
                await ready
            finally:
                if self._entry == entry:
                    loop.remove_writer(entry)

    @contextlib.contextmanager
    def _wait(self) -> Iterator[asyncio.Future[None]]:
        ready = asyncio.get_running_loop().create_future()
        self._waiting.add(ready)
        try:
            yield ready
        finally:
            self._waiting.discard(ready)


@dataclass(frozen=True)
class Streams:
    """Our ends, the child's input, output and errors, and the `name` of the terminal that it is to take, if any."""

    flows: Flows
    theirs: tuple[int, int, int]
    name: str = ""


def _with_pipes() -> Streams:
    read_in, entry = os.pipe()
    out, write_out = os.pipe()
    errors, write_errors = os.pipe()
    flows = Flows({STDOUT: out, STDERR: errors}, entry, is_terminal=False)
    return Streams(flows, (read_in, write_out, write_errors))


def _with_terminal(terminal: Terminal) -> Streams:
    ours, theirs = pty.openpty()
    _set_size(ours, terminal.rows, terminal.columns)
    flows = Flows({STDOUT: ours}, ours, is_terminal=True)
    return Streams(flows, (theirs, theirs, theirs), os.ttyname(theirs))


def _set_size(descriptor: int, rows: int, columns: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
