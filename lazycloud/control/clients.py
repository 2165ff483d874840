"""The address of who asks, as far as somebody vouches for it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

LONGEST = 64  # letters of what a front says that is no address


class Clients:
    """`trusted` are the networks of fronts, whose word the routers take too."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [ip_network(network) for network in trusted]

    def address(self, request: web.Request) -> str:
        """Of `X-Forwarded-For`, whose last entry a router wrote, the last that is no front of ours; or "local"."""
        entries = [
            entry.strip()
            for line in request.headers.getall("X-Forwarded-For", ())
            for entry in line.split(",")
        ]
        for entry in reversed(entries):
            if not self._is_front(entry):
                return entry[:LONGEST]
        return entries[0][:LONGEST] if entries else "local"

    def _is_front(self, entry: str) -> bool:
        try:
            address = ip_address(entry)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def neighbourhood(address: str) -> str:
    """What attempts are counted by: one customer has a whole /64 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
