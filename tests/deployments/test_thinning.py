"""Snapshots without a name: the older they are, the fewer of them stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazycloud.deployments.thinning import DAY, HOUR, WEEK, Aged, thin

NOW = 1000 * WEEK


def stays(ages: list[float], keep: float = 0.0) -> list[float]:
    """The ages of those that stay."""
    snapshots = [Aged(str(place), NOW - age) for place, age in enumerate(ages)]
    goes = set(thin(snapshots, NOW, keep))
    return [age for place, age in enumerate(ages) if str(place) not in goes]


def test_all_of_the_last_hour_stay() -> None:
    ages = [60.0 * minute for minute in range(60)]
    assert stays(ages) == ages


def test_the_last_of_each_hour_day_and_week_stays() -> None:
    assert stays([2 * HOUR - 1, 2 * HOUR - 2]) == [2 * HOUR - 2]
    assert stays([5 * DAY + 1, 5 * DAY + HOUR, 6 * DAY + 1]) == [5 * DAY + 1, 6 * DAY + 1]
    assert stays([40 * WEEK + 1, 40 * WEEK + DAY, 41 * WEEK + 1]) == [40 * WEEK + 1, 41 * WEEK + 1]


def test_what_is_older_than_data_are_kept_goes_and_the_oldest_first() -> None:
    assert stays([1 * DAY + 1, 29 * DAY, 31 * DAY, 400 * DAY], 30 * DAY) == [1 * DAY + 1, 29 * DAY]
    snapshots = [Aged("old", NOW - 40 * DAY), Aged("older", NOW - 50 * DAY)]
    assert thin(snapshots, NOW, DAY) == ["older", "old"]


def test_what_has_a_name_or_is_needed_stays() -> None:
    snapshots = [Aged(str(second), NOW - 400 * DAY + second, kept=True) for second in range(10)]
    assert thin(snapshots, NOW, DAY) == []


def test_a_year_of_hours_becomes_some_hundred() -> None:
    left = stays([HOUR * hour for hour in range(365 * 24)])
    assert len([age for age in left if age <= DAY]) in (24, 25, 26)
    assert 100 < len(left) < 120


@given(st.lists(st.floats(0, 2000 * DAY), max_size=60), st.floats(0, 100 * DAY))
def test_it_does_not_matter_how_often_they_are_thinned_out(ages: list[float], later: float) -> None:
    """Who is thinned out now and again later is left with what was thinned out once, later."""
    snapshots = [Aged(str(place), NOW - age) for place, age in enumerate(ages)]
    once = set(thin(snapshots, NOW + later, 0))
    first = set(thin(snapshots, NOW, 0))
    rest = [one for one in snapshots if one.id not in first]
    assert {one.id for one in rest} - set(thin(rest, NOW + later, 0)) == {one.id for one in snapshots} - once
