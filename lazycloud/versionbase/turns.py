"""Turns at the event loop: one at a time has a short one, and connections have theirs by turns.

However many long reads there are, a short request waits for one of them at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TURN = 0.002  # seconds


class Turns:
    def __init__(self) -> None:
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  # first come, first served
        self._taken = False

    @asynccontextmanager
    async def turn(self, of: object) -> AsyncIterator[None]:
        """Wait for a turn; whoever has it gives it back within `TURN`. Those of one connection count as one."""
        if self._taken or self._waiting:
            await self._wait(of)
        self._taken = True
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._next)  # after what has arrived meanwhile

    async def _wait(self, of: object) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(of, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._next()  # it was given, and is not taken
            raise

    def _next(self) -> None:
        self._taken = False
        while self._waiting:
            of, queue = next(iter(self._waiting.items()))
            del self._waiting[of]
            future = queue.popleft()
            if queue:
                self._waiting[of] = queue
            if not future.done():
                self._taken = True
                future.set_result(None)
                return
