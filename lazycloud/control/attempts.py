"""How often strangers may try: bounded per client, and in what it remembers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from lazycloud.errors import TooOften

REMEMBERED = 10_000  # clients; a flood from more forgets those that tried longest ago


class Attempts:
    """`most` within `seconds`, for each client, as a bucket that fills up again. `clock` gives seconds."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._rate = most / seconds
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> attempts, when

    def spend(self, client: str) -> None:
        """One more. Raises TooOften."""
        now, spent = self._clock(), self.spent(client)
        if spent > self._most - 1:
            wait = (spent - self._most + 1) / self._rate
            raise TooOften("That was tried too often.", "Wait a little, then try again.", max(1, round(wait)))
        self._spent[client] = (spent + 1, now)
        self._spent.move_to_end(client)
        if len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)

    def give_back(self, client: str) -> None:
        """The last one was right."""
        if client in self._spent:
            spent, at = self._spent[client]
            self._spent[client] = (max(0.0, spent - 1), at)

    def spent(self, client: str) -> float:
        spent, at = self._spent.get(client, (0.0, 0.0))
        return max(0.0, spent - (self._clock() - at) * self._rate)
