"""How much of a store each version has of its own: what it wrote, as far as that is there yet and is needed by it.

Each node says which version made it. What is written is counted as it is; once in a while a collection looks at all
nodes, and from then on that is counted instead. Of a version that comes near its limit only what is still below its
own moments counts: what others have of it, forks and snapshots of the owner, it cannot give back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

LEAST = 1 << 20  # bytes that each may have, however low the limit: an empty version can always do a bit
CROWDED = 0.8  # of the limit: beyond that it is looked at what can be removed
STIR = 0.05  # of the limit: so much written since the last look is worth another
ROW = 64  # bytes of a commit beside its nodes, about


@lru_cache(1000)
def writer(birth: str) -> int:
    """The name of a version in the nodes that it made."""
    return int(birth, 16) >> 1  # a database's integers have a sign


class Look:
    """What a collection finds. `written`: what was counted when it began.

    `own`: nodes below moments of a version, one bit each, by writer, of those that come near their limit.
    """

    def __init__(self, written: Mapping[int, int], own: Mapping[int, bytearray]) -> None:
        self.written = written
        self.whole: Counter[int] = Counter()
        self.needed: Counter[int] = Counter(dict.fromkeys(own, 0))
        self._own = own

    def add(self, number: int, maker: int | None, size: int) -> None:
        """A node that stays. `maker` None: an earlier lazycloud did not say."""
        if maker is None:
            return
        self.whole[maker] += size
        own = self._own.get(maker)
        if own is not None and own[number >> 3] & (1 << (number & 7)):
            self.needed[maker] += size


class Stored:
    """In bytes, of nodes as they are encoded. Changed by one thread at a time, read by any."""

    def __init__(self) -> None:
        self.limit = 0  # of each version; 0: none
        self._written: Counter[int] = Counter()  # since the store was opened, by writer
        self._look = Look({}, {})
        self._tried: dict[int, int] = {}  # what a version had written when it was last asked to make room
        self.is_known = False  # else what was there when the store was opened is counted nowhere yet
        self.refused: set[str] = (
            set()
        )  # births of versions for which room is to be made, however little they have

    def wrote(self, maker: int, size: int) -> None:
        self._written[maker] += size

    def begin_look(self, own: Mapping[int, bytearray]) -> Look:
        """At a moment at which nobody writes; nodes that are made later are none of its."""
        return Look(dict(self._written), own)

    def end_look(self, look: Look) -> None:
        self._look = look
        self.is_known = True

    def of(self, birth: str) -> int:
        """What a version has."""
        maker, look = writer(birth), self._look
        seen = look.needed[maker] if maker in look.needed else look.whole[maker]
        return seen + self._since(maker, look)

    def _since(self, maker: int, look: Look) -> int:
        return self._written[maker] - look.written.get(maker, 0)

    @property
    def most(self) -> int:
        """What each may have, where there is a limit."""
        return max(self.limit, LEAST)

    def is_crowded(self, birth: str) -> bool:
        """Whether it comes near its limit, or was refused something."""
        return bool(self.limit) and (birth in self.refused or self.of(birth) > CROWDED * self.most)

    def may_be_crowded(self, birth: str) -> bool:
        """The same, whoever needs what it wrote."""
        maker, look = writer(birth), self._look
        return bool(self.limit) and look.whole[maker] + self._since(maker, look) > CROWDED * self.most

    def refuse(self, birth: str) -> bool:
        """It is to write no more. Whether there may be something that was not tried yet to make room."""
        maker = writer(birth)
        tried, self._tried[maker] = self._tried.get(maker), self._written[maker]
        self.refused.add(birth)
        return tried != self._written[maker]

    def is_worth_a_look(self, birth: str) -> bool:
        return self.is_crowded(birth) and self._since(writer(birth), self._look) > STIR * self.most
