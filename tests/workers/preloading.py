"""Workers of this Python's own environment, plain and as forks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazycloud.walls.machine import installation
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.view import View
from lazycloud.workers.environment import worker_environment
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload.parent import NOTES, Parent
from lazycloud.workers.preload.parents import LEARNED, Parents
from lazycloud.workers.preload.start import Start, Venv, make_start
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.worker import HOST, Launch
from tests.waiting import PATIENCE, until

from .conftest import APPS


@dataclass
class Stand:
    """A folder for apps, environments and what is learned of them, as a server has it. All that begins is ended."""

    folder: Path
    path: Path = Path(sys.prefix)
    walls: Sandbox | None = None
    parents: Parents = field(default_factory=Parents)
    ports: Ports = field(default_factory=Ports)
    said: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    @classmethod
    def walled(cls, folder: Path) -> Stand:
        walls = Sandbox(folder, {"PATH": os.environ["PATH"]})
        return cls(folder, walls=walls, parents=Parents(walls=walls))

    @property
    def venv(self) -> Venv:
        return Venv(self.path, self.folder / "apps" / "it" / "environments" / "key" / "preload")

    @property
    def app(self) -> Path:
        """Where apps run, and their files are."""
        place = self.folder / "tree"
        place.mkdir(exist_ok=True)
        return place

    def launch(self, command: str, env: Mapping[str, str] | None = None, **options: Any) -> Launch:
        """`command` is run in `app`, where the programs of tests/apps can be found."""
        for program in APPS.glob("*.py"):
            if program.name in command and not (self.app / program.name).exists():
                (self.app / program.name).write_text(program.read_text())
        number = str(len(self.workers))
        private = self.folder / "scratch" / number
        private.mkdir(parents=True, exist_ok=True)
        release = {"PATH": f"{self.path}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(self.path), **(env or {})}
        contract = {"COMMIT_ID": number, "DATA_DIR": str(self.folder / "apps" / "it" / "data" / number)}
        environment = worker_environment(release, contract, private)
        data = Path(contract["DATA_DIR"])
        data.mkdir(parents=True, exist_ok=True)
        memory = self.venv.memory
        read = (self.app, self.path, memory.parent, *installation(self.path / "bin" / "python"))
        memory.mkdir(parents=True, exist_ok=True)
        view = View(self.folder, read, (data,), scratch=private, fresh=(memory,)) if self.walls else None
        given = {
            "ready_timeout": PATIENCE,
            "stop_timeout": PATIENCE,
            "venv": self.venv,
            "view": view,
            "name": number,
            **options,
        }
        return Launch(command, self.app, environment, self.folder / f"worker-{number}.log", **given)

    async def start(self, command: str, plain: bool = False, **options: Any) -> Worker:
        parents = None if plain else self.parents
        worker = await Worker.start(
            self.launch(command, **options), self.ports, parents, self.said.append, self.walls
        )
        self.workers.append(worker)
        return worker

    async def preloaded(self, command: str, *names: str, env: Mapping[str, str] | None = None) -> Parent:
        """A parent for that command that has imported those modules, and what they import."""
        memory = self.venv.memory
        memory.mkdir(parents=True, exist_ok=True)
        (memory / NOTES).write_text("".join(f"{name}\n" for name in names))
        (memory / LEARNED).touch()
        start = self.make_start(command, env)
        self.parents.prepare(start)
        parent = self.parents._parents[start.key]
        # Its imports are tried at low priority.
        await until(
            lambda: parent.is_gone or (parent.phase.value == "waiting" and not parent._imports),
            "a Python with all imports",
            3 * PATIENCE,
        )
        assert not parent.is_gone, (memory / "parent.log").read_text()
        return parent

    def make_start(self, command: str, env: Mapping[str, str] | None = None) -> Start:
        launch = self.launch(command, env)
        environment = {**launch.environment, "HOST": HOST, "PORT": "0"}
        return make_start(command, environment, launch.folder, self.venv)

    def verdict(self, parent: Parent) -> dict[str, Any]:
        return dict(json.loads((self.venv.memory / "verdicts" / f"{parent.key}.json").read_text()))

    async def close(self) -> None:
        for worker in self.workers:
            worker._record = worker.record.from_dict({**worker.record.as_dict(), "stop_timeout": 1})
            await worker.stop()
        await self.parents.close()


def reported(worker: Worker) -> dict[str, Any]:
    """What reports.py said."""
    lines = worker.record.log_path.read_text().splitlines()
    return dict(json.loads(next(line for line in lines if line.startswith("{"))))


async def fetch(worker: Worker, path: str = "/") -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://{worker.address}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def environ(pid: int) -> dict[str, str]:
    """As /proc tells."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if entry)
