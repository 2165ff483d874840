"""What is told of data, as facts that go into JSON as they are. Pure.

A value of a row is what JSON has for it, and an object where JSON has nothing, or would need too much room:

    {"integer": "9223372036854775807"}                           beyond what a page's numbers hold exactly
    {"real": "inf"}                                              also -inf
    {"text": its beginning, "length": characters, "sha256": …}   longer than TEXT_SHOWN
    {"blob": bytes, "sha256": …}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lazycloud.data.tools.sql import normal

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
MAIN = "database.sqlite"  # the name of the database that DATABASE_URL names; others are called files/…


@dataclass(frozen=True)
class SchemaChange:
    """Of one table, index, view or trigger (`kind`). `before` and `after`: its SQL, None where it is not.

    Of kind `setting` are user_version and application_id, which an app may keep in the head of its database.
    """

    kind: str
    name: str
    change: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RowChange:
    """`before` and `after` are values by column, None where the row is not; `key` is what it is known by."""

    change: str
    key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True)
class TableDifference:
    """`before` and `after` count rows: None where the table is not, or could not be read (`note` says so).

    `rows` are the first of those that differ; `more`: there are others. `note`: what is not as one would expect.
    """

    name: str
    before: int | None
    after: int | None
    added: int = 0
    removed: int = 0
    changed: int = 0
    rows: tuple[RowChange, ...] = ()
    more: bool = False
    note: str = ""


@dataclass(frozen=True)
class DatabaseDifference:
    """Of the database at the path `name` in a version's folder. `tables`: those that differ, or were asked for.

    `noun`: what a row is called there.
    """

    name: str
    schema: tuple[SchemaChange, ...] = ()
    tables: tuple[TableDifference, ...] = ()
    note: str = ""
    noun: str = "row"


@dataclass(frozen=True)
class FileChange:
    """Of the file, or link, at `path` in a version's folder. `before` and `after`: bytes, None where it is not."""

    path: str
    change: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Difference:
    """What became of one version's data in another. `more`: there are others than the `files` that are told."""

    same: bool
    databases: tuple[DatabaseDifference, ...] = ()
    files: tuple[FileChange, ...] = ()
    more: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Difference:
        databases = tuple(
            DatabaseDifference(
                one["name"],
                tuple(SchemaChange(**each) for each in one["schema"]),
                tuple(_table_difference(each) for each in one["tables"]),
                one["note"],
                one["noun"],
            )
            for one in data["databases"]
        )
        return cls(data["same"], databases, tuple(FileChange(**each) for each in data["files"]), data["more"])


def _table_difference(data: Mapping[str, Any]) -> TableDifference:
    return TableDifference(**{**data, "rows": tuple(RowChange(**each) for each in data["rows"])})


@dataclass(frozen=True)
class Column:
    """`type` as declared. `key`: its place in the primary key from 1, 0 if it has none."""

    name: str
    type: str
    required: bool
    default: str | None
    key: int


@dataclass(frozen=True)
class TableSummary:
    """`kind`: table, virtual, shadow (a virtual table keeps its contents there) or internal (SQLite's own).

    `rows` None: they cannot be counted, and `note` says why. `bytes` with its indexes; None where nobody can tell.
    """

    name: str
    kind: str
    sql: str
    columns: tuple[Column, ...]
    rows: int | None
    bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class SchemaObject:
    """A table, index, view or trigger, with its SQL as it was written."""

    kind: str
    name: str
    sql: str


@dataclass(frozen=True)
class DatabaseSummary:
    """Of the database at the path `name` in a version's folder; `note` says why there is nothing else, if so."""

    name: str
    bytes: int
    journal_mode: str
    user_version: int
    tables: tuple[TableSummary, ...]
    schema: tuple[SchemaObject, ...]
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """A version's data without their contents. `files` and `bytes` are of what is no database in its folder."""

    databases: tuple[DatabaseSummary, ...]
    files: int
    bytes: int

    @property
    def schema(self) -> Schema:
        return Schema({one.name: one.schema for one in self.databases if one.schema})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Summary:
        return cls(tuple(map(_database_summary, data["databases"])), data["files"], data["bytes"])


def _database_summary(data: Mapping[str, Any]) -> DatabaseSummary:
    tables = tuple(
        TableSummary(**{**each, "columns": tuple(Column(**column) for column in each["columns"])})
        for each in data["tables"]
    )
    schema = tuple(SchemaObject(**each) for each in data["schema"])
    return DatabaseSummary(**{**data, "tables": tables, "schema": schema})


@dataclass(frozen=True)
class Schema:
    """The tables, indexes, views and triggers of each database of a version that has any."""

    databases: Mapping[str, tuple[SchemaObject, ...]]

    @property
    def fingerprint(self) -> str:
        """The same for the same schema, whatever its white space and the order in which it was made."""
        digest = hashlib.sha256()
        for name, objects in sorted(self.databases.items()):
            for one in sorted(objects, key=lambda one: (one.kind, one.name)):
                for part in (name, one.kind, one.name, normal(one.sql)):
                    digest.update(f"{len(part)}:{part}".encode())
        return digest.hexdigest()

    @property
    def text(self) -> str:
        """For people: SQL, tables first."""
        lines = []
        for name, objects in sorted(self.databases.items()):
            lines += [f"-- {name}"] if len(self.databases) > 1 or name != MAIN else []
            lines += [f"{one.sql.strip()};" for one in sorted(objects, key=_in_order)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {name: [asdict(one) for one in objects] for name, objects in self.databases.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        return cls({name: tuple(SchemaObject(**one) for one in objects) for name, objects in data.items()})


def schema_difference(one: Schema, other: Schema) -> list[DatabaseDifference]:
    """What became of one schema in another: the databases in which it differs, without tables' contents."""
    names = sorted({*one.databases, *other.databases})
    pairs = ((name, one.databases.get(name, ()), other.databases.get(name, ())) for name in names)
    found = (DatabaseDifference(name, tuple(changes(before, after))) for name, before, after in pairs)
    return [each for each in found if each.schema]


def changes(one: Sequence[SchemaObject], other: Sequence[SchemaObject]) -> list[SchemaChange]:
    """Tables first, each kind by name; what differs in white space only is the same."""
    before, after = ({(each.kind, each.name): each for each in objects} for objects in (one, other))
    found = []
    for key in sorted({*before, *after}, key=lambda key: (_ORDER.get(key[0], len(_ORDER)), key)):
        old, new = before.get(key), after.get(key)
        if old is None or new is None:
            change = ADDED if new else REMOVED
        elif normal(old.sql) != normal(new.sql):
            change = CHANGED
        else:
            continue
        found.append(SchemaChange(*key, change, old.sql if old else None, new.sql if new else None))
    return found


_ORDER = {"table": 0, "index": 1, "view": 2, "trigger": 3}


def _in_order(one: SchemaObject) -> tuple[int, str]:
    return _ORDER.get(one.kind, len(_ORDER)), one.name
