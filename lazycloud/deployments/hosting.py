"""Servers of data, run as workers are: behind the same walls, within the same limits, found again in the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lazycloud.data.serving import Process, Wanted
from lazycloud.errors import StepFailed
from lazycloud.processes import unheard
from lazycloud.walls.sandbox import SYSTEM_PATH
from lazycloud.walls.view import View
from lazycloud.workers.engine import Engine
from lazycloud.workers.readiness import NotReady
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Launch, Worker
from lazycloud.workforce import Limits

STOP_TIMEOUT = 30.0  # seconds that one has to write what it holds
READY_TIMEOUT = 60.0


class Hosted:
    """A worker, as its data's server."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def address(self) -> str:
        return self._worker.address

    @property
    def pid(self) -> int:
        return self._worker.record.pid

    @property
    def note(self) -> Mapping[str, Any]:
        return self._worker.record.as_dict()

    @property
    def is_running(self) -> bool:
        return self._worker.is_running

    def memory(self) -> int:
        return self._worker.usage().memory

    def last_lines(self) -> list[str]:
        return self._worker.last_lines()

    async def ended(self) -> str:
        return (await self._worker.ended()).words

    async def stop(self) -> None:
        await self._worker.stop()

    def leave(self) -> None:
        self._worker.leave()


class EngineHosting:
    """`home` is the server's folder, `limits` those of a worker."""

    def __init__(self, engine: Engine, home: Path, limits: Limits) -> None:
        self._engine = engine
        self._home = home
        self._limits = limits
        self.memory = limits.memory
        self.disk = limits.disk

    async def start(self, wanted: Wanted) -> Process:
        worker = await self._engine.start(self._launch(wanted), unheard)
        try:
            await worker.ready()
        except BaseException as problem:
            await asyncio.shield(worker.stop())
            if isinstance(problem, NotReady):
                raise StepFailed(
                    f"The server of its data did not start: {problem.sentence}", problem.advice, problem.last
                ) from problem
            raise
        return Hosted(worker)

    async def adopt(self, note: Mapping[str, Any]) -> Process | None:
        worker = await self._engine.adopt(Record.from_dict(note))
        return Hosted(worker) if worker else None

    def _launch(self, wanted: Wanted) -> Launch:
        return Launch(
            command=wanted.command,
            folder=wanted.write,
            environment={"DATA_DIR": str(wanted.write), "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
            log=wanted.log,
            ready_timeout=READY_TIMEOUT,
            stop_timeout=STOP_TIMEOUT,
            name=wanted.name,
            view=View(self._home, wanted.read, (wanted.write,)),
            limits=replace(self._limits, disk=0) if wanted.of_all else self._limits,
            data=(wanted.write,),
            port=wanted.port,
        )


def hosting(engine: Engine, home: Path, limits: Limits) -> EngineHosting | None:
    """None where workers could not reach a server: a container's loopback is its own."""
    return None if engine.name == "container" else EngineHosting(engine, home, limits)
