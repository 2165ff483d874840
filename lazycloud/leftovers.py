"""What a server that is gone has left running: `lazycloud stop --all` where nobody is there to be asked.

Workers are found as the next control would find them: by what the home has stored of them, which tells their
processes from later ones with the same pid; by their control groups; and by the environment that they were given.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from lazycloud import store, trees
from lazycloud.config import Config
from lazycloud.data import redis, versionbase
from lazycloud.deployments.post import record_in, rows_of
from lazycloud.errors import Conflict, NotFound
from lazycloud.processes import end_strays
from lazycloud.store import Store
from lazycloud.walls.groups import Groups
from lazycloud.workers.bounds import Bounds
from lazycloud.workers.engine import Engine, Processes
from lazycloud.workers.record import Record

CONTAINER = "container"


def end_all(config: Config) -> int:
    """End all workers of a home, and whatever they started, with their temporary files; how many there were.

    Raises Conflict while a server runs there, NotFound for a home that is none.
    """
    if not (config.home / "state.sqlite").is_file():
        raise NotFound(f"{config.home} is no home of a lazycloud server.", "Give another with --home.")
    with _locked(config):
        count = asyncio.run(_end(config, stored(config)))
        shutil.rmtree(config.run_folder, ignore_errors=True)
        for folder in config.scratch.glob("*"):
            trees.remove(folder)
    return count


def stored(config: Config) -> list[Record]:
    """The workers that the home knows of, whether or not they still run."""
    state = Store(config.database_url)
    state.open()
    try:
        rows = state.rows(store.deployments)
    finally:
        state.close()
    each = (record_in(post) for row in rows for post in rows_of(row["worker"]).values())
    return [record for record in each if record]


@contextmanager
def _locked(config: Config) -> Iterator[None]:
    """As a server locks its home: none runs, and none begins meanwhile."""
    with config.lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"A server runs on {config.home}, but does not answer.",
                "Stop it with Ctrl-C in its terminal, or see what its log says.",
            ) from None
        yield


async def _end(config: Config, records: list[Record]) -> int:
    count = 0
    for container in (False, True):
        of_kind = [record for record in records if (record.engine == CONTAINER) is container]
        if container and not of_kind:
            continue
        async with _engine(config, container) as engine:
            found = [await engine.adopt(record) for record in of_kind]
            workers = [worker for worker in found if worker]
            await asyncio.gather(*(worker.stop() for worker in workers))
            await _end_servers(config, engine)
            await engine.restored()
        count += len(workers)
    end_strays(config.home / "apps", set())
    return count


async def _end_servers(config: Config, engine: Engine) -> None:
    """What kept the data of workers, which are gone by now."""
    for kind in (redis, versionbase):
        for note in kind.notes(config.home / "apps"):
            if server := await engine.adopt(Record.from_dict(note)):
                await server.stop()
        kind.forget(config.home / "apps")


@asynccontextmanager
async def _engine(config: Config, container: bool) -> AsyncIterator[Engine]:
    engine: Engine
    if container:
        from lazycloud.workers.containers.engine import Containers

        containers = Containers(config.container, config.home, {})
        await containers.open()
        engine = containers
    else:
        engine = Processes(Bounds(Groups(config.home)))
    try:
        yield engine
    finally:
        await engine.close()
