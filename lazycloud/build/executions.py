"""Work that several may ask for at once and that is done once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lazycloud.processes import Output

T = TypeVar("T")
REPLAYED = 256 * 1024  # characters of output that somebody who joins late is still told: the newest
END_TIMEOUT = 30.0


class Executions:
    """Runs work by key. Who asks for a key that is under way gets the same result, and the output from its begin.

    The work is cancelled when the last who waits for it is, and its end is awaited then.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Execution] = {}

    async def share(self, key: str, work: Callable[[Output], Awaitable[T]], output: Output) -> T:
        """The result of `work`, begun now or by somebody before. Raises what it raises, to all."""
        while (execution := self._running.get(key)) and execution.is_ending:
            await asyncio.wait({execution.task})
        if execution is None:
            execution = self._running[key] = _Execution(key, work)
            execution.task.add_done_callback(lambda _: self._running.pop(key, None))
        result: T = await execution.attend(output)
        return result


class _Execution:
    def __init__(self, key: str, work: Callable[[Output], Awaitable[Any]]) -> None:
        self.is_ending = False
        self._listeners: list[Output] = []
        self._said: deque[str] = deque()
        self._said_size = 0
        self.task = asyncio.create_task(self._run(work), name=key)

    async def attend(self, output: Output) -> Any:
        for text in self._said:
            output(text)
        self._listeners.append(output)
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if len(self._listeners) == 1 and not self.task.done():
                await self._end()
            raise
        finally:
            self._listeners.remove(output)

    async def _end(self) -> None:
        self.is_ending = True
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=END_TIMEOUT)
        if self.task.done() and not self.task.cancelled():
            self.task.exception()  # seen; there is nobody to tell

    async def _run(self, work: Callable[[Output], Awaitable[Any]]) -> Any:
        return await work(self._say)

    def _say(self, text: str) -> None:
        self._said.append(text)
        self._said_size += len(text)
        while self._said_size > REPLAYED and len(self._said) > 1:
            self._said_size -= len(self._said.popleft())
        for listener in self._listeners:
            listener(text)
