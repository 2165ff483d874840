"""Where a router accepts: its listening sockets, shut while it is short of file descriptors.

Left alone, the event loop would accept what it has no descriptor for only to close it. What is not accepted waits in
the kernel's backlog, and is served when others have gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from functools import partial
from pathlib import Path
from typing import Any, cast

from lazycloud.router.client import Client
from lazycloud.router.plane import Plane
from lazycloud.router.redirect import Redirect
from lazycloud.router.tls import Tls

_MOST = 1 << 20  # descriptors; what fs.nr_open allows on most machines
_RESERVE_MIN, _RESERVE_SHARE = 24, 8  # an eighth is kept for idle clients that ask again, and for files
_SMALL = 64  # less room than this share is none, so that counting clients stays rare
_LOOK = 0.05  # seconds between looks for room while the door is shut
_LOG_EVERY = 60.0  # seconds
_IDLE = 5.0  # seconds after which an idle connection has to make room

log = logging.getLogger(__name__)


class Door:
    """Starts nothing until `open`."""

    def __init__(self, plane: Plane, tls: Tls | None) -> None:
        self._plane = plane
        self._tls = tls
        self._descriptors = plane.settings.listen_fds
        self._servers: list[asyncio.Server] = []
        self.redirects: set[Redirect] = set()  # those that are open
        self._limit = raise_limit()
        self._usable = self._limit - max(_RESERVE_MIN, self._limit // _RESERVE_SHARE)
        self._looks_in = 0  # connections until descriptors are counted again
        self._logged = float("-inf")
        self._waiting: asyncio.Task[None] | None = None

    @property
    def greets(self) -> bool:
        """Whether a client is in the middle of a handshake, and so not among the plane's yet."""
        return self._tls is not None and self._tls.busy

    async def open(self) -> None:
        self._servers = [await self._listen(fd) for fd in self._descriptors]

    def close(self) -> None:
        """Accept no more. May be called twice."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._shut()
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors = ()

    def _shut(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    async def _listen(self, fd: int) -> asyncio.Server:
        settings = self._plane.settings
        listener = socket.socket(fileno=os.dup(fd))  # it is closed with the server
        listener.setblocking(False)
        serve = partial(asyncio.get_running_loop().create_server, sock=listener, backlog=settings.backlog)
        if fd in settings.redirect_fds:
            return await serve(self._redirect)
        client = cast(Any, self._client)
        if self._tls is None:
            return await serve(client)
        return await serve(
            client,
            ssl=self._tls.context,
            ssl_handshake_timeout=settings.head_timeout,
            ssl_shutdown_timeout=settings.idle_timeout,  # with sending what a slow client has yet to read
        )

    def _client(self) -> Client:
        self._entered()
        return Client(self._plane)

    def _redirect(self) -> Redirect:
        self._entered()
        return Redirect(self._plane, self.redirects)

    def _entered(self) -> None:
        self._looks_in -= 1
        if self._looks_in <= 0:
            room = self._room()
            self._looks_in = max(1, room // 4)  # each may need a second one
            if room <= 0 and self._waiting is None:
                self._waiting = asyncio.create_task(self._wait_for_room(), name="wait for descriptors")

    def _room(self) -> int:
        """How many more descriptors may be taken. A client that may soon ask is given one for its way on."""
        recently = self._plane.clock.now - _IDLE
        asking = sum(1 for client in self._plane.clients if _may_ask(client, recently))
        return self._usable - self._usable // _SMALL - open_descriptors() - asking

    async def _wait_for_room(self) -> None:
        self._shut()
        now = self._plane.clock.now
        if now - self._logged > _LOG_EVERY:
            self._logged = now
            log.warning(
                "%d of %d file descriptors are in use: connections wait until others end",
                open_descriptors(),
                self._limit,
            )
        while self._room() <= 0:
            for client in list(self._plane.clients):
                if self._plane.clock.now - client.since > _IDLE:
                    client.close_if_idle()
            await asyncio.sleep(_LOOK)
        self._waiting = None
        self._looks_in = 0
        await self.open()


def _may_ask(client: Client, recently: float) -> bool:
    if client.exchange is None:
        return client.since > recently
    return client.exchange.upstream is None


def raise_limit() -> int:
    """Allow this process as many descriptors as it may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def open_descriptors() -> int:
    """How many this process has open. The folder's size says it since Linux 6.2; before, its entries count."""
    folder = Path("/proc/self/fd")
    return folder.stat().st_size or len(os.listdir(folder))  # noqa: PTH208
