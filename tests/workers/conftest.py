"""Workers from tests/apps, ended after each test whatever happens."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lazycloud.workers.environment import worker_environment
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload import ahead, cell, parent
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.worker import Launch
from tests.waiting import PATIENCE

APPS = Path(__file__).parents[1] / "apps"

Start = Callable[..., Awaitable[Worker]]


def launch(tmp_path: Path, command: str, **options: Any) -> Launch:
    """`command` may begin with the name of a program in tests/apps."""
    if command.split()[0].endswith(".py"):
        command = f"{sys.executable} {APPS}/{command}"
    environment = worker_environment({"PATH": os.environ["PATH"]}, {"COMMIT_ID": "3f2a9c1d0b"}, tmp_path)
    given = {"ready_timeout": PATIENCE, "stop_timeout": PATIENCE, **options}
    return Launch(command, tmp_path, environment, tmp_path / "worker.log", **given)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork that is late on a busy machine is waited for. Tests of what is done instead say when it is late."""
    for module, names in {
        parent: ("UP_PATIENCE", "PATIENCE", "IMPORTING_PATIENCE", "DOUBT"),
        ahead: ("PATIENCE",),
        cell: ("PATIENCE",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, PATIENCE)


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
async def start(tmp_path: Path, ports: Ports) -> AsyncIterator[Start]:
    """Start a worker: `await start("ok.py 1", health="/")`."""
    started: list[Worker] = []

    async def begin(command: str, **options: Any) -> Worker:
        started.append(await Worker.start(launch(tmp_path, command, **options), ports))
        return started[-1]

    yield begin
    for worker in started:
        worker._record = worker.record.from_dict({**worker.record.as_dict(), "stop_timeout": 0.2})
        await worker.stop()
