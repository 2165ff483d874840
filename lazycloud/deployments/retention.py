"""What goes when the disk is short, and in which order. Pure.

One measure orders what may go: the bytes that would come free, times the seconds it has not been used, for each
second that it takes to make again; the most goes first.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

LEAST_COST = 1.0  # seconds: whatever is made again delays somebody's first page by about this
LEAST_IDLE = 1.0  # seconds


class Kind(Enum):
    """What an item is; also the order in which they are listed."""

    RELEASE = "release"
    ENVIRONMENT = "environment"
    BUILD = "build"
    LOG = "log"
    CACHE = "cache"


class Turn(IntEnum):
    """When an item's turn comes to go."""

    FIRST = 0  # nobody can ask for it any more, or it takes more than its part
    USUAL = 1
    LAST = 2  # it makes everything else quick: only when all else was not enough
    NEVER = 3  # only when it is asked for by name


@dataclass(frozen=True)
class Name:
    """`app` is "" for what all apps share."""

    app: str
    kind: Kind
    key: str


@dataclass(frozen=True)
class Item:
    """Something on the disk that can be made again.

    `own`: bytes that nothing else holds; `used`: unix time of its last use; `cost`: seconds to make it again;
    `needs`: items without which it is of no use; `keep`: why it stays whatever happens, "" where it may go.
    """

    name: Name
    own: int
    used: float
    cost: float
    needs: frozenset[Name] = frozenset()
    keep: str = ""
    turn: Turn = Turn.USUAL


@dataclass(frozen=True)
class Shared:
    """Bytes that several items hold (hard links): they come free with the last of them."""

    holders: frozenset[Name]
    bytes: int


@dataclass(frozen=True)
class Going:
    """An item that goes, and the bytes that come free with it after all that went before."""

    item: Item
    frees: int


@dataclass(frozen=True)
class Decision:
    """`goes` in order; `stays`: why each kept item stays; `missing`: bytes of the goal that cannot be reached."""

    goes: tuple[Going, ...]
    stays: Mapping[Name, str]
    missing: int = 0

    @property
    def frees(self) -> int:
        return sum(going.frees for going in self.goes)


def decide(items: Iterable[Item], shared: Iterable[Shared], goal: int | None, now: float) -> Decision:
    """What has to go for `goal` bytes to come free; all that may go for None.

    Never goes what is kept, what a kept item needs, and what one that stays needs.
    """
    stock = _Stock(items, shared, now)
    goes: list[Going] = []
    freed = 0
    while (goal is None or freed < goal) and (item := stock.worst()):
        going = Going(item, stock.take(item.name))
        freed += going.frees
        goes.append(going)
    return Decision(tuple(goes), stock.stays, max(0, (goal or 0) - freed))


def keeping(items: Mapping[Name, Item]) -> dict[Name, str]:
    """All that stays, and why: what is kept, and what that needs."""
    stays = {name: item.keep for name, item in items.items() if item.keep}
    waiting = list(stays)
    while waiting:
        name = waiting.pop()
        for needed in items[name].needs & items.keys():
            if needed not in stays:
                stays[needed] = stays[name]
                waiting.append(needed)
    return stays


class _Stock:
    """What is still there while it is decided. Values change as items go: old entries of the heap are passed over."""

    def __init__(self, items: Iterable[Item], shared: Iterable[Shared], now: float) -> None:
        self._items = {item.name: item for item in items}
        self._now = now
        self.stays = keeping(self._items)
        self._users: dict[Name, set[Name]] = defaultdict(set)
        for item in self._items.values():
            for needed in item.needs & self._items.keys():
                self._users[needed].add(item.name)
        self._shares: dict[Name, list[int]] = defaultdict(list)
        self._holders: list[set[Name]] = []
        self._sizes: list[int] = []
        for group in shared:
            for holder in group.holders & self._items.keys():
                self._shares[holder].append(len(self._holders))
            self._holders.append(set(group.holders))
            self._sizes.append(group.bytes)
        self._values: dict[Name, tuple[int, float]] = {}
        self._heap: list[tuple[int, float, str, str, str, Name]] = []
        for name in self._items:
            self._value(name)

    def worst(self) -> Item | None:
        """What is worth its place the least; None when nothing more may go."""
        while self._heap:
            turn, value, *_, name = self._heap[0]
            if name in self._items and self._values[name] == (turn, value) and not self._users[name]:
                return self._items[name]
            heapq.heappop(self._heap)
        return None

    def take(self, name: Name) -> int:
        """It goes; the bytes that come free."""
        item = self._items.pop(name)
        freed = item.own
        changed: set[Name] = set()
        for group in self._shares[name]:
            holders = self._holders[group]
            holders.discard(name)
            freed += 0 if holders else self._sizes[group]
            changed |= holders
        for needed in item.needs & self._items.keys():
            self._users[needed].discard(name)
            changed |= self._users[needed] | {needed}
        for other in changed & self._items.keys():
            self._value(other)
        return freed

    def _value(self, name: Name) -> None:
        """Put it where it belongs, if it may go at all."""
        item = self._items[name]
        if name in self.stays or item.turn is Turn.NEVER:
            return
        gain, cost = self._gain(item), item.cost
        for needed in item.needs & self._items.keys() - self.stays.keys():
            # What only such as it need goes after the last of them: each answers for its part.
            part = 1 / len(self._users[needed])
            gain += self._gain(self._items[needed]) * part
            cost += self._items[needed].cost * part
        idle = max(self._now - item.used, LEAST_IDLE)
        value = (int(item.turn), -gain * idle / max(cost, LEAST_COST))
        if self._values.get(name) != value or not self._users[name]:
            self._values[name] = value
            heapq.heappush(self._heap, (*value, name.app, name.kind.value, name.key, name))

    def _gain(self, item: Item) -> float:
        """Bytes that come free with it, its part of what comes free only together with others included."""
        gain = float(item.own)
        for group in self._shares[item.name]:
            if self._may_go(group, item.turn):
                gain += self._sizes[group] / len(self._holders[group])
        return gain

    def _may_go(self, group: int, turn: Turn) -> bool:
        """Whether all who hold these bytes may go by the time that it does."""
        return all(
            holder in self._items and holder not in self.stays and self._items[holder].turn <= turn
            for holder in self._holders[group]
        )
