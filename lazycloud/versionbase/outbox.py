"""What one client is to be sent: in order, by one task; how much waits there, and whether the client takes any."""

from __future__ import annotations

import asyncio
from collections import deque

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

ROOM = 1 << 20  # bytes that wait before no more results are made


class Outbox:
    def __init__(self, socket: ServerConnection, is_text: bool) -> None:
        self._socket = socket
        self._is_text = is_text
        self._frames: deque[bytes] = deque()
        self.waiting = 0  # bytes, with those of the frame that is being sent
        self._given = 0  # bytes that the transport was given so far
        self._wake: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._taken = -1  # bytes that the client's side had taken when that was last looked at
        self._since = 0.0
        self.sent = 0  # frames

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.waiting += len(frame)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def has_room(self) -> bool:
        return self.waiting < ROOM

    async def room(self) -> None:
        """Wait until more may be made for the client."""
        while not self.has_room:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(future)
            await future

    async def run(self) -> None:
        """Send what there is, until the connection is closed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while self._frames:
                    await self._send(self._frames.popleft())
                self._wake = loop.create_future()
                await self._wake
        except ConnectionClosed:
            return

    async def _send(self, frame: bytes) -> None:
        self._given += len(frame)
        await self._socket.send(frame, text=self._is_text)
        self.sent += 1
        self.waiting -= len(frame)
        if self._room and self.has_room:
            for future in self._room:
                if not future.done():
                    future.set_result(None)
            self._room.clear()

    def standstill(self, now: float) -> float:
        """Seconds for which the client has taken nothing of what waits for it."""
        taken = self._given - self._socket.transport.get_write_buffer_size()
        if not self.waiting or taken != self._taken:
            self._taken, self._since = taken, now
        return now - self._since
