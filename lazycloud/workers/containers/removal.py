"""The end of containers whose engine does not see to it: it is away, or has lost sight of what it began.

An engine that died in the midst of a start believes, when it is back, that the container was never started, and
removes it without a word to what runs in it. That we find by its control group, whose name has the container's id.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from lazycloud.processes import identify, kill_surely
from lazycloud.workers.containers.daemon import CONFLICT, NOT_THERE, Away, Daemon, Refused

log = logging.getLogger(__name__)

AFTER_KILL = 5.0  # seconds for what was killed to be gone
POLL = 0.01  # seconds
ENGINE_POLL = 1.0  # seconds
_ID = re.compile(r"[0-9a-f]{64}")


class Removals:
    """Of containers of one engine, by their ids; by names where no answer told an id: none of those was started."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._left: set[str] = set()  # what the engine was not there to remove
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Task[None] | None = None

    async def remove(self, container: str) -> None:
        """End and remove it, whatever state it is in; an engine that is away is asked again when it is back."""
        try:
            await self._remove(container)
        except Away:
            self._left.add(container)
            if self._waiting is None or self._waiting.done():
                self._waiting = asyncio.create_task(self._wait(), name="remove containers later")

    async def catch_up(self) -> None:
        """Remove what could not be removed before. Raises Away."""
        async with self._turn:
            for container in list(self._left):
                await self._remove(container)
                self._left.discard(container)

    def close(self) -> None:
        if self._waiting:
            self._waiting.cancel()

    async def _wait(self) -> None:
        while self._left:
            await asyncio.sleep(ENGINE_POLL)
            with suppress(Away):
                await self.catch_up()

    async def _remove(self, container: str) -> None:
        """Raises Away; nothing runs in it then, either, as far as its id is known."""
        try:
            async with self._daemon.asked("to remove a container"):
                await self._daemon.client.containers.container(container).delete(force=True, v=True)
        except Refused as problem:
            if problem.code not in (NOT_THERE, CONFLICT):  # the second: it is being removed already
                log.warning("A container could not be removed: %s", problem)
        finally:
            if _ID.fullmatch(container):
                await asyncio.to_thread(end_inmates, container)


def end_inmates(container: str, seconds: float = AFTER_KILL) -> None:
    """Kill what runs in a container, known by its whole id, and wait until that is gone. Blocks."""
    deadline = time.monotonic() + seconds
    while _kill_inmates(container):
        if time.monotonic() > deadline:
            log.warning("What runs in the container %s does not end.", container[:12])
            return
        time.sleep(POLL)


def _kill_inmates(container: str) -> int:
    """How many there were."""

    def is_inside(pid: int) -> bool:
        return container in Path(f"/proc/{pid}/cgroup").read_text() and identify(pid) is not None

    found = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    return sum(kill_surely(pid, partial(is_inside, pid)) for pid in found)
