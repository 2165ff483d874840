"""A fingerprint is the same for the same contents, and for no others."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lazycloud.data.fingerprint import fingerprint, parts

SCHEMA = """
    CREATE TABLE plain (a, b TEXT, c REAL);
    CREATE TABLE keyed (id INTEGER PRIMARY KEY, a);
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, a);
    CREATE TABLE pairs (a TEXT COLLATE NOCASE, b, c, PRIMARY KEY (b DESC, a)) WITHOUT ROWID;
    CREATE TABLE "odd ""name" ("select" TEXT, "rowid" TEXT, "a b");
    CREATE TABLE made (a INTEGER, twice AS (a * 2), thrice AS (a * 3) STORED);
    CREATE INDEX by_a ON keyed (a);
    CREATE VIEW seen AS SELECT a FROM plain;
    CREATE TRIGGER adds AFTER INSERT ON keyed BEGIN INSERT INTO counted (a) VALUES (new.a); END;
    PRAGMA user_version = 7;
    PRAGMA application_id = 77;
"""
VALUES: list[Any] = [
    None, 0, 1, -1, 2**63 - 1, -(2**63), 0.0, 1.0, 0.1, 1e300, float("inf"), -float("inf"),
    "", "1", "text", "a\0b", "ß\U0001f600", "'", b"", b"1", b"text", b"\xff\0", "x" * 10_000, b"x" * 10_000,
]  # fmt: skip


def database(*settings: str, schema: str = SCHEMA, place: Path | str = ":memory:") -> sqlite3.Connection:
    connection = sqlite3.connect(place, isolation_level=None)
    for setting in settings:
        connection.execute(f"PRAGMA {setting}")
    connection.executescript(schema)
    return connection


def fill(connection: sqlite3.Connection) -> None:
    for number, value in enumerate(VALUES):
        connection.execute("INSERT INTO plain VALUES (?, ?, ?)", (value, value, value))
        connection.execute("INSERT INTO keyed VALUES (?, ?)", (number * 10, value))
        connection.execute("INSERT INTO pairs VALUES (?, ?, ?)", (f"a{number}", value or number, value))
        connection.execute('INSERT INTO "odd ""name" VALUES (?, ?, ?)', ("s", number, value))
        connection.execute("INSERT INTO made (a) VALUES (?)", (number,))


@pytest.fixture
def filled() -> Iterator[sqlite3.Connection]:
    with closing(database()) as connection:
        fill(connection)
        yield connection


@pytest.mark.parametrize(
    "settings",
    [
        ("page_size=512",),
        ("page_size=65536", "auto_vacuum=FULL"),
        ("encoding='UTF-16le'",),
        ("encoding='UTF-16be'",),
    ],
)
def test_how_a_database_is_laid_out_makes_no_difference(
    filled: sqlite3.Connection, settings: tuple[str, ...]
) -> None:
    with closing(database(*settings)) as other:
        fill(other)
        assert parts(other, rowids=True) == parts(filled, rowids=True)


def test_a_copy_by_vacuum_or_backup_has_the_same_one(filled: sqlite3.Connection, tmp_path: Path) -> None:
    filled.execute("DELETE FROM plain WHERE rowid % 3 = 0")
    before = fingerprint(filled), fingerprint(filled, rowids=True)
    assert before[0] != before[1]
    with closing(sqlite3.connect(tmp_path / "backup")) as backup:
        filled.backup(backup)
        assert (fingerprint(backup), fingerprint(backup, rowids=True)) == before
    filled.execute("VACUUM INTO ?", [str(tmp_path / "vacuumed")])
    with closing(sqlite3.connect(tmp_path / "vacuumed")) as vacuumed:
        assert fingerprint(vacuumed) == before[0]
    filled.execute("VACUUM")
    assert fingerprint(filled) == before[0]


CHANGES = [
    "INSERT INTO plain VALUES (1, 2, 3)",
    "DELETE FROM plain WHERE rowid = 1",
    "UPDATE plain SET a = 1.0 WHERE rowid = 3",
    "UPDATE plain SET a = '1' WHERE rowid = 3",
    "UPDATE plain SET a = CAST(a AS BLOB) WHERE rowid = 15",
    "UPDATE keyed SET id = 5 WHERE id = 0",
    "UPDATE pairs SET a = upper(a) WHERE a = 'a3'",
    "UPDATE sqlite_sequence SET seq = seq + 1",
    "UPDATE made SET a = a + 1 WHERE rowid = 1",
    "PRAGMA user_version = 8",
    "PRAGMA application_id = 78",
    "DROP INDEX by_a",
    "CREATE TABLE more (a)",
    "ALTER TABLE plain ADD COLUMN d",
    "DROP VIEW seen",
    "DROP TRIGGER adds",
    'UPDATE "odd ""name" SET "rowid" = 70 WHERE "rowid" = 7',
    "UPDATE plain SET a = substr(a, 2) || 'y' WHERE typeof(a) = 'text' AND length(a) = 10000",
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_contents_changes_it(filled: sqlite3.Connection, change: str) -> None:
    before = fingerprint(filled)
    assert fingerprint(filled) == before
    filled.execute("BEGIN")
    filled.execute(change)
    assert fingerprint(filled) != before
    filled.execute("ROLLBACK")
    assert fingerprint(filled) == before


def one_value(value: Any, schema: str = "CREATE TABLE t (a)") -> str:
    with closing(database(schema=schema)) as connection:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        return fingerprint(connection)


def test_no_two_values_are_taken_for_one() -> None:
    said = [one_value(value) for value in VALUES]
    assert len(set(said)) == len(VALUES)
    assert one_value(float("nan")) == one_value(None)  # as SQLite stores it


def test_rows_and_columns_are_not_taken_for_one_another() -> None:
    def rows(*found: Iterable[Any]) -> str:
        with closing(database(schema="CREATE TABLE t (a, b)")) as connection:
            connection.executemany("INSERT INTO t VALUES (?, ?)", found)
            return fingerprint(connection)

    tried = [
        rows(("a", "b")),
        rows(("ab", "")),
        rows(("", "ab")),
        rows(("a", "b"), ("", "")),
        rows(("b", "a")),
    ]
    assert len(set(tried)) == 5


def test_a_text_that_is_no_utf_8_is_what_its_bytes_are() -> None:
    def text(value: bytes) -> str:
        with closing(database(schema="CREATE TABLE t (a)")) as connection:
            connection.execute("INSERT INTO t VALUES (CAST(? AS TEXT))", (value,))
            assert connection.execute("SELECT typeof(a) FROM t").fetchone() == ("text",)
            return fingerprint(connection)

    tried = [text(value) for value in (b"\xff", b"\xfe", b"\xed\xa0\x80", b"\xff" * 5000, b"\xfe" * 5000)]
    assert len({*tried, one_value(b"\xff"), one_value("\udcff".encode("utf-8", "surrogatepass"))}) == 7


def test_a_full_text_index_counts_by_what_it_stores(tmp_path: Path) -> None:
    def index(*texts: str) -> dict[str, str]:
        with closing(database(schema="CREATE VIRTUAL TABLE found USING fts5 (text)")) as connection:
            connection.executemany("INSERT INTO found VALUES (?)", [(text,) for text in texts])
            return parts(connection)

    one, same, other = index("lazy cloud", "b"), index("lazy cloud", "b"), index("lazy clown", "b")
    assert one == same and "table found_content" in one and "table found" not in one
    assert {name for name in one if one[name] != other[name]} >= {"table found_content", "table found_data"}


def test_what_only_the_app_knows_is_not_needed() -> None:
    """Its collations, functions and modules."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_collation("mine", lambda one, other: (one > other) - (one < other))
        connection.create_function("mine", 1, lambda value: value, deterministic=True)
        connection.executescript(
            "CREATE TABLE t (a TEXT COLLATE mine PRIMARY KEY, b);"
            "CREATE TABLE u (a TEXT COLLATE mine, b AS (mine(a)), c AS (mine(a)) STORED);"
            "CREATE INDEX i ON u (a);"
            "INSERT INTO t VALUES ('b', 1), ('a', 2); INSERT INTO u (a) VALUES ('b'), ('a')"
        )
        before, data = fingerprint(connection), connection.serialize()
        connection.execute("CREATE TABLE v (a TEXT COLLATE mine PRIMARY KEY) WITHOUT ROWID")
        unreadable = connection.serialize()
    with closing(sqlite3.connect(":memory:")) as other:
        other.deserialize(data)
        assert fingerprint(other) == before
        other.deserialize(unreadable)
        with pytest.raises(sqlite3.Error, match="no query solution"):  # SQLite itself has no way through it
            fingerprint(other)


def test_a_table_whose_columns_take_all_names_of_rowids_has_an_order() -> None:
    schema = "CREATE TABLE t (rowid, _rowid_, oid)"
    rows = [(1, 2, 3), (3, 2, 1), (None, b"x", "y")]
    said = set()
    for order in itertools.permutations(rows):
        with closing(database(schema=schema)) as connection:
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", order)
            said.add(fingerprint(connection, rowids=True))
    assert len(said) == 1


def test_the_connection_is_left_as_it_was(filled: sqlite3.Connection) -> None:
    filled.row_factory = sqlite3.Row
    filled.text_factory = bytes
    before = fingerprint(filled)
    assert filled.row_factory is sqlite3.Row and filled.text_factory is bytes and not filled.in_transaction
    filled.execute("BEGIN")
    filled.execute("DELETE FROM plain")
    assert fingerprint(filled) != before
    assert filled.in_transaction
    filled.execute("ROLLBACK")
    assert fingerprint(filled) == before


def test_it_is_of_one_moment(tmp_path: Path) -> None:
    """However many tables there are: one that another connection changes meanwhile is not seen."""
    place = tmp_path / "app.db"
    with (
        closing(database("journal_mode=WAL", place=place)) as writer,
        closing(sqlite3.connect(place)) as reader,
    ):
        fill(writer)
        before = parts(reader)

        class Meanwhile(sqlite3.Cursor):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if 'FROM "keyed"' in sql:
                    writer.execute("DELETE FROM plain")
                return super().execute(sql, *values)

        class Watched(sqlite3.Connection):
            def cursor(self, factory: Any = Meanwhile) -> Any:
                return super().cursor(factory)

        with closing(sqlite3.connect(place, factory=Watched)) as watched:
            assert parts(watched) == before
        assert parts(reader) != before
