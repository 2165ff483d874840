"""Processes: run a command to its end, know one again later, end a whole group.

Every process that lazycloud starts leads a session of its own, so that its group can be ended as a whole and
a Ctrl-C in the terminal of `lazycloud up` reaches only the parent. Linux: reads /proc.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from lazycloud.errors import StepFailed

Output = Callable[[str], None]
"""Takes text as a command writes it: any number of lines, the last perhaps unfinished, with ANSI colours."""

LAST_LINES = 20  # what fits on a landing page without scrolling
READ_SIZE = 65536
SESSION_POLL = 0.02  # seconds; a look through /proc costs a millisecond or two
REPORT_AT_ONCE = 0.005  # seconds to wait for the report of an end in the midst of things
REPORT_PATIENCE = 5.0  # seconds to wait for it on a busy machine
KILL_ROUNDS = 20  # of looking for what was forked meanwhile
NICE_TRIES = 50  # of moving a session's niceness: more than commands are ever started at once


def unheard(text: str) -> None:
    """The Output of work that nobody watches."""


class CommandFailed(StepFailed):
    """A command that did not succeed. `ended_with`: its status, negative for a signal, None at a timeout."""

    def __init__(self, command: str, status: int | None, last: Sequence[str], seconds: float = 0) -> None:
        how = f"did not end within {seconds:g} s" if status is None else ending_in_words(status)
        super().__init__(f"`{command}` {how}.", last=last)
        self.command = command
        self.ended_with = status


@dataclass(frozen=True)
class Identity:
    """A process that can be told from a later one with its pid: `started` is in clock ticks since boot."""

    pid: int
    started: int
    boot: str


def identify(pid: int) -> Identity | None:
    """The identity of a process that runs now; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Identity(pid, int(fields[19]), boot_id())


def identity_of_child(pid: int) -> Identity:
    """Of a process that we began and have not reaped: one that has ended already has a pid and no more."""
    return identify(pid) or Identity(pid, 0, boot_id())


def boot_id() -> str:
    """Changes with each boot of the machine: a pid recorded under another one is nobody's."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def began_at(identity: Identity) -> float:
    """When a process began, in unix time."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + identity.started / os.sysconf("SC_CLK_TCK")


def is_running(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def members(session: int) -> Iterator[int]:
    """The pids of the processes in a session, zombies left out."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            stat = (Path(entry.path) / "stat").read_bytes()
            fields = stat[stat.rindex(b")") + 2 :].split()
            if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
                yield int(entry.name)


@cache
def heeding_modes() -> tuple[str, ...]:
    """Words before a command that make the modes of files count for it, though we are root. Asks once: blocks.

    None for others than root, for whom they count anyway, and where this cannot be had (`modes_count`).
    """
    words = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--")
    if os.geteuid() != 0 or shutil.which(words[0]) is None:
        return ()
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else ()


def modes_count() -> bool:
    """Whether what is read-only is so for workers: files may be shared between releases then."""
    return os.geteuid() != 0 or bool(heeding_modes())


def kin(sessions: set[int]) -> tuple[list[int], set[int]]:
    """The pids in some sessions and of all their descendants, and the sessions that those are in."""
    parents: dict[int, int] = {}
    session_of: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = Path(f"/proc/{entry.name}/stat").read_bytes()
                fields = stat[stat.rindex(b")") + 2 :].split()
                parents[int(entry.name)], session_of[int(entry.name)] = int(fields[1]), int(fields[3])
    found = {pid for pid, session in session_of.items() if session in sessions}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found), {session_of[pid] for pid in found}


def end_strays(folder: Path, spare: set[int]) -> None:
    """Kill builds, release commands and workers that nobody watches any more: by what their environment names.

    Whole sessions whose leader was given one below `folder`; of other sessions nothing while their leader lives,
    for that may be a person's shell. `spare` are leaders to leave alone. Blocks for some milliseconds.
    """
    begins = tuple(f"{name}={folder}/".encode() for name in ("DATA_DIR", "HOME", "LAZYCLOUD_BUILD"))
    found = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    for pid in (pid for pid in found if _was_given(pid, begins)):
        with contextlib.suppress(OSError):
            session = os.getsid(pid)
            if session in spare or pid == os.getpid():
                continue
            if _was_given(session, begins):
                kill_session(session)
            elif identify(session) is None:
                os.kill(pid, signal.SIGKILL)


def end_given(name: str, value: str) -> None:
    """Kill every process that was started with that variable: daemons that left the session of a command, too.

    The value must be one that no other has been given. Blocks for some milliseconds.
    """
    entry = f"{name}={value}".encode(errors="surrogateescape")
    for _ in range(KILL_ROUNDS if value else 0):
        found = [int(each.name) for each in os.scandir("/proc") if each.name.isdigit()]
        tried = [_kill_if_given(pid, entry) for pid in found]
        if not any(tried):
            return


def _kill_if_given(pid: int, entry: bytes) -> bool:
    return kill_surely(pid, lambda: entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def kill_surely(pid: int, is_meant: Callable[[], object]) -> bool:
    """KILL a process if it is meant, and surely no other that got its pid meanwhile. Whether it was, and let us."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if is_meant():
            signal.pidfd_send_signal(process, signal.SIGKILL)
            return True
    except OSError:  # it has ended, or is somebody else's
        pass
    finally:
        os.close(process)
    return False


def _was_given(pid: int, begins: tuple[bytes, ...]) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(begins) for entry in environment.split(b"\0"))


def as_relayed(status: int) -> int:
    """How the process ended that another waited for: with 128 and its signal, as shells tell it."""
    return 128 - status if 128 < status < 128 + signal.NSIG else status


def ending_in_words(status: int) -> str:
    """How a process ended, to follow its name in a sentence. Negative: killed by that signal."""
    if status < 0:
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
    if status == 127:
        return "was not found (exit status 127)"
    if status == 126:
        return "could not be run (exit status 126)"
    return f"ended with exit status {status}"


async def run(
    command: str | Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Output,
    timeout: float,
    niceness: int = 0,
    before: Sequence[str] = (),
    started: Callable[[int], None] | None = None,
    relayed: bool = False,
) -> None:
    """Run to its end, its output streamed; `environment` is all that it gets.

    A string goes to `/bin/sh -c` (an app's own command); a sequence never sees a shell. Raises CommandFailed
    for a status other than 0, for `timeout` seconds passed, and for a program that is not there; StepFailed
    for a folder that is not there. `before` are words that the command is run by; `relayed`: a program of theirs
    waits for it, and ends as a shell does then. `started` is told its pid, which is its session's. However it
    ends, and when the caller is cancelled, nothing of its process group is left.
    """
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    nice = ["nice", "-n", str(niceness)] if niceness else []
    shown = command if isinstance(command, str) else " ".join(command)
    if not folder.is_dir():  # to the kernel that looks like a missing program
        raise StepFailed(f"`{shown}` could not be run: its folder {folder} is not there.")
    tail = Tail(output)
    process, pipe = await _spawn([*nice, *before, *arguments], shown, folder, environment)
    try:
        if started:
            started(process.pid)
        async with asyncio.timeout(timeout if timeout < float("inf") else None):
            if niceness:
                await come_after_others(process.pid, niceness)
            await _drain(process, pipe, tail)
            status = await process.wait()
            status = as_relayed(status) if relayed else status
    except TimeoutError:
        raise CommandFailed(shown, None, tail.lines(), timeout) from None
    finally:
        signal_group(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
    if status:
        raise CommandFailed(shown, status, tail.lines())


async def come_after_others(session: int, niceness: int) -> None:
    """Give all of a session's processes together less of the processor than others have.

    Where the kernel groups processes by session (`sched_autogroup_enabled`), their own niceness orders them among
    themselves only, and each session has an equal share: eight builds would leave a router a tenth of a core.
    """
    group = Path(f"/proc/{session}/autogroup")
    for _ in range(NICE_TRIES):
        try:
            group.write_text(f"{niceness}\n")
            return
        except BlockingIOError:  # the kernel lets a user change one in a tenth of a second
            await asyncio.sleep(0.1)
        except OSError:  # there are no such groups, or it has ended
            return


async def _spawn(
    arguments: Sequence[str], shown: str, folder: Path, environment: Mapping[str, str]
) -> tuple[asyncio.subprocess.Process, BinaryIO]:
    """A process, and the reading end of its output.

    The pipe is ours: one of asyncio's stays open, with no way to close it, while a daemon holds its other end.
    """
    readable, writable = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writable,
            stderr=writable,
            start_new_session=True,
        )
    except BaseException as problem:
        os.close(readable)
        if isinstance(problem, FileNotFoundError | PermissionError):
            status = 127 if isinstance(problem, FileNotFoundError) else 126
            raise CommandFailed(shown, status, ()) from problem
        raise
    finally:
        os.close(writable)
    return process, os.fdopen(readable, "rb", buffering=0)


async def _drain(process: asyncio.subprocess.Process, pipe: BinaryIO, tail: Tail) -> None:
    """Read until the end of output, or until the process is gone and only a child of its holds the pipe.

    What `tail` raises is raised here: output that cannot be kept (a full disk) fails the command.
    """
    ended = asyncio.create_task(process.wait(), name=f"wait for {process.pid}")
    reading = asyncio.create_task(_read(pipe, tail), name=f"output of {process.pid}")
    try:
        await asyncio.wait({ended, reading}, return_when=asyncio.FIRST_COMPLETED)
        done, _ = await asyncio.wait({reading}, timeout=1)
    finally:
        ended.cancel()
        reading.cancel()
        await asyncio.gather(ended, reading, return_exceptions=True)
        pipe.close()
        tail.end()
    if done:
        reading.result()


async def _read(pipe: BinaryIO, tail: Tail) -> None:
    """To its end.

    No transport does it: uvloop's closes the pipe twice, and the second time it may be another thread's file, which
    was given the same number meanwhile.
    """
    loop, some = asyncio.get_running_loop(), asyncio.Event()
    os.set_blocking(pipe.fileno(), False)
    loop.add_reader(pipe.fileno(), some.set)
    try:
        while True:
            await some.wait()
            some.clear()
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(pipe.fileno(), READ_SIZE)
                if not chunk:
                    return
                tail.feed(chunk)
    finally:
        loop.remove_reader(pipe.fileno())


class Tail:
    """Passes output on as text, and keeps its last lines."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._open = ""

    def feed(self, chunk: bytes) -> None:
        self._take(self._decoder.decode(chunk))

    def end(self) -> None:
        self._take(self._decoder.decode(b"", final=True))

    def lines(self) -> list[str]:
        """The last lines that say something, oldest first."""
        return [line for line in (*self._lines, self._open) if line.strip()][-LAST_LINES:]

    def _take(self, text: str) -> None:
        if not text:
            return
        *whole, last = (self._open + text).split("\n")
        self._lines.extend(line.rstrip("\r")[-2000:] for line in whole)
        self._open = last[-2000:]
        self._output(text)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal every process of the group that `leader` began; nothing happens if all are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def signal_members(leader: int, number: signal.Signals) -> None:
    """Signal all processes of the session that `leader` began, but not the leader."""
    for pid in members(leader):
        if pid != leader:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


class Ending:
    """Waits for a process to end, ours or adopted, by its pidfd; `status` is known only of our children.

    `report` is a pipe on which the parent of somebody else's child says `ended <wait status>`; it is closed here.
    `relayed`: it waits for the process that is meant, and then ends as a shell does: with 128 and its signal.
    """

    def __init__(self, identity: Identity, report: int = -1, relayed: bool = False) -> None:
        self.identity = identity
        self._relayed = relayed
        self.status: int | None = None
        self._fd = -1
        self._report = report
        self._gone = False
        self._ended = asyncio.Event()

    def watch(self) -> None:
        """Begin. A process that is gone already counts as ended."""
        try:
            self._fd = os.pidfd_open(self.identity.pid)
        except OSError as problem:
            if problem.errno != errno.ESRCH:
                raise
            self._on_end()
            return
        if is_running(self.identity):
            asyncio.get_running_loop().add_reader(self._fd, self._on_end)
        else:
            self._on_end()

    @property
    def over(self) -> bool:
        return self._gone

    def look(self) -> bool:
        """Whether it has ended, without waiting for the event loop to be told."""
        if not self.over:
            ended = _is_readable(self._fd, 0) if self._fd >= 0 else not is_running(self.identity)
            if ended:
                self._on_end()
        return self.over

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.status

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._report >= 0:
            asyncio.get_running_loop().remove_reader(self._report)
            os.close(self._report)
            self._report = -1

    def _on_end(self) -> None:
        self._gone = True
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.identity.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(status)
                self.status = as_relayed(status) if self._relayed else status
        if self.status is None and self._report >= 0:
            self._await_report()
        else:
            self._finish()

    def _await_report(self) -> None:
        """Its parent is told of the end at the same moment as we, and does nothing else: mostly it has said it."""
        report, self._report = self._report, -1
        self.close()
        self._report = report
        if _is_readable(report, REPORT_AT_ONCE):
            self._read_report()
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(report, self._read_report)
        loop.call_later(REPORT_PATIENCE, self._finish)

    def _read_report(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            word, _, status = os.read(self._report, 100).decode().partition(" ")
            if word == "ended":  # else its parent is gone, and nobody knows
                self.status = os.waitstatus_to_exitcode(int(status))
        self._finish()

    def _finish(self) -> None:
        self.close()
        self._ended.set()


def _is_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


async def end_group(ending: Ending, graces: Sequence[tuple[signal.Signals, float]]) -> None:
    """End a process and all of its session: each signal with the seconds it is given, then KILL. Idempotent.

    A leader that ends first (a shell, npm) does not cost its children the time to end properly.
    """
    identity = ending.identity
    # While a member lives, or the leader is not reaped, the session's number cannot be given to anybody else.
    if identify(identity.pid) not in (None, identity):
        return
    for number, seconds in graces:
        apart = kin({identity.pid})[0]
        signal_group(identity.pid, number)
        for (
            pid
        ) in apart:  # daemons that have a session of their own, as far as they are known by their parents
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != identity.pid:
                    os.kill(pid, number)
        if await _all_gone(ending, seconds):
            return
    kill_session(identity.pid)
    await _all_gone(ending, 5)


def kill_session(leader: int) -> None:
    """KILL the group that `leader` began, and the groups that its members made in the same session."""
    signal_group(leader, signal.SIGKILL)
    for pid in members(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


async def _all_gone(ending: Ending, seconds: float) -> bool:
    """Wait for the leader, and then for what it left of its session, which only /proc tells of."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ending.wait()
            while any(members(ending.identity.pid)):  # noqa: ASYNC110 - not ours, nothing tells of their end
                await asyncio.sleep(SESSION_POLL)
            return True
    return False
