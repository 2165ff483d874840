"""A process of an environment's Python that waits to be forked, and the talk with it: see inside/parent.py."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import psutil

from lazycloud.processes import (
    Ending,
    Identity,
    boot_id,
    heeding_modes,
    identify,
    identity_of_child,
    kill_session,
)
from lazycloud.walls.machine import installation, worth_showing
from lazycloud.walls.sandbox import FILTER, Enclosed, Sandbox, outside
from lazycloud.walls.view import View
from lazycloud.workers.bounds import NO_BOUNDS, Bound, Bounds
from lazycloud.workers.logs import open_log
from lazycloud.workers.preload import credentials
from lazycloud.workers.preload.cell import Cell, Namespaces
from lazycloud.workers.preload.start import VERSION, Start
from lazycloud.workers.preload.unsuitable import Unsuitable

PACKAGE = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "inside" / "parent.py"
VERDICTS = "verdicts"  # the folder in an environment's memory to which the process writes what it found
NOTES = "imports"  # the file in an environment's memory to which workers add what they import
UP_PATIENCE = 2.0  # seconds for a Python to start; a plain start would take as long
PATIENCE = 0.5  # seconds for a fork, which takes some milliseconds
IMPORTING_PATIENCE = 0.1  # seconds for one that is just at its imports: a plain start is what it has to beat
DOUBT = 3.0  # seconds for one that was late to say that it lives; a busy machine may be why
LAST_PATIENCE = 0.1  # seconds for a fork that has begun to say who it is
ARGUMENT_ROOM = 8192  # bytes that a worker's command line may need
VARIABLE_ROOM = 16384  # bytes that its variables may need beyond its parent's own
ROOM = "LAZYCLOUD_ROOM"
STARTED, WAITS = "started", "waits"  # what a fork says
ANSWERED = ("answer", "preload")  # what it is told, and answers
LOG = "parent.log"
PYTHON = re.compile(r"(python|pypy)[0-9.]*")
LARGEST = 65536  # bytes of what it says


class Phase(Enum):
    STARTING = "starting"
    WAITING = "waiting"
    IMPORTING = "importing"
    GONE = "gone"


@dataclass(frozen=True)
class Fork:
    """A worker that has begun. `report` is a socket on which its parent will tell how it ended; whoever has this
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
        walls: Sandbox | None,
    ) -> None:
        self._bounds, self._bound = bounds, bound
        self.key = key
        self._walls = walls
        self.memory = memory
        self.phase = Phase.STARTING
        self.modules = 0
        self.pid = process.pid  # of bwrap, if it is walled, until it says who it is
        self._owed = 1  # messages that it may send: that it is up, and answers
        self._imports = 0  # that it was told to do, and has not ended
        self._doubt: asyncio.TimerHandle | None = None
        self._control = control
        self._changed = asyncio.Event()
        self._ending = Ending(identity_of_child(process.pid))
        self._ending.watch()
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_message)

    def __repr__(self) -> str:
        return f"<Parent {self.pid} {self.phase.value}, {self.modules} modules>"

    @classmethod
    def spawn(
        cls, start: Start, notes: list[Path], bounds: Bounds = NO_BOUNDS, walls: Sandbox | None = None
    ) -> Parent:
        """A bare Python for starts with that key. `notes` are files that name modules.

        What it imports may be anybody's: it is held as a worker is. Behind `walls` it sees its environment, and of
        the memory only verdicts are its own to write. Raises OSError, StepFailed if it cannot be held, Unsuitable.
        """
        memory = start.venv.memory
        verdicts = memory / VERDICTS
        if any(place.is_symlink() for place in (memory, verdicts, memory / LOG, *notes)):
            raise Unsuitable("the memory of its environment leads elsewhere")
        verdicts.mkdir(parents=True, exist_ok=True)
        settings = {
            "version": VERSION,
            "notes": [str(path) for path in notes],
            "verdict": str(verdicts / f"{start.key}.json"),
            "withheld": sorted(start.withheld),
            "forget": [ROOM],
            "walls": walls.entering() if walls else None,
        }
        # HOME: by it whoever finds this process later without its control knows that it may be ended.
        variables = {**start.given, "HOME": str(memory), ROOM: "-" * VARIABLE_ROOM}
        before = Enclosed(heeding_modes(), variables)
        if walls:
            before = walls.enclose_parent(_view(walls, start, verdicts), memory, variables)
        bound = bounds.make_now(f"waits {start.key}", bounds.limits)
        ours, theirs = credentials.pair(socket.SOCK_SEQPACKET)
        with theirs, open_log(memory / LOG) as log, contextlib.ExitStack() as stack:
            try:
                # bwrap's processes stay outside: they are to outlive the group, for the workers.
                doors = stack.enter_context(_opened(bound.doors if walls else ()))
                number, *settings["doors"] = given = _out_of_the_way([theirs.fileno(), *doors], stack)
                process = subprocess.Popen(
                    [
                        *(bound.words_without_entering if walls else bound.words),
                        *before.words,
                        start.venv.path / "bin" / "python",
                        *start.invocation.options,
                        SCRIPT,
                        str(number),
                        json.dumps(settings),
                        "-" * ARGUMENT_ROOM,
                    ],
                    cwd=memory,
                    env=before.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=given,
                )
            except BaseException:
                ours.close()
                bounds.end_soon(bound)
                raise
        process.returncode = 0  # Ending reaps it
        return cls(start.key, memory, process, ours, bounds, bound, walls)

    @property
    def is_gone(self) -> bool:
        return self.phase is Phase.GONE

    @property
    def is_waiting(self) -> bool:
        """For nothing but a start."""
        return self.phase is Phase.WAITING and not self._doubt

    def preload(self) -> None:
        """Let it import what its notes name; it can be forked all the while, if it is not just at a long import."""
        if not self.is_gone and self._tell({"do": "preload"}):
            self._imports += 1
            if self.phase is Phase.WAITING:
                self.phase = Phase.IMPORTING

    async def fork(
        self,
        start: Start,
        log: int,
        record: Path | None,
        view: View | None = None,
        doors: Sequence[Path] = (),
    ) -> Fork:
        """Start a worker that writes to `log`, a descriptor, and behind walls sees `view`.

        It has entered by `doors`, of a control group, before anything of the app runs. Raises Unsuitable, and then
        nothing was started.
        """
        if record:
            self._make(record)
        if record and view:
            fresh = tuple(place for place in view.fresh if not record.is_relative_to(place))
            view = replace(view, write=(*view.write, record), fresh=fresh)
        return await self.order(await self.begin(start.folder, view), start, log, record, doors)

    def _make(self, record: Path) -> None:
        """A start may have another memory than that which this was spawned for: sites of two apps have one Python."""
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()
        except OSError as problem:
            raise Unsuitable(f"what it imports cannot be noted: {problem.strerror}") from problem

    async def begin(self, folder: Path, view: View | None) -> socket.socket:
        """A fork that waits for its order, on what is returned; it ends when that is closed. Raises Unsuitable."""
        await self._up()
        if self._doubt:
            raise Unsuitable("the Python that waits for it does not answer just now")
        if self._walls is None:
            return self._begin(Namespaces())
        if view is None:
            raise Unsuitable("it is to run without walls")
        with open_log(self.memory / LOG) as trouble:
            cell = Cell.spawn(self.pid, self._walls, view, folder, trouble.fileno())
        try:
            namespaces = await cell.namespaces()
            try:
                report = self._begin(namespaces)
            finally:
                namespaces.close()
        finally:
            cell.close()
        return report

    def _begin(self, namespaces: Namespaces) -> socket.socket:
        report, theirs = credentials.pair(socket.SOCK_SEQPACKET)
        with theirs:
            try:
                request = {"do": "fork", "outer": len(namespaces.outer)}
                given = [theirs.fileno(), *namespaces.outer, *namespaces.inner]
                self._send(self._control, request, given)
            except BaseException:
                report.close()
                raise
        return report

    async def order(
        self,
        report: socket.socket,
        start: Start,
        log: int,
        record: Path | None,
        doors: Sequence[Path] = (),
    ) -> Fork:
        """Let a fork that has begun be that worker. Raises Unsuitable, and then it has ended, or will."""
        permit, theirs = os.pipe()
        try:
            os.set_blocking(permit, False)
            os.write(theirs, b"1")
            os.close(theirs)
            with _opened(doors) as entries:
                self._send(report, start.order(record), [log, permit, *entries])
            identity = await self._begun(report, permit)
            if self._walls and doors:
                asyncio.get_running_loop().run_in_executor(None, _bring_along, identity.pid, doors)
        except BaseException:
            report.close()
            raise
        finally:
            os.close(permit)
        return Fork(identity, report.detach(), self.modules)

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

    async def _begun(self, report: socket.socket, permit: int) -> Identity:
        """Who the fork is. In time, or it is not allowed to begin any more."""
        try:
            async with asyncio.timeout(IMPORTING_PATIENCE if self._imports else PATIENCE):
                line, pid = await said(report)
                if line == WAITS:
                    line, pid = await said(report)
        except TimeoutError:
            if not self._imports:
                self._begin_to_doubt()
            line, pid = _taken_back(report, permit)
        except asyncio.CancelledError:
            line, pid = _taken_back(report, permit)
            if line == STARTED:
                kill_session(pid)
            raise
        if line == STARTED:
            return identify(pid) or Identity(pid, 0, boot_id())
        raise Unsuitable(_refusal(line))

    def _begin_to_doubt(self) -> None:
        self._tell({"do": "answer"})
        self._doubt = asyncio.get_running_loop().call_later(DOUBT, self.kill)

    def _end_doubt(self) -> None:
        if self._doubt:
            self._doubt.cancel()
            self._doubt = None

    def _send(self, to: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            socket.send_fds(to, [json.dumps(message).encode()], descriptors)
        except OSError as problem:
            if to is self._control and not isinstance(problem, BlockingIOError):
                self.kill()
            raise Unsuitable(
                f"the Python that waited for it could not be asked: {problem.strerror}"
            ) from problem

    def _tell(self, message: dict[str, Any]) -> bool:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            return False
        self._owed += message["do"] in ANSWERED
        return True

    def _on_message(self) -> None:
        try:
            message, pid = credentials.receive(self._control, LARGEST)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._gone()
            return
        self._end_doubt()
        if self._walls and self.phase is Phase.STARTING:
            self.pid = pid
        try:
            modules = _understood(message)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self._owed = 0
        if self._owed <= 0:  # what it imported speaks for it, and is not to keep us busy
            self.kill()
            return
        self._owed -= 1
        if modules is not None and self._imports:
            self.modules += modules
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


def _out_of_the_way(descriptors: list[int], stack: contextlib.ExitStack) -> list[int]:
    """The same by other numbers: on the way to the process shells use small ones (walls.sandbox.FILTER)."""
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, FILTER + 11) for each in descriptors]
    for each in copies:
        stack.callback(os.close, each)
    return copies


def _bring_along(worker: int, doors: Sequence[Path]) -> None:
    """Those that wait for it and reap for it, into its group: its parent's ends sooner than they may."""
    with contextlib.suppress(psutil.Error, OSError):
        waits = psutil.Process(psutil.Process(worker).ppid())
        for process in (waits, *waits.children()):
            for door in doors:
                door.write_text(str(process.pid))


def _view(walls: Sandbox, start: Start, verdicts: Path) -> View:
    python = interpreter(walls.home, start.venv.path / "bin" / "python")
    read = (start.venv.path, start.venv.memory, PACKAGE, *python)
    return View(walls.home, read, (verdicts,))


def interpreter(home: Path, python: Path) -> list[Path]:
    """The folders of the Python that an environment's one leads to; what was installed may have led it elsewhere."""
    if not PYTHON.fullmatch(python.resolve().name):
        return []
    return outside(home, worth_showing(installation(python)))


def _understood(message: bytes) -> int | None:
    """How many modules it says to have imported; None for anything else. Raises ValueError or its like."""
    said = json.loads(message)
    return int(said["modules"]) if said["is"] == "preloaded" else None


async def said(report: socket.socket) -> tuple[str, int]:
    """What a fork says next, "" at its end, and its pid."""
    await credentials.readable(report)
    return _read(report)


def _read(report: socket.socket) -> tuple[str, int]:
    try:
        line, pid = credentials.receive(report, LARGEST)
    except OSError:
        return "", 0
    return line.decode(errors="replace").rstrip("\n"), pid


def _taken_back(report: socket.socket, permit: int) -> tuple[str, int]:
    """See to it that no fork begins any more. What one said that has begun; else why none did."""
    with contextlib.suppress(BlockingIOError):
        if os.read(permit, 1) == b"1":
            return "refused the Python that waited for it did not answer in time", 0
    # It says who it is in the next moment: nothing is between the two. Nobody may be left to run unknown.
    poll = select.poll()
    poll.register(report, select.POLLIN)
    line, pid = WAITS, 0
    while line == WAITS and poll.poll(LAST_PATIENCE * 1000):
        line, pid = _read(report)
    return line, pid


def _refusal(line: str) -> str:
    word, _, rest = line.partition(" ")
    return rest if word == "refused" else "the Python that waited for it ended"
