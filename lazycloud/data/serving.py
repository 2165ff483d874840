"""Servers that keep data beside the folders of versions: what runs them, and how one that ends is started again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lazycloud.errors import StepFailed

log = logging.getLogger(__name__)

PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each further start of one that ended by itself
QUIET = 60.0  # seconds after which an end is the first one again


class Process(Protocol):
    """A server that runs."""

    @property
    def address(self) -> str: ...

    @property
    def pid(self) -> int: ...

    @property
    def note(self) -> Mapping[str, Any]:
        """What it is found again by."""

    @property
    def is_running(self) -> bool: ...

    def last_lines(self) -> list[str]: ...

    def memory(self) -> int:
        """Bytes that it takes of the machine's. Blocks for milliseconds."""

    async def ended(self) -> str:
        """Wait until it has; how, to follow its name in a sentence."""

    async def stop(self) -> None:
        """TERM, then KILL. Bounded, idempotent."""

    def leave(self) -> None:
        """Let it run on, for the next control."""


@dataclass(frozen=True)
class Wanted:
    """A server to be started. Walls show it `read` and `write`, which is its folder. `port` 0: any.

    `of_all`: it keeps the data of all versions, so that what those of one may take of the disk is not its limit:
    it sees to that itself.
    """

    name: str
    command: str
    read: tuple[Path, ...]
    write: Path
    log: Path
    port: int
    of_all: bool = False


class Hosting(Protocol):
    """What runs servers where workers run, and within the same limits."""

    memory: int  # bytes that one may take, 0 for no limit
    disk: int  # bytes that the data of one version may take, 0 for no limit

    async def start(self, wanted: Wanted) -> Process:
        """Started, and listening. Raises StepFailed; nothing of it runs then."""

    async def adopt(self, note: Mapping[str, Any]) -> Process | None:
        """Find it again; None if that very process runs no more."""


class Servers(Protocol):
    """What runs while versions of an app do, and keeps data of theirs."""

    name: str

    async def adopt(self) -> None:
        """Find again what an earlier control left running."""

    async def go_on(self, in_use: Callable[[str], bool]) -> None:
        """Start anew, where its users look for it, what ended meanwhile. After `adopt`, and the end of strays."""

    @property
    def awake(self) -> list[str]:
        """The versions for which something runs."""

    async def rest(self, version: str, in_use: Callable[[], bool]) -> None:
        """Nothing runs for that version any more, unless it is in use."""

    def pids(self) -> set[int]: ...

    async def memory(self, version: str) -> int:
        """Bytes that what runs for it takes now."""

    def changing(self, version: str) -> list[Path]:
        """Folders that change when its data do."""

    async def close(self, keep: bool = False) -> None:
        """Stop all of it, or leave it to be found again."""


async def mind(name: str, process: Callable[[], Process], again: Callable[[], Awaitable[bool]]) -> None:
    """One that ends by itself is started again, where those who use it look for it.

    `again` does that, and tells whether it is to be minded any further; it raises StepFailed, OSError.
    """
    ends = 0
    while True:
        began = time.monotonic()
        how = await process().ended()
        ends = ends + 1 if time.monotonic() - began < QUIET else 1
        log.warning("%s %s; it is started again.", name, how)
        while True:
            await asyncio.sleep(PAUSES[min(ends, len(PAUSES)) - 1] * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                if not await again():
                    return
            except (StepFailed, OSError) as problem:
                log.warning("%s does not start: %s", name, problem)
                ends += 1
                continue
            break
