"""What goes when the disk is short, tried with whatever may lie on one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazycloud.deployments.retention import Item, Kind, Name, Shared, Turn, decide, keeping

NOW = 1_000_000.0
DAY = 86400.0


def item(key: str, kind: Kind = Kind.RELEASE, own: int = 100, days: float = 1, **more: object) -> Item:
    facts = {"cost": 1.0, **more}
    return Item(Name("shop", kind, key), own, NOW - days * DAY, **facts)  # type: ignore[arg-type]


def going(items: list[Item], goal: int | None, shared: list[Shared] | None = None) -> list[str]:
    return [going.item.name.key for going in decide(items, shared or [], goal, NOW).goes]


def test_of_equals_the_one_unused_for_longest_goes_first_and_no_more_than_needed() -> None:
    items = [item("yesterday", days=1), item("last-week", days=7), item("last-year", days=365)]
    assert going(items, 150) == ["last-year", "last-week"]
    assert going(items, 0) == []
    assert going(items, None) == ["last-year", "last-week", "yesterday"]


def test_what_is_quick_to_make_again_or_large_goes_before_what_is_slow_or_small() -> None:
    items = [item("slow", cost=600.0), item("quick", cost=2.0), item("large", cost=600.0, own=10**6)]
    assert going(items, None) == ["large", "quick", "slow"]


def test_what_a_kept_release_needs_stays_and_an_environment_goes_only_after_all_who_need_it() -> None:
    shared, other = item("shared", Kind.ENVIRONMENT, own=10**9), item("other", Kind.ENVIRONMENT, own=10**9)
    kept = item("kept", needs=frozenset({shared.name}), keep="it is production")
    old = item("old", needs=frozenset({shared.name, other.name}), days=90)
    decision = decide([shared, other, kept, old], [], None, NOW)
    assert [going.item.name.key for going in decision.goes] == ["old", "other"]
    assert decision.stays == {kept.name: "it is production", shared.name: "it is production"}


def test_a_small_release_answers_for_the_environment_that_only_it_needs() -> None:
    environment = item("environment", Kind.ENVIRONMENT, own=10**9, cost=30.0)
    old = item("old", own=10, days=300, needs=frozenset({environment.name}))
    young = item("young", own=10**6, days=1)
    assert going([environment, old, young], 10**6 + 1) == ["old", "environment"]


def test_linked_bytes_come_free_with_the_last_who_holds_them() -> None:
    first, second = item("first", own=1, days=9), item("second", own=1, days=2)
    both = Shared(frozenset({first.name, second.name}), 10**6)
    decision = decide([first, second], [both], 100, NOW)
    assert [(going.item.name.key, going.frees) for going in decision.goes] == [
        ("first", 1),
        ("second", 10**6 + 1),
    ]
    held = item("held", keep="it runs")
    all_three = Shared(frozenset({first.name, second.name, held.name}), 10**6)
    assert decide([first, second, held], [all_three], 100, NOW).missing == 98


def test_what_nobody_can_ask_for_goes_first_and_caches_last() -> None:
    cache = item("uv", Kind.CACHE, own=10**9, days=99, turn=Turn.LAST)
    lost = item("lost", own=1, days=0, turn=Turn.FIRST)
    items = [cache, item("usual"), lost, item("asked", turn=Turn.NEVER)]
    assert going(items, None) == ["lost", "usual", "uv"]
    assert going(items, 100) == ["lost", "usual"]


KEYS = list("abcdefgh")
KINDS = [Kind.RELEASE] * 5 + [Kind.ENVIRONMENT] * 3
NAMES = [Name("shop", kind, key) for kind, key in zip(KINDS, KEYS, strict=True)]


@st.composite
def stocks(draw: st.DrawFn) -> tuple[list[Item], list[Shared]]:
    items = []
    for name in draw(st.sets(st.sampled_from(NAMES))):
        is_release = name.kind is Kind.RELEASE
        items.append(
            Item(
                name,
                draw(st.integers(0, 1000)),
                draw(st.floats(0, NOW * 1.01)),
                draw(st.floats(0, 1000)),
                draw(st.frozensets(st.sampled_from(NAMES[5:]))) if is_release else frozenset(),
                draw(st.sampled_from(["", "", "it runs"])),
                draw(st.sampled_from(Turn)),
            )
        )
    groups = st.frozensets(st.sampled_from(NAMES), min_size=2)
    shared = draw(st.lists(st.builds(Shared, groups, st.integers(1, 1000)), max_size=6))
    there = {item.name for item in items}
    return items, [Shared(group.holders & there, group.bytes) for group in shared if group.holders & there]


@given(stocks(), st.none() | st.integers(0, 5000))
def test_whatever_lies_there_nothing_that_stays_is_lost_and_the_goal_is_reached_if_it_can_be(
    stock: tuple[list[Item], list[Shared]], goal: int | None
) -> None:
    items, shared = stock
    by_name = {item.name: item for item in items}
    decision = decide(items, shared, goal, NOW)
    gone = [going.item.name for going in decision.goes]
    assert len(gone) == len(set(gone))
    assert not set(gone) & keeping(by_name).keys()
    assert all(by_name[name].turn is not Turn.NEVER for name in gone)
    for place, name in enumerate(gone):
        remaining = by_name.keys() - set(gone[: place + 1])
        assert all(name not in by_name[other].needs for other in remaining)
    free = [group.bytes for group in shared if group.holders <= set(gone)]
    assert decision.frees == sum(by_name[name].own for name in gone) + sum(free)
    most = decide(items, shared, None, NOW)
    if goal is not None:
        assert decision.missing == max(0, goal - decision.frees)
        assert decision.missing == 0 or decision.frees == most.frees
        assert sum(going.frees for going in decision.goes[:-1]) < goal or not gone
