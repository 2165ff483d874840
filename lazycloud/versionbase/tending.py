"""What a store needs now and then: old commits are forgotten, and nodes that nothing reaches any more removed.

A version that comes near its limit is looked at sooner: what it was goes first, and what that gives back counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from lazycloud.errors import LazycloudError
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import GRACE

EVERY = 300.0  # seconds between two rounds
SHARE = 4  # times as long as a step took, nothing is done after it
PAUSE = 1.0  # seconds between two looks, at least; as long as the last one took
RECENT = 5.0  # seconds for which commits are kept in any case: who watches may be about to read them

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
        self.recent = RECENT
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()

        def ask() -> None:  # in the committing thread, maybe after each group
            if not self._wanted.is_set():
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._wanted.set)

        self._engine.ask_for_look = ask
        if self._engine.storage.stored.limit:
            self._wanted.set()  # nobody knows yet what each has
        self._task = asyncio.create_task(self._rounds(), name="tend the store")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _rounds(self) -> None:
        due = time.monotonic() + self._every
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0, due - time.monotonic())):
                    await self._wanted.wait()
            began = time.monotonic()
            try:
                if began >= due:
                    due = began + self._every
                    if self._engine.storage.stored.refused:
                        self._wanted.set()  # whatever kept room from being made
                    await self.round()
                else:
                    self._wanted.clear()
                    if await self.make_room():
                        self._wanted.set()
            except LazycloudError as problem:
                log.error("The store could not be tended: %s", problem)
            await asyncio.sleep(max(PAUSE, time.monotonic() - began))

    async def round(self) -> int:
        """How many nodes were removed. Raises LazycloudError."""
        storage = self._engine.storage
        await self._done(storage.expire(time.time() - self._kept, self._commits))
        return await self._done(storage.collect(self._engine.pinned, self.grace))

    async def make_room(self) -> bool:
        """Look at what each version has, and remove what those were that come near their limit.

        Whether to do so again, as there is more that can be given back. Raises LazycloudError.
        """
        storage = self._engine.storage
        stored, expired = storage.stored, 0
        if not stored.limit:
            stored.refused.clear()
            return False
        was_known, refused = stored.is_known, set(stored.refused)
        for birth in await asyncio.to_thread(storage.crowded):
            expired += await self._done(storage.expire_of(birth, time.time() - self.recent))
        if expired:
            await asyncio.sleep(self.recent)  # who got a root has to pin it
        await self._done(storage.collect(self._engine.pinned, self.recent))
        for birth in refused:
            if not await asyncio.to_thread(storage.has_past, birth):
                stored.refused.discard(birth)
        return bool(stored.refused) or (not was_known and bool(await asyncio.to_thread(storage.crowded)))

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
