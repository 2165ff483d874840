"""A tree is read once, for whoever asks what it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from lazycloud.build.commit import Commit
from lazycloud.build.plans import KEPT, Plans
from lazycloud.build.repository import Repository
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed

from .gitfolder import GitFolder

T = TypeVar("T")


class Counted(Repository):
    """Counts its looks."""

    looks = 0

    async def look(self, commit: Commit, examine: Callable[[Tree], T]) -> T:
        self.looks += 1
        return await super().look(commit, examine)


async def opened(app: GitFolder, tmp_path: Path) -> Counted:
    repository = Counted(str(app.path), tmp_path / "ours")
    await repository.open()
    return repository


async def test_a_tree_is_read_once_by_all_who_ask_at_once_and_later(app: GitFolder, tmp_path: Path) -> None:
    first = app.commit({"Procfile": "web: ./serve\n"})
    again = app.commit({})
    repository = await opened(app, tmp_path)
    plans = Plans(repository)
    commits = [await repository.commit(each) for each in (first, first, again)]
    found = await asyncio.gather(*map(plans.of, commits))
    assert {plan.run for plan in [*found, await plans.of(commits[0])]} == {"./serve"}
    assert repository.looks == 1


async def test_one_who_gives_up_does_not_take_the_plan_from_others(app: GitFolder, tmp_path: Path) -> None:
    repository = await opened(app, tmp_path)
    commit = await repository.commit(app.commit({"Procfile": "web: ./serve\n"}))
    plans = Plans(repository)
    hasty, patient = (asyncio.create_task(plans.of(commit)) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    assert (await patient).run == "./serve"
    assert repository.looks == 1


async def test_a_failure_is_not_remembered_and_few_plans_are(app: GitFolder, tmp_path: Path) -> None:
    repository = await opened(app, tmp_path)
    plans = Plans(repository)
    bad = await repository.commit(app.commit({"notes": "nothing to run"}))
    for _ in range(2):
        with pytest.raises(StepFailed):
            await plans.of(bad)
    assert repository.looks == 2
    for number in range(KEPT + 5):
        made = await repository.commit(app.commit({"Procfile": f"web: ./serve {number}\n"}))
        await plans.of(made)
    assert len(plans._plans) == KEPT
