"""What `python -m tests` does with what fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COUNTED = """
import pathlib
def test_counted():
    counted = pathlib.Path("counted")
    before = counted.read_text() if counted.exists() else ""
    counted.write_text(before + "x")
    assert {condition}
def test_fine():
    pass
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, "-m", "tests", "--at-once", "0", "-p", "no:asyncio"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("condition", "runs", "code"),
    [
        ("before != ''", 4, 0),  # the first fails
        ("before == 'x'", 3, 1),  # the first fails, and another of those that have to pass
        ("True", 1, 0),
        ("False", 2, 1),
    ],
)
def test_what_fails_has_to_pass_three_times_alone(
    tmp_path: Path, condition: str, runs: int, code: int
) -> None:
    done = run(tmp_path, COUNTED.format(condition=condition))
    assert done.returncode == code, done.stdout
    assert (tmp_path / "counted").read_text() == "x" * runs
    is_forgiven = "passed alone:\n  test_some.py::test_counted\n" in done.stdout
    assert is_forgiven == (code == 0 and runs > 1)


def test_many_that_fail_are_not_tried_again(tmp_path: Path) -> None:
    many = "import pytest\n@pytest.mark.parametrize('n', range(11))\ndef test_it(n): assert not n + 1"
    done = run(tmp_path, many)
    assert done.returncode == 1
    assert "11 failed" in done.stdout
    assert "Again" not in done.stdout


def test_tests_that_cannot_be_read_are_not_tried_again(tmp_path: Path) -> None:
    done = run(tmp_path, "import nothing_of_that_name")
    assert done.returncode == 2
    assert "Again" not in done.stdout
