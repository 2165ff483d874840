"""Commands that people run once in a deployment's release, environment and data: while they wait, and no longer.

No state of the deployment changes. What is missing is made first: the release in its turn, as for a deploy, and the
data as a fork. A command that runs keeps the folders that it uses on the disk.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from lazycloud import trees
from lazycloud.config import Config
from lazycloud.deployments.deploy import Deploy
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Busy, Conflict, StepFailed
from lazycloud.events import CommandEnded, CommandStarted, EventLog
from lazycloud.processes import ending_in_words
from lazycloud.workers.errand import Errand, Terminal
from lazycloud.workers.worker import Launch

Adjust = Callable[[Launch], Launch]

MOST = 32  # at a time: each may hold some megabytes of what nobody has read yet
SHOWN = 200  # characters of a command in the log


def _as_it_is(launch: Launch) -> Launch:
    return launch


class Errands:
    """Started by `begin`; those that are left are ended by `close`."""

    def __init__(self, config: Config, fleet: Fleet, events: EventLog) -> None:
        self._config = config
        self._fleet = fleet
        self._events = events
        self._running: dict[str, Errand] = {}
        self._waiting = 0
        self._endings: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def begin(
        self,
        deployment: Deployment,
        command: str,
        terminal: Terminal | None,
        who: str,
        told: str = "",
        adjust: Adjust = _as_it_is,
    ) -> AsyncIterator[Errand]:
        """A command that runs as long as the block at most. Raises Busy, Conflict, and what makes a build fail.

        `told`: what the log calls it; `adjust`: what is otherwise than where workers run, which may raise, too.
        """
        if len(self._running) + self._waiting >= MOST:
            raise Busy(f"{MOST} commands run already.", "Try again when one has ended.")
        name = f"{deployment.id}.run.{secrets.token_hex(4)}"
        scratch = self._config.scratch_folder(name)
        self._waiting += 1
        try:
            deploy = await self._fleet.deploy_of(deployment, scratch)
            await self._build(deploy)
            errand = await self._start(deploy, name, command, terminal, adjust)
        except BaseException as problem:
            self._forget(deployment, name, scratch)
            if isinstance(problem, OSError):
                raise StepFailed(f"The machine could not do it: {problem}.") from problem
            raise
        finally:
            self._waiting -= 1
        began = self._tell_start(deployment, told or command, who)
        try:
            yield errand
        finally:
            ending = asyncio.create_task(self._end(deployment, name, scratch, began), name=f"end {name}")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            await asyncio.shield(ending)

    async def close(self) -> None:
        """A command does not outlive control."""
        await asyncio.gather(*(errand.end() for errand in self._running.values()), return_exceptions=True)
        await asyncio.gather(*self._endings, return_exceptions=True)

    async def _build(self, deploy: Deploy) -> None:
        """In the queue, unless it is there. A deployment that failed later than that stays as it is."""
        deployment = deploy.deployment
        if await deploy.is_built():
            return
        await deployment.settled()
        self._fleet.ask(deployment, retry=True, only_build=True)
        await deployment.settled()
        if not await deploy.is_built():
            failure = deployment.failure
            if failure is None:
                raise StepFailed(f"{deployment.key.commit[:10]} was not built: somebody stopped that.")
            raise StepFailed(failure.sentence, failure.advice, failure.last)

    async def _start(
        self, deploy: Deploy, name: str, command: str, terminal: Terminal | None, adjust: Adjust
    ) -> Errand:
        launch = adjust(await deploy.beside(name))
        if self._fleet.standstills.holds(deploy.deployment):  # which began before it was noted as one
            raise Conflict("Its data are being changed just now.", "Try again in a moment.")
        errand = self._running[name] = await deploy.engine.spawn(launch, command, terminal)
        return errand

    async def _end(self, deployment: Deployment, name: str, scratch: Path, began: float) -> None:
        errand = self._running[name]
        try:
            await errand.end()
            status = await errand.ended()
            errand.close()
            self._events.append(
                CommandEnded(
                    app=deployment.key.app,
                    deployment=deployment.id,
                    how=ending_in_words(status),
                    seconds=time.monotonic() - began,
                )
            )
        finally:
            self._forget(deployment, name, scratch)

    def _forget(self, deployment: Deployment, name: str, scratch: Path) -> None:
        self._running.pop(name, None)
        deployment.errands.pop(name, None)
        self._fleet.let_servers_rest(deployment)
        trees.remove(scratch)

    def _tell_start(self, deployment: Deployment, command: str, who: str) -> float:
        shown = command if len(command) <= SHOWN else f"{command[:SHOWN]}…"
        started = CommandStarted(app=deployment.key.app, deployment=deployment.id, command=shown, who=who)
        self._events.append(started)
        return time.monotonic()
