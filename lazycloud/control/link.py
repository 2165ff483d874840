"""The routers' side door: they ask where hosts go, tell what went through, and are told what to forget.

JSON lines over a unix socket, in both directions; the messages are documented in docs/protocols.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LINE = 1 << 20  # bytes of one message; activity of thousands of deployments fits


@dataclass(frozen=True)
class Ask:
    """A router's question. `intent` is navigate, wait or robot; `dead` an address that refused connections."""

    host: str
    intent: str
    login: bool
    dead: str = ""


@dataclass(frozen=True)
class Answer:
    """Where the request goes. `keep`: also the next ones of that host, until told to forget."""

    route: dict[str, Any]
    keep: bool = False

    @classmethod
    def control(cls, reason: str, keep: bool = False) -> Answer:
        return cls({"to": "control", "reason": reason}, keep)

    @classmethod
    def worker(cls, deployment: str, address: str, login: bool, keep: bool) -> Answer:
        return cls({"to": "worker", "deployment": deployment, "address": address, "login": login}, keep)


@dataclass(frozen=True)
class Activity:
    """What went through to one deployment, over all routers. `last` is unix time, 0.0 for never."""

    requests: int = 0
    errors: int = 0
    received: int = 0
    sent: int = 0
    open: int = 0
    sockets: int = 0
    last: float = 0.0

    def plus(self, other: Activity) -> Activity:
        return Activity(
            self.requests + other.requests,
            self.errors + other.errors,
            self.received + other.received,
            self.sent + other.sent,
            self.open + other.open,
            self.sockets + other.sockets,
            max(self.last, other.last),
        )


@dataclass(eq=False)
class _Router:
    """One connection. Its counts are kept when it goes: they were cumulative for that process."""

    writer: asyncio.StreamWriter
    asks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    drains: dict[int, asyncio.Event] = field(default_factory=dict)
    activity: dict[str, Activity] = field(default_factory=dict)

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class Link:
    def __init__(self, resolve: Callable[[Ask], Awaitable[Answer]], drain_timeout: float) -> None:
        self._resolve = resolve
        self._drain_timeout = drain_timeout
        self._routers: set[_Router] = set()
        self._past: dict[str, Activity] = {}
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
        total = self._past.get(deployment, Activity())
        for router in self._routers:
            total = total.plus(router.activity.get(deployment, Activity()))
        return total

    async def retire(self, deployment: str) -> None:
        """No router sends requests there any more, and none is on its way; bounded by the drain timeout."""
        drained = []
        for router in self._routers:
            self._drain_number += 1
            event = router.drains[self._drain_number] = asyncio.Event()
            router.send({"forget": deployment, "drain": self._drain_number})
            drained.append(event.wait())
        if drained:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*drained), self._drain_timeout)

    def forget_hosts(self, hosts: list[str]) -> None:
        for router in self._routers:
            router.send({"forget_hosts": hosts})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        router = _Router(writer)
        self._routers.add(router)
        router.send({"forget_all": True})  # what it learned from a control before this one may be wrong
        try:
            while line := await reader.readline():
                self._take(router, json.loads(line))
        except (ConnectionError, ValueError) as problem:
            log.warning("A router's link broke: %s", problem)
        finally:
            self._gone(router)

    def _gone(self, router: _Router) -> None:
        self._routers.discard(router)
        for ask in router.asks.values():
            ask.cancel()
        for event in router.drains.values():
            event.set()
        for deployment, activity in router.activity.items():
            ended = Activity(
                activity.requests, activity.errors, activity.received, activity.sent, last=activity.last
            )
            self._past[deployment] = self._past.get(deployment, Activity()).plus(ended)
        router.writer.close()

    def _take(self, router: _Router, message: dict[str, Any]) -> None:
        if "ask" in message:
            number = message["ask"]
            task = asyncio.create_task(
                self._answer(router, number, message), name=f"ask {message.get('host')}"
            )
            router.asks[number] = task
            task.add_done_callback(lambda _: router.asks.pop(number, None))
        elif "leave" in message:
            if ask := router.asks.get(message["leave"]):
                ask.cancel()
        elif "activity" in message:
            for deployment, counts in message["activity"].items():
                router.activity[deployment] = Activity(**counts)
        elif "drained" in message and (event := router.drains.pop(message["drained"], None)):
            event.set()

    async def _answer(self, router: _Router, number: int, message: dict[str, Any]) -> None:
        ask = Ask(message["host"], message["intent"], message.get("login", False), message.get("dead", ""))
        try:
            answer = await self._resolve(ask)
        except Exception:
            log.exception("No answer for %r", ask)
            answer = Answer.control("bug")
        # No await between the decision and this line: what is said was true when it was said.
        router.send({"answer": number, "route": answer.route, "keep": answer.keep})
