"""What an app's last lines say of walls, in advice."""

from __future__ import annotations

import pytest

from lazycloud.deployments.deployment import Failure, advice_of
from lazycloud.errors import StepFailed


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 30] Read-only file system: 'cache.txt'",
        "Error: EROFS: read-only file system, open 'cache.txt'",
        "django.db.utils.OperationalError: unable to open database file",
    ],
)
def test_who_wrote_beside_its_code_is_told_where_to_write(line: str) -> None:
    failure = Failure.of("ready", StepFailed("It ended.", "Look.", ["Traceback", line]))
    assert "$DATA_DIR" in failure.advice
    assert "writable = true" in failure.advice


def test_other_failures_keep_their_advice() -> None:
    assert advice_of(["Address already in use"]) == ""
    assert Failure.of("ready", StepFailed("It ended.", "Look.", ["No module"])).advice == "Look."
