"""Artifacts as JSON: what the store has, and what became of each that was pushed, pulled or verified."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any

from lazycloud.blobs.store import Missing
from lazycloud.build.artifacts.depot import Depot
from lazycloud.build.artifacts.pack import Subject
from lazycloud.build.commit import Commit
from lazycloud.deployments.app import App
from lazycloud.errors import Conflict, LazycloudError, NotFound

Json = dict[str, Any]


class ArtifactViews:
    """Each name is told with its `outcome`; "refused" and "failed" have a `sentence` and an `advice`."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    def key(self) -> Json:
        return {"key": self._depot.public_key, "trusted": self._depot.trusted}

    async def list(self) -> list[Json]:
        """Newest first. Raises BadInput without a store, StepFailed for one that cannot be used."""
        return [{"name": one.name, "size": one.size, "at": one.at} for one in await self._depot.list()]

    async def push(self, app: App, commit: Commit) -> AsyncGenerator[Json, None]:
        """What of a commit is here. Raises Conflict when nothing is, before the first answer."""
        subjects = [one for one in await _subjects(app, commit) if (one.path / one.marker).is_file()]
        if not subjects:
            raise Conflict(
                f"Nothing of {commit.short} that could be packed is here.",
                f"Build it first: lazycloud deploy {commit.short}",
            )
        await self._depot.list()  # a store that cannot be used is said at once
        return self._told(((one.name, self._depot.push(one)) for one in subjects), "pushed", "failed")

    async def pull(self, app: App, commit: Commit) -> AsyncGenerator[Json, None]:
        """What of a commit is in the store, and not here."""
        subjects = await _subjects(app, commit)
        await self._depot.list()
        return self._told(((one.name, self._pull(app, one)) for one in subjects), "pulled", "refused")

    async def verify(self, app: App | None, commit: Commit | None) -> AsyncGenerator[Json, None]:
        """What of a commit is in the store, or all that is. Raises NotFound when that is nothing."""
        names = [one.name for one in await self._depot.list()]
        if app and commit:
            wanted = {one.name for one in await _subjects(app, commit)}
            names = [name for name in names if name in wanted]
            if not names:
                raise NotFound(f"The artifact store has nothing of {commit.short}.")
        return self._told(((name, self._depot.verify(name)) for name in names), "good", "refused")

    @staticmethod
    async def _pull(app: App, subject: Subject) -> Json:
        return {} if await app.stages.pull(subject) else {"outcome": "here"}

    @staticmethod
    async def _told(
        works: Iterable[tuple[str, Awaitable[Json]]], well: str, badly: str
    ) -> AsyncGenerator[Json, None]:
        for name, work in works:
            try:
                yield {"outcome": well} | await work | {"name": name}
            except Missing:
                yield {"name": name, "outcome": "missing"}
            except LazycloudError as problem:
                said = {"sentence": problem.sentence, "advice": problem.advice}
                yield {"name": name, "outcome": badly, **said}


async def _subjects(app: App, commit: Commit) -> list[Subject]:
    _, recipe = await app.stages.recipe(commit)
    return app.stages.subjects(recipe)
