"""`transfer.py PORT up|down SIZE CONNECTIONS SECONDS`: large bodies one after the other on kept connections.

A thread per connection that only waits in the kernel, so that the load costs little beside what it measures.
Prints JSON: bytes of bodies as `count`, `seconds`, and `trouble`.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time

CHUNK = 256 * 1024


class Transfer:
    """One connection: requests with a large body, or with a large answer."""

    def __init__(self, port: int, way: str, size: int) -> None:
        self.port, self.size, self.up = port, size, way == "up"
        self.moved = 0
        self.trouble = ""
        self._room = memoryview(bytearray(CHUNK))
        self._body = bytes(size if self.up else 0)

    def run(self, until: float) -> None:
        """Bodies until then; the last one is finished. What goes wrong is kept in `trouble`."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
                while time.monotonic() < until:
                    self._one(connection)
                    self.moved += self.size
        except (OSError, ValueError) as problem:
            self.trouble = repr(problem)

    def _one(self, connection: socket.socket) -> None:
        line = "POST /upload" if self.up else "GET /bytes"
        length = f"Content-Length: {self.size}\r\n" if self.up else ""
        connection.sendall(f"{line} HTTP/1.1\r\nHost: bench.localhost\r\n{length}\r\n".encode())
        connection.sendall(self._body)
        head, _, first = self._head(connection).partition(b"\r\n\r\n")
        length_said = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        if not head.startswith(b"HTTP/1.1 200") or length_said is None:
            raise ValueError(head[:200])
        left = int(length_said[1]) - len(first)
        while left > 0:
            got = connection.recv_into(self._room, min(left, CHUNK))
            if not got:
                raise ValueError(f"cut off with {left} bytes to come")
            left -= got

    def _head(self, connection: socket.socket) -> bytes:
        read = b""
        while b"\r\n\r\n" not in read:
            data = connection.recv(CHUNK)
            if not data:
                raise ValueError("closed instead of an answer")
            read += data
        return read


def main() -> None:
    port, way, size, connections, seconds = sys.argv[1:]
    transfers = [Transfer(int(port), way, int(size)) for _ in range(int(connections))]
    began = time.monotonic()
    threads = [threading.Thread(target=each.run, args=(began + float(seconds),)) for each in transfers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trouble = "; ".join(sorted({each.trouble for each in transfers if each.trouble}))
    moved = sum(each.moved for each in transfers)
    print(json.dumps({"count": moved, "seconds": time.monotonic() - began, "trouble": trouble}))


if __name__ == "__main__":
    main()
