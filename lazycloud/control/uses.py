"""When tokens and sessions were used last: known at once, written a while later, and together."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import Table

from lazycloud.store import Store, change

COARSE = 600.0  # seconds by which what is told may be too old: a use costs no write
GATHER = 5.0  # seconds in which uses are gathered for one transaction

log = logging.getLogger(__name__)


class Uses:
    """Starts a task when there is something to write, and none otherwise."""

    def __init__(self, state: Store) -> None:
        self._store = state
        self._unwritten: dict[tuple[Table, str], dict[str, Any]] = {}
        self._writer: asyncio.Task[None] | None = None

    def is_news(self, last: float | None, now: float) -> bool:
        return last is None or now - last > COARSE

    def note(self, table: Table, key: str, **values: Any) -> None:
        self._unwritten[table, key] = values
        if self._writer is None:
            self._writer = asyncio.create_task(self._later(), name="note last uses")

    def forget(self, table: Table, key: str) -> None:
        self._unwritten.pop((table, key), None)

    async def close(self) -> None:
        """Write what is left. May be called twice."""
        if self._writer:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._write()

    async def _later(self) -> None:
        await asyncio.sleep(GATHER)
        self._writer = None
        await self._write()

    async def _write(self) -> None:
        noted, self._unwritten = self._unwritten, {}
        if not noted:
            return
        changes = [change(table, key, **values) for (table, key), values in noted.items()]
        try:
            await asyncio.to_thread(self._store.note, changes)
        except OSError as problem:
            log.warning("When tokens were used last could not be written at %.0f: %s", time.time(), problem)
