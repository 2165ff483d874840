"""The plans of trees: read once, for whoever asks and however many do."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial

from lazycloud.build.commit import Commit
from lazycloud.build.plan import Plan, make_plan
from lazycloud.build.repository import Repository

KEPT = 64  # a plan holds the manifests and lockfiles of its tree


class Plans:
    """A tree's plan never changes. What failed is tried anew: the repository may have been away.

    `images`: images of Dockerfiles can be built here.
    """

    def __init__(self, repository: Repository, images: bool = False) -> None:
        self._repository = repository
        self._make = partial(make_plan, images=images)
        self._plans: OrderedDict[str, asyncio.Task[Plan]] = OrderedDict()

    async def of(self, commit: Commit) -> Plan:
        """Raises BadInput, StepFailed. The work goes on when one who waits for it is cancelled."""
        task = self._plans.get(commit.tree)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            work = self._repository.look(commit, self._make)
            task = self._plans[commit.tree] = asyncio.create_task(work, name=f"plan of {commit.short}")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._plans.move_to_end(commit.tree)
        if len(self._plans) > KEPT:
            self._plans.popitem(last=False)
        return await asyncio.shield(task)
