"""Small requests, or websocket messages, at a fixed rate or as fast as they are answered; with latencies.

At a fixed rate each has a time at which it is due, and its latency counts from then, so that a proxy that falls
behind cannot hide it. One is in flight per connection; further ones wait until a connection is free.
Prints JSON: `count`, `seconds`, `times` (p50, p99, the slowest, in seconds), `trouble`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import select
import socket
import time
from collections import deque

_PR_SET_TIMERSLACK = 29
_PAYLOAD = b"0123456789abcdef" * 4
_FRAME = b"\x81" + bytes((128 + len(_PAYLOAD),)) + b"\0\0\0\0" + _PAYLOAD  # a mask of zeros changes nothing
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_HANDSHAKE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_LATE = 0.001  # seconds; by more than this the load has not the processor time that it needs
_LAST_ANSWERS = 2.0  # seconds given to what is in flight at the end


class Load:
    """Connections to one proxy, and what was sent over each and when it was due."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.head = f"GET {given.path} HTTP/1.1\r\nHost: {given.host}\r\n".encode()
        self.message = _FRAME if given.websocket else self.head + b"\r\n"
        self.poll = select.epoll()
        self.open: dict[int, socket.socket] = {}
        self.due: dict[int, float] = {}
        self.unread: dict[int, bytes] = {}
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.late: list[float] = []  # how long after its time each was looked at, by our own fault
        self.failed = 0

    def connect(self) -> list[int]:
        """Open all; their descriptors."""
        for _ in range(self.given.connections):
            connection = socket.create_connection(("127.0.0.1", self.given.port), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.given.websocket:
                connection.sendall(self.head + _HANDSHAKE)
                answer = connection.recv(65536)
                if not answer.startswith(b"HTTP/1.1 101"):
                    raise SystemExit(f"no websocket: {answer!r}")
            connection.setblocking(False)
            self.open[connection.fileno()] = connection
            self.poll.register(connection, select.EPOLLIN)
        return list(self.open)

    def flat_out(self) -> float:
        """As fast as it is answered. Seconds that it took."""
        began = time.monotonic()
        for fd in self.connect():
            self._send(fd, time.monotonic())
        end = began + self.given.seconds
        while (now := time.monotonic()) < end:
            for fd, _ in self.poll.poll(0.1):
                if self._answered(fd):
                    self._send(fd, now)
        return time.monotonic() - began

    def paced(self) -> float:
        """At the rate that was asked for. Seconds that it took."""
        idle, every = self.connect(), 1 / self.given.rate
        began = time.monotonic()
        due, end = began, began + self.given.seconds
        while due < end or ((self.due or self.waiting) and time.monotonic() < end + _LAST_ANSWERS):
            now = time.monotonic()
            while due <= now and due < end:
                self.waiting.append(due)
                self.late.append(now - due)
                due += every
            while self.waiting and idle:
                self._send(idle.pop(), self.waiting.popleft())
            idle += [fd for fd, _ in self._events(due if due < end else now + 0.1) if self._answered(fd)]
        self.failed += len(self.due) + len(self.waiting)
        return time.monotonic() - began

    def _events(self, until: float) -> list[tuple[int, int]]:
        events = self.poll.poll(0)
        if not events:
            # epoll counts in milliseconds; select can wait for less, and sees that epoll has news
            select.select([self.poll], [], [], max(0.0, until - time.monotonic()))
            events = self.poll.poll(0)
        return events

    @property
    def trouble(self) -> str:
        """What makes the figures doubtful."""
        late = _quantiles(self.late)[1]
        said = [f"{self.failed} failed"] if self.failed else []
        said += [f"the load itself was {late * 1e3:.1f} ms late (p99)"] if late > _LATE else []
        return "; ".join(said)

    def _send(self, fd: int, due: float) -> None:
        self.due[fd] = due
        self.open[fd].send(self.message)

    def _answered(self, fd: int) -> bool:
        """Read; whether the answer is whole now."""
        data = self.unread.pop(fd, b"") + self.open[fd].recv(65536)
        if not self._whole(data):
            if not data:
                raise SystemExit("the proxy closed a connection")
            self.unread[fd] = data
            return False
        self.latencies.append(time.monotonic() - self.due.pop(fd))
        return True

    def _whole(self, data: bytes) -> bool:
        if self.given.websocket:
            return len(data) >= 2 + len(_PAYLOAD)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(data)
        self.failed += not data.startswith(b"HTTP/1.1 200")
        return length is not None and len(data) >= end + 4 + int(length[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="bench.localhost")
    parser.add_argument("--path", default="/")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=0.0, help="a second; 0: as fast as answered")
    parser.add_argument("--websocket", action="store_true")
    load = Load(parser.parse_args())
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    seconds = load.paced() if load.given.rate else load.flat_out()
    said = {"count": len(load.latencies), "seconds": seconds, "times": _quantiles(load.latencies)}
    print(json.dumps(said | {"trouble": load.trouble}))


def _quantiles(times: list[float]) -> list[float]:
    times = sorted(times) or [0.0]
    return [times[len(times) // 2], times[len(times) * 99 // 100], times[-1]]


if __name__ == "__main__":
    main()
