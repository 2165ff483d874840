"""The routers' side door: they ask where hosts go, tell what went through, and are told what to forget.

JSON lines over a unix socket, in both directions; the messages are documented in docs/protocols.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LINE = 1 << 20  # bytes of one message; routers tell of 200 deployments at once
KNOWN = 16_384  # hosts whose routes are told to new routers; they ask for others
TOLD_AT_ONCE = 1000  # of them in a message: some 200 KB
GONE = 16  # routers whose counts are kept apart, since they may come back on another connection


@dataclass(frozen=True)
class Ask:
    """A router's question. `intent` is navigate, wait or robot; `dead` an address that refused connections."""

    host: str
    intent: str
    login: bool
    dead: str = ""


@dataclass(frozen=True)
class Answer:
    """Where the request goes. `keep`: also the next ones of that host, until told to forget, or for some seconds."""

    route: dict[str, Any]
    keep: bool | float = False

    @classmethod
    def control(cls, reason: str, keep: bool | float = False) -> Answer:
        return cls({"to": "control", "reason": reason}, keep)

    @classmethod
    def worker(cls, deployment: str, addresses: Sequence[str], login: bool, keep: bool) -> Answer:
        """To one of its workers, whichever has the least to do; there is at least one."""
        return cls({"to": "worker", "deployment": deployment, **_places(addresses), "login": login}, keep)


def _places(addresses: Sequence[str]) -> dict[str, Any]:
    """As a route says them; routers of the version before this one know one address only."""
    return {"address": addresses[0], "addresses": list(addresses)}


@dataclass(frozen=True)
class Activity:
    """What went through to one deployment, over all routers.

    Sizes in bytes; `last` is unix time, 0.0 for never. `errors` had a status of 500 and more; `answers` are the
    worker's by the first digit of their status, from 1xx (websockets) on; `failed` are what a router had to end
    itself, by status, 499 for clients that left; `latency` counts answers by the seconds to their first byte:
    cell n up to LATENCIES[n] of lazycloud.router.activity, the last all others.
    """

    requests: int = 0
    errors: int = 0
    received: int = 0
    sent: int = 0
    open: int = 0
    sockets: int = 0
    last: float = 0.0
    answers: Sequence[int] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    latency: Sequence[int] = ()

    def plus(self, other: Activity) -> Activity:
        return Activity(
            self.requests + other.requests,
            self.errors + other.errors,
            self.received + other.received,
            self.sent + other.sent,
            self.open + other.open,
            self.sockets + other.sockets,
            max(self.last, other.last),
            _sums(self.answers, other.answers),
            dict(Counter(self.failed) + Counter(other.failed)),
            _sums(self.latency, other.latency),
        )

    def ended(self) -> Activity:
        """The same of a router that is gone, with all its connections."""
        return replace(self, open=0, sockets=0)


_COUNTS = {each.name for each in fields(Activity)}


def _sums(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)]


@dataclass(eq=False)
class _Router:
    """One connection. Its counts are cumulative for that process, which may come back on another connection."""

    writer: asyncio.StreamWriter
    name: str = ""
    moves: bool = False  # whether it knows the word; those of the version before do not
    replaced: bool = False  # the same router has another line now: what still comes here is old
    asks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    drains: dict[int, asyncio.Event] = field(default_factory=dict)
    activity: dict[str, Activity] = field(default_factory=dict)

    def moving(self, deployment: str, addresses: Sequence[str]) -> dict[str, Any]:
        """How this one is told. Who only forgets asks again; it has drained when all its requests have ended."""
        if addresses and self.moves:
            return {"move": deployment, "addresses": list(addresses)}
        return {"forget": deployment}

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class Link:
    """`apps` gives the message that tells routers which apps there are, and under which domains.

    `refused` hears of a deployment, by its id, and an address at which a router found nobody.
    """

    def __init__(
        self,
        resolve: Callable[[Ask], Awaitable[Answer]],
        apps: Callable[[], dict[str, Any]],
        drain_timeout: float,
        refused: Callable[[str, str], None] = lambda deployment, address: None,
    ) -> None:
        self.access: Callable[[], dict[str, Any]] = dict  # who may see previews, for the routers
        self._resolve = resolve
        self._refused = refused
        self._apps = apps
        self._drain_timeout = drain_timeout
        self._routers: set[_Router] = set()
        # Of routers that are gone, by their names; under "" of all before them.
        self._past: dict[str, dict[str, Activity]] = {}
        self._known: dict[str, dict[str, Any]] = {}  # host -> route, as every router was told to keep it
        self._server: asyncio.Server | None = None
        self._drain_number = 0

    async def start(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LINE)
        path.chmod(0o600)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for router in list(self._routers):
            for ask in router.asks.values():
                ask.cancel()
            router.writer.close()

    def activity(self, deployment: str) -> Activity:
        told = [*self._past.values(), *(router.activity for router in self._routers)]
        total = Activity()
        for counts in told:
            if deployment in counts:
                total = total.plus(counts[deployment])
        return total

    async def retire(self, deployment: str) -> None:
        """No router sends requests there any more, and none is on its way; bounded by the drain timeout."""
        await self.move(deployment, ())

    async def move(self, deployment: str, addresses: Sequence[str]) -> None:
        """Routers send its requests to these addresses only, to none if there are none.

        Returns when no request is on its way to any other; bounded by the drain timeout.
        """
        self._know(deployment, addresses)
        drained = []
        for router in self._routers:
            self._drain_number += 1
            event = router.drains[self._drain_number] = asyncio.Event()
            router.send(router.moving(deployment, addresses) | {"drain": self._drain_number})
            drained.append(event)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_timeout):
                for event in drained:
                    await event.wait()

    def _know(self, deployment: str, addresses: Sequence[str]) -> None:
        """What new routers are told of it."""
        before, self._known = self._known, {}
        for host, route in before.items():
            if route["deployment"] != deployment:
                self._known[host] = route
            elif addresses:
                self._known[host] = route | _places(addresses)

    def forget_hosts(self, hosts: list[str]) -> None:
        for host in hosts:
            self._known.pop(host, None)
        for router in self._routers:
            router.send({"forget_hosts": hosts})

    def tell_access(self) -> None:
        """Another cookie or token holds than before."""
        for router in self._routers:
            router.send({"access": self.access()})

    def forget_all(self) -> None:
        """All that routers keep is to be asked for again."""
        self._known.clear()
        for router in self._routers:
            router.send({"forget_all": True})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        router = _Router(writer)
        self._routers.add(router)
        router.send({"forget_all": True})  # what it learned from a control before this one may be wrong
        router.send(self._apps())
        if access := self.access():
            router.send({"access": access})
        known = list(self._known.items())
        for begin in range(0, len(known), TOLD_AT_ONCE):
            router.send({"learn": dict(known[begin : begin + TOLD_AT_ONCE])})
        try:
            while line := await reader.readline():
                self._take(router, json.loads(line))
        except (ConnectionError, ValueError, TypeError, KeyError) as problem:
            log.warning("A router's link broke: %s", problem)
        finally:
            self._gone(router)

    def _gone(self, router: _Router) -> None:
        self._routers.discard(router)
        for ask in router.asks.values():
            ask.cancel()
        for event in router.drains.values():
            event.set()
        if not router.replaced:
            self._keep(router)
        router.writer.close()

    def _keep(self, router: _Router) -> None:
        """Keep the counts of a router that went; the oldest of those are joined, as they will not come back."""
        ended = {deployment: activity.ended() for deployment, activity in router.activity.items()}
        self._past[router.name] = self._past.get(router.name, {}) | ended
        if len(self._past) > GONE:
            oldest = next(name for name in self._past if name)
            joined = self._past.setdefault("", {})
            for deployment, activity in self._past.pop(oldest).items():
                joined[deployment] = joined.get(deployment, Activity()).plus(activity)

    def _take(self, router: _Router, message: dict[str, Any]) -> None:
        if "hello" in message:
            router.moves = message["hello"].get("moves") is True
            self._recognise(router, str(message["hello"]["name"]))
        elif "ask" in message:
            number = message["ask"]
            task = asyncio.create_task(
                self._answer(router, number, message), name=f"ask {message.get('host')}"
            )
            router.asks[number] = task
            task.add_done_callback(lambda _: router.asks.pop(number, None))
        elif "refused" in message:
            self._refused(str(message["deployment"]), str(message["refused"]))
        elif "leave" in message:
            if ask := router.asks.get(message["leave"]):
                ask.cancel()
        elif "activity" in message and not router.replaced:
            for deployment, counts in message["activity"].items():
                told = {name: counts[name] for name in _COUNTS & counts.keys()}  # newer ones may tell more
                router.activity[deployment] = Activity(**told)
        elif "drained" in message and (event := router.drains.pop(message["drained"], None)):
            event.set()

    def _recognise(self, router: _Router, name: str) -> None:
        """One that comes back: its counts go on, and the end of its old connection may not have been noticed."""
        router.name, router.activity = name, self._past.pop(name, {})
        for other in self._routers:
            if other is not router and other.name == name and not other.replaced:
                router.activity, other.activity, other.replaced = other.activity, {}, True

    async def _answer(self, router: _Router, number: int, message: dict[str, Any]) -> None:
        ask = Ask(message["host"], message["intent"], message.get("login", False), message.get("dead", ""))
        try:
            answer = await self._resolve(ask)
        except Exception:
            log.exception("No answer for %r", ask)
            answer = Answer.control("bug")
        # No await between the decision and this line: what is said was true when it was said.
        router.send({"answer": number, "route": answer.route, "keep": answer.keep})
        if answer.keep is True and answer.route["to"] == "worker":
            self._teach(router, ask.host, answer.route)

    def _teach(self, asker: _Router, host: str, route: dict[str, Any]) -> None:
        """What one router may keep the others know too: they serve on while this process hangs or is replaced."""
        self._known.pop(host, None)
        self._known[host] = route
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]
        for router in self._routers - {asker}:
            router.send({"learn": {host: route}})
