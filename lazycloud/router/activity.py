"""What the visitors of each deployment did: counted here, told to control once a second.

`last` is the last real activity: a finished request with a status under 500 that no robot made, or data on a
websocket. Control stops idle deployments by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


class Clock:
    """The time as of the last sweep: deadlines need no better, and reading it costs nothing."""

    __slots__ = ("now", "unix")

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.now = time.monotonic()
        self.unix = time.time()


@dataclass(slots=True)
class Count:
    """One deployment. Sizes in bytes; all cumulative, but `open` and `sockets`, which are now."""

    requests: int = 0
    errors: int = 0
    received: int = 0
    sent: int = 0
    open: int = 0
    sockets: int = 0
    last: float = 0.0


class Activity:
    """The counts of all deployments since this router began, and who waits for one to be drained."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}
        self._told: dict[str, dict[str, float]] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def of(self, deployment: str) -> Count:
        count = self._counts.get(deployment)
        if count is None:
            count = self._counts[deployment] = Count()
        return count

    def leave(self, deployment: str, count: Count) -> None:
        """A request routed to `deployment` is over, or went on as a websocket."""
        count.open -= 1
        if self._waiting and not count.open:
            for drained in self._waiting.pop(deployment, ()):
                drained()

    def when_drained(self, deployment: str, drained: Callable[[], None]) -> None:
        """Call `drained` as soon as no request is in flight there: at once if none is."""
        count = self._counts.get(deployment)
        if count is None or not count.open:
            drained()
        else:
            self._waiting.setdefault(deployment, []).append(drained)

    def changed(self) -> dict[str, dict[str, float]]:
        """The counts that differ from what this returned before, by deployment."""
        now = {deployment: asdict(count) for deployment, count in self._counts.items()}
        news = {deployment: said for deployment, said in now.items() if said != self._told.get(deployment)}
        self._told = now
        return news

    def listener_changed(self) -> None:
        """Another control listens: it was told nothing yet, and whoever wanted to know of drains is gone."""
        self._told = {}
        self._waiting = {}
