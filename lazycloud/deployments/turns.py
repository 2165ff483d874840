"""So many deploys at work at a time: the most urgent first, among equals first come first served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum

Moved = Callable[[int], None]
"""Told how many are ahead: at first, and at each change."""


class Rank(IntEnum):
    """How urgent a deploy is; the lower comes first."""

    PRODUCTION = 0  # its start, its start again, a promote
    WAITED_FOR = 1  # by a page, a held request, a person at the command line
    WARMER = 2  # nobody waits for it yet


class Turn:
    """A place in the queue, and then leave to work. Given back once, early or at the end."""

    def __init__(self, turns: Turns, number: int, rank: Rank, moved: Moved) -> None:
        self.rank = rank
        self.number = number
        self.moved = moved
        self._turns = turns
        self._come = asyncio.Event()

    async def come(self) -> None:
        """Wait for it."""
        await self._come.wait()

    def hurry(self, rank: Rank) -> None:
        """Somebody else wants it too: it moves up, and never down."""
        if rank < self.rank:
            self.rank = rank
            self._turns.sort()

    def call(self) -> None:
        self._come.set()

    def release(self) -> None:
        """Give it back, or leave the queue. Idempotent."""
        self._turns.leave(self)


class Turns:
    """A place is kept free for people, whom warmers must not keep waiting, and one more for production alone."""

    def __init__(self, at_a_time: int) -> None:
        self._limits = {
            Rank.PRODUCTION: at_a_time + 1,
            Rank.WAITED_FOR: at_a_time,
            Rank.WARMER: max(1, at_a_time - 1),
        }
        self._working: set[Turn] = set()
        self._waiting: list[Turn] = []
        self._joined = 0

    def __repr__(self) -> str:
        return f"<Turns {len(self._working)} working, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def join(self, rank: Rank, moved: Moved, at_once: bool = False) -> Turn:
        """Queue up. Whoever does must `release` the turn, come or not. `at_once`: it comes, and takes no place."""
        self._joined += 1
        turn = Turn(self, self._joined, rank, moved)
        if at_once:
            turn.call()
            return turn
        self._waiting.append(turn)
        self.sort()
        return turn

    def leave(self, turn: Turn) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        self._working.discard(turn)
        self._call()

    def sort(self) -> None:
        self._waiting.sort(key=lambda turn: (turn.rank, turn.number))
        self._call()

    def _call(self) -> None:
        """As many as there is room for; each of the others hears of its place."""
        while self._waiting and len(self._working) < self._limits[self._waiting[0].rank]:
            turn = self._waiting.pop(0)
            self._working.add(turn)
            turn.call()
        for ahead, turn in enumerate(self._waiting):
            turn.moved(ahead)
