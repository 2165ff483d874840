"""Waits until a worker in a container is ready.

Its network is its own, so that whoever listens there is the app: /proc tells it, and where it is not to be read,
a connection does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lazycloud.processes import Output
from lazycloud.workers.containers.ending import ContainerEnding
from lazycloud.workers.listeners import Listener, listed
from lazycloud.workers.readiness import Readiness
from lazycloud.workers.record import Record

CONNECT_PATIENCE = 1.0  # seconds
NAME_SERVER = "127.0.0.11"  # the engine's own listens there, in each container's network


class ContainerReadiness(Readiness):
    """`port` is the one that the app was given."""

    longest_pause = 0.02  # a look through /proc/net/tcp takes milliseconds
    host_given = "0.0.0.0"  # noqa: S104 - of the container's own network

    def __init__(
        self, record: Record, ending: ContainerEnding, say: Output, how: Callable[[int | None], str]
    ) -> None:
        super().__init__(record, ending, say, how)
        self._net = Path(f"/proc/{record.pid}/net")

    async def _look(self) -> str | None:
        await self._demand_alive()
        try:
            found = list(listed(self._net))
        except OSError:
            return self._record.address if await self._accepts() else None
        if any(one.port == self._record.port and one.host.is_unspecified for one in found):
            return self._record.address
        self._judge_elsewhere(found)
        return None

    def _judge_elsewhere(self, found: Sequence[Listener]) -> None:
        self._elsewhere = [one for one in found if str(one.host) != NAME_SERVER]
        self._be_patient_elsewhere()

    async def _accepts(self) -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_PATIENCE):
                _, writer = await asyncio.open_connection(self._record.host, self._record.port)
                writer.close()
                return True
        return False

    def _strangers(self) -> bool:
        return False
