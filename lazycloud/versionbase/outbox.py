"""What one client is sent, how much waits for it, and whether it takes any of that."""

from __future__ import annotations

from websockets.asyncio.server import ServerConnection, broadcast

ROOM = 1 << 20  # bytes that wait for a client before no more results are made
AGAIN = 256 << 10  # bytes below which there is room again


class Outbox:
    """`socket` has ROOM and AGAIN as its `write_limit`."""

    def __init__(self, socket: ServerConnection, is_text: bool) -> None:
        self._socket = socket
        self._is_text = is_text
        self._given = 0  # bytes that the transport was given so far
        self._taken = -1  # bytes that the client's side had taken when that was last looked at
        self._since = 0.0

    def put(self, frame: bytes) -> None:
        """Send it, whether there is room or not: whoever makes much asks first. Nobody may be there any more."""
        self._given += len(frame)
        broadcast((self._socket,), frame, text=self._is_text)

    @property
    def waiting(self) -> int:
        """Bytes."""
        return self._socket.transport.get_write_buffer_size()

    @property
    def has_room(self) -> bool:
        return not self._socket.paused

    async def room(self) -> None:
        """Wait until more may be made for the client, or it is gone."""
        await self._socket.drain()

    def standstill(self, now: float) -> float:
        """Seconds for which the client has taken nothing of what waits for it."""
        waiting = self.waiting
        taken = self._given - waiting
        if not waiting or taken != self._taken:
            self._taken, self._since = taken, now
        return now - self._since
