"""Memory and cpu of a worker's processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from lazycloud.processes import members


@dataclass(frozen=True)
class Usage:
    """`memory`: bytes, each shared page counted once over its users; `cpu`: percent of one core."""

    memory: int
    cpu: float
    processes: int


class Meter:
    """Measures a session, or whatever processes `pids` names.

    `cpu` is since the reading before, the first time since the start. Thread-safe.
    """

    def __init__(self, session: int, pids: Callable[[], Iterable[int]] | None = None) -> None:
        self._session = session
        self._pids = pids or (lambda: members(session))
        self._lock = threading.Lock()
        self._spent, self._at = 0.0, 0.0

    def read(self) -> Usage:
        """Costs milliseconds per process with much memory: belongs in a thread."""
        with self._lock:
            processes = self._processes()
            spent, now = sum(map(_cpu_seconds, processes)), time.time()
            since = self._at or min(map(_began, processes), default=now)
            # A process that ended and was not waited for takes its seconds along: never below none.
            share = max(0.0, spent - self._spent) / max(now - since, 0.01)
            self._spent, self._at = spent, now
            return Usage(sum(map(_memory, processes)), round(100 * share, 1), len(processes))

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in self._pids():
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found


def _began(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        return float(process.create_time())
    return time.time()


def _cpu_seconds(process: psutil.Process) -> float:
    """With the children that it has waited for, so that what they did is not forgotten."""
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _memory(process: psutil.Process) -> int:
    """PSS where the kernel tells us, else RSS."""
    with contextlib.suppress(psutil.Error):
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, OSError):
            return int(process.memory_info().rss)
    return 0
