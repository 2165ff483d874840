"""Answers that take a while: read in turns, and sent in parts, as many ahead as their client asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from enum import Enum
from typing import Any

from lazycloud.versionbase.protocol import ITEMS, PART, Encoding, demand_fits, told

PATIENCE = 0.05  # seconds that the first items of a part wait for others

Item = Any
"""A value that is sent, None to let others have a turn, or a Future that is to be waited for first."""


class Step(Enum):
    DONE = "done"
    FULL = "full"  # the part is
    PAUSED = "paused"  # the turn is over


class Stream:
    """`items` are told in parts, unless they are of use to `result` only, which is asked in the end.

    `close` is called once, however it ends.
    """

    def __init__(
        self,
        items: Iterator[Item],
        result: Callable[[Stream], Any] = lambda stream: None,
        close: Callable[[], None] = lambda: None,
        told: bool = True,
    ) -> None:
        self.items = items
        self._result = result
        self._close = close
        self.told = told
        self.count = 0
        self.last: Any = None

    @property
    def result(self) -> Any:
        return self._result(self)

    def go_on(self, part: Part, until: float) -> Step | Future[Any]:
        """Read on until a time of `time.perf_counter`, or what has to be waited for."""
        for item in self.items:
            if isinstance(item, Future):
                return item
            if item is not None:
                self.count += 1
                self.last = item
                if self.told and part.add(item):
                    return Step.FULL
            if time.perf_counter() >= until:
                return Step.PAUSED
        return Step.DONE

    def close(self) -> None:
        """Once."""
        try:
            if close := getattr(self.items, "close", None):
                close()
        finally:
            self._close()


class Part:
    """Items on their way into one frame."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._items: list[bytes] = []
        self._size = 0
        self._began = 0.0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def is_due(self) -> bool:
        return bool(self._items) and time.perf_counter() - self._began > PATIENCE

    def add(self, item: Any) -> bool:
        """Whether it is full now. Raises TooLarge for an item that no frame holds."""
        data = told(self._encoding, item)
        demand_fits(len(data))
        if not self._items:
            self._began = time.perf_counter()
        self._items.append(data)
        self._size += len(data)
        return self._size >= PART or len(self._items) >= ITEMS

    def taken(self) -> bytes:
        """As one list; the next is empty."""
        items, self._items, self._size = self._items, [], 0
        return self._encoding.listed(items)


class Window:
    """How many parts may be sent ahead."""

    def __init__(self, parts: int) -> None:
        self._left = parts
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._left > 0

    def take(self) -> None:
        self._left -= 1

    def more(self, parts: int, most: int) -> None:
        self._left = min(self._left + parts, most)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def opened(self) -> None:
        while not self.is_open:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
