"""Versions in a temporary folder, an app that writes to one, and what runs servers of data."""

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from lazycloud.data import held, resp, wal
from lazycloud.data.versions import Versions
from lazycloud.walls import sandbox
from lazycloud.walls.groups import Groups
from lazycloud.walls.sandbox import Sandbox
from lazycloud.workers.bounds import Bounds
from lazycloud.workers.engine import Engine, Processes, Sandboxed
from tests.waiting import PATIENCE

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an app or we may be slow; tests of what is done then say when it is slow."""
    for name, seconds in {"PATIENCE": 20.0, "BARRED": PATIENCE, "TURNING": PATIENCE}.items():
        monkeypatch.setattr(held, name, seconds)
    monkeypatch.setattr(resp, "PATIENCE", PATIENCE)
    monkeypatch.setattr(wal, "PATIENCE", 1.0)  # nothing else goes on meanwhile


@pytest.fixture
async def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Versions]:
    """Tests write to them where we should go on, so writers are kept out for less than they wait."""
    monkeypatch.setattr(held, "BARRED", 2.0)
    made = Versions(tmp_path / "data", patience=PATIENCE)
    yield made
    await made.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """Behind walls where there are any."""
    groups = Groups(tmp_path)
    bounds = Bounds(groups)
    made = Processes(bounds) if sandbox.missing() else Sandboxed(Sandbox(tmp_path, {}), bounds)
    yield made
    await made.close()
    groups.end_others()
    groups.close()


@pytest.fixture
def write(tmp_path: Path, versions: Versions) -> Iterator[Write]:
    """Start an app that writes to a version's database, in a journal mode; returns the file of its counter."""
    with contextlib.ExitStack() as running:

        def start(version: str, mode: str) -> Path:
            database = versions.environment(version)["DATABASE_URL"].removeprefix("sqlite:///")
            counter = tmp_path / f"commits of {version}"
            script = str(Path(__file__).with_name("writer.py"))
            app = subprocess.Popen([sys.executable, script, database, mode, str(counter)])
            running.callback(app.wait)
            running.callback(app.kill)
            return counter

        yield start
