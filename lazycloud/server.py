"""`lazycloud up`: a small parent of one control and some routers.

It opens the listening sockets, which the routers inherit, starts one that dies again, and passes signals on.
A child that is replaced drops no connection of the others: the kernel's backlog holds what arrives meanwhile.
Ctrl-C ends routers, then control with all workers; when the parent itself is killed, its children notice by
the lifeline (a pipe that it holds open), and workers go on until the next `lazycloud up` finds them.
A child that runs and does not move (a pulse that has stopped, or does not begin: pulse.py) is killed, and so started
again; one that was told to leave and does not is killed, too.

SIGHUP, and `lazycloud upgrade`, replace everything by what is installed and configured now: this process by
itself (handover.py), control while the routers hold what asks for it, then one router after the other. Nothing
is replaced if the new code does not load, or its settings are wrong.
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Mapping, MutableMapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from lazycloud import __version__
from lazycloud.certificates import Files, complaints
from lazycloud.children import Child, Started, gone, spawn
from lazycloud.config import Config, Listen, parse_listen
from lazycloud.control.keys import Keys
from lazycloud.errors import BadInput, Conflict, LazycloudError
from lazycloud.handover import CHECK, SIGNALS, Handover, command, signals_wait
from lazycloud.listeners import Listener, open_listeners, try_listens
from lazycloud.processes import end_strays, ending_in_words
from lazycloud.pulse import EVERY, Pulse
from lazycloud.router.settings import LIMITS, read_limits
from lazycloud.walls.groups import Groups

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ROUTER_GRACE = 5.0  # seconds beyond its `drain_timeout`, within which a router that is to stop has ended
CONTROL_GRACE = 60.0  # seconds: every worker has its stop_timeout, all at the same time
ROUTER_SILENCE = 20  # beats, one a second, after which a router counts as hanging: its visitors wait
CONTROL_SILENCE = 60  # the same of control, without which what is known is served
FIRST_SILENCE = 120  # the same of either before its first beat: it is read from a slow disk yet
LEAVE_SLACK = 30  # beats beyond its own two bounds, within which a router that was replaced is gone
CHECK_GRACE = 60.0  # seconds for newer code to load and look at its settings
ACCEPT_GRACE = 60.0  # seconds until a new router accepts; else the old one stays


class Server:
    def __init__(self, config: Config, old: Handover | None = None) -> None:
        limits = read_limits(config.router)  # what is wrong there is said before anything starts
        leave = limits.get("leave_timeout", LIMITS["leave_timeout"].default)
        self._leaves_in = round((leave + config.drain_timeout) / EVERY) + LEAVE_SLACK
        self._complaints = complaints(Files(*pair) for pair in config.tls)
        self.config = config
        self._old = old
        self._attempt = old.attempt if old else 0
        self._terminal = old.terminal if old else _in_terminal()
        self._stack = ExitStack()
        self._listeners: list[Listener] = []
        self._control = Child("control", self._spawn_control, old.control if old else 0)
        pulses = {int(pid): Pulse(pipe, has_begun=True) for pid, pipe in (old.pulses if old else {}).items()}
        self._routers = [
            self._router(number, pid, pulses.get(pid))
            for number, pid in enumerate(old.routers if old else [])
        ]
        self._leaving = [
            Child("an old router", pid=pid, pulse=pulses.get(pid)) for pid in (old.leaving if old else [])
        ]
        self._stopping = False
        self._began = False

    def run(self) -> int:
        """Serve until a signal; the exit code. Raises LazycloudError for what the user has to mend."""
        for complaint in self._complaints:
            _say(f"Warning: {complaint}")
        with self._stack:
            self._lock_home()
            self._open_sockets()
            if self._old is None:
                self._lifeline, self._lifeline_end = os.pipe()
            else:
                self._lifeline, self._lifeline_end = self._old.lifeline, self._old.lifeline_end
            _adopt_orphans()
            return asyncio.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        stop, upgrade = asyncio.Event(), asyncio.Event()
        self._stop_asked, self._upgrade_asked = stop, upgrade
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._reap()  # those that ended while this process became newer
        watch = asyncio.create_task(self._watch(), name="watch")
        work = self._replace(self._old) if self._old else self._begin()
        while await self._unless_stopped(work):
            await self._unless_stopped(upgrade.wait())
            upgrade.clear()
            work = self._upgrade()
        _say("\nStopping…")
        watch.cancel()
        await self._stop()
        return 0

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do it; give it up, and say False, when a signal asks to stop."""
        if self._stop_asked.is_set():
            work.close()
            return False
        tasks = {
            asyncio.create_task(work, name="work"),
            asyncio.create_task(self._stop_asked.wait(), name="wait for a signal"),
        }
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            task.result()
        return not self._stop_asked.is_set()

    def _hung_up(self) -> None:
        """SIGHUP: the wish for an upgrade, or the end of the terminal in which we were started."""
        (self._stop_asked if self._terminal and not _in_terminal() else self._upgrade_asked).set()

    async def _begin(self) -> None:
        self._control.start()
        self._understand(await self._control.ready())
        self._routers = [self._router(number) for number in range(self.config.routers)]
        for router in self._routers:
            router.start()
            router.forget_ready()
        self._note()

    def _understand(self, answer: Mapping[str, Any]) -> None:
        """Raises LazycloudError for what the user has to mend; control has ended then."""
        self._began, self._stopping = True, "ready" not in answer
        if error := answer.get("error"):
            problem = LazycloudError(error["sentence"], error["advice"])
            problem.exit_code = answer["exit_code"]
            raise problem
        if not answer:
            raise LazycloudError("Control did not start.", "What it wrote above says why.")

    # An upgrade: the first half is done by the old code, the second by the new

    async def _upgrade(self) -> None:
        """Become newer code; returns only if that would not do."""
        self._attempt += 1
        try:
            await self._check()
            _say("Upgrading…")
            with signals_wait():
                await asyncio.sleep(0.01)  # what came before is heard yet: a stop, a death
                if not self._stop_asked.is_set():
                    self._handover().become_newer()
        except (OSError, LazycloudError) as problem:
            self._failed(f"Nothing was replaced. {problem}")

    async def _check(self) -> None:
        """Whether the code and the settings of now would do. Raises LazycloudError."""
        wanted = json.dumps([str(listener.wanted) for listener in self._listeners])
        with tempfile.TemporaryFile() as said:
            child = _start_check(wanted, said)
            self._leaving.append(child)
            await gone([child], CHECK_GRACE)
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if child.status != 0:
            raise LazycloudError(_last_words(text) or f"The new code {ending_in_words(child.status or 0)}.")

    def _handover(self) -> Handover:
        return Handover(
            version=__version__,
            attempt=self._attempt,
            again=self._upgrade_asked.is_set(),
            terminal=self._terminal,
            lock=self._lock,
            lifeline=self._lifeline,
            lifeline_end=self._lifeline_end,
            sockets={str(one.wanted): [each.fileno() for each in one.sockets] for one in self._listeners},
            control=self._control.pid if self._control.is_alive else 0,
            routers=[router.pid for router in self._routers if router.is_alive],
            leaving=[child.pid for child in self._leaving if child.is_alive],
            pulses={
                str(child.pid): child.pulse
                for child in (*self._routers, *self._leaving)
                if child.is_alive and child.pulse is not None
            },
            leaves_in=self._leaves_in,
        )

    async def _replace(self, old: Handover) -> None:
        """The new code's half: control first, which finds its workers again, then the routers."""
        if old.again:
            self._upgrade_asked.set()
        self._began = True
        before = Child("the old control", pid=self._control.pid)
        before.status = self._control.status
        self._leaving.append(before)
        self._control = Child("control", self._spawn_control)
        before.send(signal.SIGHUP)
        await gone([before], CONTROL_GRACE)
        answer = await self._start_new(self._control)
        if "ready" not in answer:
            self._failed(f"Control does not start. {answer.get('error', {}).get('sentence', '')}".rstrip())
        elif await self._replace_routers(old.leaves_in or max(3700, self._leaves_in)):
            versions = " → ".join(dict.fromkeys((old.version, __version__)))
            count = self.config.routers
            sentence = f"lazycloud {versions}: control and {count} router{'s' * (count > 1)} were replaced."
            _say(sentence)
            self._note(sentence)

    async def _replace_routers(self, leaves_in: int) -> bool:
        """One by one: an old one leaves when a new one accepts, and has so many looks to be gone."""
        before, self._routers = self._routers, []
        self._leaving += before
        for router in before:
            router.name = f"the old {router.name}"
        for number in range(self.config.routers):
            router = self._router(number)
            self._routers.append(router)
            if not await self._start_new(router, ACCEPT_GRACE):
                self._failed("A new router does not start; the old ones stay.")
                return False
            if before:
                before.pop(0).leave(leaves_in)
        for leaving in self._leaving:
            leaving.leave(leaves_in)
        return True

    async def _start_new(self, child: Child, seconds: float | None = None) -> dict[str, Any]:
        """What it says when it is ready; empty if it does not get there, and is tried again like one that died."""
        try:
            child.start()
            return await asyncio.wait_for(child.ready(), seconds)
        except TimeoutError:  # which is an OSError too
            _say(f"{child.name} is not ready after {seconds:g} s.")
        except OSError as problem:
            _say(f"{child.name} cannot be started: {problem}.")
            asyncio.get_running_loop().call_later(child.pause(), self._start_again, child)
        return {}

    def _failed(self, sentence: str) -> None:
        _say(sentence)
        self._note(sentence, failed=True)

    def _note(self, sentence: str = "", failed: bool = False) -> None:
        """For `lazycloud upgrade`, which waits for the next attempt."""
        facts = {
            "attempt": self._attempt,
            "failed": failed,
            "sentence": sentence,
            "version": __version__,
            "pid": os.getpid(),
            "control": self._control.pid,
            "routers": [router.pid for router in self._routers],
        }
        path = self.config.generation_file
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(facts) + "\n")
            temporary.replace(path)
        except OSError as problem:
            _say(f"{path} cannot be written: {problem}.")

    def _lock_home(self) -> None:
        """One server a home: its lock is held as long as this process lives."""
        config = self.config
        try:
            for folder in (config.home, config.run_folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_uid != os.getuid():
                    raise PermissionError(errno.EPERM, "it belongs to another user")
            opened = open(self._old.lock, "a+") if self._old else config.lock_file.open("a+")  # noqa: PTH123, SIM115
            lock = self._stack.enter_context(opened)
        except OSError as problem:
            raise _home_trouble(config.home, problem) from problem
        self._lock = lock.fileno()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "?"
            raise Conflict(
                f"A lazycloud server runs on {config.home} already (process {owner}).",
                "Stop it with Ctrl-C in its terminal, or use another --home.",
            ) from None
        try:
            if self._old is None:
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
            self._keys = Keys.of(config.token_file, config.key_file)
        except OSError as problem:
            raise _home_trouble(config.home, problem) from problem

    def _open_sockets(self) -> None:
        kept: dict[Listen, list[socket.socket]] = {}
        for text, numbers in (self._old.sockets if self._old else {}).items():
            kept[parse_listen(text)[0]] = [socket.socket(fileno=number) for number in numbers]
        try:
            self._listeners = open_listeners(self.config.listen, self.config.routers, kept)
        except LazycloudError as problem:
            if not kept:
                raise
            _say(f"{problem} It goes on where it listens.")  # taken since the check
            self._listeners = open_listeners(list(kept), self.config.routers, kept)
        for listener in self._listeners:
            self._stack.callback(listener.close)
        for wanted in kept.keys() - {listener.wanted for listener in self._listeners}:
            for unwanted in kept[wanted]:
                unwanted.close()
        listens = tuple(listener.listen for listener in self._listeners)
        self.config = dataclasses.replace(self.config, listen=listens)

    def _spawn_control(self) -> Started:
        def orders(ready: int, pulse: int) -> tuple[list[str], str]:
            again = ["again"] if self._began else []
            return [str(ready), str(self._lifeline), str(pulse), *again], self.config.to_json()

        return spawn("lazycloud.control", orders, (self._lifeline,))

    def _router(self, number: int, pid: int = 0, pulse: Pulse | None = None) -> Child:
        return Child(f"router {number + 1}", partial(self._spawn_router, number), pid, pulse=pulse)

    def _spawn_router(self, number: int) -> Started:
        config = self.config
        mine = {
            listener.listen: [each.fileno() for each in listener.of_router(number, config.routers)]
            for listener in self._listeners
        }
        descriptors = [fd for numbers in mine.values() for fd in numbers]
        settings = {
            "listen_fds": descriptors,
            "control": str(config.control_socket),
            "link": str(config.link_socket),
            "lifeline": self._lifeline,
            "public_scheme": config.addresses.scheme,
            "preview_key": self._keys.preview_key.hex(),
            "token_sha256": self._keys.token_sha256,
            "trusted_proxies": config.trusted_proxies,
            "drain_timeout": config.drain_timeout,
            "held_max": config.held_max,
            "held_app_max": config.held_app_max,
            "held_timeout": max(1800.0, 2 * config.hold_timeout),  # control's is shorter, and says more
            **read_limits(config.router),
            "access_log": config.access_log,
            "tls": config.tls,
            "redirect_fds": [fd for listen in mine if config.redirects(listen) for fd in mine[listen]],
            "https_port": config.addresses.port or 443,
        }

        def orders(ready: int, pulse: int) -> tuple[list[str], str]:
            return ["--settings", "-"], json.dumps({**settings, "ready": ready, "pulse": pulse})

        return spawn("lazycloud.router", orders, (*descriptors, self._lifeline))

    def _reap(self) -> None:
        """A child died, or a worker that lost its control and became ours: nobody stays a zombie."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in (self._control, *self._routers, *self._leaving):
                if child.pid == pid and child.is_alive:
                    child.ended(os.waitstatus_to_exitcode(status))
                    self._died(child)

    def _died(self, child: Child) -> None:
        if child in self._leaving:
            self._leaving.remove(child)
        elif not self._stopping:
            _say(f"{child.name} {ending_in_words(child.status or 0)}, and is started again.")
            asyncio.get_running_loop().call_later(child.pause(), self._start_again, child)

    def _start_again(self, child: Child) -> None:
        if self._stopping or child.is_alive or child not in (self._control, *self._routers):
            return
        try:
            child.start()
        except OSError as problem:  # out of processes or descriptors: that passes
            _say(f"{child.name} cannot be started: {problem}.")
            asyncio.get_running_loop().call_later(child.pause(), self._start_again, child)
            return
        child.forget_ready()

    async def _watch(self) -> None:
        """End who hangs; it is started again like one that died."""
        while True:
            await asyncio.sleep(EVERY)
            _look(self._control, CONTROL_SILENCE)
            for router in (*self._routers, *self._leaving):
                _look(router, ROUTER_SILENCE)

    async def _stop(self) -> None:
        """Routers first, so that what is answered is answered; then control, which ends every worker."""
        self._stopping = True
        routers = [*self._routers, *self._leaving]
        for router in routers:
            router.send(signal.SIGTERM)
        await gone(routers, self.config.drain_timeout + ROUTER_GRACE)
        self._control.send(signal.SIGTERM)
        await gone([self._control], CONTROL_GRACE)
        end_strays(self.config.home / "apps", set())  # of a control that could not end its workers
        groups = Groups(self.config.home)
        groups.end_others()
        groups.close()
        shutil.rmtree(self.config.run_folder, ignore_errors=True)


def _look(child: Child, silence: int) -> None:
    trouble = child.look(silence, FIRST_SILENCE) if child.is_alive else ""
    if trouble:
        _say(f"{child.name} hangs: {trouble}.")
        child.send(signal.SIGKILL)


def run(config: Config, environ: MutableMapping[str, str]) -> int:
    """Serve, or only look whether this code and these settings could. Raises LazycloudError."""
    if CHECK in environ:
        return check(config, json.loads(environ[CHECK]))
    return Server(config, Handover.take(environ)).run()


def check(config: Config, listens: list[str]) -> int:
    """What keeps these settings and this code from replacing a server with these listens. Raises."""
    import lazycloud.control.process
    import lazycloud.router.process  # noqa: F401 - that they can be imported is the point

    Server(config)
    try_listens(config.listen, [parse_listen(text)[0] for text in listens])
    return 0


def _start_check(listens: str, said: IO[bytes]) -> Child:
    """What is installed now looks at the settings of now, as `check` says, and writes to `said`."""
    process = subprocess.Popen(
        command(),
        env={**os.environ, CHECK: listens, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    return Child("the check", process=process)


def _adopt_orphans() -> None:
    """Workers whose control died become children of this process, which reaps them."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _home_trouble(home: Path, problem: OSError) -> LazycloudError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return LazycloudError(f"The disk of {home} is full.", "Make room, or give another --home.")
    return BadInput(
        f"{home} cannot be lazycloud's home: {problem.strerror}.", "Give another folder with --home."
    )


def _in_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and os.isatty(0)


def _last_words(text: str) -> str:
    """What a failed check says: its sentence and advice, or the last line of a traceback."""
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    said = " ".join(lines[found[-1] :]).removeprefix("error: ") if found else "".join(lines[-1:])
    return said[:1000]


def _say(text: str) -> None:
    """To whoever looks at the terminal. Nobody may be there any more; the server goes on all the same."""
    with suppress(OSError):
        print(text, flush=True)
