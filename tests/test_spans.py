"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from lazycloud.errors import BadInput
from lazycloud.spans import seconds


@pytest.mark.parametrize(
    ("text", "means"),
    [("90s", 90), ("10min", 600), ("10m", 600), ("1.5h", 5400), (" 30d ", 2592000), ("2w", 1209600)],
)
def test_a_span(text: str, means: float) -> None:
    assert seconds(text, "keep") == means


@pytest.mark.parametrize("text", ["", "h", "1", "-1h", "1y", "1 h", "1h30m", "9" * 5 + "x"])
def test_what_is_none_says_where_it_was(text: str) -> None:
    with pytest.raises(BadInput, match="keep"):
        seconds(text, "keep")
