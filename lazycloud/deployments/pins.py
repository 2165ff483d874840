"""Commits that somebody pinned: what is built of them stays on the disk."""

from __future__ import annotations

import time

from lazycloud import store
from lazycloud.build.commit import SHORT
from lazycloud.deployments.app import App
from lazycloud.errors import Ambiguous
from lazycloud.events import CommitPinned, EventLog
from lazycloud.store import Store

LETTERS = 7  # of an id, at the least


class Pins:
    def __init__(self, state: Store, events: EventLog) -> None:
        self._store = state
        self._events = events

    def of(self, app: App) -> list[str]:
        """The full ids."""
        return [row["commit"] for row in self._store.rows(store.pins, app=app.name)]

    def named(self, app: App, prefix: str) -> str | None:
        """The pinned commit that an id or its prefix names. Raises Ambiguous."""
        found = [commit for commit in self.of(app) if len(prefix) >= LETTERS and commit.startswith(prefix)]
        if len(found) > 1:
            raise Ambiguous(prefix, [(commit[:SHORT], "pinned") for commit in found])
        return found[0] if found else None

    async def add(self, app: App, commit_id: str, who: str) -> bool:
        """Durable when this returns; False if it was pinned before. Raises OSError for a full disk."""
        if commit_id in self.of(app):
            return False
        row = store.put(store.pins, app=app.name, commit=commit_id, at=time.time(), who=who)
        await self._events.commit(CommitPinned(app=app.name, commit=commit_id, pinned=True, who=who), row)
        return True

    async def remove(self, app: App, commit_id: str, who: str) -> bool:
        """False if it was not pinned."""
        if commit_id not in self.of(app):
            return False
        fact = CommitPinned(app=app.name, commit=commit_id, pinned=False, who=who)
        await self._events.commit(fact, store.unpin(app.name, commit_id))
        return True
