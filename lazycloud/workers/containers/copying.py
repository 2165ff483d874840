"""What a container writes, where only the engine can take it: copied into the worker's log while control runs.

The log's time of change is set to the moment of the last line in it, by the engine's clock: so the next control
goes on from there, and no line is lost or there twice.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from pathlib import Path

from lazycloud.workers.containers.daemon import Away, Daemon, Refused

AGAIN = 1.0  # seconds until an engine that went away is asked once more
LAST_WORDS = 2.0  # seconds that an engine has for what a container wrote last
SECOND = 1_000_000_000  # nanoseconds


class Copying:
    """`since`: nanoseconds of unix time; what was written until then is there already."""

    def __init__(self, daemon: Daemon, container: str, log: Path, since: int) -> None:
        self._daemon = daemon
        self._container = container
        self._log = log
        self._since = since
        self._task = asyncio.create_task(self._copy(), name=f"log of container {container[:12]}")

    async def end(self) -> None:
        """The container has ended: what it wrote last is copied, if the engine is there to tell it."""
        await asyncio.wait({self._task}, timeout=LAST_WORDS)
        self._task.cancel()

    def leave(self) -> None:
        self._task.cancel()

    async def _copy(self) -> None:
        container = self._daemon.client.containers.container(self._container)
        while True:
            since = f"{self._since // SECOND}.{self._since % SECOND:09}"
            try:
                async with self._daemon.asked("for what a container writes"):
                    async for text in container.log(
                        stdout=True, stderr=True, follow=True, timestamps=True, since=since
                    ):
                        self._take(text)
                return
            except Away:
                await asyncio.sleep(AGAIN)
            except Refused:  # it is removed
                return

    def _take(self, text: str) -> None:
        stamp, _, words = text.partition(" ")
        at = _nanoseconds(stamp)
        if at <= self._since:
            return
        with self._log.open("ab", buffering=0) as log:
            log.write(words.encode())
        os.utime(self._log, ns=(at, at))
        self._since = at


def _nanoseconds(stamp: str) -> int:
    """Of unix time, from 2026-11-27T20:33:51.346435921Z."""
    whole, _, part = stamp.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) * SECOND + int(part.ljust(9, "0") or 0)
