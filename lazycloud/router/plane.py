"""What all connections of one router share."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from lazycloud.router.activity import Activity, Clock
from lazycloud.router.link import Link
from lazycloud.router.pages import Pages
from lazycloud.router.pool import Pool
from lazycloud.router.routes import Table
from lazycloud.router.settings import Settings

if TYPE_CHECKING:
    from lazycloud.router.client import Client
    from lazycloud.router.tunnel import Tunnel


class Plane:
    """Starts nothing. `draining`: no connection outlives the request it carries."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.table = Table()
        self.activity = Activity()
        self.pages = Pages()
        self.pool = Pool(self)
        self.link = Link(self)
        self.clients: set[Client] = set()
        self.tunnels: set[Tunnel] = set()
        self.draining = False

    def __repr__(self) -> str:
        return f"<Plane {len(self.clients)} clients, {len(self.tunnels)} tunnels, {len(self.table)} routes>"

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return any(client.exchange is not None for client in self.clients)

    def sweep(self) -> None:
        """Look at all deadlines. Costs about a microsecond per connection."""
        self.clock.tick()
        now = self.clock.now
        for client in list(self.clients):
            client.sweep(now)
        for tunnel in list(self.tunnels):
            tunnel.sweep(now)
        self.pool.sweep(now)
        self.link.sweep(now)

    def peer(self, name: Any) -> tuple[bytes, bool]:
        """The address of a connection's other side as text, and whether what it forwards is believed."""
        if not isinstance(name, tuple):
            return b"unknown", False
        address = ip_address(name[0].partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address).encode(), any(address in network for network in self.settings.trusted_proxies)
