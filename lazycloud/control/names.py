"""For which names a front may get a certificate: those at which something of this server answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from aiohttp import web

from lazycloud import hosts
from lazycloud.config import Config
from lazycloud.control.resolver import Resolver
from lazycloud.errors import Ambiguous, Busy, Forbidden, NotFound
from lazycloud.hosts import Kind, Place

BURST = 50  # labels looked up in a row: a control page full of previews opened at once
LOOKS_PER_SECOND = 5.0  # after that: strangers begin handshakes for any name, and each costs git some 10 ms


class Names:
    """What Caddy calls `ask`: 200 for a name that leads somewhere, 404 for any other. It starts no deploy.

    Only a trusted proxy itself may ask: the answer would tell anybody else the names of branches.
    """

    def __init__(
        self, config: Config, resolver: Resolver, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trusted = [ip_network(network) for network in config.trusted_proxies]
        self._resolver = resolver
        self._clock = clock
        self._looks = float(BURST)
        self._looked_at = clock()

    async def answer(self, request: web.Request, place: Place) -> web.StreamResponse:
        """`place`, where it was asked, does not matter. Raises Forbidden, NotFound, Busy."""
        if not self._is_front(request.headers.get("X-Forwarded-For", "")):
            raise Forbidden("Only a trusted proxy itself may ask this.", "Name it with --trust-proxy.")
        domain = hosts.normalise(request.query.get("domain", ""))
        if not await self._is_served(self._resolver.place(domain)):
            raise NotFound("Nothing of this server answers to that name.")
        return web.Response(text="yes\n", headers={"Cache-Control": "no-store"})

    def _is_front(self, chain: str) -> bool:
        """Whether the router was asked by a trusted proxy, and that for nobody else: it is the whole chain."""
        try:
            address = ip_address(chain)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    async def _is_served(self, place: Place) -> bool:
        if place.kind is not Kind.LABEL:
            return place.kind in (Kind.PRODUCTION, Kind.CONTROL)
        self._spend_look()
        try:
            await self._resolver.find(place)
        except Ambiguous:
            return True  # a page with the choices
        except NotFound:
            return False
        return True

    def _spend_look(self) -> None:
        now = self._clock()
        self._looks = min(BURST, self._looks + (now - self._looked_at) * LOOKS_PER_SECOND)
        self._looked_at = now
        if self._looks < 1:
            raise Busy("Too many names were asked for.", "Ask again in a moment.", 1)
        self._looks -= 1
