from __future__ import annotations

import asyncio

import pytest

from lazycloud.build.executions import REPLAYED, Executions
from lazycloud.processes import Output
from tests.waiting import until


class Work:
    """Says what it does, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.cleaned = asyncio.Event()
        self.may_clean = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_clean.set()

    async def __call__(self, output: Output) -> int:
        self.begun += 1
        number = self.begun
        output("begun\n")
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            await self.may_clean.wait()
            self.cleaned.set()
            raise
        output("done\n")
        return number


async def test_work_of_one_key_is_done_once_and_told_to_all_from_its_begin() -> None:
    executions, work = Executions(), Work()
    early: list[str] = []
    late: list[str] = []
    first = asyncio.create_task(executions.share("k", work, early.append))
    await until(lambda: early)
    second = asyncio.create_task(executions.share("k", work, late.append))
    await until(lambda: late)
    work.may_end.set()
    assert await asyncio.gather(first, second) == [1, 1]
    assert early == late == ["begun\n", "done\n"]
    assert await executions.share("k", work, early.append) == 2


async def test_one_who_leaves_does_not_end_it_for_the_others() -> None:
    executions, work = Executions(), Work()
    tasks = [asyncio.create_task(executions.share("k", work, lambda _: None)) for _ in range(2)]
    await until(lambda: work.begun)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    work.may_end.set()
    assert await tasks[1] == 1


async def test_the_last_who_leaves_ends_it_and_waits_for_its_cleaning_up() -> None:
    executions, work = Executions(), Work()
    task = asyncio.create_task(executions.share("k", work, lambda _: None))
    await until(lambda: work.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cleaned.is_set()


async def test_who_comes_while_it_is_cleaning_up_begins_anew_afterwards() -> None:
    executions, work = Executions(), Work()
    work.may_clean.clear()
    first = asyncio.create_task(executions.share("k", work, lambda _: None))
    await until(lambda: work.begun)
    first.cancel()
    second = asyncio.create_task(executions.share("k", work, lambda _: None))
    work.may_end.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.begun == 1
    work.may_clean.set()
    assert await second == 2


async def test_a_failure_is_everybodys() -> None:
    async def fail(output: Output) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    executions = Executions()
    results = await asyncio.gather(
        *(executions.share("k", fail, lambda _: None) for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["no"] * 3


async def test_of_a_flood_the_newest_is_kept_for_who_joins_late() -> None:
    executions, flooded, late = Executions(), asyncio.Event(), []

    async def work(output: Output) -> None:
        for number in range(1000):
            output(f"{number}".ljust(10_000))
        flooded.set()
        await asyncio.sleep(0)

    first = asyncio.create_task(executions.share("flood", work, lambda text: None))
    await flooded.wait()
    await executions.share("flood", work, late.append)
    await first
    assert sum(map(len, late)) <= REPLAYED
    assert late[-1].startswith("999")
