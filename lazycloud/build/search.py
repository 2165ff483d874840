"""Looking for what a repository lacks at its remote, bounded so that random labels cost almost nothing."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

BETWEEN = 10.0  # seconds between two fetches, whoever asks
IN_VAIN = 60.0  # seconds for which a label that was not there is not looked for again
REMEMBERED = 1000  # labels; a flood of random ones forgets the oldest


class Search:
    """Fetches when a label is asked for that is unknown here; `clock` gives seconds."""

    def __init__(self, fetch: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_at = float("-inf")
        self._in_vain: OrderedDict[str, float] = OrderedDict()

    async def look_for(self, label: str) -> bool:
        """True when a fetch has ended since the call, so that looking again is worth it.

        Who comes while a fetch is under way shares it. Raises what the fetch raised.
        """
        if self._fetching is None:
            if not self._may_begin(label):
                return False
            self._fetched_at = self._clock()
            self._fetching = asyncio.create_task(self._run(), name="fetch for an unknown label")
        await asyncio.shield(self._fetching)
        return True

    def was_in_vain(self, label: str) -> None:
        self._in_vain[label] = self._clock()
        self._in_vain.move_to_end(label)
        while len(self._in_vain) > REMEMBERED:
            self._in_vain.popitem(last=False)

    async def close(self) -> None:
        """End a fetch that is under way. Idempotent."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _may_begin(self, label: str) -> bool:
        now = self._clock()
        known_missing = now - self._in_vain.get(label, float("-inf")) < IN_VAIN
        return not known_missing and now - self._fetched_at >= BETWEEN

    async def _run(self) -> None:
        try:
            await self._fetch()
        finally:
            self._fetching = None
