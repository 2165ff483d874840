"""The line to control: what is unknown is asked there, what it says is done, activity is told.

JSON lines over a unix socket, handled in order. The link comes back by itself, with everything that is still
open asked again; the table is kept meanwhile, so that known hosts never notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from lazycloud import hosts
from lazycloud.router import troubles
from lazycloud.router.exchange import Exchange
from lazycloud.router.pool import CONTROL
from lazycloud.router.routes import BadRoute, Route, read_addresses, read_route

if TYPE_CHECKING:
    from lazycloud.router.plane import Plane

_LINE_MAX = 1024 * 1024  # control sends a few hundred bytes; more is not control
HOSTS_MAX = 4096  # whose app is remembered; strangers name hosts
_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ask:
    """A question that control has not answered yet."""

    exchange: Exchange
    app: str  # whose place it takes; empty: of no app, or not known yet
    message: dict[str, Any]
    since: float
    sent: bool = False


class Link:
    """Starts nothing until `start`. Exchanges ask and leave; control's words go to the plane."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._asks: dict[int, Ask] = {}
        self._by_app: Counter[str] = Counter()
        self._domain = ""
        self._apps: dict[str, str] = {}  # with their own domains
        self._app_by_host: dict[str, str] = {}  # as they were asked for: to find one takes 15 µs
        self._last = 0
        self._name = uuid4().hex
        self._line: LinkProtocol | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """How many requests wait for an answer."""
        return len(self._asks)

    def start(self) -> None:
        self._task = asyncio.create_task(self._stay_connected(), name="link")

    async def close(self) -> None:
        """Stop, and close the socket. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._line is not None:
            self._line.transport.close()

    def ask(self, exchange: Exchange, intent: str, login: bool, dead: str | None) -> int | None:
        """Ask where the exchange's host leads; `exchange.answered` hears it. None: too many wait already."""
        host, settings = exchange.head.host, self._plane.settings
        app = self.app_of(host)
        if len(self._asks) >= settings.held_max or self._by_app[app] >= settings.held_app_max:
            return None
        self._last += 1
        message = {"ask": self._last, "host": host, "intent": intent, "login": login}
        if dead is not None:
            message["dead"] = dead
        ask = self._asks[self._last] = Ask(exchange, app, message, self._plane.clock.now)
        self._by_app[app] += 1
        self._send_ask(ask)
        return self._last

    def refused(self, deployment: str, address: str) -> None:
        """Nobody accepts at that address; the request went to another one."""
        self._send({"refused": address, "deployment": deployment})

    def leave(self, number: int) -> None:
        """The client of that ask went away."""
        ask = self._take(number)
        if ask is not None and ask.sent:
            self._send({"leave": number})

    def sweep(self, now: float) -> None:
        """Give up asks that found no link."""
        oldest = now - self._plane.settings.link_wait
        for number, ask in list(self._asks.items()):
            if not ask.sent and ask.since < oldest:
                self._take(number)
                ask.exchange.unanswered(troubles.NO_LINK)

    def report(self) -> Iterator[None]:
        """Tell control what changed. Requests get their turn at each yield."""
        # To one that hangs nothing is piled up: counts only grow, and are told later.
        if self._line is not None and not self._line.full:
            for news in self._plane.activity.changed():
                self._send({"activity": news})
                yield

    def connected(self, line: LinkProtocol) -> None:
        """A new control, or the same one again: it knows nothing of what was said before."""
        self._line = line
        self._plane.activity.listener_changed()
        self._send({"hello": {"pid": os.getpid(), "name": self._name, "moves": True}})
        self.resumed()

    def resumed(self) -> None:
        """Control reads what it is told: so tell it what had to wait."""
        for ask in self._asks.values():
            if not ask.sent:
                self._send_ask(ask)

    def disconnected(self, line: LinkProtocol) -> None:
        if self._line is line:
            self._line = None
            self._plane.pool.drop(CONTROL)  # one that is being replaced may close any of them now
            for ask in self._asks.values():
                ask.sent = False
                ask.since = self._plane.clock.now

    def heard(self, message: Mapping[str, Any]) -> None:
        """Do what control said. Unknown words are for newer routers."""
        if "answer" in message:
            self._answered(message)
        elif "forget" in message:
            self._move(str(message["forget"]), (), message.get("drain"))
        elif "move" in message:
            self._move(str(message["move"]), read_addresses(message["addresses"]), message.get("drain"))
        elif "forget_hosts" in message:
            self._plane.table.forget_hosts(map(str, message["forget_hosts"]))
        elif "forget_all" in message:
            self._plane.table.forget_all()
        elif "learn" in message:
            for host, route in message["learn"].items():
                self._plane.table.keep(host, read_route(route))
        elif "apps" in message:
            self._learn_apps(str(message["domain"]), dict(message["apps"]))
        elif "access" in message:
            self._plane.admit(message["access"])

    def app_of(self, host: str) -> str:
        """The app of a host; empty for no app, or one that is not known yet."""
        app = self._app_by_host.get(host)
        if app is None:
            if len(self._app_by_host) >= HOSTS_MAX:
                self._app_by_host.clear()
            app = self._app_by_host[host] = hosts.find(host, self._domain, self._apps).app
        return app

    def _learn_apps(self, domain: str, apps: dict[str, str]) -> None:
        """Those who ask already take their places among the apps that are known now."""
        self._domain, self._apps = domain, apps
        self._app_by_host.clear()
        for ask in self._asks.values():
            ask.app = self.app_of(ask.message["host"])
        self._by_app = Counter(ask.app for ask in self._asks.values())

    def _answered(self, message: Mapping[str, Any]) -> None:
        ask = self._take(message["answer"])
        if ask is None:
            return
        try:
            route = read_route(message.get("route"))
        except BadRoute as error:
            log.error("control's answer for %s is wrong: %s", ask.message["host"], error)
            ask.exchange.unanswered(troubles.wrong_route(str(error)))
            return
        self._keep(ask.message["host"], route, message.get("keep"))
        ask.exchange.answered(route)

    def _keep(self, host: str, route: Route, keep: object) -> None:
        if keep is True:
            self._plane.table.keep(host, route)
        elif isinstance(keep, float):
            self._plane.table.keep_until(host, route, monotonic() + keep)

    def _move(self, deployment: str, addresses: tuple[str, ...], drain: object) -> None:
        plane = self._plane
        before = plane.table.move(deployment, addresses).union(plane.activity.addresses(deployment))

        def leave_others() -> None:
            for address in before.difference(addresses):
                plane.pool.drop(address)

        def drained() -> None:
            leave_others()  # the last requests have left theirs there
            self._send({"drained": drain})

        leave_others()
        if drain is not None:
            plane.activity.when_drained(deployment, addresses, drained)

    def _take(self, number: int) -> Ask | None:
        ask = self._asks.pop(number, None)
        if ask is not None:
            self._by_app[ask.app] -= 1
            if not self._by_app[ask.app]:
                del self._by_app[ask.app]
        return ask

    def _send_ask(self, ask: Ask) -> None:
        if self._line is not None and not self._line.full:
            ask.sent = True
            self._send(ask.message)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._line is not None and not self._line.transport.is_closing():
            self._line.transport.write(json.dumps(message).encode() + b"\n")

    async def _stay_connected(self) -> None:
        loop, delay = asyncio.get_running_loop(), _FIRST_DELAY
        while True:
            try:
                _, line = await loop.create_unix_connection(
                    lambda: LinkProtocol(self), self._plane.settings.link
                )
            except OSError:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY)
                continue
            delay = _FIRST_DELAY
            await line.closed


class LinkProtocol(asyncio.Protocol):
    """Cuts lines, reads JSON, and hands it to the link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unread = b""
        self.full = False  # whether control is not reading, since it hangs
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._link.connected(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._hear(line)
        if len(self._unread) > _LINE_MAX:
            log.error("control sent a line of more than %d bytes; connecting anew", _LINE_MAX)
            self.transport.abort()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._link.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.disconnected(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def _hear(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            self._link.heard(message)
        except Exception:  # one message must not cost the link, and with it everybody who waits
            log.exception("control's words could not be followed: %.200r", line)
