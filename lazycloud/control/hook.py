"""What a git hook says: whose repository that is, and what is done about the commit."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lazycloud.build.commit import Commit
from lazycloud.build.repository import shown_url
from lazycloud.control.identity import Identity, Role
from lazycloud.deployments.app import App
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.production import Production
from lazycloud.errors import BadInput, NotFound

log = logging.getLogger(__name__)

FIELDS = ("repository", "origin", "commit", "ref")


class HookCalls:
    """A hook tells what it knows, and waits: so it is answered in one line of text, as soon as that is known."""

    def __init__(self, fleet: Fleet, production: Production) -> None:
        self.expected: Callable[[App, Commit], None] = lambda app, commit: None  # told what will be asked for
        self._fleet = fleet
        self._production = production
        self._tasks: set[asyncio.Task[str]] = set()

    async def take(self, form: Mapping[str, object], identity: Identity) -> tuple[App, Commit]:
        """The app and the commit; what the commit itself asks for is done meanwhile.

        Raises NotFound, BadInput, and Forbidden for a token of another app.
        """
        repository, origin, commit_id, ref = (_field(form, name) for name in FIELDS)
        app = self._app(repository, origin)
        identity.demand(Role.DEVELOPER, app.name)
        commit = await _commit(app, commit_id)
        task = asyncio.create_task(
            self._production.announce(app, commit, ref), name=f"announce {commit.short}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._announced)
        await asyncio.sleep(0)  # it begins by taking back what routers keep of the ref
        self.expected(app, commit)
        return app, commit

    def _announced(self, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()):
            log.error("Could not %s: %s", task.get_name(), problem, exc_info=problem)

    def _app(self, repository: str, origin: str) -> App:
        """The app that is served from this repository, else one served from where it was cloned from."""
        apps = list(self._fleet.apps.values())
        folder = Path(os.path.realpath(repository))
        for app in apps:
            if app.repository.is_at(folder):
                return app
        for app in apps:
            if origin and _bare(origin) in (_bare(app.source), _bare(shown_url(app.source))):
                return app
        raise NotFound("This repository is not served.", "`lazycloud up` does that.")


async def _commit(app: App, text: str) -> Commit:
    """Usually a full id, which is one look; a pushed tag may be an object of its own."""
    try:
        return await app.commit(text)
    except NotFound:
        return await app.repository.revision(text)


def _field(form: Mapping[str, object], name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str) or "\0" in value or len(value) > 5000:
        raise BadInput(f"`{name}` is missing, or cannot be right.", "Run `lazycloud hook install` again.")
    return value


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")
