"""A process of an environment's Python that waits to be forked, and the talk with it: see inside/parent.py."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lazycloud.processes import Ending, Identity, boot_id, heeding_modes, identity_of_child, kill_session
from lazycloud.workers.bounds import NO_BOUNDS, Bound, Bounds
from lazycloud.workers.logs import open_log
from lazycloud.workers.preload.start import VERSION, Start
from lazycloud.workers.preload.unsuitable import Unsuitable

SCRIPT = Path(__file__).parent / "inside" / "parent.py"
NOTES = "imports"  # the file in an environment's memory to which workers add what they import
UP_PATIENCE = 2.0  # seconds for a Python to start; a plain start would take as long
PATIENCE = 0.5  # seconds for a fork, which takes some milliseconds
IMPORTING_PATIENCE = 0.1  # seconds for one that is just at its imports: a plain start is what it has to beat
DOUBT = 3.0  # seconds for one that was late to say that it lives; a busy machine may be why
LAST_PATIENCE = 0.1  # seconds for a fork that has begun to say who it is
ARGUMENT_ROOM = 8192  # bytes that a worker's command line may need
VARIABLE_ROOM = 16384  # bytes that its variables may need beyond its parent's own
ROOM = "LAZYCLOUD_ROOM"
LARGEST = 65536  # bytes of what it says


class Phase(Enum):
    STARTING = "starting"
    WAITING = "waiting"
    IMPORTING = "importing"
    GONE = "gone"


@dataclass(frozen=True)
class Fork:
    """A worker that has begun. `report` is a pipe on which its parent will tell how it ended; whoever has this
    closes it. `modules`: how many had been imported ahead."""

    identity: Identity
    report: int
    modules: int


class Parent:
    """Made by `spawn`. `modules` is how many it has imported for its workers; 0: it is a bare Python."""

    def __init__(
        self,
        key: str,
        memory: Path,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        bounds: Bounds,
        bound: Bound,
    ) -> None:
        self._bounds, self._bound = bounds, bound
        self.key = key
        self.memory = memory
        self.phase = Phase.STARTING
        self.modules = 0
        self.pid = process.pid
        self._imports = 0  # that it was told to do, and has not ended
        self._doubt: asyncio.TimerHandle | None = None
        self._control = control
        self._changed = asyncio.Event()
        self._ending = Ending(identity_of_child(process.pid))
        self._ending.watch()
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_message)

    def __repr__(self) -> str:
        return f"<Parent {self.pid} {self.phase.value}, {self.modules} modules>"

    @classmethod
    def spawn(cls, start: Start, notes: list[Path], bounds: Bounds = NO_BOUNDS) -> Parent:
        """A bare Python for starts with that key. `notes` are files that name modules.

        What it imports may be anybody's: it is held as a worker is. Raises OSError, and StepFailed if it cannot be.
        """
        memory = start.venv.memory
        memory.mkdir(parents=True, exist_ok=True)
        settings = {
            "version": VERSION,
            "notes": [str(path) for path in notes],
            "verdict": str(memory / f"{start.key}.json"),
            "withheld": sorted(start.withheld),
            "forget": [ROOM],
        }
        # HOME: by it whoever finds this process later without its control knows that it may be ended.
        variables = {**start.given, "HOME": str(memory), ROOM: "-" * VARIABLE_ROOM}
        bound = bounds.make_now(f"waits {start.key}", bounds.limits)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open_log(memory / "parent.log") as log:
            try:
                number = str(theirs.fileno())
                process = subprocess.Popen(
                    [
                        *bound.words,
                        *heeding_modes(),
                        start.venv.path / "bin" / "python",
                        *start.invocation.options,
                        SCRIPT,
                        number,
                        json.dumps(settings),
                        "-" * ARGUMENT_ROOM,
                    ],
                    cwd=memory,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                ours.close()
                bounds.end_soon(bound)
                raise
        process.returncode = 0  # Ending reaps it
        return cls(start.key, memory, process, ours, bounds, bound)

    @property
    def is_gone(self) -> bool:
        return self.phase is Phase.GONE

    def preload(self) -> None:
        """Let it import what its notes name; it can be forked all the while, if it is not just at a long import."""
        if not self.is_gone and self._tell({"do": "preload"}):
            self._imports += 1
            if self.phase is Phase.WAITING:
                self.phase = Phase.IMPORTING

    async def fork(self, start: Start, log: int, record: Path | None, doors: Sequence[Path] = ()) -> Fork:
        """Start a worker that writes to `log`, a descriptor, and enters by `doors` before anything of the app runs.

        Raises Unsuitable, and then nothing was started.
        """
        await self._up()
        if self._doubt:
            raise Unsuitable("the Python that waits for it does not answer just now")
        report, their_report = os.pipe()
        permit, their_permit = os.pipe()
        try:
            os.set_blocking(report, False)
            os.set_blocking(permit, False)
            os.write(their_permit, b"1")
            try:
                with _opened(doors) as entries:
                    self._send(start.order(record), [log, their_report, permit, *entries])
            finally:
                os.close(their_report)
                os.close(their_permit)
            identity = await self._begun(report, permit)
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(permit)
        return Fork(identity, report, self.modules)

    def retire(self) -> None:
        """Fork no more, and end once the last worker has ended."""
        if not self._tell({"do": "retire"}):
            self.kill()

    def kill(self) -> None:
        kill_session(self.pid)
        self._gone()

    async def close(self, seconds: float = 1.0) -> None:
        """End it at once; workers live on, and nobody will tell how they end."""
        self._gone()
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            kill_session(self.pid)
            await self._ending.wait()

    async def _up(self) -> None:
        try:
            async with asyncio.timeout(UP_PATIENCE):
                while self.phase is Phase.STARTING:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.kill()
            raise Unsuitable("its environment's Python was slow to start") from None
        if self.is_gone:
            raise Unsuitable("the Python that waited for it is gone")

    async def _begun(self, report: int, permit: int) -> Identity:
        """Who the fork is. In time, or it is not allowed to begin any more."""
        try:
            async with asyncio.timeout(IMPORTING_PATIENCE if self._imports else PATIENCE):
                line = await _line(report)
        except TimeoutError:
            if not self._imports:
                self._begin_to_doubt()
            line = _taken_back(report, permit)
        except asyncio.CancelledError:
            word, *facts = _taken_back(report, permit).split()
            if word == "started":
                kill_session(int(facts[0]))
            raise
        word, _, rest = line.partition(" ")
        if word == "started":
            pid, started = rest.split()
            return Identity(int(pid), int(started), boot_id())
        raise Unsuitable(rest if word == "refused" else "the Python that waited for it ended")

    def _begin_to_doubt(self) -> None:
        self._tell({"do": "answer"})
        self._doubt = asyncio.get_running_loop().call_later(DOUBT, self.kill)

    def _end_doubt(self) -> None:
        if self._doubt:
            self._doubt.cancel()
            self._doubt = None

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError as problem:
            if not isinstance(problem, BlockingIOError) and problem.errno != errno.EMSGSIZE:
                self.kill()
            raise Unsuitable(
                f"the Python that waited for it could not be asked: {problem.strerror}"
            ) from problem

    def _tell(self, message: dict[str, Any]) -> bool:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            return False
        return True

    def _on_message(self) -> None:
        try:
            message = self._control.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._gone()
            return
        self._end_doubt()
        said = json.loads(message)
        if said["is"] == "preloaded":
            self.modules += said["modules"]
            self._imports -= 1
        self.phase = Phase.IMPORTING if self._imports else Phase.WAITING
        self._changed.set()

    def _gone(self) -> None:
        if self.phase is not Phase.GONE:
            self.phase = Phase.GONE
            self._end_doubt()
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._changed.set()
            self._bounds.end_soon(self._bound)


@contextlib.contextmanager
def _opened(doors: Sequence[Path]) -> Iterator[list[int]]:
    """Opened here: a fork need not see the files, nor have the right to write them. Raises Unsuitable."""
    with contextlib.ExitStack() as stack:
        try:
            yield [stack.enter_context(door.open("wb", buffering=0)).fileno() for door in doors]
        except OSError as problem:
            raise Unsuitable(f"its control group could not be opened: {problem.strerror}") from problem


async def _line(report: int) -> str:
    """The first line, without what follows it; "" at the end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(report, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(report)
    return _read_line(report)


def _read_line(report: int) -> str:
    """A line is written at once, so all of it is there. Byte by byte: what follows is for another reader."""
    line = b""
    with contextlib.suppress(BlockingIOError):
        while (byte := os.read(report, 1)) not in (b"", b"\n"):
            line += byte
    return line.decode()


def _taken_back(report: int, permit: int) -> str:
    """See to it that no fork begins any more. The first line of one that has begun; else why none did."""
    with contextlib.suppress(BlockingIOError):
        if os.read(permit, 1) == b"1":
            return "refused the Python that waited for it did not answer in time"
    # It says who it is in the next moment: nothing is between the two. Nobody may be left to run unknown.
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.poll(LAST_PATIENCE * 1000)
    return _read_line(report) or "refused the Python that waited for it ended"
