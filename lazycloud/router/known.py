"""What was understood before, by the bytes that said it. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

KEY_MAX = 1024  # bytes: of what is longer, little comes again
ROOM = 24 * 1024 * 1024  # bytes, about: some 7,000 heads of browsers
SEEN_MAX = 65_536
_PART_COST = 128  # of each line and option that it is cut into
_COST = 1024  # bytes of what is kept beside its key

_Kept = TypeVar("_Kept")


class Known(Generic[_Kept]):
    """Keeps what comes a second time; what comes once only costs its hash. Bounded: strangers choose the keys.

    To begin anew when it is full is simple, and rare.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._seen: set[int] = set()  # hashes
        self._size = 0
        self.get = self._kept.get  # called for every request

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: bytes, value: _Kept) -> None:
        """`value` is what `key` means, now and ever."""
        if len(key) > KEY_MAX or key in self._kept:
            return
        number = hash(key)
        if number not in self._seen:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen.add(number)
            return
        cost = _COST + len(key) + _PART_COST * (key.count(b"\n") + key.count(b","))
        self._size += cost
        if self._size > ROOM:
            self._kept.clear()
            self._size = cost
        self._kept[key] = value
