"""The router as a process: listens on inherited sockets, sweeps, and stops without dropping what it serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time

from lazycloud.router.client import Client
from lazycloud.router.exchange import STOPPING
from lazycloud.router.plane import Plane
from lazycloud.router.settings import Settings

_LAST_LOOK = 0.05  # for requests that had reached our sockets when we stopped accepting
_TICK = 0.02

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or the parent's end; then drain, within `drain_timeout`, and return."""
    plane = Plane(settings)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    _stop_with_parent(settings.lifeline, stop)
    servers = [await _listen(fd, plane) for fd in settings.listen_fds]
    plane.link.start()
    sweeping = asyncio.create_task(_sweep(plane), name="sweep")
    gc.freeze()
    await stop.wait()
    await _drain(plane, servers)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
    await plane.pool.close()
    plane.link.report()
    await plane.link.close()


async def _listen(fd: int, plane: Plane) -> asyncio.Server:
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Client(plane), sock=listener, backlog=plane.settings.backlog)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _stop_with_parent(lifeline: int | None, stop: asyncio.Event) -> None:
    if lifeline is None:
        return
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(lifeline, 1):
            loop.remove_reader(lifeline)
            stop.set()

    loop.add_reader(lifeline, readable)


async def _sweep(plane: Plane) -> None:
    reported = plane.clock.now
    while True:
        await asyncio.sleep(plane.settings.sweep)
        try:
            plane.sweep()
            if plane.clock.now - reported >= plane.settings.report:
                reported = plane.clock.now
                plane.link.report()
        except Exception:  # one connection's bug must not switch off all deadlines
            log.exception("the sweep failed; going on")


async def _drain(plane: Plane, servers: list[asyncio.Server]) -> None:
    """Stop accepting, let requests finish, then close what is left. Websockets do not hold it up."""
    plane.draining = True
    for server in servers:
        server.close()
    await asyncio.sleep(_LAST_LOOK)
    _close_idle(plane)
    deadline = time.monotonic() + plane.settings.drain_timeout
    while plane.busy and time.monotonic() < deadline:  # noqa: ASYNC110 - a stop is rare; requests set no event for it
        await asyncio.sleep(_TICK)
    for client in list(plane.clients):
        if client.exchange is not None:
            client.exchange.refuse(STOPPING)
    for tunnel in list(plane.tunnels):
        tunnel.close()
    await asyncio.sleep(_TICK)
    for client in list(plane.clients):
        client.transport.abort()


def _close_idle(plane: Plane) -> None:
    for client in list(plane.clients):
        client.close_if_idle()
