"""What docs/router.md promises is tested: each line names tests, and those exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/router.md").read_text()


def numbers() -> list[int]:
    """Of the promises."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)]


def shown() -> dict[int, list[str]]:
    """The tests that the page names for each promise."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    return {int(number): re.findall(r"`(test_\w+)`", cell) for number, cell in rows}


def defined(files: str = "test_*.py") -> set[str]:
    """All tests that there are in such files."""
    texts = [path.read_text() for path in TESTS.rglob(files)]
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def test_every_promise_of_the_router_names_its_tests() -> None:
    assert numbers() == list(range(1, 25))
    assert list(shown()) == numbers()
    assert [number for number, names in shown().items() if not names] == []


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - defined() == set()


def test_every_test_of_a_promise_is_named_on_the_page() -> None:
    named = {name for names in shown().values() for name in names}
    assert (defined("test_promises_*.py") | defined("e2e/test_promises.py")) - named == set()
