"""So many deploys at work at a time, first come first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


class Turn:
    """Leave to work. Given back once, early or at the end."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        if self._give_back:
            give_back, self._give_back = self._give_back, None
            give_back()


@dataclass(eq=False)
class _Place:
    """In the queue; `moved` is told how many are ahead."""

    called: asyncio.Future[None]
    moved: Callable[[int], None]


class Turns:
    def __init__(self, at_a_time: int) -> None:
        self._free = at_a_time
        self._waiting: list[_Place] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def take(self, moved: Callable[[int], None]) -> AsyncIterator[Turn]:
        """Wait for a turn. `moved` is told how many are ahead: at first, and at each change."""
        await self._wait(moved)
        turn = Turn(self._give_back)
        try:
            yield turn
        finally:
            turn.release()

    async def _wait(self, moved: Callable[[int], None]) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        place = _Place(asyncio.get_running_loop().create_future(), moved)
        self._waiting.append(place)
        moved(len(self._waiting) - 1)
        try:
            await place.called
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
                self._tell()
            elif not place.called.cancelled():
                self._give_back()  # called and cancelled at the same moment
            raise

    def _give_back(self) -> None:
        self._free += 1
        while self._free and self._waiting:
            place = self._waiting.pop(0)
            if not place.called.done():
                self._free -= 1
                place.called.set_result(None)
        self._tell()

    def _tell(self) -> None:
        for ahead, place in enumerate(self._waiting):
            place.moved(ahead)
