"""What became of one version's data in another."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazycloud.data.tools.comparing import compare
from lazycloud.data.tools.shapes import Difference, TableDifference

from .folders import insert, version

NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"


def told(one: Path, other: Path, table: str = "", rows: int = 100) -> Difference:
    difference = compare(one, other, table, rows)
    assert Difference.from_dict(json.loads(json.dumps(difference.as_dict()))) == difference
    return difference


def only_table(difference: Difference) -> TableDifference:
    (database,) = difference.databases
    (table,) = database.tables
    return table


def counts(table: TableDifference) -> tuple[int | None, int | None, int, int, int]:
    return table.before, table.after, table.added, table.removed, table.changed


def test_what_is_the_same_is_told_as_such(tmp_path: Path) -> None:
    places = [version(tmp_path / name, NOTES, "INSERT INTO notes VALUES (1, 'one')") for name in "ab"]
    version(places[1], "VACUUM", "PRAGMA user_version=0", "CREATE TABLE gone (a)", "DROP TABLE gone")
    assert told(*places) == Difference(same=True)
    assert told(*places, table="notes").databases[0].tables == (TableDifference("notes", 1, 1),)


def test_rows_that_came_went_and_changed_are_told_by_their_key(tmp_path: Path) -> None:
    rows = "INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, 'three')"
    one, other = version(tmp_path / "a", NOTES, rows), version(tmp_path / "b", NOTES, rows)
    version(other, "DELETE FROM notes WHERE id = 1", "UPDATE notes SET text = 'zwei' WHERE id = 2")
    version(other, "INSERT INTO notes VALUES (9, 'nine')")
    table = only_table(told(one, other))
    assert counts(table) == (3, 3, 1, 1, 1)
    assert [row.__dict__ for row in table.rows] == [
        {"change": "removed", "key": {"id": 1}, "before": {"id": 1, "text": "one"}, "after": None},
        {
            "change": "changed",
            "key": {"id": 2},
            "before": {"id": 2, "text": "two"},
            "after": {"id": 2, "text": "zwei"},
        },
        {"change": "added", "key": {"id": 9}, "before": None, "after": {"id": 9, "text": "nine"}},
    ]


def test_the_dictionary_has_the_agreed_names(tmp_path: Path) -> None:
    one = version(tmp_path / "a", NOTES)
    other = version(tmp_path / "b", NOTES, "INSERT INTO notes VALUES (1, 'one')", "CREATE VIEW v AS SELECT 1")
    (other / "files" / "a.txt").write_text("text")
    data = told(one, other).as_dict()
    assert set(data) == {"same", "databases", "files", "more"}
    (database,) = data["databases"]
    assert set(database) == {"name", "schema", "tables", "note", "noun"}
    assert database["schema"] == (
        {
            "kind": "view",
            "name": "v",
            "change": "added",
            "before": None,
            "after": "CREATE VIEW v AS SELECT 1",
        },
    )
    (table,) = database["tables"]
    assert set(table) == {"name", "before", "after", "added", "removed", "changed", "rows", "more", "note"}
    assert data["files"] == ({"path": "files/a.txt", "change": "added", "before": None, "after": 4},)


def test_no_more_rows_are_told_than_asked_for_but_all_are_counted(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES)
    insert(other, "notes", [(number, "text") for number in range(500)])
    table = only_table(told(one, other, rows=3))
    assert (table.added, len(table.rows), table.more) == (500, 3, True)
    table = only_table(told(one, other, rows=0))
    assert (table.added, table.rows, table.more) == (500, (), True)


@pytest.mark.parametrize(
    ("schema", "key"),
    [
        ("CREATE TABLE t (a TEXT, b TEXT, c)", ["rowid"]),
        ("CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT, c)", ["a"]),
        ("CREATE TABLE t (a TEXT, b TEXT, c, PRIMARY KEY (b, a))", ["b", "a"]),
        ("CREATE TABLE t (a TEXT, b TEXT, c, PRIMARY KEY (b, a)) WITHOUT ROWID", ["b", "a"]),
        ("CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b TEXT, c) WITHOUT ROWID", ["a"]),
        ("CREATE TABLE t (rowid TEXT, b TEXT, c)", ["rowid"]),
        ('CREATE TABLE t (rowid TEXT, oid TEXT, "_rowid_")', ["rowid", "oid", "_rowid_"]),
    ],
)
def test_rows_are_known_by_the_key_of_their_table(tmp_path: Path, schema: str, key: list[str]) -> None:
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    insert(one, "t", [("x", "1", None), ("Y", "2", 3), ("é", "3", b"b"), ("z", "4", 1)])
    insert(other, "t", [("x", "1", None), ("Y", "2", 4), ("é", "3", b"b"), ("z", "4", 1.0), ("q", "0", 0)])
    table = only_table(told(one, other))
    assert all(list(row.key) == key for row in table.rows)
    if len(key) == 3:
        assert counts(table) == (4, 5, 2, 1, 1)  # all of a row is its key, and 1 = 1.0 as a key
    else:
        assert counts(table) == (4, 5, 1, 0, 2)  # 1 is not 1.0 where nothing converts it


def test_a_table_that_was_built_again_with_other_rowids_is_compared_by_its_key(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (name TEXT PRIMARY KEY, value INTEGER)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    rows = [(f"name {number}", number) for number in range(1000)]
    insert(one, "t", rows)
    insert(other, "t", [*reversed(rows[:500]), ("new", 1), *rows[501:]])
    table = only_table(told(one, other))
    assert counts(table) == (1000, 1000, 1, 1, 0)
    assert [row.key for row in table.rows] == [{"name": "name 500"}, {"name": "new"}]


def test_texts_are_compared_byte_by_byte_whatever_their_collation(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b TEXT COLLATE RTRIM)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    insert(one, "t", [(1, "a", "b"), (2, "a", "b"), (3, "a", "b")])
    insert(other, "t", [(1, "A", "b"), (2, "a", "b "), (3, "a", "b")])
    assert counts(only_table(told(one, other))) == (3, 3, 0, 0, 2)


def test_a_database_with_a_collation_of_its_app_is_read(tmp_path: Path) -> None:
    places = [tmp_path / name for name in "ab"]
    for place in places:
        version(place)
        with closing(sqlite3.connect(place / "database.sqlite")) as connection:
            connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
            connection.execute("CREATE TABLE t (a TEXT COLLATE backwards PRIMARY KEY, b) WITHOUT ROWID")
            connection.execute("CREATE TABLE u (a TEXT COLLATE backwards UNIQUE, b)")
            for table in "tu":
                connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(c, 1) for c in "abcdefgh"])
            if place == places[1]:
                connection.execute("UPDATE t SET b = 2 WHERE a = 'c'")
                connection.execute("UPDATE u SET b = 2 WHERE a > 'c'")
            connection.commit()
    (database,) = told(*places).databases
    assert [counts(table) for table in database.tables] == [(8, 8, 0, 0, 1), (8, 8, 0, 0, 2)]


def test_databases_of_different_encodings_are_compared(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (name TEXT PRIMARY KEY, value TEXT)"
    one = version(tmp_path / "a", schema)
    other = version(tmp_path / "b")
    (other / "database.sqlite").unlink()
    with closing(sqlite3.connect(other / "database.sqlite")) as connection:
        connection.execute("PRAGMA encoding='UTF-16le'")
        connection.execute(schema)
    names = ["a", "é", "\uffee", "\U0001f600", "z", "\ue000"]
    insert(one, "t", [(name, "same") for name in names])
    insert(other, "t", [(name, "same") for name in reversed(names)])
    assert told(one, other).same
    version(other, "UPDATE t SET value = 'other' WHERE name = 'é'")
    assert only_table(told(one, other)).rows[0].key == {"name": "é"}
    assert told(other, other, table="t").same


def test_schemas_are_compared_but_for_white_space(tmp_path: Path) -> None:
    one = version(
        tmp_path / "a",
        "CREATE TABLE t (a,b)",
        "CREATE INDEX i ON t (a)",
        "CREATE VIEW v AS SELECT 'a  b' FROM t",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TABLE gone (a UNIQUE)",
    )
    other = version(
        tmp_path / "b",
        "CREATE TABLE t (\n  a,\n  b\n)",
        "CREATE INDEX i ON t (b)",
        "CREATE VIEW v AS SELECT 'a b' FROM t",
        "CREATE TRIGGER r AFTER  INSERT ON t\nBEGIN SELECT 1; END",
        "CREATE TABLE fresh (a)",
    )
    (database,) = told(one, other).databases
    assert [(each.kind, each.name, each.change) for each in database.schema] == [
        ("table", "fresh", "added"),
        ("table", "gone", "removed"),
        ("index", "i", "changed"),
        ("view", "v", "changed"),
    ]
    assert [(each.name, each.before, each.after) for each in database.tables] == [
        ("fresh", None, 0),
        ("gone", 0, None),
    ]


def test_numbers_of_the_apps_own_are_compared_too(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES, "PRAGMA user_version=3")
    (change,) = told(one, other).databases[0].schema
    assert (change.kind, change.name, change.before, change.after) == ("setting", "user_version", "0", "3")


def test_rows_are_compared_by_the_columns_that_both_have(tmp_path: Path) -> None:
    one = version(tmp_path / "a", "CREATE TABLE t (id INTEGER PRIMARY KEY, old, kept)")
    insert(one, "t", [(1, 1, "x"), (2, 2, "y")])
    other = version(tmp_path / "b", "CREATE TABLE t (id INTEGER PRIMARY KEY, kept, new DEFAULT 5)")
    insert(other, "t", [(1, "x", 5), (2, "z", 5)])
    table = only_table(told(one, other))
    assert counts(table) == (2, 2, 0, 0, 1)
    assert table.rows[0].before == {"id": 2, "old": 2, "kept": "y"}
    assert table.rows[0].after == {"id": 2, "kept": "z", "new": 5}
    assert table.note == "Rows are compared by the columns that both have (old gone; new new)."


def test_a_table_whose_key_became_another_is_compared_by_what_both_can_be_known_by(tmp_path: Path) -> None:
    one = version(tmp_path / "a", "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    other = version(tmp_path / "b", "CREATE TABLE t (a INTEGER, b TEXT PRIMARY KEY) WITHOUT ROWID")
    insert(one, "t", [(1, "x"), (2, "y")])
    insert(other, "t", [(1, "x"), (3, "y")])
    table = only_table(told(one, other))
    assert counts(table) == (2, 2, 0, 0, 1)
    assert table.rows[0].key == {"b": "y"}


def test_values_that_json_has_not_are_told_in_words(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, a)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    values = [2**62, float("-inf"), b"\x00\xff", "é" * 3000, None, 1.5, "nul \0 inside"]
    insert(other, "t", list(enumerate(values)))
    version(other, "INSERT INTO t VALUES (100, CAST(x'41ff42' AS TEXT))")
    after = [row.after["a"] for row in only_table(told(one, other)).rows if row.after]
    text = {"text": "é" * 2000, "length": 3000, "sha256": hashlib.sha256(("é" * 3000).encode()).hexdigest()}
    blob = {"blob": 2, "sha256": hashlib.sha256(b"\x00\xff").hexdigest()}
    assert after == [
        {"integer": str(2**62)},
        {"real": "-inf"},
        blob,
        text,
        None,
        1.5,
        "nul \0 inside",
        "A\\xffB",
    ]


def test_texts_that_are_no_utf8_are_told_apart(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (id TEXT PRIMARY KEY, a TEXT)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    version(one, "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), CAST(x'80' AS TEXT)), ('ÿ', 'a')")
    version(other, "INSERT INTO t VALUES ('ÿ', 'a'), (CAST(x'ff' AS TEXT), CAST(x'81' AS TEXT))")
    assert counts(only_table(told(one, other))) == (2, 2, 0, 0, 1)


def test_virtual_tables_and_sqlites_own_are_shown_as_such(tmp_path: Path) -> None:
    statements = (
        "CREATE VIRTUAL TABLE docs USING fts5(text)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO docs VALUES ('one two')",
    )
    one, other = version(tmp_path / "a", *statements), version(tmp_path / "b", *statements)
    version(other, "INSERT INTO docs VALUES ('three')", "INSERT INTO t DEFAULT VALUES")
    (database,) = told(one, other).databases
    assert database.schema == ()
    tables = {table.name: table for table in database.tables}
    assert counts(tables["docs_content"]) == (1, 2, 1, 0, 0)
    assert tables["docs_content"].note == "A virtual table keeps its contents here."
    assert tables["sqlite_sequence"].note == "SQLite's own."
    assert "fts5" in tables["docs"].note


def test_a_virtual_table_of_a_module_that_is_not_here_is_no_error(tmp_path: Path) -> None:
    places = [version(tmp_path / name, NOTES) for name in "ab"]
    for place in places:
        version(
            place,
            "PRAGMA writable_schema=ON",
            "INSERT INTO sqlite_master VALUES"
            " ('table', 'far', 'far', 0, 'CREATE VIRTUAL TABLE far USING nowhere(a)')",
        )
    version(places[1], "INSERT INTO notes VALUES (1, 'one')")
    (database,) = told(*places).databases
    assert counts(next(table for table in database.tables if table.name == "notes")) == (0, 1, 1, 0, 0)
    (far,) = told(*places, table="far").databases[0].tables
    assert "nowhere" in far.note


def test_databases_among_the_files_are_compared_as_databases(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES)
    for place in (one, other):
        version(place, NOTES, "INSERT INTO notes VALUES (1, 'one')", database="files/deep/app.db")
        (place / "files" / "same.txt").write_text("same")
        (place / "files" / "link").symlink_to("/etc/passwd")
    version(other, "INSERT INTO notes VALUES (2, 'two')", database="files/deep/app.db")
    version(other, NOTES, "INSERT INTO notes VALUES (1, 'one')", database="files/new.db")
    (one / "files" / "gone.txt").write_text("gone")
    (one / "files" / "other.txt").write_text("a")
    (other / "files" / "other.txt").write_text("b")
    (one / "files" / "became.db").write_text("text")
    version(other, NOTES, database="files/became.db")
    difference = told(one, other)
    assert [database.name for database in difference.databases] == ["files/deep/app.db", "files/new.db"]
    assert counts(difference.databases[0].tables[0]) == (1, 2, 1, 0, 0)
    assert counts(difference.databases[1].tables[0]) == (None, 1, 1, 0, 0)
    assert [(file.path, file.change) for file in difference.files] == [
        ("files/became.db", "changed"),
        ("files/gone.txt", "removed"),
        ("files/other.txt", "changed"),
    ]


def test_a_snapshot_with_its_wal_is_read_with_it(tmp_path: Path) -> None:
    """As an image is: the base, and frames that are in its WAL only."""
    source = version(tmp_path / "source", NOTES)
    one, other = (tmp_path / "a"), (tmp_path / "b")
    with closing(sqlite3.connect(source / "database.sqlite")) as connection:
        connection.execute("INSERT INTO notes VALUES (1, 'in the WAL')")
        connection.commit()
        for place, endings in ((one, ("",)), (other, ("", "-wal"))):
            place.mkdir()
            for ending in endings:
                content = (source / f"database.sqlite{ending}").read_bytes()
                (place / f"database.sqlite{ending}").write_bytes(content)
    assert counts(only_table(told(one, other))) == (0, 1, 1, 0, 0)


def test_blobs_of_any_size_are_compared_by_their_digests(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES)
    for place, last in ((one, b"a"), (other, b"b")):
        insert(place, "notes", [(1, b"x" * 20_000_000 + last), (2, b"y" * 20_000_000), (3, last)])
    table = only_table(told(one, other))
    assert counts(table) == (3, 3, 0, 0, 2)
    assert table.rows[0].after is not None
    digest = hashlib.sha256(b"x" * 20_000_000 + b"b").hexdigest()
    assert table.rows[0].after["text"] == {"blob": 20_000_001, "sha256": digest}


SCHEMAS = (
    "CREATE TABLE t (a, b TEXT, c INTEGER)",
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c)",
    "CREATE TABLE t (a PRIMARY KEY, b TEXT COLLATE NOCASE, c)",
    "CREATE TABLE t (a, b TEXT COLLATE NOCASE, c INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "CREATE TABLE t (a, b, c, PRIMARY KEY (c, a))",
)
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.sampled_from(["a", "A", "b", "a ", ""]),
    st.binary(max_size=3),
)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=12)


def fill(place: Path, schema: str, rows: list[tuple[Any, ...]]) -> None:
    version(place, "DROP TABLE IF EXISTS t", schema)
    whole = [(rowid, *row[1:]) for rowid, row in enumerate(rows)] if "a INTEGER PRIMARY" in schema else rows
    with closing(sqlite3.connect(place / "database.sqlite")) as connection:
        connection.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", whole)
        connection.commit()


def stored(place: Path) -> list[tuple[Any, ...]]:
    """Each row with its types, without its rowid where that means nothing."""
    with closing(sqlite3.connect(place / "database.sqlite")) as connection:
        query = "SELECT typeof(a), quote(a), typeof(b), quote(b), typeof(c), quote(c) FROM t"
        return sorted(connection.execute(query).fetchall())


def value(told: Any, blobs: dict[str, bytes]) -> Any:
    match told:
        case {"integer": text}:
            return int(text)
        case {"real": text}:
            return float(text)
        case {"blob": _, "sha256": digest}:
            return blobs[digest]
        case _:
            return told


def apply(place: Path, table: TableDifference, blobs: dict[str, bytes]) -> None:
    """Make the older database what the newer one is, by what is told."""
    with closing(sqlite3.connect(place / "database.sqlite")) as connection:
        for row in table.rows:
            if row.change != "added":
                where = " AND ".join(f"{name} COLLATE BINARY IS ?" for name in row.key)
                values = [value(each, blobs) for each in row.key.values()]
                (number,) = connection.execute(f"SELECT count(*) FROM t WHERE {where}", values).fetchone()
                assert number == 1
                connection.execute(f"DELETE FROM t WHERE {where}", values)
        for row in table.rows:
            if row.after is not None:
                keyed = {"rowid": row.key["rowid"]} if "rowid" in row.key else {}
                fields = {**keyed, **row.after}
                marks = ", ".join("?" * len(fields))
                values = [value(each, blobs) for each in fields.values()]
                connection.execute(f"INSERT INTO t ({', '.join(fields)}) VALUES ({marks})", values)
        connection.commit()


@settings(deadline=None, max_examples=40)
@given(schema=st.sampled_from(SCHEMAS), before=ROWS, after=ROWS, kept=st.integers(0, 12))
def test_what_is_told_turns_one_into_the_other(
    tmp_path_factory: pytest.TempPathFactory,
    schema: str,
    before: list[tuple[Any, ...]],
    after: list[tuple[Any, ...]],
    kept: int,
) -> None:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    after = before[:kept] + after
    fill(one, schema, before)
    fill(other, schema, after)
    blobs = {
        hashlib.sha256(each).hexdigest(): each
        for row in before + after
        for each in row
        if isinstance(each, bytes)
    }
    there, back = told(one, other), told(other, one)
    assert there.same == back.same == (stored(one) == stored(other))
    if there.same:
        return
    forth, again = only_table(there), only_table(back)
    assert counts(forth) == (again.after, again.before, again.removed, again.added, again.changed)
    assert {json.dumps(row.key) for row in forth.rows} == {json.dumps(row.key) for row in again.rows}
    apply(one, forth, blobs)
    assert stored(one) == stored(other)
    assert told(one, other).same
