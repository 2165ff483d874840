"""What may happen often and is told seldom, so that a flood fills no log. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable


class Seldom:
    """At most `most` things are told within `seconds`; the rest are counted, and told with the next."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._began = float("-inf")
        self._told = self._untold = 0

    def take(self) -> int:
        """How many are to be told now, this one and those before that were not; 0 for none."""
        now = self._clock()
        if now - self._began > self._seconds:
            self._began, self._told = now, 0
        self._untold += 1
        if self._told >= self._most:
            return 0
        self._told += 1
        count, self._untold = self._untold, 0
        return count
