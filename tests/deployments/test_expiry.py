"""Which data go: those that nobody used, and the least recently used when there are too many."""

from __future__ import annotations

from collections.abc import Sequence

from lazycloud.deployments.expiry import DAY, Holding, expire

NOW = 100 * DAY


def of(version: str, days: float, size: int = 1_000_000, keep: str = "") -> Holding:
    return Holding(version, size, NOW - days * DAY, keep)


def goes(*holdings: Holding, keep: float = 30 * DAY, limit: int = 0) -> list[str]:
    return [one.holding.version for one in expire(holdings, keep, limit, NOW, total(holdings)).goes]


def total(holdings: Sequence[Holding]) -> int:
    return sum(one.bytes for one in holdings)


def test_what_nobody_used_goes_unless_something_keeps_it() -> None:
    holdings = [of("old", 31), of("older", 50), of("pinned", 90, keep="pinned"), of("new", 29)]
    assert goes(*holdings) == ["older", "old"]
    assert goes(*holdings, keep=0) == []
    verdict = expire(holdings, 30 * DAY, 0, NOW, total(holdings))
    assert verdict.goes[0].why == "nobody used them for 30 days" and verdict.missing == 0


def test_over_the_limit_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    holdings = [of("a", 1), of("b", 3), of("c", 2), of("production", 9, 3_000_000, "production")]
    assert goes(*holdings, limit=6_000_000) == []
    assert goes(*holdings, limit=5_500_000) == ["b"]
    assert goes(*holdings, limit=4_500_000) == ["b", "c"]
    verdict = expire(holdings, 0, 2_000_000, NOW, total(holdings))
    assert len(verdict.goes) == 3 and verdict.missing == 1_000_000
    assert verdict.goes[0].why == "all data of the app took 6.0 MB, and 2.0 MB are allowed"


def test_what_is_old_makes_room_for_what_is_not() -> None:
    assert goes(of("old", 40, 5_000_000), of("new", 1, 5_000_000), limit=6_000_000) == ["old"]


def test_what_many_share_counts_once() -> None:
    holdings = [of("a", 3, 100_000), of("b", 2, 100_000), of("production", 9, 200_000, "production")]
    assert expire(holdings, 0, 2_000_000, NOW, 1_900_000).goes == ()
    verdict = expire(holdings, 0, 2_000_000, NOW, 2_050_000)
    assert [one.holding.version for one in verdict.goes] == ["a"] and verdict.missing == 0
