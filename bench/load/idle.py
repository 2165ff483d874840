"""`idle.py PORT COUNT http|websocket`: open so many connections, use each once, and leave them idle.

Says `{"open": n}` when all are there, and after its standard input ends `{"closed": n}`: how many were lost.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys

_GET = b"GET / HTTP/1.1\r\nHost: bench.localhost\r\n"
_UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_FRAME, _ECHO = b"\x81\x84\0\0\0\0idle", b"\x81\x04idle"


def use(connection: socket.socket, websocket: bool) -> None:
    """One request, or a handshake and one message, answered in whole."""
    connection.sendall(_GET + (_UPGRADE if websocket else b"") + b"\r\n")
    read = b""
    while (end := read.find(b"\r\n\r\n")) < 0:
        read += _some(connection)
    if websocket:
        connection.sendall(_FRAME)
        size = len(_ECHO)
    else:
        found = re.search(rb"\r\ncontent-length: *(\d+)", read, re.I)
        size = int(found[1]) if found else 0
    while len(read) < end + 4 + size:
        read += _some(connection)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise SystemExit("the proxy closed a connection")
    return data


def main() -> None:
    port, count, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    connections = []
    poll = select.poll()
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        use(connection, kind == "websocket")
        poll.register(connection, select.POLLIN)
        connections.append(connection)
    print(json.dumps({"open": len(connections)}), flush=True)
    sys.stdin.read()
    print(json.dumps({"closed": len(poll.poll(0))}), flush=True)


if __name__ == "__main__":
    main()
