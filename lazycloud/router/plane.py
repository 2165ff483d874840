"""What all connections of one router share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from lazycloud.router.accesslog import AccessLog
from lazycloud.router.activity import Activity, Clock
from lazycloud.router.guard import Guard
from lazycloud.router.link import Link
from lazycloud.router.pages import Pages
from lazycloud.router.pool import Pool
from lazycloud.router.routes import Table
from lazycloud.router.settings import Settings

if TYPE_CHECKING:
    from lazycloud.router.client import Client
    from lazycloud.router.exchange import Exchange
    from lazycloud.router.tunnel import Tunnel

_SWEPT_AT_ONCE = 500
_WRITE_MIN = 64 * 1024  # what one client is always given: less would slow down those who are quick


log = logging.getLogger(__name__)


class Plane:
    """Starts nothing. `draining`: no answer promises that its connection is kept."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock(2 * settings.sweep)
        self.table = Table()
        self.activity = Activity()
        self.pages = Pages()
        self.access_log = AccessLog(settings.access_log) if settings.access_log else None
        self.pool = Pool(self)
        self.link = Link(self)
        self.guard = Guard(settings, self.link.app_of)
        self.clients: set[Client] = set()
        self.tunnels: set[Tunnel] = set()
        self.draining = False

    def __repr__(self) -> str:
        return f"<Plane {len(self.clients)} clients, {len(self.tunnels)} tunnels, {len(self.table)} routes>"

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return any(client.exchange is not None for client in self.clients)

    def admit(self, said: Mapping[str, Any]) -> None:
        """Who may see previews from now on, as control says. What goes on for others ends."""
        self.guard.learn(said)
        for tunnel in list(self.tunnels):
            tunnel.look_again()
        for client in list(self.clients):
            if client.exchange is not None:
                client.exchange.look_again()

    def note(self, exchange: Exchange) -> None:
        """A request is over: for the access log."""
        if self.access_log is not None:
            self.access_log.note(exchange.line())

    def write_limit(self) -> int:
        """Bytes to keep for one more client if it is slow to read: the fewer, the more clients there are."""
        settings = self.settings
        return min(settings.write_max, max(_WRITE_MIN, settings.write_total // (len(self.clients) + 1)))

    def sweep(self) -> Iterator[None]:
        """Look at all deadlines. Costs about a microsecond a connection: requests get their turn at each yield."""
        self.clock.tick()
        now = self.clock.now
        open_now: list[Client | Tunnel] = [*self.clients, *self.tunnels]
        for number, each in enumerate(open_now, 1):
            if each in self.clients or each in self.tunnels:  # it may have gone meanwhile
                self._sweep_one(each, now)
            if not number % _SWEPT_AT_ONCE:
                yield
        self.pool.sweep(now)
        self.link.sweep(now)

    def _sweep_one(self, each: Client | Tunnel, now: float) -> None:
        try:
            each.sweep(now)
        except Exception:  # one connection's bug must not switch off all deadlines
            log.exception("the deadlines of %r cannot be looked at", each)

    def peer(self, name: Any) -> tuple[bytes, bool]:
        """The address of a connection's other side as text, and whether what it forwards is believed."""
        if not isinstance(name, tuple):
            return b"unknown", False
        address = ip_address(name[0].partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address).encode(), any(address in network for network in self.settings.trusted_proxies)
