"""The processes that `lazycloud up` starts: each says when it is ready, and beats while it moves.

One that dies, or moves no more, is started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lazycloud.pulse import EVERY, Pulse

RESTART_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0)  # seconds before a child that died is started again
STEADY = 10.0  # seconds after which a child that dies counts as having been well


@dataclass(frozen=True)
class Started:
    """`ready` and `pulse` are the reading ends of pipes: for one line of JSON, and for its beats."""

    process: subprocess.Popen[bytes]
    ready: int
    pulse: int


class Child:
    """A process of ours: to be started by `spawn`, running as `process`, or known by its pid.

    The last is one that this same process started before it became newer code; `pulse` is what it has of it.
    """

    def __init__(
        self,
        name: str,
        spawn: Callable[[], Started] | None = None,
        pid: int = 0,
        process: subprocess.Popen[bytes] | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.name = name
        self.pid = process.pid if process else pid  # 0 before the first start
        self.status: int | None = None  # its exit status once it has ended, negative for a signal
        self._spawn = spawn
        self._process = process
        self._ready: int | None = None
        self._pulse = pulse
        self._leaves_in: int | None = None  # looks that it has left, once it was told to go
        self._deaths = 0
        self._began = 0.0

    def start(self) -> None:
        """Raises OSError when there is no room for another process."""
        assert self._spawn is not None
        self._began = time.monotonic()
        self.forget_ready()
        self._forget_pulse()
        self._leaves_in = None
        started = self._spawn()
        self._process, self._ready = started.process, started.ready
        self._pulse = Pulse(started.pulse)
        self.pid, self.status = started.process.pid, None

    @property
    def is_alive(self) -> bool:
        return bool(self.pid) and self.status is None

    async def ready(self) -> dict[str, Any]:
        """What it says first; empty if it ended without a word. Once after each start."""
        assert self._ready is not None
        reader = asyncio.StreamReader()
        pipe, self._ready = os.fdopen(self._ready), None
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        return dict(json.loads(line)) if line else {}

    def forget_ready(self) -> None:
        """Nobody listens: what it would say goes to the terminal."""
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    @property
    def pulse(self) -> int | None:
        """The reading end of its pipe, as long as somebody looks at it."""
        return self._pulse.pipe if self._pulse else None

    def leave(self, looks: int) -> None:
        """Tell it to serve what it has and go, in so many looks at most. Once more changes nothing."""
        self.send(signal.SIGHUP)
        if self._leaves_in is None:
            self._leaves_in = looks

    def look(self, silence: int, first: int) -> str:
        """In words, why it is to be ended; empty if it is well. To be asked once for each beat.

        `silence`: how many beats it may miss, and `first` the same of one that has not begun to beat.
        """
        missed = self._pulse.missed() if self._pulse else 0
        if self._leaves_in is not None:
            self._leaves_in -= 1
            if self._leaves_in == 0:
                return "it was told to leave, and is still there"
        has_begun = self._pulse is None or self._pulse.has_begun
        if not missed or missed % (silence if has_begun else first):
            return ""
        return f"it has not moved {'for' if has_begun else 'in its first'} {missed * EVERY:.0f} s"

    def _forget_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None

    def ended(self, status: int) -> None:
        """It was reaped."""
        self.status = status
        self._forget_pulse()
        if self._process is not None:
            self._process.returncode = status

    def pause(self) -> float:
        """Seconds before the next start after a death."""
        self._deaths = 0 if time.monotonic() - self._began > STEADY else self._deaths + 1
        return RESTART_PAUSES[min(self._deaths, len(RESTART_PAUSES) - 1)]

    def send(self, number: signal.Signals) -> None:
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def spawn(
    module: str, orders: Callable[[int, int], tuple[Sequence[str], str]], descriptors: Sequence[int]
) -> Started:
    """Start a module of ours. `orders` gives arguments and settings, told the pipes that it writes to: ready, pulse.

    Settings go through standard input: what is in a command line anybody can read.
    """
    ready, ready_end = os.pipe()
    pulse, pulse_end = os.pipe()
    try:
        arguments, settings = orders(ready_end, pulse_end)
        process = subprocess.Popen(
            [*python(), module, *arguments],
            pass_fds=(*descriptors, ready_end, pulse_end),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError:
        os.close(ready)
        os.close(pulse)
        raise
    finally:
        os.close(ready_end)
        os.close(pulse_end)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(settings.encode())
    return Started(process, ready, pulse)


def python() -> list[str]:
    """Run a module. -P: what lies in the folder where lazycloud was started is not for us to import."""
    return [sys.executable, "-P", "-m"]


async def gone(children: Sequence[Child], seconds: float) -> None:
    """Wait for their end, which whoever reaps notes; kill what is late."""
    deadline = time.monotonic() + seconds
    while alive := [child for child in children if child.is_alive]:
        if time.monotonic() > deadline:
            for child in alive:
                child.send(signal.SIGKILL)
            deadline += 5
        await asyncio.sleep(0.02)  # SIGCHLD is handled by this same loop
