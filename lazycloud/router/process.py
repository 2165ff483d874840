"""The router as a process: listens on inherited sockets, sweeps, and stops without dropping what it serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from contextlib import suppress

from lazycloud.pulse import beat
from lazycloud.router import troubles
from lazycloud.router.door import Door
from lazycloud.router.plane import Plane
from lazycloud.router.settings import Settings
from lazycloud.router.tls import Tls

_LAST_LOOK = 0.05  # for requests that had reached our sockets when we stopped accepting
_TICK = 0.02
_LEAVE_TICK = 0.1

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or the parent's end; then drain, within `drain_timeout`, and return.

    SIGHUP: another router has taken the place of this one, which leaves when it has no connection any more.
    """
    plane = Plane(settings)
    stop, leave = asyncio.Event(), asyncio.Event()
    _on_signals(stop, leave)
    _stop_with_parent(settings.lifeline, stop)
    tls = Tls(settings.tls, plane.pages) if settings.tls else None
    if tls is not None:
        tls.open()
    door = Door(plane, tls)
    await door.open()
    plane.link.start()
    if plane.access_log is not None:
        plane.access_log.start()
    tasks = [asyncio.create_task(_sweep(plane), name="sweep")]
    if tls is not None:
        tasks.append(asyncio.create_task(tls.watch(settings.tls_look), name="certificates"))
    gc.freeze()
    if settings.pulse is not None:
        beat(settings.pulse)
    _tell_ready(settings.ready)
    await _first(stop, leave)
    if not stop.is_set():
        await _leave(plane, door, stop)
    await _drain(plane, door)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await plane.pool.close()
    for _ in plane.link.report():
        pass
    await plane.link.close()
    if plane.access_log is not None:
        await plane.access_log.close()


def _on_signals(stop: asyncio.Event, leave: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, leave.set)


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _tell_ready(pipe: int | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError), os.fdopen(pipe, "w") as opened:
            opened.write('{"ready": true}\n')


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
            for _ in plane.sweep():
                await asyncio.sleep(0)
            if plane.clock.now - reported > plane.settings.report - plane.settings.sweep / 2:
                reported = plane.clock.now
                for _ in plane.link.report():
                    await asyncio.sleep(0)
        except Exception:
            log.exception("the sweep failed; going on")


async def _leave(plane: Plane, door: Door, stop: asyncio.Event) -> None:
    """Accept no more, and serve what is connected until it goes.

    The next answer on an idle connection says `Connection: close`. To close it at once instead would lose a request
    that is on its way just then.
    """
    plane.draining = True
    door.close()
    deadline = time.monotonic() + plane.settings.leave_timeout
    while _serves(plane, door) and time.monotonic() < deadline and not stop.is_set():  # noqa: ASYNC110 - nobody waits for it
        await asyncio.sleep(_LEAVE_TICK)


def _serves(plane: Plane, door: Door) -> bool:
    return bool(plane.clients or plane.tunnels or door.redirects or door.greets)


async def _drain(plane: Plane, door: Door) -> None:
    """Stop accepting, let requests finish, then close what is left. Websockets do not hold it up."""
    plane.draining = True
    door.close()
    await asyncio.sleep(_LAST_LOOK)
    _close_idle(plane)
    deadline = time.monotonic() + plane.settings.drain_timeout
    while (door.greets or _unfinished(plane)) and time.monotonic() < deadline:  # noqa: ASYNC110 - a stop is rare; requests set no event for it
        await asyncio.sleep(_TICK)
    for client in list(plane.clients):
        if client.exchange is not None:
            client.exchange.refuse(troubles.STOPPING)
    for tunnel in list(plane.tunnels):
        tunnel.close()
    await asyncio.sleep(_TICK)
    for client in list(plane.clients):
        client.transport.abort()


def _unfinished(plane: Plane) -> bool:
    """Whether a request is in flight, or an answer is still on its way to a slow client."""
    return plane.busy or any(client.transport.get_write_buffer_size() for client in plane.clients)


def _close_idle(plane: Plane) -> None:
    for client in list(plane.clients):
        client.close_if_idle()
