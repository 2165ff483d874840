"""What became of documents, told as the rows of tables are: a collection is a table, and its members are columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lazycloud.data.tools.shapes import (
    ADDED,
    CHANGED,
    REMOVED,
    DatabaseDifference,
    RowChange,
    TableDifference,
)
from lazycloud.data.tools.values import as_json, shortened
from lazycloud.data.versionbase import NAME, Versionbase
from lazycloud.versionbase.values import to_json

if TYPE_CHECKING:
    from lazycloud.versionbase.client import Database

LOOKED = 100_000  # documents that differ and are counted, at most
TEXT = 1000  # characters of a value that are told
LONG = 600.0  # seconds

Point = tuple[str, str | None]
"""A version, and its snapshot or None for it as it is now."""


async def difference(
    base: Versionbase, one: Point, other: Point, collection: str = "", rows: int = 0
) -> DatabaseDifference | None:
    """None if nothing does. Costs what differs; `rows` of each collection are told. Raises StepFailed."""
    found: dict[str, _Tally] = {}
    looked, note = 0, ""
    async with base.talk() as database:
        before, after = (base.moment(*point) for point in (one, other))
        changes = database.diff(before, after, collection=collection or None, timeout=LONG)
        async for change in changes:
            if looked == LOOKED:
                note = f"More than {LOOKED:,} documents differ: the rest was not looked at."
                break
            looked += 1
            found.setdefault(change.collection, _Tally(rows)).add(change.key, change.old, change.new)
        if not found:
            return None
        counts = [await _counts(database, moment) for moment in (before, after)]
    tables = tuple(
        tally.told(name, *(each.get(name) for each in counts)) for name, tally in sorted(found.items())
    )
    return DatabaseDifference(NAME, tables=tables, note=note, noun="document")


async def _counts(database: Database, moment: str) -> dict[str, int]:
    return {one["name"]: one["documents"] for one in await database.at(moment).collections()}


class _Tally:
    """What is known of one collection."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._told: list[RowChange] = []
        self._numbers = {ADDED: 0, REMOVED: 0, CHANGED: 0}

    def add(self, key: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        change = ADDED if old is None else REMOVED if new is None else CHANGED
        self._numbers[change] += 1
        if len(self._told) < self._rows:
            self._told.append(RowChange(change, {"key": key}, _shown(old), _shown(new)))

    def told(self, name: str, before: int | None, after: int | None) -> TableDifference:
        more = sum(self._numbers.values()) > len(self._told)
        return TableDifference(
            name,
            before,
            after,
            added=self._numbers[ADDED],
            removed=self._numbers[REMOVED],
            changed=self._numbers[CHANGED],
            rows=tuple(self._told),
            more=more and bool(self._rows),
        )


def _shown(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """As `tools.shapes` has values; what is no number, text or bool is JSON."""
    return None if document is None else {name: _value(value) for name, value in document.items()}


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return as_json(value)
    return shortened(
        value if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False), TEXT
    )
