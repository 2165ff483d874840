"""The listening sockets of a server. The parent opens them and keeps them open, whoever dies or is replaced.

Each router has a socket of its own on every address (SO_REUSEPORT), and the kernel spreads connections over them.
With one socket for all of them, the router that happens to wake first takes a whole burst of connections, and with
keep-alive all their requests. What waits at the socket of a router that died is served by the next one there. The
price: another process of the same user can take a share of the port with SO_REUSEPORT, and a router that hangs keeps
its share waiting.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lazycloud.config import Listen
from lazycloud.errors import BadInput, Conflict, LazycloudError

BACKLOG = 4096  # connections that wait while a router is replaced; the kernel caps it at net.core.somaxconn


@dataclass(frozen=True)
class Listener:
    """An address that is listened on. `wanted` is it as configured, perhaps with port 0."""

    wanted: Listen
    listen: Listen
    sockets: tuple[socket.socket, ...]

    def of_router(self, number: int, routers: int) -> tuple[socket.socket, ...]:
        """Those of one of several routers. When there are fewer than before, each has some more."""
        return self.sockets[number::routers]

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def open_listeners(
    wanted: Sequence[Listen], routers: int, kept: Mapping[Listen, Sequence[socket.socket]] | None = None
) -> list[Listener]:
    """Listen everywhere. `kept` are sockets from before, by what was wanted. Raises LazycloudError."""
    listeners: list[Listener] = []
    try:
        for listen in wanted:
            sockets = list((kept or {}).get(listen, ()))
            # Port 0 on both loopback addresses means one port, as localhost:0 reads.
            port = listen.port or (listeners[0].listen.port if listeners else 0)
            if not sockets and (first := _open_first(Listen(listen.host, port), required=not listeners)):
                sockets = [first]
            if sockets:
                listeners.append(_shared(listen, sockets, routers))
    except LazycloudError:
        for listener in listeners:
            if listener.wanted not in (kept or {}):
                listener.close()
        raise
    return listeners


def try_listens(wanted: Sequence[Listen], open_already: Sequence[Listen]) -> None:
    """Whether those that are not open yet could be. Raises LazycloudError."""
    for listen in wanted:
        if listen not in open_already and (tried := _open_first(listen, required=False)):
            tried.close()


def _shared(wanted: Listen, sockets: list[socket.socket], routers: int) -> Listener:
    listen = Listen(wanted.host, sockets[0].getsockname()[1])
    while len(sockets) < routers:
        sockets.append(_open(listen, shared=True))
    return Listener(wanted, listen, tuple(sockets))


def _open_first(listen: Listen, required: bool) -> socket.socket | None:
    """Not shared until it is bound: a port that another server has is in use, whoever that belongs to."""
    try:
        return _open(listen, shared=False)
    except OSError as problem:
        if problem.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and not required:
            return None  # a machine without IPv6: its other loopback address serves
        raise _trouble(listen, problem) from problem


def _open(listen: Listen, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        opened.bind((listen.host, listen.port))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not shared:  # the others listen when their router does: until then nobody would accept there
            opened.listen(BACKLOG)
    except OSError:
        with suppress(OSError):
            opened.close()
        raise
    return opened


def _trouble(listen: Listen, problem: OSError) -> LazycloudError:
    if problem.errno == errno.EADDRINUSE:
        return Conflict(
            f"Port {listen.port} of {listen.host} is in use.", "Give another: --listen localhost:8001"
        )
    if problem.errno == errno.EACCES:
        return BadInput(
            f"You may not listen on port {listen.port}.", "Ports below 1024 are root's; give another."
        )
    return BadInput(f"Cannot listen on {listen}: {problem.strerror}.", "Give an address of this machine.")
