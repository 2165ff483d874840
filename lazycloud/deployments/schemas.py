"""What a release command changes in production's data, and how their schema moved since a commit was production."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lazycloud import store
from lazycloud.data import tools
from lazycloud.data.names import PRODUCTION
from lazycloud.data.tools import Summary
from lazycloud.deployments.app import App
from lazycloud.store import Store
from lazycloud.walls.sandbox import Sandbox

TOLD = 20  # changes that are said one by one
LARGE = 1_000_000_000  # bytes beside the folder: of a larger snapshot no copy is made to look at its schema
Rows = dict[tuple[str, str], int | None]  # by database and table


@dataclass(frozen=True)
class Moved:
    """What has changed since, in words, and the snapshot of what was before."""

    changes: list[str]
    snapshot: str


@dataclass(frozen=True)
class Outline:
    """Of a version's data. `beside`: how many rows there are in what it has beside its folder."""

    summary: Summary
    beside: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        return {
            (database.name, table.name): table.rows
            for database in self.summary.databases
            for table in database.tables
            if table.kind == "table"
        } | dict(self.beside)


class Schemas:
    """Data are read as copies, by processes behind `walls` where there are any."""

    def __init__(self, state: Store, walls: Sandbox | None) -> None:
        self._store = state
        self._walls = walls

    async def outline(self, app: App, version: str, at: str | None = None, beside: bool = True) -> Outline:
        """Of a version as it is now, or at a snapshot. Raises LazycloudError."""
        async with app.versions.unfolded(version, at) as place:
            counted = await app.versions.beside.outline(version, at, place) if beside else {}
            return Outline(await tools.summary(place, walls=self._walls, sizes=False), counted)

    async def moved(self, app: App, commit: str) -> Moved | None:
        """How the schema of production differs from that of the last snapshot of a commit's time as production.

        None if it does not, or there is none. Raises LazycloudError for what cannot be read.
        """
        rows = self._store.rows(store.snapshots, app=app.name, version=PRODUCTION, commit=commit)
        if not rows:
            return None
        then = max(rows, key=lambda row: row["at"])["id"]
        beside = await app.versions.beside.size(PRODUCTION, then) <= LARGE
        before = await self.outline(app, PRODUCTION, then, beside)
        after = await self.outline(app, PRODUCTION, beside=beside)
        changes = list(schema_changes(before.summary, after.summary))
        return Moved(shortened(changes), then) if changes else None


def changes(before: Outline, after: Outline) -> list[str]:
    """In words: of the schema, and of numbers of rows."""
    return shortened([*schema_changes(before.summary, after.summary), *_row_changes(before.rows, after.rows)])


def schema_changes(before: Summary, after: Summary) -> Iterator[str]:
    """In words. Of a table that changed the columns that came and went."""
    tables = _columns(before), _columns(after)
    for one in tools.schema_difference(before.schema, after.schema):
        where = "" if one.name == "database.sqlite" else f" of {one.name}"
        for change in one.schema:
            key = one.name, change.name
            had, has = (columns.get(key, {}) for columns in tables)
            columns = [f"+{name}" for name in has if name not in had]
            columns += [f"-{name}" for name in had if name not in has]
            told = change.change if change.change != "changed" or not columns else ", ".join(columns)
            yield f"{change.kind} {change.name}{where}: {told}"


def shortened(changes: list[str]) -> list[str]:
    more = len(changes) - TOLD
    return changes if more <= 0 else [*changes[:TOLD], f"and {more} more"]


def _columns(summary: Summary) -> dict[tuple[str, str], dict[str, str]]:
    return {
        (database.name, table.name): {column.name: column.type for column in table.columns}
        for database in summary.databases
        for table in database.tables
    }


def _row_changes(had: Rows, has: Rows) -> Iterator[str]:
    for key, count in has.items():
        if key in had and had[key] != count:
            yield f"rows of {key[1]}: {had[key]} → {count}"
