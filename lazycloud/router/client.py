"""One connection of a client: reads heads, has one exchange at a time, keeps what was sent ahead."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import struct
from time import time
from typing import TYPE_CHECKING, cast

from lazycloud.router import accept, heads, troubles
from lazycloud.router.accesslog import Line
from lazycloud.router.exchange import Exchange
from lazycloud.router.heads import END, BadHead, RequestHead, parse_request
from lazycloud.router.pages import Trouble, new_request_id
from lazycloud.router.tunnel import Tunnel, descriptor

if TYPE_CHECKING:
    from lazycloud.router.plane import Plane
    from lazycloud.router.upstream import Upstream

_CR = 13
_EMPTY_LINES = re.compile(rb"(?:\r\n)+").match
_LINE_END = re.compile(rb"[\r\n]")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close with a reset


class Client(asyncio.Protocol):
    """`ending`: its last answer is written, and nothing it sends is looked at any more."""

    __slots__ = (
        "_edge",
        "_paused",
        "_plane",
        "_scheme",
        "_trusted",
        "_unread",
        "ending",
        "exchange",
        "full",
        "peer",
        "since",
        "transport",
    )

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._unread = b""  # the beginning of a head, or what was sent ahead of an answer
        self._paused = False
        self.exchange: Exchange | None = None
        self.ending = False
        self.full = False  # whether the client is slower to read than we are to write
        self.since = plane.clock.now  # when it last began to wait for a head, or to end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._plane.write_limit())
        self.peer, self._trusted = self._plane.peer(transport.get_extra_info("peername"))
        self._scheme = self._plane.settings.public_scheme.encode()
        self._edge = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: " % (
            self.peer,
            self._scheme,
        )
        self._plane.clients.add(self)

    def forwarding(self, head: RequestHead) -> bytes:
        """The X-Forwarded-* lines for its request."""
        if self._trusted:
            return heads.forwarding(head, self.peer, self._scheme, trusted=True)
        return self._edge + head.authority

    def tls(self) -> str:
        """The version of TLS that it speaks, such as TLSv1.3; empty: none."""
        secured = self.transport.get_extra_info("ssl_object")
        return secured.version() or "" if secured is not None else ""

    # What comes

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.ending:
                return
            if seen := len(self._unread):
                data = self._unread + data
            else:
                self.since = self._plane.clock.now
            self._read_heads(data, seen)
        elif exchange.uploading:
            if rest := exchange.receive(data):
                self._read_ahead(rest)
        else:
            self._read_ahead(self._unread + data)

    def _read_ahead(self, data: bytes) -> None:
        """What belongs to the next request; kept while one is in flight."""
        if self.exchange is None and not self.ending:
            self._read_heads(data)
        else:
            self._unread = data
            self.settle()

    def _read_heads(self, data: bytes, seen: int = 0) -> None:
        """Begin the request in `data`; go on to the next one if it is over already.

        Its first `seen` bytes were looked at before: a long head in drips costs no more than a short one. Who does
        not read what it asked for waits with what it asks next: else answers would pile up, or hold a worker.
        """
        self._unread = b""
        limit = self._plane.settings.target_max
        while data and self.exchange is None and not (self.ending or self.full):
            # Some clients end a body with an empty line that they do not count.
            if data[0] == _CR and (empty := _EMPTY_LINES(data)):
                data, seen = data[empty.end() :], 0
                continue
            end = data.find(END, max(0, seen - len(END)))
            if (len(data) if end < 0 else end) > limit and (trouble := self._too_long(data, end)):
                self._refuse(trouble, data)
                return
            if end < 0:
                self._wait_for_head(data, seen)
                return
            data, seen = self._begin(data[: end + 4], data[end + 4 :]), 0
        self._unread = data
        if data:
            self.settle()

    def _wait_for_head(self, data: bytes, seen: int) -> None:
        if data != b"\r" and (_BARE_LF.search(data, seen) or not data[:1].isalpha()):
            self._refuse(troubles.NOT_HTTP, data)
            return
        self._unread = data

    def _too_long(self, data: bytes, end: int) -> Trouble | None:
        settings = self._plane.settings
        length = len(data) if end < 0 else end
        line = data.find(b"\r\n", 0, length + 2)
        if (length if line < 0 else line) > settings.target_max:
            return troubles.LONG_TARGET
        return troubles.LONG_HEAD if length > settings.head_max else None

    def _begin(self, raw: bytes, rest: bytes) -> bytes:
        """Start the exchange whose head is `raw`; what of `rest` is not its body is returned."""
        try:
            head = parse_request(raw)
        except BadHead as error:
            self._refuse(troubles.malformed(str(error), error.status), raw)
            return b""
        exchange = self.exchange = Exchange(self, head, self._plane, len(raw))
        exchange.start()
        if exchange.upload is None:
            return rest
        left = exchange.receive(rest) if rest and not exchange.over else b""
        self.settle()
        return left

    def _refuse(self, trouble: Trouble, raw: bytes) -> None:
        """Answer what is not even a request, and close."""
        request_id = new_request_id()
        page = self._plane.pages.render(
            trouble,
            accept.named_in(raw),
            request_id,
            head_only=raw.startswith(b"HEAD "),
            connection=b"Connection: close",
        )
        self.write(page)
        self._end(linger=True)
        if self._plane.access_log is not None:
            self._plane.access_log.note(
                Line(
                    began=time(),
                    seconds=0.0,
                    client=self.peer,
                    status=trouble.status,
                    by="router",
                    why=trouble.kind,
                    target=_LINE_END.split(raw, 1)[0],
                    minor=None,
                    request_id=request_id,
                    received=len(raw),
                    sent=len(page),
                    tls=self.tls(),
                )
            )

    # What goes

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def finished(self, *, keep: bool, linger: bool) -> None:
        """Its exchange is over: go on with the next, or close."""
        self.exchange = None
        if not keep:  # it was told so; one that was not may have sent its next request already
            self._end(linger=linger)
            return
        self.since = self._plane.clock.now
        if self._unread:
            self._read_heads(self._unread)
        if self._paused:
            self.settle()

    def cut(self, exchange: Exchange) -> None:
        """The answer cannot be completed. A client of HTTP/1.0 can tell that only by a reset."""
        self.exchange = None
        if not exchange.head.minor:
            _reset_on_close(self.transport)
        self._end(linger=False)

    def tunnel(self, upstream: Upstream, first: bytes, exchange: Exchange) -> None:
        """The request became a websocket: both connections leave their protocols for the tunnel."""
        self.exchange = None
        self.ending = True
        self._plane.clients.discard(self)
        upstream.end()
        self._pause(False)
        early, self._unread = self._unread, b""
        Tunnel(self._plane, self.transport, upstream.transport, exchange).open(early, first)

    def settle(self) -> None:
        """Read on, or stop reading: when there is no room for what would come."""
        exchange = self.exchange
        blocked = exchange is not None and exchange.upload is not None and exchange.upload.blocked
        self._pause(blocked or len(self._unread) > self._plane.settings.ahead_max)

    def _pause(self, paused: bool) -> None:
        if paused != self._paused and not self.transport.is_closing():
            self._paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # How it ends

    def _end(self, *, linger: bool) -> None:
        """Close. `linger`: it is still sending, and a reset would lose it the answer; so read on a while."""
        self.ending = True
        self.since = self._plane.clock.now
        self._unread = b""
        if linger and not self.transport.is_closing():
            self._pause(False)
            if self.transport.can_write_eof():  # TLS has no such thing; the length tells the client instead
                self.transport.write_eof()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        self.full = True
        if self.exchange is not None and self.exchange.upstream is not None:
            self.exchange.upstream.pause(True)

    def resume_writing(self) -> None:
        self.full = False
        if self.exchange is not None:
            if self.exchange.upstream is not None:
                self.exchange.upstream.pause(False)
        elif self._unread:
            self.since = self._plane.clock.now
            self._read_heads(self._unread)
            self.settle()

    def eof_received(self) -> None:
        # Closing would first flush to a client that is gone, while its worker goes on for nobody.
        if self.exchange is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = True
        self._plane.clients.discard(self)
        if (exchange := self.exchange) is not None:
            self.exchange = None
            exchange.gone()

    def sweep(self, now: float) -> None:
        """End what waited too long."""
        if self.exchange is not None:
            if (self._paused or not self.transport.can_write_eof()) and _hung_up(self.transport):
                self.transport.abort()
            else:
                self.exchange.sweep(now)
            return
        settings, waited = self._plane.settings, now - self.since
        if self.ending:
            unsent = self.transport.get_write_buffer_size()
            if waited > (settings.idle_timeout if unsent else settings.linger):
                self.transport.abort()
        elif self.full:
            if waited > settings.idle_timeout:
                self.transport.abort()
        elif self._unread:
            if waited > settings.head_timeout:
                self._refuse(troubles.LATE_HEAD, self._unread)
        elif waited > settings.keep_alive:
            self._end(linger=False)

    def close_if_idle(self) -> None:
        """No request is on its way: the connection is not needed any more."""
        if self.exchange is None and not (self.ending or self._unread):
            self._end(linger=False)


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer of a paused connection went away, which the loop does not see then."""
    if (fd := descriptor(transport)) < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Let the end of the connection be a reset. TLS would say a clean goodbye first, so there it ends at once."""
    if descriptor(transport) < 0:
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    if not transport.can_write_eof():
        transport.abort()
