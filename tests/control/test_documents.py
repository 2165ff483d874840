"""Documents as JSON for a page: every kind of value, cut where it is long, and what became of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from lazycloud.control.documents import MOST_CHANGES, Cut, change_view, same, weight, whole


def shown(value: Any) -> Any:
    """As the page gets it."""
    return json.loads(json.dumps(whole().shown(value)))


@pytest.mark.parametrize(
    ("value", "view"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (-(2**53) + 1, -(2**53) + 1),
        (2**53, {"integer": "9007199254740992"}),
        (2**64 - 1, {"integer": "18446744073709551615"}),
        (0.5, 0.5),
        (1.0, {"real": "1.0"}),
        (-0.0, {"real": "-0.0"}),
        ("text", "text"),
        (Decimal("1.10"), {"decimal": "1.10"}),
        (b"\x89PNG", {"bytes": 4, "begin": "89504e47"}),
        (bytes(100), {"bytes": 100, "begin": "00" * 16}),
        (
            datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
            {"datetime": "2026-01-31T12:00:00.000001Z"},
        ),
        (
            datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))),
            {"datetime": "2026-01-31T10:00:00Z"},
        ),
        ([1, [None]], {"list": [1, {"list": [None]}]}),
        ({"$decimal": "1"}, {"object": [["$decimal", "1"]]}),
        ({"b": 1, "a": {}}, {"object": [["b", 1], ["a", {"object": []}]]}),
    ],
)
def test_each_kind_of_value_is_told_apart(value: Any, view: Any) -> None:
    found = shown(value)
    assert found == view
    assert type(found) is type(view)


def test_what_is_long_is_cut_and_says_so() -> None:
    cut = Cut(letters=3, members=2, values=100)
    found = cut.shown({"a": "abcd", "b": [1, 2, 3], "c": 1})
    assert found == {
        "object": [["a", {"text": "abc", "letters": 4}], ["b", {"list": [1, 2], "more": 1}]],
        "more": 1,
    }
    assert Cut(2, 2, 2).shown({"long name": 1}) == {"object": [[{"text": "lo", "letters": 9}, 1]]}


def test_a_document_of_very_many_values_shows_some() -> None:
    deep: Any = [{"n": n} for n in range(1000)]
    found = Cut(letters=10, members=1000, values=50).shown({"all": deep, "last": 1})
    assert found["object"][0][1]["more"] > 0
    assert len(json.dumps(found)) < 2000


@pytest.mark.parametrize(
    ("old", "new", "members"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, [{"path": ["b"], "old": 2, "new": 3}]),
        ({"a": 1}, {"b": None}, [{"path": ["a"], "old": 1}, {"path": ["b"], "new": None}]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [{"path": ["a", "b", "c"], "old": 1, "new": 2}]),
        ({"a": {}}, {"a": []}, [{"path": ["a"], "old": {"object": []}, "new": {"list": []}}]),
        ({"a": 1}, {"a": True}, [{"path": ["a"], "old": 1, "new": True}]),
        ({"a": 1}, {"a": 1.0}, [{"path": ["a"], "old": 1, "new": {"real": "1.0"}}]),
        ({"a": [1, 2]}, {"a": [1]}, [{"path": ["a"], "old": {"list": [1, 2]}, "new": {"list": [1]}}]),
    ],
)
def test_what_became_of_a_document_is_told_by_member(old: Any, new: Any, members: Any) -> None:
    assert change_view(old, new) == {"change": "changed", "members": members}


def test_a_document_that_came_or_went_is_told_whole() -> None:
    document = {"object": [["a", 1]]}
    assert change_view(None, {"a": 1}) == {"change": "added", "document": document}
    assert change_view({"a": 1}, None) == {"change": "removed", "document": document}
    assert change_view({"a": [1]}, {"a": [1]}) == {"change": "same", "members": []}
    assert change_view(None, None)["change"] == "same"


def test_where_long_texts_begin_to_differ_is_shown() -> None:
    begin = "x" * 5000
    (member,) = change_view({"a": begin + "one"}, {"a": begin + "two" + "y" * 500})["members"]
    assert member["old"] == "…" + "x" * 40 + "one"
    assert member["new"]["text"].startswith("…" + "x" * 40 + "two")


def test_very_many_changes_are_told_in_part() -> None:
    found = change_view({str(n): 0 for n in range(1000)}, {str(n): 1 for n in range(1000)})
    assert found["more"] is True
    assert len(found["members"]) == MOST_CHANGES


def test_equal_is_not_the_same() -> None:
    assert same({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "x"}]})
    assert not same({"a": [1]}, {"a": [True]})
    assert not same(Decimal("1.1"), Decimal("1.10"))
    assert not same({"a": 1}, {"a": 1, "b": 2})


def test_weight_is_about_what_is_kept() -> None:
    assert 1000 < weight([{"a": "x" * 1000, "b": [1] * 10}]) < 1300
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert weight([deep]) > 5000
