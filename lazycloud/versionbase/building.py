"""Indexes that nobody builds any more are built on: one whose client went or gave it up, one amid which the server
was stopped, one of a fork or a snapshot of a moment amid it. Till it is built it is of no use, and a unique one keeps
values out that others have.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from lazycloud.errors import LazycloudError
from lazycloud.versionbase import upkeep
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import BranchRow

EVERY = 60.0  # seconds between two looks at versions that have changed
SHARE = 1  # times as long as a step took, nothing is done after it
PAUSE = 1.0  # seconds, the longest of these

log = logging.getLogger(__name__)


class Building:
    """In small steps, beside those who are served."""

    def __init__(
        self,
        engine: Engine,
        behind: Callable[[Iterator[Any]], Iterator[Any]],
        over: Callable[[Future[Any]], Awaitable[None]],
    ) -> None:
        """`behind` and `over`: as a `Server` has them."""
        self._engine = engine
        self._behind = behind
        self._over = over
        self._asked: Counter[tuple[str, str]] = Counter()  # requests that build, by birth and collection
        self._done: dict[str, int] = {}  # roots that have nothing to be built, by birth of their version
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._woken.set()
        self._task = asyncio.create_task(self._rounds(), name="build indexes on")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        """Soon."""
        self._woken.set()

    def asked(self, birth: str, collection: str) -> Callable[[], None]:
        """A request builds an index, until what is returned is called: when it has ended, or was given up."""
        self._asked[birth, collection] += 1

        def end() -> None:
            self._asked[birth, collection] -= 1
            if not self._asked[birth, collection]:
                del self._asked[birth, collection]
            self.look()

        return end

    async def _rounds(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._taken(self._round())
            except LazycloudError as problem:
                log.error("Indexes could not be built on: %s", problem)
            except Exception:
                log.exception("Indexes could not be built on.")

    async def _taken(self, steps: upkeep.Steps) -> None:
        for step in self._behind(steps):
            if step is not None:
                since = time.monotonic()
                await self._over(step)
                await asyncio.sleep(min((time.monotonic() - since) * SHARE, PAUSE))

    # In another thread

    def _round(self) -> upkeep.Steps:
        versions = self._engine.storage.branches()
        known = {version.birth for version in versions}
        self._done = {birth: root for birth, root in self._done.items() if birth in known}
        for version in versions:
            if self._done.get(version.birth) != version.root:
                try:
                    yield from self._build(version)
                except LazycloudError as problem:
                    log.warning("An index of %s was not built on: %s", version.name, problem)
                yield None

    def _build(self, version: BranchRow) -> upkeep.Steps:
        unbuilt = upkeep.unbuilt(self._engine, version.name, version.birth)
        if not unbuilt and self._engine.storage.branch(version.name).root == version.root:
            self._done[version.birth] = version.root
        for collection, index in unbuilt:
            if not self._asked[version.birth, collection]:
                log.info("The index %s of %s, %s, is built on.", index.name, collection, version.name)
                yield from upkeep.build(self._engine, version.name, collection, index, version.birth)
