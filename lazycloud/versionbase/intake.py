"""How much of what clients send is in memory at once, of each version and of all. Who sends more is not read from.

Requests under way end by themselves, so that there is room again in time, and who waits for it is read from then.
Large frames, which arrive in parts, may never be whole: a version may have some of them at a time, and one in any
case, so that nobody waits for what another version's clients do.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection

UNDER_WAY = 64 << 20  # bytes of frames of requests under way, of one version
ALL = 256 << 20  # of all versions: then those wait that have more than others
LARGE = 256 << 10  # bytes of what a client has sent, and nobody has taken yet
FRAMES = 4  # such clients of one version
ALL_FRAMES = 32  # of all versions, beside one of each


class Arriving(Protocol):
    """What a client sends."""

    version: str

    def hold(self, why: str) -> None:
        """Read nothing more."""

    def go_on(self, why: str) -> None: ...


class Intake:
    """Of one server. Used in its event loop."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()  # bytes, by version
        self._all = 0
        self._thirsty: list[asyncio.Future[None]] = []
        self._large: Counter[str] = Counter()  # clients that send what is large, by version
        self._senders: set[Arriving] = set()
        self._waiting: deque[Arriving] = deque()

    # Requests

    def add(self, version: str, size: int) -> None:
        """So many bytes more are under way, or less."""
        self._all += size
        self._under_way[version] += size
        if size >= 0:
            return
        if not self._under_way[version]:
            del self._under_way[version]
        if self._thirsty:
            thirsty, self._thirsty = self._thirsty, []
            for waiting in thirsty:
                if not waiting.done():
                    waiting.set_result(None)

    def is_full(self, version: str) -> bool:
        """Whether there is more of it than may be; where all have too much, it is who has more than its share."""
        taken = self._under_way[version]
        return taken > UNDER_WAY or (self._all > ALL and taken > ALL // len(self._under_way))

    async def room(self, version: str) -> None:
        while self.is_full(version):
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._thirsty.append(waiting)
            await waiting

    # Large frames

    def arrives(self, sender: Arriving) -> None:
        """It has sent what is large: it may go on, or waits for its turn."""
        if sender in self._senders:
            return
        if self._may_send(sender.version):
            self._begin(sender)
            return
        if sender not in self._waiting:
            self._waiting.append(sender)
        sender.hold("turn")

    def is_taken(self, sender: Arriving, left: int) -> None:
        """Some of what it has sent is under way, and so many bytes are left. Others have their turn before these."""
        if sender in self._senders:
            self._end(sender)
            if left > LARGE:
                self.arrives(sender)
        elif left <= LARGE and sender in self._waiting:
            self._waiting.remove(sender)
            sender.go_on("turn")

    def forget(self, sender: Arriving) -> None:
        """It is gone."""
        if sender in self._waiting:
            self._waiting.remove(sender)
        if sender in self._senders:
            self._end(sender)

    def _may_send(self, version: str) -> bool:
        sending = self._large[version]
        return not sending or (sending < FRAMES and len(self._senders) < ALL_FRAMES)

    def _begin(self, sender: Arriving) -> None:
        self._senders.add(sender)
        self._large[sender.version] += 1

    def _end(self, sender: Arriving) -> None:
        self._senders.discard(sender)
        self._large[sender.version] -= 1
        if not self._large[sender.version]:
            del self._large[sender.version]
        for waiting in list(self._waiting):
            if self._may_send(waiting.version):
                self._waiting.remove(waiting)
                self._begin(waiting)
                waiting.go_on("turn")

    def stands_in_the_way(self, sender: Arriving) -> bool:
        """Whether others of its version wait for what it sends."""
        return sender in self._senders and any(one.version == sender.version for one in self._waiting)


class Socket(ServerConnection):
    """A client's, which is read from as long as there is room for what it sends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.version = ""
        self._received = 0  # bytes
        self._seen = -1  # when that was last looked at
        self._since = 0.0
        self._intake: Intake | None = None
        self._is_large = False
        self._held: set[str] = set()

    def let_in(self, version: str, intake: Intake) -> None:
        self.version, self._intake = version, intake

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received += len(data)
        if self._intake is not None and self._left > LARGE:
            self._is_large = True
            self._intake.arrives(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._intake is not None:
            self._intake.forget(self)

    def is_taken(self) -> None:
        """What was received last is counted among what is under way."""
        if self._intake is not None and self._is_large:
            left = self._left
            self._is_large = left > LARGE
            self._intake.is_taken(self, left)

    def standstill(self, now: float) -> float:
        """Seconds for which nothing has come of a large frame that others of its version wait for."""
        is_its_own = self._intake is not None and self._intake.stands_in_the_way(self) and not self._held
        if not is_its_own or self._received != self._seen:
            self._seen, self._since = self._received, now
        return now - self._since

    @property
    def _left(self) -> int:
        """Bytes of frames of which a part has come, and of those that nobody has taken yet."""
        size = len(self.protocol.reader.buffer) + (self.protocol.current_size or 0)
        if len(self.recv_messages.frames):
            size += sum(len(frame.data) for frame in self.recv_messages.frames.queue)
        return size

    def hold(self, why: str) -> None:
        self._held.add(why)
        self.transport.pause_reading()

    def go_on(self, why: str) -> None:
        self._held.discard(why)
        if not self._held and not self.recv_messages.paused and not self.transport.is_closing():
            self.transport.resume_reading()
