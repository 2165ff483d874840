"""What the visitors of each deployment did: counted here, told to control once a second; and which of its
workers gets the next request.

`last` is the last real activity: a finished request with a status under 500 that no robot made, or data on a
websocket. Control stops idle deployments by it.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

# Upper ends of the latency histogram's cells in seconds, as Prometheus has them; the last cell has no end.
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_AT_ONCE = 200  # deployments: a millisecond, and 80 KB of JSON
_LAST = 1 << 32  # more than can be on its way
_SHUNNED = 5.0  # seconds in which others go before a worker that refused; control sees to it meanwhile


class Clock:
    """The time as of the last sweep: deadlines need no better, and reading it costs nothing.

    `now` goes on by `step` seconds at most between two sweeps. So a router that the machine has not let run does not
    take for others' silence what it has not yet read.
    """

    __slots__ = ("_at", "_step", "now", "unix")

    def __init__(self, step: float = math.inf) -> None:
        self._step = step
        self.now = self._at = time.monotonic()
        self.unix = time.time()

    def tick(self) -> None:
        at = time.monotonic()
        self.now += min(at - self._at, self._step)
        self._at = at
        self.unix = time.time()


class Load:
    """What this router has on its way to one worker. `shunned`: until when (`Clock.now`) others are chosen first."""

    __slots__ = ("address", "open", "shunned", "sockets")

    def __init__(self, address: str) -> None:
        self.address = address
        self.open = 0
        self.sockets = 0
        self.shunned = 0.0

    def __repr__(self) -> str:
        return f"<Load {self.address} {self.open} open, {self.sockets} sockets>"

    def refused(self, now: float) -> None:
        """Nobody accepted there."""
        self.shunned = now + _SHUNNED


class Count:
    """One deployment. Sizes in bytes; all cumulative, but `open` and `sockets`, which are now.

    `loads`: of its workers, by address; control is not told of them.
    """

    __slots__ = (
        "_turn",
        "answers",
        "errors",
        "failed",
        "last",
        "latency",
        "loads",
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
        self.loads: dict[str, Load] = {}
        self._turn = 0

    def choose(self, addresses: tuple[str, ...], dead: Container[str], now: float) -> Load:
        """The worker with the fewest requests and sockets, in turn among equals; rather none that refused."""
        if len(addresses) == 1:
            return self.loads.get(addresses[0]) or self._load(addresses[0], addresses)
        self._turn = turn = (self._turn + 1) % len(addresses)
        best, least = None, 0
        for address in addresses[turn:] + addresses[:turn]:
            load = self.loads.get(address) or self._load(address, addresses)
            rank = load.open + load.sockets
            if load.shunned > now:
                rank += _LAST
            if address in dead:
                rank += 2 * _LAST
            if best is None or rank < least:
                best, least = load, rank
        assert best is not None, "no address"
        return best

    def _load(self, address: str, addresses: Sequence[str]) -> Load:
        """Of an address that is new; those that are not of `addresses` are forgotten when nothing is on its way."""
        load = Load(address)
        self.loads = {
            each.address: each
            for each in (*self.loads.values(), load)
            if each.open or each.sockets or each.address in addresses
        } | {address: load}
        return load

    def open_beside(self, addresses: Container[str]) -> bool:
        """Whether a request is on its way to a worker that is not at one of `addresses`."""
        return any(load.open and load.address not in addresses for load in self.loads.values())

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


_Drain = tuple[Sequence[str], Callable[[], None]]


class Activity:
    """The counts of all deployments since this router began, and who waits for one to be drained."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}
        self._stirred: set[str] = set()  # deployments with something to tell, or about to have
        self._waiting: dict[str, list[_Drain]] = {}

    def of(self, deployment: str) -> Count:
        """The count of a deployment to which something goes now."""
        self._stirred.add(deployment)
        count = self._counts.get(deployment)
        if count is None:
            count = self._counts[deployment] = Count()
        return count

    def leave(self, deployment: str, count: Count, load: Load) -> None:
        """A request that was routed to a worker of `deployment` is over, or went on as a websocket."""
        count.open -= 1
        load.open -= 1
        if self._waiting and not load.open and deployment in self._waiting:
            waiting = self._waiting.pop(deployment)
            for drain in waiting:
                self.when_drained(deployment, *drain)

    def when_drained(self, deployment: str, addresses: Sequence[str], drained: Callable[[], None]) -> None:
        """Call `drained` as soon as no request is in flight but at these of its addresses: at once if none is."""
        count = self._counts.get(deployment)
        if count is None or not count.open_beside(addresses):
            drained()
        else:
            self._waiting.setdefault(deployment, []).append((addresses, drained))

    def addresses(self, deployment: str) -> list[str]:
        """Where requests went to, now or before."""
        count = self._counts.get(deployment)
        return [] if count is None else list(count.loads)

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
