"""A short run of `make stress-data`."""

from collections import Counter

import pytest

from tests.data.stress import BAD, stress


@pytest.mark.slow
def test_no_image_is_ever_wrong_while_everything_is_killed() -> None:
    def enough(counts: Counter[str]) -> bool:
        return any(counts[what] for what in BAD) or (counts["compared"] > 10 and counts["writer killed"] > 3)

    counts = stress(minutes=0.3, seed=1, enough=enough)
    assert {what: counts[what] for what in BAD} == dict.fromkeys(BAD, 0)
