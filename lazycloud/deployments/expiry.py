"""Which versions of an app's data go because nobody used them, or because they take too much. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lazycloud.allowance import in_words

DAY = 86400.0


@dataclass(frozen=True)
class Holding:
    """A version. `bytes`: that come free with it and its snapshots; `used`: unix time; `keep`: why it stays."""

    version: str
    bytes: int
    used: float
    keep: str = ""


@dataclass(frozen=True)
class Expired:
    holding: Holding
    why: str


@dataclass(frozen=True)
class Verdict:
    """`goes` in order; `missing`: bytes over the limit that nothing more may go for."""

    goes: tuple[Expired, ...]
    missing: int = 0


def expire(holdings: Iterable[Holding], keep: float, limit: int, now: float, total: int) -> Verdict:
    """First those that nobody used for `keep` seconds, then the least recently used until `limit` bytes are left.

    `total`: bytes that all take, what they share once. 0 is no limit, of either.
    """
    may_go = sorted((one for one in holdings if not one.keep), key=lambda one: (one.used, one.version))
    goes = []
    for one in may_go:
        if keep and now - one.used > keep:
            why = f"nobody used them for {_days(keep)}"
        elif limit and total > limit:
            why = f"all data of the app took {in_words(total)}, and {in_words(limit)} are allowed"
        else:
            break
        goes.append(Expired(one, why))
        total -= one.bytes
    return Verdict(tuple(goes), max(0, total - limit) if limit else 0)


def _days(seconds: float) -> str:
    if seconds < DAY:
        return f"{seconds / 3600:.3g} h"
    days = seconds / DAY
    return f"{days:.3g} day{'' if days == 1 else 's'}"
