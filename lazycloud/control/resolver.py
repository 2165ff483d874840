"""Host -> deployment -> route; asks the fleet for what is not up, and holds those who can wait."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lazycloud import hosts
from lazycloud.build.commit import Commit
from lazycloud.config import Config
from lazycloud.control.link import Answer, Ask
from lazycloud.data.names import PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import LazycloudError, NotFound
from lazycloud.hosts import Kind, Place
from lazycloud.states import State

NOTHING_THERE = (
    1.0  # seconds for which a router believes it: git is not asked more often, and a new branch is there soon
)
SEEN = 2.0  # seconds in which the end of a worker is seen, at most
KNOWN_MOST = 2000  # labels of commits; some 1 MB


@dataclass(frozen=True)
class Found:
    """What a host names, when it names something that can run."""

    place: Place
    app: App
    commit: Commit
    deployment: Deployment
    moves: int  # how often branches and tags of the app had moved when this was found


class Resolver:
    def __init__(self, config: Config, fleet: Fleet) -> None:
        self.is_open: Callable[[str], bool] = lambda app: not config.previews_need_login  # an app's previews
        self._config = config
        self._fleet = fleet
        self._held: Counter[str] = Counter()  # by app
        self._known: OrderedDict[tuple[str, str, int], Commit] = OrderedDict()
        self._looking: dict[tuple[str, str, int], asyncio.Task[Commit]] = {}
        self._moves: dict[str, int] = {}
        self._named: dict[str, set[str]] = {}  # app -> hosts kept by routers whose label is no commit id

    def place(self, host: str) -> Place:
        domains = {app.name: app.domain for app in self._fleet.apps.values()}
        return hosts.find(host, self._config.domain, domains)

    def app(self, name: str) -> App:
        """Raises NotFound."""
        return self._fleet.app(name)

    def apps(self) -> dict[str, Any]:
        """For the routers, which are to be fair between apps."""
        own = {app.name: app.domain for app in self._fleet.apps.values()}
        return {"apps": own, "domain": self._config.domain}

    def needs_login(self, place: Place) -> bool:
        return place.kind is Kind.LABEL and not self.is_open(place.app)

    async def find(self, place: Place) -> Found:
        """The deployment that a place means; does no work. Raises NotFound, Ambiguous."""
        app = self._fleet.app(place.app)
        if place.kind is Kind.PRODUCTION:
            if not app.production:
                raise NotFound(
                    f"{app.name} has no production yet: its repository has no commit.",
                    "Commit something, then `lazycloud promote HEAD`.",
                )
            commit = await app.named(app.production)
            return Found(place, app, commit, self._fleet.get(app, commit.id, PRODUCTION), 0)
        moves = self._moves.get(app.name, 0)
        commit = await self._labelled(app, place.label)
        return Found(place, app, commit, self._fleet.get(app, commit.id), moves)

    async def resolve(self, ask: Ask) -> Answer:
        """Answer a router: at once for a page view, else when the worker is ready, or will not be."""
        place = self.place(ask.host)
        if place.kind is Kind.CONTROL:
            return Answer.control("page", keep=True)
        if place.kind in (Kind.UNKNOWN, Kind.INVALID):
            return Answer.control("page", NOTHING_THERE)
        if self.needs_login(place) and not ask.login:
            return Answer.control("login")
        try:
            found = await self.find(place)
        except LazycloudError:
            # Who may not see it is not to be told either, and production is there as soon as something is promoted.
            shared = place.kind is Kind.LABEL and not self.needs_login(place)
            return Answer.control("page", NOTHING_THERE if shared else False)
        if ask.dead and (seeing := self._fleet.suspect(found.deployment, ask.dead)):
            await asyncio.wait(seeing, timeout=SEEN)  # else that address is the answer once more
        if self._fleet.standstills.holds(found.deployment):
            if not await self._wait_for_standstill(found):
                return Answer.control("busy")
            found = await self.find(place)  # production may be another commit by now
        deployment = found.deployment
        if deployment.addresses:
            return self._to_worker(ask.host, found, deployment.addresses)
        if ask.intent == "robot" and not deployment.is_deploying:
            return Answer.control("robot")
        self._fleet.ask(deployment)
        if ask.intent == "navigate":
            return Answer.control("landing")
        return await self._hold(ask.host, found)

    def refused(self, deployment_id: str, address: str) -> None:
        """A router found nobody at an address, and has gone to another worker of the deployment."""
        with suppress(LazycloudError):
            self._fleet.suspect(self._fleet.find(deployment_id), address)

    def moved(self, app: App) -> list[str]:
        """The hosts that routers may keep although a branch or tag of the app is elsewhere now."""
        self._moves[app.name] = self._moves.get(app.name, 0) + 1
        return sorted(self._named.pop(app.name, ()))

    def _to_worker(self, host: str, found: Found, addresses: Sequence[str]) -> Answer:
        """Kept by the router until it is told to forget: so it must be true, and known to whom it was told."""
        place, app, deployment = found.place, found.app, found.deployment
        keep = place.kind is Kind.LABEL or self._fleet.is_production(deployment)
        if place.kind is Kind.LABEL and not deployment.key.commit.startswith(place.label):
            keep = found.moves == self._moves.get(app.name, 0)
            self._named.setdefault(app.name, set()).add(host)
        return Answer.worker(deployment.id, addresses, self.needs_login(place), keep)

    async def _wait_for_standstill(self, found: Found) -> bool:
        """False if too many wait already."""
        app = found.app.name
        if self._is_full(app):
            return False
        self._held[app] += 1
        try:
            await self._fleet.standstills.over(found.deployment, self._config.hold_timeout)
        finally:
            self._held[app] -= 1
        return True

    def _is_full(self, app: str) -> bool:
        return self._held.total() >= self._config.held_max or self._held[app] >= self._config.held_app_max

    async def _hold(self, host: str, found: Found) -> Answer:
        deployment, app = found.deployment, found.app.name
        if self._is_full(app):
            return Answer.control("busy")
        self._held[app] += 1
        try:
            await self._fleet.running(deployment, self._config.hold_timeout)
        finally:
            self._held[app] -= 1
        if deployment.addresses:
            return self._to_worker(host, found, deployment.addresses)
        return Answer.control("failed" if deployment.state is State.FAILED else "late")

    def expect(self, app: App, commit: Commit) -> None:
        """Its address was told to somebody: look for it before it is asked for."""
        self._look(app, commit.short)

    async def _labelled(self, app: App, label: str) -> Commit:
        """Fifty requests for one label ask git once; and so do later ones for a commit's id, till a ref moves."""
        if known := self._known.get((app.name, label, self._moves.get(app.name, 0))):
            return known
        return await asyncio.shield(self._look(app, label))

    def _look(self, app: App, label: str) -> asyncio.Task[Commit]:
        key = (app.name, label, self._moves.get(app.name, 0))
        task = self._looking.get(key)
        if task is None:
            task = self._looking[key] = asyncio.create_task(
                app.labelled(label), name=f"look for {label[:64]}"
            )
            task.add_done_callback(lambda done: self._looked(key, done))
        return task

    def _looked(self, key: tuple[str, str, int], task: asyncio.Task[Commit]) -> None:
        self._looking.pop(key, None)
        if not task.cancelled() and not task.exception() and task.result().id.startswith(key[1]):
            self._known[key] = task.result()
            if len(self._known) > KNOWN_MOST:
                self._known.popitem(last=False)
