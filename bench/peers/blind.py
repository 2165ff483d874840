"""Forwards bytes it does not look at, on uvloop: the least that a proxy in Python costs.

`blind.py PORT BACKEND`. It takes each read for a whole request or answer, so it is right for small ones on kept
connections only.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

idle: list[Back] = []


class Back(asyncio.Protocol):
    """A kept connection to the back end."""

    front: Front

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        idle.append(self)
        self.front.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in idle:
            idle.remove(self)


class Front(asyncio.Protocol):
    """A client's connection; it borrows a back one for each request."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if idle:
            self.send(idle.pop(), data)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self.connect(data))

    def send(self, back: Back, data: bytes) -> None:
        back.front = self
        back.transport.write(data)

    async def connect(self, data: bytes) -> None:
        host, _, port = sys.argv[2].partition(":")
        _, back = await asyncio.get_running_loop().create_connection(Back, host, int(port))
        self.send(back, data)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(
        Front, "127.0.0.1", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
