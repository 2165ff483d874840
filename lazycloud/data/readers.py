"""Who reads from a folder, so that it is not moved or removed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path


class Readers:
    """Of some folders. Who wants one alone comes before those who come to read it after that."""

    def __init__(self) -> None:
        self._reading: Counter[Path] = Counter()
        self._claimed: set[Path] = set()
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def read(self, *places: Path) -> AsyncIterator[None]:
        """Within, nobody has them alone."""
        await self._until(lambda: self._claimed.isdisjoint(places))
        self._reading.update(places)
        try:
            yield
        finally:
            self._reading.subtract(places)
            self._reading += Counter()  # which forgets those that nobody reads
            self._tell()

    @contextlib.asynccontextmanager
    async def alone(self, *places: Path) -> AsyncIterator[None]:
        """Within, nobody else reads them, or has them alone."""
        await self._until(lambda: self._claimed.isdisjoint(places))
        self._claimed.update(places)
        try:
            await self._until(lambda: not any(self._reading[place] for place in places))
            yield
        finally:
            self._claimed.difference_update(places)
            self._tell()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
