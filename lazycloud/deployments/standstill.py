"""A version on which nothing runs for a while, and whose requests wait: its data are being changed from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from lazycloud.deployments.deployment import Deployment
from lazycloud.errors import Conflict


class Standstills:
    """`known` are the deployments of a server; `stop` ends one and all that is under way of it."""

    def __init__(
        self,
        known: Callable[[], Iterable[Deployment]],
        stop: Callable[[Deployment], Awaitable[bool]],
        ask: Callable[[Deployment], None],
    ) -> None:
        self._known = known
        self._stop = stop
        self._ask = ask
        self._over: dict[tuple[str, str], asyncio.Event] = {}  # by app and version
        self._exempt: set[str] = set()  # ids of deployments that run all the same
        self._wanted: dict[tuple[str, str], set[str]] = {}

    def holds(self, deployment: Deployment) -> bool:
        """Whether it may not run now."""
        return _place(deployment) in self._over and deployment.id not in self._exempt

    def want(self, deployment: Deployment) -> None:
        """Somebody asked for it meanwhile: it is asked for again afterwards."""
        self._wanted.setdefault(_place(deployment), set()).add(deployment.id)

    def exempt(self, deployment: Deployment) -> None:
        """From now on this one runs, while the others stand still."""
        self._exempt.add(deployment.id)

    def is_exempt(self, deployment: Deployment) -> bool:
        return deployment.id in self._exempt

    def include(self, deployment: Deployment) -> None:
        """It stands still again, like the others; whoever exempted it stops it."""
        self._exempt.discard(deployment.id)

    async def over(self, deployment: Deployment, timeout: float) -> None:
        """Wait until it may run, so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.holds(deployment):
                    await self._over[_place(deployment)].wait()

    @asynccontextmanager
    async def of(self, app: str, version: str) -> AsyncIterator[None]:
        """Nothing runs on that version within; requests for it wait. What ran, or was wanted, is started afterwards.

        Raises Conflict while a command of somebody runs on it, or another standstill.
        """
        place = (app, version)
        ours = [one for one in self._known() if _place(one) == place]
        self._demand_free(place, ours)
        self._over[place] = asyncio.Event()
        ran = {one.id for one in ours if one.runs}
        try:
            await asyncio.gather(*map(self._stop, ours))
            for one in ours:  # also what a worker left that had ended by itself
                await one.cleared()
            yield
        finally:
            self._over.pop(place).set()
            wanted = ran | self._wanted.pop(place, set())
            again = [one for one in self._known() if _place(one) == place]
            self._exempt -= {one.id for one in again}
            for one in again:
                if one.id in wanted:
                    self._ask(one)

    def _demand_free(self, place: tuple[str, str], ours: Iterable[Deployment]) -> None:
        if place in self._over:
            raise Conflict(f"The data of {place[1][:10]} are being changed already.", "Wait for that to end.")
        if any(one.errands for one in ours):
            raise Conflict(
                f"A command that somebody started with `lazycloud run` uses the data of {place[1][:10]}.",
                "Wait for it to end, or end it.",
            )


def _place(deployment: Deployment) -> tuple[str, str]:
    return deployment.key.app, deployment.key.version
