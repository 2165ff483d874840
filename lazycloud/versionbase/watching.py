"""A client that watches a version: told what changes, part by part, and where it is up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lazycloud.versionbase import past
from lazycloud.versionbase.engine import Engine


class Watching:
    def __init__(
        self,
        engine: Engine,
        version: str,
        since: int | None,
        collection: str,
        condition: str,
        params: dict[str, Any],
    ) -> None:
        """Raises as `past.watch`."""
        loop, self._changed = asyncio.get_running_loop(), asyncio.Event()

        def woken() -> None:  # in the committing thread
            loop.call_soon_threadsafe(self._changed.set)

        self._watch = past.watch(engine, version, since, collection, condition, params, woken)
        self._told = -1

    def news(self) -> Iterator[Any]:
        """What has changed until now, and at its end `{"sequence"}`, unless that was told already."""
        self._changed.clear()
        for change in self._watch.poll():
            yield change and {**change, "at": moment(change["at"])}
        if self._watch.sequence != self._told:
            self._told = self._watch.sequence
            yield {"sequence": self._told}

    async def changed(self) -> None:
        """Wait until there may be more."""
        await self._changed.wait()

    def close(self) -> None:
        self._watch.close()


def moment(at: float) -> datetime:
    """Of a unix time."""
    return datetime.fromtimestamp(at, UTC)
