"""The schema and the sizes of a version's data."""

import json
from pathlib import Path

from lazycloud.data.tools.shapes import MAIN, Schema, Summary, schema_difference
from lazycloud.data.tools.summing import sum_up

from .folders import insert, version


def test_a_summary_has_schema_rows_and_sizes(tmp_path: Path) -> None:
    place = version(
        tmp_path / "a",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL DEFAULT 'x', twice AS (id * 2))",
        "CREATE INDEX by_text ON notes (text)",
        "CREATE VIEW v AS SELECT * FROM notes",
        "CREATE VIRTUAL TABLE docs USING fts5(text)",
        "PRAGMA user_version=7",
    )
    version(place, "INSERT INTO notes (text) VALUES ('one'), ('two')")
    version(place, "CREATE TABLE t (a)", database="files/more.db")
    (place / "files" / "photo.jpg").write_bytes(b"12345")
    summary = sum_up(place, rows=True, sizes=True)
    assert Summary.from_dict(json.loads(json.dumps(summary.as_dict()))) == summary
    assert (summary.files, summary.bytes) == (1, 5)
    main, more = summary.databases
    assert (main.name, main.journal_mode, main.user_version, main.note) == (MAIN, "wal", 7, "")
    assert main.bytes == (place / MAIN).stat().st_size
    assert (more.name, [table.name for table in more.tables]) == ("files/more.db", ["t"])
    tables = {table.name: table for table in main.tables}
    notes = tables["notes"]
    assert (notes.kind, notes.rows, notes.bytes) == ("table", 2, 8192)  # a page, and one of its index
    assert [(one.name, one.type, one.required, one.default, one.key) for one in notes.columns] == [
        ("id", "INTEGER", False, None, 1),
        ("text", "TEXT", True, "'x'", 0),
    ]
    assert (tables["docs"].kind, tables["docs"].rows) == ("virtual", None)
    assert "fts5" in tables["docs"].note
    assert {name: table.kind for name, table in tables.items() if name.startswith("docs_")} == dict.fromkeys(
        ["docs_config", "docs_content", "docs_data", "docs_docsize", "docs_idx"], "shadow"
    )
    kinds = [(one.kind, one.name) for one in main.schema]
    assert sorted(kinds) == [("index", "by_text"), ("table", "docs"), ("table", "notes"), ("view", "v")]


def test_an_empty_version_has_an_empty_summary(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert sum_up(tmp_path / "a", rows=True, sizes=True) == Summary((), 0, 0)
    (database,) = sum_up(version(tmp_path / "b"), rows=True, sizes=True).databases
    assert (database.tables, database.schema) == ((), ())


def schema(place: Path, *statements: str) -> Schema:
    return sum_up(version(place, *statements), rows=False, sizes=False).schema


def test_a_schemas_fingerprint_is_of_the_schema_alone(tmp_path: Path) -> None:
    one = schema(tmp_path / "a", "CREATE TABLE t (a, b)", "CREATE INDEX i ON t (a)")
    insert(tmp_path / "a", "t", [(1, 2)])
    version(tmp_path / "a", "ANALYZE", "CREATE TABLE u (a)", "DROP TABLE u", "VACUUM")
    again = schema(tmp_path / "a")
    assert again.fingerprint == one.fingerprint
    other = schema(tmp_path / "b", "CREATE TABLE u (a)", "CREATE TABLE t ( a,\n b)", "CREATE INDEX i ON t(a)")
    assert other.fingerprint != one.fingerprint
    assert schema(tmp_path / "b", "DROP TABLE u").fingerprint == one.fingerprint
    assert one.text == "CREATE TABLE t (a, b);\nCREATE INDEX i ON t (a);"
    assert Schema.from_dict(json.loads(json.dumps(one.as_dict()))).fingerprint == one.fingerprint


def test_schemas_are_compared_without_their_data(tmp_path: Path) -> None:
    one = schema(tmp_path / "a", "CREATE TABLE t (a, b)", "CREATE TABLE gone (a)")
    other = schema(tmp_path / "b", "CREATE TABLE t (a, b, c)", "CREATE TABLE gone (a)")
    assert schema_difference(one, one) == []
    (database,) = schema_difference(one, other)
    assert database.name == MAIN
    (change,) = database.schema
    assert (change.kind, change.name, change.change) == ("table", "t", "changed")
    assert (change.before, change.after) == ("CREATE TABLE t (a, b)", "CREATE TABLE t (a, b, c)")
