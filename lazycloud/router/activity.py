"""What the visitors of each deployment did: counted here, told to control once a second.

`last` is the last real activity: a finished request with a status under 500 that no robot made, or data on a
websocket. Control stops idle deployments by it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

# Upper ends of the latency histogram's cells in seconds, as Prometheus has them; the last cell has no end.
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_AT_ONCE = 200  # deployments: a millisecond, and 80 KB of JSON


class Clock:
    """The time as of the last sweep: deadlines need no better, and reading it costs nothing."""

    __slots__ = ("now", "unix")

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.now = time.monotonic()
        self.unix = time.time()


class Count:
    """One deployment. Sizes in bytes; all cumulative, but `open` and `sockets`, which are now."""

    __slots__ = (
        "answers",
        "errors",
        "failed",
        "last",
        "latency",
        "open",
        "received",
        "requests",
        "sent",
        "sockets",
        "told",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0  # of them with a status of 500 and more, whoever made it
        self.received = 0
        self.sent = 0
        self.open = 0
        self.sockets = 0
        self.last = 0.0
        self.answers = [0] * 5  # the worker's, by the first digit of their status, from 1xx (websockets) on
        self.failed: dict[str, int] = {}  # by status: what the router had to end itself; 499: the client left
        self.latency = [0] * (len(LATENCIES) + 1)  # from the request's head at the worker to its answer's
        self.told: dict[str, Any] = {}  # what control knows

    def answered(self, status: int, seconds: float) -> None:
        """The worker's final head came."""
        self.answers[min(status // 100, 5) - 1] += 1  # 6xx to 9xx exist, and count as errors
        self.latency[bisect_left(LATENCIES, seconds)] += 1

    def fell(self, status: int) -> None:
        """The router ended a request itself."""
        name = str(status)
        self.failed[name] = self.failed.get(name, 0) + 1

    def facts(self) -> dict[str, Any]:
        """As control is told them."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "received": self.received,
            "sent": self.sent,
            "open": self.open,
            "sockets": self.sockets,
            "last": self.last,
            "answers": list(self.answers),
            "failed": dict(self.failed),
            "latency": list(self.latency),
        }


class Activity:
    """The counts of all deployments since this router began, and who waits for one to be drained."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}
        self._stirred: set[str] = set()  # deployments with something to tell, or about to have
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def of(self, deployment: str) -> Count:
        """The count of a deployment to which something goes now."""
        self._stirred.add(deployment)
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

    def changed(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The counts that differ from what this gave before, by deployment, some at a time."""
        stirred, self._stirred = self._stirred, set()
        news = {}
        for deployment in stirred:
            count = self._counts[deployment]
            if count.open or count.sockets:
                self._stirred.add(deployment)
            facts = count.facts()
            if facts != count.told:
                news[deployment] = count.told = facts
            if len(news) == _AT_ONCE:
                yield news
                news = {}
        if news:
            yield news

    def listener_changed(self) -> None:
        """Another control listens: it was told nothing yet, and whoever wanted to know of drains is gone."""
        for count in self._counts.values():
            count.told = {}
        self._stirred = set(self._counts)
        self._waiting = {}
