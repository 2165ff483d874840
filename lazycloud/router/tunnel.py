"""A websocket after the worker's 101: bytes both ways, no size limit, no deadline, until one side dies."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazycloud.router.exchange import Exchange
    from lazycloud.router.plane import Plane

_KEEPALIVE = (  # a peer that vanished without a word is found after 60 + 6 * 10 seconds
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
)


class End(asyncio.Protocol):
    """One side: what comes here is written on the `other`, which is slowed down when it is too much."""

    __slots__ = ("_other", "_sent", "_tunnel")

    def __init__(self, tunnel: Tunnel, other: asyncio.Transport, *, to_client: bool) -> None:
        self._tunnel = tunnel
        self._other = other
        self._sent = to_client

    def data_received(self, data: bytes) -> None:
        self._tunnel.moved(data, to_client=self._sent)
        self._other.write(data)

    def pause_writing(self) -> None:
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()

    def eof_received(self) -> None:
        self._tunnel.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.lost()


class Tunnel:
    """Both ends of a websocket, which `exchange` became."""

    def __init__(
        self, plane: Plane, client: asyncio.Transport, upstream: asyncio.Transport, exchange: Exchange
    ) -> None:
        self._plane = plane
        self._client = client
        self._upstream = upstream
        self._exchange = exchange
        self._count = exchange.count  # None when control is at the other end, as is `_load`
        self._load = exchange.load
        self._closed_at: float | None = None
        self._ends = 2

    def open(self, early: bytes, first: bytes) -> None:
        """Join the two. `first` goes to the client: the worker's 101 and more; `early` to the worker."""
        self._client.set_protocol(End(self, self._upstream, to_client=False))
        self._upstream.set_protocol(End(self, self._client, to_client=True))
        _watch(self._client)
        self._plane.tunnels.add(self)
        if self._count is not None:
            self._count.sockets += 1
        if self._load is not None:
            self._load.sockets += 1
        self.moved(first, to_client=True)
        self._client.write(first)
        if early:
            self.moved(early, to_client=False)
            self._upstream.write(early)

    def look_again(self) -> None:
        """Close it if its visitor may no longer see the preview."""
        if self._exchange.is_shut_out():
            self.close()

    def moved(self, data: bytes, *, to_client: bool) -> None:
        """Data passed: that is activity. A ping is not, nor its pong: nobody need be there to send it."""
        size, count = len(data), self._count
        if count is not None:
            if not _is_beat(data):
                count.last = self._plane.clock.unix
            if to_client:
                count.sent += size
            else:
                count.received += size
        if to_client:
            self._exchange.sent += size
        else:
            self._exchange.received += size

    def close(self) -> None:
        """Close both sides, after what was written to them has gone out."""
        if self._closed_at is None:
            self._closed_at = self._plane.clock.now
            if self._count is not None:
                self._count.sockets -= 1
            if self._load is not None:
                self._load.sockets -= 1
            self._client.close()
            self._upstream.close()

    def lost(self) -> None:
        """One side is gone, and so the other has to go."""
        self.close()
        self._ends -= 1
        if not self._ends:
            self._plane.tunnels.discard(self)
            self._plane.note(self._exchange)

    def sweep(self, now: float) -> None:
        """What does not take its last bytes is cut; this is no limit on an open tunnel."""
        if self._closed_at is not None and now - self._closed_at > self._plane.settings.linger:
            self._client.abort()
            self._upstream.abort()


def _is_beat(data: bytes) -> bool:
    """Whether this is just one ping or pong (RFC 6455, 5.5). Frames are not followed: what looks like none counts."""
    if data[0] not in (0x89, 0x8A) or len(data) < 2:
        return False
    masked, length = data[1] >> 7, data[1] & 0x7F
    return len(data) == 2 + 4 * masked + length


def descriptor(transport: asyncio.Transport) -> int:
    """Of its socket; -1 when that is closed, which its protocol is told in a moment."""
    own = transport.get_extra_info("socket")
    return -1 if own is None else int(own.fileno())


def _watch(transport: asyncio.Transport) -> None:
    if descriptor(transport) >= 0:
        for level, option, value in _KEEPALIVE:
            transport.get_extra_info("socket").setsockopt(level, option, value)
