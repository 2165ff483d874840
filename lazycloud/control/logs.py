"""What a deployment's build and worker wrote: the newest lines, and then what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from lazycloud.deployments.deployment import Deployment
from lazycloud.events import EventLog, Output
from lazycloud.workers.logs import follow, last_lines

Line = dict[str, Any]


def written(deployment: Deployment, count: int) -> list[Line]:
    """The newest lines of the last attempt's steps, then those of the worker."""
    deployment.transcript.flush()
    lines = _newest("build", deployment.transcript.path, count)
    for process, path in deployment.worker_logs.items():
        lines += [line | {"process": process} for line in _newest("worker", path, count)]
    return lines


async def going_on(deployment: Deployment, events: EventLog, count: int) -> AsyncGenerator[Line, None]:
    """The same, and whatever this and later attempts write, as it comes. Never ends by itself."""
    queue: asyncio.Queue[Line] = asyncio.Queue(100)
    deployment.transcript.flush()
    after = events.last
    for line in _newest("build", deployment.transcript.path, count):
        yield line
    feeding = [
        asyncio.create_task(_feed_build(deployment, events, after, queue), name="follow the build"),
        *(
            asyncio.create_task(_feed_worker(process, path, count, queue), name=f"follow {process}")
            for process, path in deployment.worker_logs.items()
        ),
    ]
    try:
        while True:
            yield await queue.get()
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)


def _newest(source: str, path: Path, count: int) -> list[Line]:
    return [{"source": source, "text": f"{line}\n"} for line in last_lines(path, count)]


async def _feed_build(
    deployment: Deployment, events: EventLog, after: int, queue: asyncio.Queue[Line]
) -> None:
    async for recorded in events.follow(after, lambda event: event.deployment == deployment.id):
        if isinstance(recorded.event, Output):
            await queue.put({"source": "build", "step": recorded.event.step, "text": recorded.event.text})


async def _feed_worker(process: str, log: Path, count: int, queue: asyncio.Queue[Line]) -> None:
    async for text in follow(log, count):
        await queue.put({"source": "worker", "process": process, "text": text})
