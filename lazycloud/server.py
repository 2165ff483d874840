"""`lazycloud up`: a small parent of one control and some routers.

It opens the listening sockets, which the routers inherit, starts one that dies again, and passes signals on.
A child that is replaced drops no connection of the others: the kernel's backlog holds what arrives meanwhile.
Ctrl-C ends routers, then control with all workers; when the parent itself is killed, its children notice by
the lifeline (a pipe that it holds open), and workers go on until the next `lazycloud up` finds them.
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
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from lazycloud.config import Config, Listen
from lazycloud.control.auth import Auth, secret
from lazycloud.errors import BadInput, Conflict, LazycloudError
from lazycloud.processes import end_strays, ending_in_words

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
ROUTER_GRACE = 35.0  # seconds: a router drains for 30
CONTROL_GRACE = 60.0  # seconds: every worker has its stop_timeout, all at the same time
RESTART_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0)  # seconds before a child that died is started again
STEADY = 10.0  # seconds after which a child that dies counts as having been well


class Child:
    """A process that is to be there, started again when it dies. `spawn` gives it at once."""

    def __init__(self, name: str, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self._spawn = spawn
        self._deaths = 0
        self._began = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._began = time.monotonic()
        self.process = self._spawn()

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def died(self) -> float:
        """Note a death; the pause in seconds before the next start."""
        self._deaths = 0 if time.monotonic() - self._began > STEADY else self._deaths + 1
        return RESTART_PAUSES[min(self._deaths, len(RESTART_PAUSES) - 1)]


class Server:
    def __init__(self, config: Config) -> None:
        self.config = config
        self._stack = ExitStack()
        self._sockets: list[socket.socket] = []
        self._children: list[Child] = []
        self._stopping = False
        self._answer: dict[str, Any] = {}

    def run(self) -> int:
        """Serve until a signal; the exit code. Raises LazycloudError for what the user has to mend."""
        with self._stack:
            self._prepare_home()
            self._open_sockets()
            self._lifeline, self._lifeline_end = os.pipe()
            _adopt_orphans()
            return asyncio.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        control = Child("control", self._spawn_control)
        self._children.append(control)
        control.start()
        stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
        answering = asyncio.create_task(self._hear(), name="wait for control")
        await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            self._understand(await answering)
            self._start_routers()
            await stopping
            _say("\nStopping…")
        await self._stop()
        answering.cancel()
        return 0

    def _start_routers(self) -> None:
        for number in range(self.config.routers):
            router = Child(f"router {number + 1}", self._spawn_router)
            self._children.append(router)
            router.start()

    def _prepare_home(self) -> None:
        """One server a home: its lock is held as long as this process lives."""
        config = self.config
        try:
            for folder in (config.home, config.run_folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_uid != os.getuid():
                    raise PermissionError(errno.EPERM, "it belongs to another user")
            lock = self._stack.enter_context(config.lock_file.open("a+"))
        except OSError as problem:
            raise _home_trouble(config.home, problem) from problem
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
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            self._key, self._token = secret(config.key_file), secret(config.token_file)
        except OSError as problem:
            raise _home_trouble(config.home, problem) from problem

    def _open_sockets(self) -> None:
        listens: list[Listen] = []
        for listen in self.config.listen:
            # Port 0 on both loopback addresses means one port, as localhost:0 reads.
            port = listen.port or (listens[0].port if listens else 0)
            opened = _open_socket(Listen(listen.host, port), required=not listens)
            if opened is None:
                continue
            self._sockets.append(self._stack.enter_context(opened))
            listens.append(Listen(listen.host, opened.getsockname()[1]))
        self.config = dataclasses.replace(self.config, listen=tuple(listens))

    def _spawn_control(self) -> subprocess.Popen[bytes]:
        """It will write one line to the pipe `_ready`: that it answers, or what keeps it from that."""
        self._ready, ready_end = os.pipe()
        arguments = [str(ready_end), str(self._lifeline), *(["again"] if self._answer else [])]
        try:
            return _spawn(
                ["lazycloud.control", *arguments], self.config.to_json(), (ready_end, self._lifeline)
            )
        finally:
            os.close(ready_end)

    async def _hear(self) -> dict[str, Any]:
        """What control says first; empty if it ended without a word."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(self._ready)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        return dict(json.loads(line)) if line else {}

    def _understand(self, answer: dict[str, Any]) -> None:
        """Raises LazycloudError for what the user has to mend; control has ended then."""
        self._answer, self._stopping = answer, "ready" not in answer
        if error := answer.get("error"):
            problem = LazycloudError(error["sentence"], error["advice"])
            problem.exit_code = answer["exit_code"]
            raise problem
        if not answer:
            raise LazycloudError("Control did not start.", "What it wrote above says why.")

    def _spawn_router(self) -> subprocess.Popen[bytes]:
        auth = Auth(self._token, self._key.encode(), self.config.api_socket, secure=False)
        descriptors = [one.fileno() for one in self._sockets]
        settings = {
            "listen_fds": descriptors,
            "control": str(self.config.control_socket),
            "link": str(self.config.link_socket),
            "lifeline": self._lifeline,
            "public_scheme": self.config.addresses.scheme,
            "preview_key": auth.preview_key.hex(),
            "token_sha256": auth.token_sha256,
            "drain_timeout": self.config.drain_timeout,
        }
        arguments = ["lazycloud.router", "--settings", "-"]
        return _spawn(arguments, json.dumps(settings), (*descriptors, self._lifeline))

    def _reap(self) -> None:
        """A child died, or a worker that lost its control and became ours: nobody stays a zombie."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid and child.process:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    self._died(child)

    def _died(self, child: Child) -> None:
        if self._stopping or child.process is None:
            return
        pause = child.died()
        _say(f"{child.name} {ending_in_words(child.process.returncode)}, and is started again.")
        asyncio.get_running_loop().call_later(pause, self._start_again, child)

    def _start_again(self, child: Child) -> None:
        if self._stopping:
            return
        try:
            child.start()
        except OSError as problem:  # out of processes or descriptors: that passes
            _say(f"{child.name} cannot be started: {problem}.")
            asyncio.get_running_loop().call_later(child.died(), self._start_again, child)
            return
        if child is self._children[0]:
            os.close(self._ready)  # a later control says what it has to say to the terminal

    async def _stop(self) -> None:
        """Routers first, so that what is answered is answered; then control, which ends every worker."""
        self._stopping = True
        control, *routers = self._children
        for router in routers:
            _signal(router, signal.SIGTERM)
        await _gone(routers, ROUTER_GRACE)
        _signal(control, signal.SIGTERM)
        await _gone([control], CONTROL_GRACE)
        end_strays(self.config.home / "apps", set())  # of a control that could not end its workers
        shutil.rmtree(self.config.run_folder, ignore_errors=True)


def run(config: Config) -> int:
    return Server(config).run()


def _spawn(module: list[str], settings: str, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """A child of ours. Its settings go through a pipe: what is in a command line anybody can read."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module], pass_fds=descriptors, stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(settings.encode())
    return process


def _adopt_orphans() -> None:
    """Workers whose control died become children of this process, which reaps them."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _open_socket(listen: Listen, required: bool) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((listen.host, listen.port))
        opened.listen(4096)
    except OSError as problem:
        opened.close()
        if problem.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and not required:
            return None  # a machine without IPv6: its other loopback address serves
        raise _listen_trouble(listen, problem) from problem
    return opened


def _listen_trouble(listen: Listen, problem: OSError) -> LazycloudError:
    if problem.errno == errno.EADDRINUSE:
        return Conflict(
            f"Port {listen.port} of {listen.host} is in use.", "Give another: --listen localhost:8001"
        )
    if problem.errno == errno.EACCES:
        return BadInput(
            f"You may not listen on port {listen.port}.", "Ports below 1024 are root's; give another."
        )
    return BadInput(f"Cannot listen on {listen}: {problem.strerror}.", "Give an address of this machine.")


def _home_trouble(home: Path, problem: OSError) -> LazycloudError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return LazycloudError(f"The disk of {home} is full.", "Make room, or give another --home.")
    return BadInput(
        f"{home} cannot be lazycloud's home: {problem.strerror}.", "Give another folder with --home."
    )


def _signal(child: Child, number: signal.Signals) -> None:
    if child.is_alive:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


async def _gone(children: list[Child], seconds: float) -> None:
    """Wait for their end, which `_reap` notes; kill what is late."""
    deadline = time.monotonic() + seconds
    while alive := [child for child in children if child.is_alive]:
        if time.monotonic() > deadline:
            for child in alive:
                _signal(child, signal.SIGKILL)
            deadline += 5
        await asyncio.sleep(0.02)  # SIGCHLD is handled by this same loop


def _say(text: str) -> None:
    """To whoever looks at the terminal. Nobody may be there any more; the server goes on all the same."""
    with suppress(OSError):
        print(text, flush=True)
