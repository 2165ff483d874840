"""Clients of a server, all at once: whatever they saw is explained by one order that agrees with the clock.

Also when the server is killed in the middle, many times, and when Postgres is. More by `make stress-versionbase`.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.postgres import ADMIN, Postgres, postgres_running
from tests.versionbase.histories import check
from tests.versionbase.served import Served, verified
from tests.versionbase.wire import connected
from tests.versionbase.workload import Workload

CLIENTS = 12
KILLS = int(os.environ.get("LAZYCLOUD_VERSIONBASE_KILLS", "10"))


def workload(served: Served, seed: int) -> Workload:
    return Workload(lambda: served.address, "production", served.owner, random.Random(seed))


def in_postgres(server: Postgres) -> str:
    with server.superuser() as superuser:
        superuser.execute(f"CREATE DATABASE versionbase OWNER {ADMIN}".encode())
    return server.url(database="versionbase")


async def judged(work: Workload) -> None:
    await work.read_all()
    assert work.wrong == []
    found = check(work.history)
    assert found == [], "\n".join(map(str, found))


async def beside(work: Workload, doing: Callable[[], Awaitable[None]]) -> None:
    """Clients do what they do until this is done."""
    is_over = False

    async def do() -> None:
        nonlocal is_over
        try:
            await doing()
        finally:
            is_over = True

    async with asyncio.TaskGroup() as group:
        group.create_task(do())
        group.create_task(work.run(CLIENTS, lambda: is_over))


async def test_what_clients_see_is_explained_by_one_order(tmp_path: Path) -> None:
    with Served(f"sqlite:///{tmp_path}/store.sqlite") as served:
        work = workload(served, 1)
        await work.prepare()

        async def wait() -> None:
            while work.counts["done"] < 2000:
                await asyncio.sleep(0.05)

        await beside(work, wait)
        await judged(work)
        assert work.counts["conflict"] > 20
        assert work.counts["names that were had"] > 20
        assert work.counts["snapshots"] > 5
        served.stop()
    verified(served.store)


@pytest.mark.slow
async def test_a_fork_in_the_middle_is_what_was_and_stays_so(tmp_path: Path) -> None:
    """Each is compared with what it was at first, when others have gone on; nothing of it comes back."""
    with Served(f"sqlite:///{tmp_path}/store.sqlite") as served:
        work = workload(served, 2)
        await work.prepare()
        forks: dict[str, object] = {}

        async def fork() -> None:
            async with connected(served.address, "production", served.owner) as owner:
                for number in range(10):
                    name, before = f"fork{number}", work.counts["done"]
                    begun = time.monotonic()
                    await owner.ask("fork", version=name, source="production")
                    ended = time.monotonic()
                    async with connected(served.address, name, served.owner) as wire:
                        forks[name] = await work.note_all(wire, begun, ended)
                        mine = {"group": 0, "items": [-1]}
                        await wire.ask("replace", collection="lists", key="0.0", document=mine, create=True)
                    while work.counts["done"] < before + 50:
                        await asyncio.sleep(0.01)

        await beside(work, fork)
        await judged(work)
        for name, first in forks.items():
            async with connected(served.address, name, served.owner) as wire:
                assert {**await work.all_lists(wire), "0.0": ()} == {**first, "0.0": ()}  # type: ignore[dict-item]


async def killed_again_and_again(served: Served, work: Workload, kills: int, chance: random.Random) -> None:
    for _ in range(kills):
        before = work.counts["done"]
        while work.counts["done"] < before + chance.randint(1, 60):
            await asyncio.sleep(0.001)
        await asyncio.sleep(chance.random() * 0.02)
        await asyncio.to_thread(served.kill)
        await asyncio.to_thread(served.start)


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_when_the_server_was_killed(tmp_path: Path) -> None:
    with Served(f"sqlite:///{tmp_path}/store.sqlite") as served:
        work = workload(served, 3)
        await work.prepare()
        await beside(work, lambda: killed_again_and_again(served, work, KILLS, random.Random(3)))
        assert served.starts == KILLS + 1
        await judged(work)
        assert work.counts["unknown"] > 0
        await watched_from_the_beginning(served, work)
        served.kill()
    verified(served.store)


async def watched_from_the_beginning(served: Served, work: Workload) -> None:
    """What was told of the changes since the first, put together, is what there is; each transaction came whole."""
    async with connected(served.address, "production", served.owner) as wire:
        now = await work.all_lists(wire)
        lists: dict[str, tuple[int, ...]] = {}
        at: dict[int, int] = {}  # the sequence of each element
        async for event in wire.watch(collection="lists", since=0):
            if "key" not in event:
                break
            lists[event["key"]] = items = tuple(event["new"]["items"])
            at |= {element: event["sequence"] for element in items if element not in at}
        assert {key: items for key, items in now.items() if items} == lists
    for transaction in work.history:
        elements = [one.element for one in transaction.operations if hasattr(one, "element")]
        assert len({at.get(element) for element in elements}) <= 1, f"half of {transaction}"
        if transaction.outcome == "done":
            assert all(element in at for element in elements)


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_when_postgres_was_killed(tmp_path: Path) -> None:
    """Its own server is stopped as by a crash, and started again, under a server that goes on."""
    with postgres_running() as postgres, Served(in_postgres(postgres)) as served:
        work = workload(served, 4)
        await work.prepare()

        async def restart() -> None:
            for _ in range(3):
                before = work.counts["done"]
                while work.counts["done"] < before + 100:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(postgres.stop)
                await asyncio.to_thread(postgres.start)

        await beside(work, restart)
        await judged(work)
        assert work.counts["done"] > 300
        served.stop()
        verified(served.store)


async def test_what_is_acknowledged_was_synced(tmp_path: Path) -> None:
    """A process that is killed loses nothing that it wrote: only what it asked the disk for tells of a power cut."""
    if not shutil.which("strace"):
        (pytest.fail if "CI" in os.environ else pytest.skip)("strace is missing: it tells of system calls")
    calls = tmp_path / "calls"
    calls.touch()
    tracer = ("strace", "-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(calls))
    with Served(f"sqlite:///{tmp_path}/store.sqlite", within=tracer) as served:
        async with connected(served.address, "production", served.owner) as wire:
            for number in range(10):
                before = calls.read_text().count("sync(")
                await wire.ask("insert", collection="notes", documents=[{"n": number}])
                assert calls.read_text().count("sync(") > before
        served.stop()
