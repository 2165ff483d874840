"""The walls of one worker, made before anybody is behind them: a fork of a parent goes in (inside/entering.py).

bwrap makes them in the parent's namespace of users, so that its forks have rights in them, and a process of ours
waits there. Control hands the namespaces on as descriptors, and that process ends once a fork is in.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from lazycloud.processes import Ending, identity_of_child
from lazycloud.walls.sandbox import SYSTEM_PATH, Sandbox
from lazycloud.walls.view import View
from lazycloud.workers.preload import credentials
from lazycloud.workers.preload.unsuitable import Unsuitable

NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702  # linux/nsfs.h
OTHERS = ("ipc", "uts", "net", "cgroup")  # beside those of users and of mounts
PATIENCE = 2.0  # seconds for bwrap, which takes some milliseconds
WAITING = ("/bin/sh", "-c", "echo; read line")


@dataclass(frozen=True)
class Namespaces:
    """Descriptors, in the order in which a fork enters: `outer` before it changes mounts, `inner` afterwards."""

    outer: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)

    def close(self) -> None:
        for number in (*self.outer, *self.inner):
            os.close(number)


class Cell:
    """Made by `spawn`, and there until `close`."""

    def __init__(self, parent: int, process: subprocess.Popen[bytes], hold: socket.socket) -> None:
        self._parent = parent
        self._hold = hold  # what waits in there ends with it
        self._ending = Ending(identity_of_child(process.pid))
        self._ending.watch()

    @classmethod
    def spawn(cls, parent: int, walls: Sandbox, view: View, folder: Path, log: int) -> Cell:
        """For a fork of the process `parent`. What goes wrong is told to `log`, a descriptor. Raises Unsuitable."""
        program = shutil.which("nsenter", path=SYSTEM_PATH)
        if program is None:
            raise Unsuitable("nsenter, by which forks are walled off, is not on this machine")
        into = (program, f"--user=/proc/{parent}/ns/user", "--preserve-credentials", "--")
        hold, theirs = credentials.pair(socket.SOCK_STREAM)
        with theirs:
            try:
                process = subprocess.Popen(
                    [*into, *walls.cell(view, folder), *WAITING],
                    cwd="/",
                    env={"PATH": SYSTEM_PATH},
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as problem:
                hold.close()
                raise Unsuitable(f"its walls could not be made: {problem.strerror}") from problem
        process.returncode = 0  # Ending reaps it
        return cls(parent, process, hold)

    async def namespaces(self) -> Namespaces:
        """To be closed by the caller. Raises Unsuitable."""
        try:
            async with asyncio.timeout(PATIENCE):
                await credentials.readable(self._hold)
            said, pid = credentials.receive(self._hold, 1)
        except TimeoutError:
            raise Unsuitable("its walls were not there in time") from None
        except OSError:
            said, pid = b"", 0
        if not said:
            raise Unsuitable("its walls could not be made; parent.log of its environment says why")
        try:
            return self._namespaces(f"/proc/{pid}/ns", f"/proc/{self._parent}/ns")
        except OSError as problem:
            raise Unsuitable(f"its walls could not be entered: {problem.strerror}") from problem

    def close(self) -> None:
        """Nobody waits in there any more; whoever has entered stays. Idempotent."""
        self._hold.close()

    def _namespaces(self, here: str, outside: str) -> Namespaces:
        found = Namespaces()
        try:
            found.inner.append(_open(f"{here}/user"))
            mounts = _open(f"{here}/mnt")
            found.outer.append(mounts)
            owner = fcntl.ioctl(mounts, NS_GET_USERNS)
            found.outer.insert(0, owner)
            while not os.path.samestat(os.fstat(found.inner[0]), os.fstat(owner)):
                found.inner.insert(0, fcntl.ioctl(found.inner[0], NS_GET_PARENT))
            os.close(found.inner.pop(0))  # the owner, which is there already
            for kind in OTHERS:
                if not Path(here, kind).samefile(Path(outside, kind)):
                    found.outer.insert(1, _open(f"{here}/{kind}"))
        except BaseException:
            found.close()
            raise
        return found


def _open(place: str) -> int:
    return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
