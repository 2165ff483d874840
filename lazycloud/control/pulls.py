"""Pull requests of forks: strangers' code, which is fetched only when somebody allows it, one commit at a time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from lazycloud import store
from lazycloud.build.commit import FULL_ID, SHORT, Commit
from lazycloud.config import Config
from lazycloud.control.forges import Pull
from lazycloud.deployments.app import App
from lazycloud.deployments.production import Production
from lazycloud.errors import BadInput, Conflict, NotFound
from lazycloud.events import EventLog, PullAllowed, PullClosed, PullWaits
from lazycloud.store import Store

MOST = 200  # of an app that are remembered; the oldest go first


@dataclass(frozen=True)
class Waiting:
    """`commit` is what its forge last told; `allowed` what somebody allowed last, or ""."""

    app: str
    number: int
    commit: str
    title: str
    author: str
    url: str
    at: float
    allowed: str


class Pulls:
    def __init__(self, config: Config, production: Production, state: Store, events: EventLog) -> None:
        self._config = config
        self._production = production
        self._events = events
        rows = sorted(state.rows(store.pulls), key=lambda row: float(row["at"]))
        self._pulls = {(row["app"], int(row["number"])): Waiting(**row) for row in rows}

    def of(self, app: str) -> list[Waiting]:
        """Those that are open, newest first."""
        return sorted((one for one in self._pulls.values() if one.app == app), key=lambda one: -one.at)

    def view(self, app: App, pull: Waiting) -> dict[str, Any]:
        address = self._config.addresses.label(app.domain, pull.allowed[:SHORT]) if pull.allowed else ""
        return {**asdict(pull), "waits": pull.allowed != pull.commit, "address": address}

    async def hear(self, app: App, pull: Pull) -> tuple[str, str]:
        """A forge tells of one; what is done about it, as a word and a sentence."""
        key = app.name, pull.number
        if pull.is_closed:
            self._pulls.pop(key, None)
            fact = PullClosed(app=app.name, number=pull.number)
            await self._events.commit(fact, store.remove(store.pulls, app=app.name, number=pull.number))
            return "forgotten", f"Pull request {pull.number} is closed."
        before = self._pulls.get(key)
        if before and before.commit == pull.commit:
            return "waits", f"Pull request {pull.number} is known."
        allowed = before.allowed if before else ""
        waiting = Waiting(
            app.name, pull.number, pull.commit, pull.title, pull.author, pull.url, time.time(), allowed
        )
        news = PullWaits(
            app=app.name,
            number=pull.number,
            commit=pull.commit,
            title=pull.title,
            author=pull.author,
            url=pull.url,
        )
        await self._events.commit(news, store.put(store.pulls, **asdict(waiting)), *self._forget_old(app))
        self._pulls[key] = waiting
        return "waits", f"Pull request {pull.number} waits for somebody to allow it."

    async def allow(self, app: App, number: int, commit: str, who: str) -> Commit:
        """Fetch the head of a pull request, if it is still that `commit`.

        The whole id is asked for: who likes can make two commits that begin alike, show one and then push the other.
        Raises BadInput, NotFound, Conflict when it is another one by now, StepFailed.
        """
        if not app.repository.is_remote:
            raise BadInput(
                f"{app.name} is served from a folder of this machine, not from a forge.",
                "Fetch the pull request there: its commit has its address then.",
            )
        if not FULL_ID.fullmatch(commit):
            raise BadInput(
                "Which commit of it? Give its whole id.",
                "A stranger can make two commits whose ids begin alike; only the one you looked at is allowed.",
            )
        head = await app.repository.pull_head(number)
        if head is None:
            raise NotFound(f"{app.repository} has no pull request {number}.")
        if head.commit != commit:
            raise Conflict(
                f"Pull request {number} is at {head.commit[:SHORT]} now, not at {commit[:SHORT]}.",
                f"Look at what is new, then: lazycloud allow {app.name} {number} {head.commit}",
            )
        await app.repository.fetch_pull(head)
        known = self._pulls.get((app.name, number)) or Waiting(
            app.name, number, head.commit, "", "", "", time.time(), ""
        )
        allowed = Waiting(**asdict(known) | {"allowed": head.commit, "commit": head.commit})
        fact = PullAllowed(app=app.name, number=number, commit=head.commit, who=who)
        await self._events.commit(fact, store.put(store.pulls, **asdict(allowed)))
        self._pulls[app.name, number] = allowed
        self._production.moved(app)
        return await app.commit(head.commit)

    def _forget_old(self, app: App) -> list[Any]:
        old = self.of(app.name)[MOST - 1 :]
        for one in old:
            del self._pulls[one.app, one.number]
        return [store.remove(store.pulls, app=one.app, number=one.number) for one in old]
