"""How many workers a deployment is to have, of which kinds, and that it has them.

What the commit says counts, unless somebody said otherwise (`scale`). What requests do not go to runs for
production only, and never twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from lazycloud import store
from lazycloud.build.plan import Plan
from lazycloud.build.settings import WORKERS_MOST
from lazycloud.deployments.app import App
from lazycloud.deployments.crew import Crew
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.post import WEB, names
from lazycloud.errors import BadInput
from lazycloud.events import EventLog, Scaled
from lazycloud.states import State
from lazycloud.store import Store

MOVED_ON = "was stopped: production moved on"


class Staffing:
    """For the deployments of `apps`, by name. `production` is the deployment that an app's pointer stands at."""

    def __init__(
        self,
        events: EventLog,
        state: Store,
        apps: Mapping[str, App],
        known: Callable[[], Iterable[Deployment]],
        production: Callable[[App], Deployment | None],
        crew: Callable[[Deployment], Crew],
    ) -> None:
        self._events = events
        self._store = state
        self._apps = apps
        self._known = known
        self._production = production
        self._crew = crew
        self._handing_over: dict[str, asyncio.Lock] = {}  # by app

    async def scale(self, deployment: Deployment, counts: Mapping[str, int]) -> dict[str, int]:
        """Have so many workers of some kinds from now on, whatever the commit says; the counts of all kinds.

        Production's stay with production, whichever commit that is. Raises BadInput.
        """
        plan = await self._plan(deployment)
        known = {WEB, *plan.background}
        for kind, count in counts.items():
            if kind not in known:
                raise BadInput(
                    f"This commit has no process “{kind[:40]}”.", f"It has: {', '.join(sorted(known))}."
                )
            least = int(kind == WEB)
            if not least <= count <= WORKERS_MOST:
                raise BadInput(f"{kind}={count} cannot be.", f"Give a number from {least} to {WORKERS_MOST}.")
        key = deployment.key
        for kind, count in counts.items():
            scaled = Scaled(app=key.app, deployment=deployment.id, process=kind, count=count)
            self._events.append(
                scaled,
                store.put(store.scales, app=key.app, version=key.version, process=kind, count=count),
            )
        await self._events.flush()
        if deployment.state is State.READY:
            await self.fill(deployment)
        return self.counts(deployment, plan)

    async def hand_over(self, app: App) -> None:
        """The pointer has moved: what only production runs ends where it was, and then begins where it is."""
        async with self._handing_over.setdefault(app.name, asyncio.Lock()):
            ours = [one for one in self._known() if one.key.app == app.name and one.key.is_production]
            others = [one for one in ours if one is not self._production(app)]
            await asyncio.gather(*(self._crew(one).dismiss(MOVED_ON, web=False) for one in others))
        if deployment := self._production(app):
            await self._bring_to_number(deployment)

    def counts(self, deployment: Deployment, plan: Plan) -> dict[str, int]:
        """How many workers of each kind it is to have."""
        key = deployment.key
        rows = self._store.rows(store.scales, app=key.app, version=key.version)
        told = {row["process"]: row["count"] for row in rows}
        counts = {WEB: told.get(WEB, plan.workers)}
        for kind in plan.background:
            usual = 1 if self._is_production(deployment) else 0
            only_one = key.is_production and not usual  # on production's data, but not production
            counts[kind] = 0 if only_one else told.get(kind, usual)
        return counts

    async def _plan(self, deployment: Deployment) -> Plan:
        app = self._apps[deployment.key.app]
        return await app.plan(await app.commit(deployment.key.commit))

    async def fill(self, deployment: Deployment) -> None:
        """As many workers as it is to have, also of those that requests do not go to."""
        if self._is_production(deployment):
            await self.hand_over(self._apps[deployment.key.app])
        else:
            await self._bring_to_number(deployment)

    async def _bring_to_number(self, deployment: Deployment) -> None:
        """Production may move on meanwhile, so that other numbers hold: they are looked up when they count."""
        if deployment.state is State.READY:
            plan = await self._plan(deployment)
            await self._crew(deployment).staff(lambda: names(self.counts(deployment, plan)))

    def _is_production(self, deployment: Deployment) -> bool:
        return self._production(self._apps[deployment.key.app]) is deployment
