"""The rows of one table in two databases, compared.

Most rows of a fork are what they were, at the rowid they had. So SQLite is asked for the others first: the rows of
each side that have no identical row at the same place on the other. These come sorted by their key, and are merged
here. No index is used, which might not hold what its table does; nor does a table that is broken ever look the same.
Neither side is ever held in memory. Measured (seconds of processor for a million rows of 120 bytes, 100 changed): 0.8
in this way, 1.7 by a merge of all rows in Python, 2.3 by EXCEPT in each direction, which knows no keys.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lazycloud.data.tools.database import Table, explained
from lazycloud.data.tools.shapes import ADDED, CHANGED, REMOVED
from lazycloud.data.tools.sql import quoted
from lazycloud.data.tools.values import Big

BIG = 1_000_000  # bytes of a blob that is read in pieces, where rows are too large to be read at once
PIECE = 1 << 20
ORDER = "lazycloud_order"  # a collation: texts by their UTF-8, where SQLite's own goes by another encoding

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Side:
    """A table in a database that is called `schema` (main, or what it was attached as) in a connection."""

    connection: sqlite3.Connection
    schema: str
    table: Table

    @property
    def source(self) -> str:
        return f"{self.schema}.{quoted(self.table.name)}"


@dataclass(frozen=True)
class Matching:
    """How rows of two tables are known to be each other's: by `key`, columns of both; by rowid if that is empty.

    `common` are the columns that both have, by which they are the same or not.
    """

    key: tuple[str, ...]
    common: tuple[str, ...]

    @classmethod
    def of(cls, one: Table, other: Table) -> Matching:
        """By the primary key, of the newer if they differ; by rowid where there is none; else by all columns."""
        common = tuple(name for name in one.names if name in other.names)
        for table in (other, one):
            if table.key and set(table.key) <= set(common):
                return cls(table.key, common)
        return cls(() if one.rowid and other.rowid else common, common)


@dataclass(frozen=True)
class Found:
    """A difference. `key`, and rows by the columns of their own tables; None where there is none."""

    change: str
    key: Row
    before: Row | None
    after: Row | None


class Rows:
    """The differences between two tables, or all rows of one alone.

    `joined`: both are of one connection, and can be asked of each other. `plain`: texts of both are UTF-8.
    `careful`: rows may be of any size.
    """

    def __init__(
        self, one: Side | None, other: Side | None, joined: bool, plain: bool, careful: bool = False
    ) -> None:
        tables = [side.table for side in (one, other) if side]
        self.matching = Matching.of(tables[0], tables[-1])
        self._one, self._other = one, other
        self._joined, self._plain, self._careful = joined, plain, careful
        sizes = len(self.matching.key) or 1
        self._key = slice(0, sizes)
        self._common = slice(sizes, sizes + len(self.matching.common))

    @property
    def key(self) -> tuple[str, ...]:
        """What the values of a key are called."""
        return self.matching.key or ("rowid",)

    @property
    def is_whole(self) -> bool:
        """Whether rows are known by nothing but all that they hold."""
        keyed = any(side.table.key for side in (self._one, self._other) if side)
        return self.matching.key == self.matching.common and not keyed

    @property
    def before(self) -> tuple[str, ...]:
        """The columns of rows as they were."""
        return self._one.table.names if self._one else ()

    @property
    def after(self) -> tuple[str, ...]:
        return self._other.table.names if self._other else ()

    def differences(self) -> Iterator[Found]:
        """In the order of their keys. Raises sqlite3's errors: DataError for a row that is too large at once."""
        before = self._others(self._one, self._other)
        after = self._others(self._other, self._one)
        for old, new in _merged(before, after, self._key):
            if old is None or new is None:
                change = REMOVED if old else ADDED
            elif self._same(old[self._common], new[self._common]):
                continue
            else:
                change = CHANGED
            key = (old or new or ())[self._key]
            yield Found(change, key, self._own(old, self._one), self._own(new, self._other))

    def _same(self, old: Row, new: Row) -> bool:
        if old != new:
            return False
        return all(type(old[at]) is type(new[at]) for at in self._typed)

    @cached_property
    def _typed(self) -> list[int]:
        """Columns in which 1 and 1.0 are two things: nothing converts what is stored there."""
        sides = [side for side in (self._one, self._other) if side]
        loose = {one.name for side in sides for one in side.table.columns if _is_loose(one.type)}
        return [at for at, name in enumerate(self.matching.common) if name in loose]

    def _own(self, row: Row | None, side: Side | None) -> Row | None:
        """The values in the order of the table's columns."""
        if row is None or side is None:
            return None
        fetched = dict(zip(self._names(side), row[self._common.start :], strict=True))
        return tuple(fetched[name] for name in side.table.names)

    def _names(self, side: Side) -> list[str]:
        """What is fetched after the key: first what both have."""
        extra = [name for name in side.table.names if name not in self.matching.common]
        return [*self.matching.common, *extra]

    def _others(self, here: Side | None, there: Side | None) -> Iterator[Row]:
        """Rows of one side that have no identical one at their place on the other, sorted by their key."""
        if here is None:
            return iter(())
        key = [_of("a", name) for name in self.matching.key] or [f"a.{here.table.rowid}"]
        order = [f"{one} COLLATE {'BINARY' if self._plain else ORDER}" for one in key]
        order += [f"a.{here.table.rowid}"] if here.table.rowid else []  # a key need not be unique
        values = [_of("a", name) for name in self._names(here)]
        fetch = [*key, *values]
        reads_pieces = self._careful and bool(here.table.rowid)
        if reads_pieces:
            fetch = [*key, *(f"CASE WHEN {_is_big(one)} THEN NULL ELSE {one} END" for one in values)]
            fetch += [f"CASE WHEN {_is_big(one)} THEN 1 END" for one in values] + [f"a.{here.table.rowid}"]
        query = (
            f"SELECT {', '.join(fetch)} FROM {here.source} AS a NOT INDEXED {self._unlike(here, there)}"  # noqa: S608
            f" ORDER BY {', '.join(order)}"
        )
        cursor = here.connection.execute(query)
        return self._pieced(cursor, here, len(key), len(values)) if reads_pieces else cursor

    def _unlike(self, here: Side, there: Side | None) -> str:
        """The part of a query that leaves out rows to which there is an identical one; all are left without."""
        place, missing = self._place(here.table, there.table) if there else ("", "")
        if not self._joined or not there or not place:
            return ""
        loose = {self.matching.common[at] for at in self._typed}
        differs = [f"{missing} IS NULL"]
        for name in self.matching.common:
            mine, theirs = _of("a", name), _of("b", name)
            if self._careful:
                differs += [_is_big(mine), _is_big(theirs)]
            if name in loose:
                differs.append(f"typeof({mine}) IS NOT typeof({theirs})")
            differs.append(f"+{mine} COLLATE BINARY IS NOT +{theirs}")
        return f"LEFT JOIN {there.source} AS b ON {place} WHERE {' OR '.join(differs)}"

    def _place(self, here: Table, there: Table) -> tuple[str, str]:
        """Where the same row is looked for first, and what is null if there is none; "" if there is no such place.

        The same in both directions: a row may only be left out together with its like.
        """
        if here.rowid and there.rowid:
            return f"b.{there.rowid} = a.{here.rowid}", f"b.{there.rowid}"
        if here.rowid or there.rowid or here.is_odd or there.is_odd:
            return "", ""
        if there.key and set(here.key) == set(there.key) == set(self.matching.key):
            same = " AND ".join(f"{_of('b', name)} = {_of('a', name)}" for name in there.key)
            return same, _of("b", there.key[0])
        return "", ""

    def _pieced(self, rows: Iterator[Row], side: Side, keys: int, values: int) -> Iterator[Row]:
        """Rows whose large blobs were left out: their digests are put in."""
        names = self._names(side)
        for row in rows:
            *fetched, rowid = row
            for at in range(values):
                if fetched[keys + values + at]:
                    fetched[keys + at] = _digest(side, names[at], rowid)
            yield tuple(fetched[: keys + values])


def _merged(one: Iterator[Row], other: Iterator[Row], key: slice) -> Iterator[tuple[Row | None, Row | None]]:
    """Pairs of rows with equal keys, and rows of one side alone, of two sides that are sorted."""
    old, new = next(one, None), next(other, None)
    while old is not None and new is not None:
        left, right = old[key], new[key]
        if left == right or (before := _rank(left)) == (after := _rank(right)):
            yield old, new
            old, new = next(one, None), next(other, None)
        elif before < after:
            yield old, None
            old = next(one, None)
        else:
            yield None, new
            new = next(other, None)
    while old is not None:
        yield old, None
        old = next(one, None)
    while new is not None:
        yield None, new
        new = next(other, None)


def _rank(key: Row) -> list[tuple[int, Any]]:
    """Sorts as SQLite does: nothing, numbers, texts by their bytes, blobs."""
    return [_rank_of(value) for value in key]


def _rank_of(value: Any) -> tuple[int, Any]:
    match value:
        case None:
            return 0, 0
        case str():
            return 2, value.encode("utf-8", "surrogateescape")
        case bytes():
            return 3, value
        case _:
            return 1, value


def _digest(side: Side, column: str, rowid: int) -> Big:
    digest = hashlib.sha256()
    with (
        explained(),
        side.connection.blobopen(side.table.name, column, rowid, readonly=True, name=side.schema) as blob,
    ):
        while piece := blob.read(PIECE):
            digest.update(piece)
        return Big(len(blob), digest.hexdigest())


def _of(side: str, column: str) -> str:
    return f"{side}.{quoted(column)}"


def _is_big(value: str) -> str:
    """Asked without reading it."""
    return f"(typeof({value}) = 'blob' AND length({value}) > {BIG})"


def _is_loose(declared: str) -> bool:
    """Whether a column of that type keeps numbers as they come: see SQLite's rules of affinity."""
    upper = declared.upper()
    if "INT" in upper or any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return False
    return not upper or "BLOB" in upper or upper == "ANY"
