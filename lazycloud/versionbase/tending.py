"""What a store needs now and then: old commits are forgotten, and nodes that nothing reaches any more removed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

from lazycloud.errors import LazycloudError
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import GRACE

EVERY = 300.0  # seconds between two rounds
SHARE = 4  # times as long as a step took, nothing is done after it

log = logging.getLogger(__name__)


class Tending:
    """In small steps, in a thread beside those who are served."""

    def __init__(self, engine: Engine, kept: float, commits: int, every: float = EVERY) -> None:
        """`kept`: seconds for which what was can be watched from; `commits`: of each version, as many at most."""
        self._engine = engine
        self._kept = kept
        self._commits = commits
        self._every = every
        self.grace = GRACE
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._rounds(), name="tend the store")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.round()
            except LazycloudError as problem:
                log.error("The store could not be tended: %s", problem)

    async def round(self) -> int:
        """How many nodes were removed. Raises LazycloudError."""
        storage = self._engine.storage
        await self._done(storage.expire(time.time() - self._kept, self._commits))
        return await self._done(storage.collect(self._engine.pinned, self.grace))

    async def _done(self, steps: Iterator[int]) -> int:
        """The sum of what they did."""
        removed = 0
        while True:
            since = time.monotonic()
            step = await asyncio.shield(asyncio.to_thread(next, steps, None))
            if step is None:
                return removed
            removed += step
            await asyncio.sleep(min((time.monotonic() - since) * SHARE, 1.0))
