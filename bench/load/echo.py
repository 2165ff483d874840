"""`echo.py PORT`: a websocket server that says what it hears. Bare epoll, so that it costs less than any proxy.

Knows small frames only (payload under 126 bytes). A request that is no websocket gets a short answer.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import sys

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """`fresh`: connections whose first head has not come yet."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.open: dict[int, socket.socket] = {}
        self.fresh: set[int] = set()
        self.unread: dict[int, bytes] = {}

    def run(self) -> None:
        listening = self.listener.fileno()
        while True:
            for fd, _ in self.poll.poll():
                if fd == listening:
                    self._accept()
                else:
                    self._hear(fd)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = connection.fileno()
        self.open[fd] = connection
        self.fresh.add(fd)
        self.poll.register(fd, select.EPOLLIN)

    def _hear(self, fd: int) -> None:
        connection = self.open[fd]
        try:
            data = connection.recv(65536)
            if data:
                connection.send(self._handshake(fd, data) if fd in self.fresh else self._echo(fd, data))
                return
        except OSError:
            pass
        self.poll.unregister(fd)
        self.fresh.discard(fd)
        self.unread.pop(fd, None)
        self.open.pop(fd).close()

    def _handshake(self, fd: int, head: bytes) -> bytes:
        key = re.search(rb"\r\nsec-websocket-key: *(\S+)", head, re.I)
        if key is None:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\necho\n"
        self.fresh.discard(fd)
        accept = base64.b64encode(hashlib.sha1(key[1] + _MAGIC, usedforsecurity=False).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def _echo(self, fd: int, data: bytes) -> bytes:
        data = self.unread.pop(fd, b"") + data
        answer = b""
        while len(data) >= 6:
            size = data[1] & 127
            frame, data = data[: 6 + size], data[6 + size :]
            if len(frame) < 6 + size:
                data = frame
                break
            answer += bytes((frame[0], size)) + _unmasked(frame[2:6], frame[6:])
        if data:
            self.unread[fd] = data
        return answer


def _unmasked(key: bytes, payload: bytes) -> bytes:
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


if __name__ == "__main__":
    Server(int(sys.argv[1])).run()
