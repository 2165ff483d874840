"""How people say which data they mean."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lazycloud.data.names import Point, check_name, new_snapshot, point
from lazycloud.errors import BadInput

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
ID = "20260131T110000123456-0c1d2e3f"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("production", Point("production")),
        ("", Point("production")),
        ("feature/x", Point("feature/x")),
        ("@before-import", Point("production", name="before-import")),
        ("main@v1.2", Point("main", name="v1.2")),
        (f"@{ID}", Point("production", id=ID)),
        ("production@10min-ago", Point("production", at=NOW - 600)),
        ("production@1.5h-ago", Point("production", at=NOW - 5400)),
        ("3f2a9c1@2026-01-31T11:00", Point("3f2a9c1", at=NOW - 3600)),
        ("3f2a9c1@2026-01-31T11:00+01:00", Point("3f2a9c1", at=NOW - 7200)),
        ("@2026-01-31", Point("production", at=NOW - 12 * 3600)),
    ],
)
def test_a_point_of_data(text: str, means: Point) -> None:
    assert point(text, NOW) == means
    assert means.is_now is ("@" not in text)


def test_a_new_snapshot_is_found_by_its_id() -> None:
    new = new_snapshot()
    assert point(f"@{new}", NOW) == Point("production", id=new)


@pytest.mark.parametrize("text", ["@", "main@", "@10parsecs-ago", "@-ago", "@Up", "@a/b", "@..", "@.a"])
def test_what_names_no_point(text: str) -> None:
    with pytest.raises(BadInput):
        point(text, NOW)


@pytest.mark.parametrize("name", ["2026-01-31", "20260131", ID, "yesterday-ago", "", "A", "a" * 61])
def test_what_no_snapshot_is_called(name: str) -> None:
    with pytest.raises(BadInput):
        check_name(name)
