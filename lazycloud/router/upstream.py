"""One connection to a worker or to control, as its client: reads answers and hands them to the exchange."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, cast

from lazycloud.router.bodies import BadBody
from lazycloud.router.heads import END, BadHead, parse_answer

if TYPE_CHECKING:
    from lazycloud.router.exchange import Exchange
    from lazycloud.router.plane import Plane

_READ = 256 * 1024


class Upstream(asyncio.Protocol):
    """Serves one exchange at a time; between two it lies in the pool, where the worker may close it."""

    __slots__ = (
        "_paused",
        "_plane",
        "_tcp",
        "_unread",
        "address",
        "exchange",
        "full",
        "reused",
        "since",
        "spoke",
        "transport",
    )

    def __init__(self, plane: Plane, address: str) -> None:
        self._plane = plane
        self._unread = b""  # the beginning of a head
        self._tcp: socket.socket | None = None  # None for control's own socket
        self._paused = False
        self.address = address
        self.exchange: Exchange | None = None
        self.reused = False
        self.spoke = False  # whether a byte of the answer came
        self.full = False  # whether the worker is slower to read than we are to write
        self.since = 0.0

    def __repr__(self) -> str:
        state = "idle" if self.exchange is None else "busy"
        return f"<Upstream {self.address} {state}{' reused' if self.reused else ''}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        own: socket.socket = transport.get_extra_info("socket")
        self._tcp = own if own.family != socket.AF_UNIX else None

    def begin(self, exchange: Exchange) -> None:
        """Serve `exchange` from now on."""
        self.exchange = exchange
        self.spoke = False

    def end(self) -> None:
        """The exchange is over, or goes on elsewhere."""
        self.exchange = None
        if self._paused:
            self.pause(False)

    def pause(self, paused: bool) -> None:
        """Stop or go on reading what the worker writes."""
        if paused != self._paused and not self.transport.is_closing():
            self._paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once. The exchange, if any, is not told."""
        self.exchange = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._plane.pool.discard(self)
            self.transport.abort()  # it spoke without being asked: what it says next cannot be trusted
            return
        self.spoke = True
        try:
            if exchange.body is None:
                self._read_head(exchange, data)
            else:
                exchange.relay(data)
        except (BadHead, BadBody) as error:
            self.abort()
            exchange.misunderstood(str(error))
        if self.exchange is not None and self._tcp is not None and not self.transport.is_closing():
            self._acknowledge(self._tcp)

    def eof_received(self) -> None:
        # Closing would first flush what the worker will never read; so the end is acted on here.
        self._over(None)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.exchange is not None:
            self._read_last_words()
        self._over(exc)

    def pause_writing(self) -> None:
        self.full = True
        if self.exchange is not None:
            self.exchange.client.settle()

    def resume_writing(self) -> None:
        self.full = False
        if self.exchange is not None:
            self.exchange.client.settle()

    def _acknowledge(self, tcp: socket.socket) -> None:
        """At once, as more of the answer is to come.

        Many a simple server (wsgiref, http.server, Django's runserver) writes head and body apart, and its kernel
        holds the body back until the head is acknowledged; ours would take 40 ms over that.
        """
        with contextlib.suppress(OSError):  # it only saves time
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _over(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self._plane.pool.discard(self)
        else:
            exchange.lost(self, exc)

    def _read_head(self, exchange: Exchange, data: bytes) -> None:
        if self._unread:
            data = self._unread + data
            self._unread = b""
        limit = self._plane.settings.head_max
        while data:
            end = data.find(END)
            if end > limit or (end < 0 and (len(data) > limit or b"\n\n" in data)):
                raise BadHead("its head is too long or has no end")
            if end < 0:
                self._unread = data
                return
            head = parse_answer(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                exchange.answer(head, data)
                return
            exchange.interim(head)

    def _read_last_words(self) -> None:
        """What the worker had said before it stopped listening.

        Writing to a worker that answered early and closed fails before its answer was read; the loop then
        gives up the socket, though the kernel still has the answer.
        """
        fd = self.transport.get_extra_info("socket").fileno()
        try:
            while self.exchange is not None and (data := os.read(fd, _READ)):
                self.data_received(data)
        except OSError:
            pass
