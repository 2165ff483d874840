"""How a container ended: the kernel says when, the engine says how.

Its first process is one of this machine, so its end is seen whatever becomes of the engine meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lazycloud.errors import StepFailed
from lazycloud.processes import Ending, Identity, ending_in_words
from lazycloud.workers.containers.copying import Copying
from lazycloud.workers.containers.daemon import Away, Daemon
from lazycloud.workers.watch import memory_reason
from lazycloud.workforce import Limits

ENGINE_PATIENCE = 5.0  # seconds for the engine to see what the kernel has told us
BY_SIGNAL = 128  # a status above it is that and a signal, as shells have it


class ContainerEnding:
    """What `processes.Ending` is for a process. `words` are to follow a name in a sentence."""

    def __init__(
        self,
        identity: Identity,
        container: str,
        daemon: Daemon,
        limits: Limits,
        copying: Copying | None = None,
    ) -> None:
        self.words = "is gone"
        self.status: int | None = None
        self._container = container
        self._daemon = daemon
        self._limits = limits
        self._copying = copying
        self._process = Ending(identity)
        self._is_started = identity.pid > 0
        self._told = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def watch(self) -> None:
        if self._is_started:
            self._process.watch()
        self._following = asyncio.create_task(self._follow(), name=f"end of container {self._container[:12]}")

    def look(self) -> bool:
        return not self._is_started or self._process.look()

    async def wait(self) -> int | None:
        """Until it has ended, and is known how as far as it can be."""
        await self._told.wait()
        return self.status

    def close(self) -> None:
        self._process.close()
        if self._copying:
            self._copying.leave()
        if self._following:
            self._following.cancel()

    async def _follow(self) -> None:
        if self._is_started:
            await self._process.wait()
        try:
            async with asyncio.timeout(ENGINE_PATIENCE):
                self.status, self.words = await self._ask()
        except (Away, TimeoutError):
            self.words = "ended with the container engine, which does not answer"
        except StepFailed:  # somebody removed it
            self.words = "is gone"
        if self._copying:
            await self._copying.end()
        self._told.set()

    async def _ask(self) -> tuple[int | None, str]:
        container = self._daemon.client.containers.container(self._container)
        async with self._daemon.asked("how a container ended"):
            await container.wait()
            state = (await container.show())["State"]
        return how_it_ended(state, self._limits)


def how_it_ended(state: dict[str, Any], limits: Limits) -> tuple[int | None, str]:
    """The status, negative for a signal, and the words, from what the engine says of a container's state."""
    status = int(state["ExitCode"])
    if state.get("Error"):
        return status, f"could not be run: {state['Error']}"
    if status > BY_SIGNAL and status - BY_SIGNAL < 65:
        status = BY_SIGNAL - status
    if state.get("OOMKilled"):
        return status, f"was ended because {memory_reason(limits)}"
    return status, ending_in_words(status)
