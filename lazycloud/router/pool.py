"""Connections to workers and to control, kept open between requests, by address."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from lazycloud.router.routes import split_address
from lazycloud.router.upstream import Upstream

if TYPE_CHECKING:
    from lazycloud.router.plane import Plane

CONTROL = "control"  # stands for the address of control's socket; no worker's address looks like it

_AGAIN, _LAST_AGAIN = 0.05, 0.5
_SHORT = (errno.EMFILE, errno.ENFILE)
_AWAY = (ConnectionRefusedError, FileNotFoundError, BlockingIOError)  # the last: its backlog is full

Connected = Callable[[Upstream | None], None]  # None: nobody answers there


class Pool:
    """Idle upstreams, the last used on top. `take` is for the hot path, `connect` for the cold."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._idle: dict[str, list[Upstream]] = {}
        self._size = 0  # of them over all addresses
        self._connecting: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        idle = ", ".join(f"{address}: {len(idle)}" for address, idle in self._idle.items())
        return f"<Pool idle {{{idle}}}, connecting {len(self._connecting)}>"

    def take(self, address: str) -> Upstream | None:
        """An idle upstream, marked as reused; None when there is none."""
        idle = self._idle.get(address)
        while idle:
            upstream = idle.pop()
            self._size -= 1
            if not upstream.transport.is_closing():
                upstream.reused = True
                return upstream
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep an upstream whose exchange is over."""
        idle = self._idle.get(upstream.address)
        if idle is None:
            idle = self._idle[upstream.address] = []
        settings = self._plane.settings
        if len(idle) >= settings.pool_max or self._size >= settings.pool_total:
            upstream.abort()
            return
        upstream.since = self._plane.clock.now
        idle.append(upstream)
        self._size += 1

    def discard(self, upstream: Upstream) -> None:
        """Forget an upstream that died while it was idle."""
        idle = self._idle.get(upstream.address, [])
        if upstream in idle:
            idle.remove(upstream)
            self._size -= 1

    def drop(self, address: str) -> None:
        """Close what is idle at an address to which nothing leads any more."""
        for upstream in self._idle.pop(address, ()):
            self._size -= 1
            upstream.abort()

    def sweep(self, now: float) -> None:
        """Close what was idle too long."""
        oldest = now - self._plane.settings.pool_idle
        for address, idle in list(self._idle.items()):
            for upstream in [each for each in idle if each.since < oldest]:
                self.discard(upstream)
                upstream.abort()
            if not idle:
                del self._idle[address]

    def connect(self, address: str, connected: Connected) -> None:
        """Open a connection; `connected` is called with it, or with None when nobody answers in time."""
        task = asyncio.create_task(self._connect(address, connected), name=f"connect {address}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def close(self) -> None:
        """Close everything idle and give up what is being opened."""
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for address in list(self._idle):
            self.drop(address)

    async def _connect(self, address: str, connected: Connected) -> None:
        settings = self._plane.settings
        upstream, pause = Upstream(self._plane, address), _AGAIN
        try:
            async with asyncio.timeout(
                settings.link_wait if address == CONTROL else settings.connect_timeout
            ):
                while not await self._open(address, upstream):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LAST_AGAIN)
        except (OSError, TimeoutError):
            connected(None)
        else:
            connected(upstream)

    async def _open(self, address: str, upstream: Upstream) -> bool:
        """False for what passes: control is being replaced, or this process is out of descriptors."""
        loop = asyncio.get_running_loop()
        try:
            if address == CONTROL:
                await loop.create_unix_connection(lambda: upstream, self._plane.settings.control)
            else:
                host, port = split_address(address)
                await loop.create_connection(lambda: upstream, host, port)
        except OSError as problem:
            if problem.errno in _SHORT or (address == CONTROL and isinstance(problem, _AWAY)):
                return False
            raise
        return True
