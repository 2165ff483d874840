"""Which snapshots without a name go: the older they are, the fewer of them stay. Pure.

All of the last hour stay, then the last of each hour for a day, of each day for 30 days, of each week after that;
those that are older than data are kept go altogether. Hours, days and weeks are those of UTC, so that what was
thinned out once is not thinned out otherwise later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
STEPS = ((HOUR, 0.0), (DAY, HOUR), (30 * DAY, DAY))  # up to which age one stays in each so many seconds


@dataclass(frozen=True)
class Aged:
    """A snapshot of one version. `at`: unix time; `kept`: somebody named it, or needs it."""

    id: str
    at: float
    kept: bool = False


def thin(snapshots: Iterable[Aged], now: float, keep: float) -> list[str]:
    """The ids of those that go, oldest first. `keep`: seconds after which none stays, 0 for never."""
    newest_first = sorted(snapshots, key=lambda one: (one.at, one.id), reverse=True)
    seen: set[tuple[float, int]] = set()
    goes = []
    for one in newest_first:
        if one.kept:
            continue
        age = now - one.at
        every = next((every for until, every in STEPS if age <= until), WEEK)
        place = (every, int(one.at // every)) if every else (0.0, 0)
        if (keep and age > keep) or (every and place in seen):
            goes.append(one.id)
        if every:
            seen.add(place)
    return goes[::-1]
