"""What may be taken of the disk and the memory, and how bytes are said."""

from __future__ import annotations

import pytest

from lazycloud.allowance import in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (8256, "8.3 kB"), (340_000_000, "340.0 MB"), (1_200_000_000, "1.2 GB")],
)
def test_bytes_are_said_in_a_unit_that_shows_them(size: int, words: str) -> None:
    assert in_words(size) == words
