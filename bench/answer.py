"""The first answer of an app that is being started."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass

from peer import CannotRun

_POLL = 0.001  # seconds
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200: when its first bytes came (as time.perf_counter counts), and its body."""

    at: float
    body: str


def first_200(port: int, host: str = "") -> Answer:
    """Ask until there is one. Raises CannotRun for another status, and when nothing answers for a minute.

    Nobody listening is asked again after a millisecond; whoever accepts is waited for.
    """
    deadline = time.perf_counter() + _PATIENCE
    request = f"GET / HTTP/1.1\r\nHost: {host or f'localhost:{port}'}\r\nConnection: close\r\n\r\n".encode()
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _PATIENCE) as peer:
            peer.sendall(request)
            if first := peer.recv(65536):
                return _read(peer, first, time.perf_counter())
        time.sleep(_POLL)
    raise CannotRun(f"Nothing answered on port {port} within {_PATIENCE:.0f} s.")


def _read(peer: socket.socket, first: bytes, at: float) -> Answer:
    whole = first
    while piece := peer.recv(65536):
        whole += piece
    head, _, body = whole.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise CannotRun(f"The answer was: {whole[:2000].decode(errors='replace')}")
    return Answer(at, body.decode(errors="replace"))
