"""A short run of `make stress-data`."""

import pytest

from tests.data.stress import BAD, stress


@pytest.mark.slow
def test_no_image_is_ever_wrong_while_everything_is_killed() -> None:
    counts = stress(minutes=0.3, seed=1)
    assert {what: counts[what] for what in BAD} == dict.fromkeys(BAD, 0)
    assert counts["compared"] > 10
    assert counts["writer killed"] > 3
