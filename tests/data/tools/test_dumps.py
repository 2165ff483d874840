"""Versions whose data are in Postgres, by the dumps that `unfolded` puts beside them."""

import hashlib
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from lazycloud.data.tools import difference, schema_of
from lazycloud.data.tools.comparing import compare
from lazycloud.data.tools.dumps import _program
from lazycloud.data.tools.exporting import export
from lazycloud.data.tools.importing import take_in
from lazycloud.data.tools.shapes import Difference, TableDifference
from lazycloud.data.tools.summing import sum_up
from lazycloud.errors import BadInput, StepFailed
from lazycloud.walls import sandbox
from lazycloud.walls.sandbox import Sandbox
from tests.postgres import SUPERUSER, Postgres

from .folders import version

RICH = (
    "CREATE TABLE entry (id serial PRIMARY KEY, text text, at timestamptz, size bigint, raw bytea, more jsonb)",
    "INSERT INTO entry (text, at, size, raw, more) VALUES"
    " ('one', '2026-01-01 00:00+00', 9007199254740993, '\\x00ff', '{\"a\": [1]}'),"
    " (E'two\\tlines\\n\\\\.', NULL, 2, '', NULL)",
    "CREATE TABLE loose (a int, b text)",
    "INSERT INTO loose VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    'CREATE SCHEMA "other one"',
    'CREATE TABLE "other one"."Odd ""table" ("a b" text, "A B" int, "c,d" text, PRIMARY KEY ("A B", "c,d"))',
    "INSERT INTO \"other one\".\"Odd \"\"table\" VALUES ('x', 1, 'y'), ('z', 10, 'y'), ('q', 2, 'y')",
    'CREATE TABLE "Zed" ("ID" int)',
    "CREATE TABLE zed (id int)",
    "CREATE TABLE nothing ()",
    "INSERT INTO nothing DEFAULT VALUES",
    "CREATE VIEW seen AS SELECT text FROM entry",
    "CREATE INDEX by_text ON entry (text)",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n-- Name: x; a comment\nRETURN new;\nEND $$",
    "CREATE TRIGGER t BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION f()",
)

Fold = Callable[..., Path]


@pytest.fixture
def fold(tmp_path: Path, postgres: Postgres) -> Iterator[Fold]:
    """Runs statements in a database of the test's own, and makes a version's folder of it as it is then."""
    name = f"tools_{uuid4().hex}"
    with postgres.superuser() as superuser:
        superuser.execute(f'CREATE DATABASE "{name}"'.encode())

    def fold(place: str, *statements: str, words: Sequence[str] = ()) -> Path:
        with psycopg.connect(postgres.url(SUPERUSER, name), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())
        folder = version(tmp_path / place)
        dump = Path(_program()).with_name("pg_dump")
        usual = [dump, "--format=custom", "--no-owner", f"--file={folder / 'postgres.dump'}"]
        subprocess.run([*usual, *words, postgres.url(SUPERUSER, name)], check=True)
        return folder

    yield fold
    with postgres.superuser() as superuser:
        superuser.execute(f'DROP DATABASE "{name}"'.encode())


def tables(difference: Difference) -> dict[str, TableDifference]:
    (database,) = difference.databases
    assert database.name == "postgres"
    return {table.name: table for table in database.tables}


def test_the_same_data_are_the_same(fold: Fold) -> None:
    one = fold("a", *RICH)
    other = fold(
        "b", "UPDATE loose SET b = b", "UPDATE entry SET text = text WHERE id = 1"
    )  # others on their pages
    assert compare(one, other, "", 10) == Difference(same=True)


def test_rows_are_compared_by_their_keys_and_whole_without(fold: Fold) -> None:
    one = fold("a", *RICH)
    other = fold(
        "b",
        "UPDATE entry SET raw = '\\x01', size = 3 WHERE id = 1",
        "INSERT INTO entry (id, text) VALUES (10, 'ten')",
        "DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose)",
        'UPDATE "other one"."Odd ""table" SET "a b" = NULL WHERE "A B" = 10',
        "SELECT nextval('entry_id_seq')",
    )
    found = tables(compare(one, other, "", 10))
    entry = found["entry"]
    assert (entry.before, entry.after, entry.added, entry.removed, entry.changed) == (2, 3, 1, 0, 1)
    changed, added = entry.rows
    assert (changed.key, added.key) == ({"id": 1}, {"id": 10})
    assert changed.before == {
        "id": 1,
        "text": "one",
        "at": changed.before and changed.before["at"],
        "size": {"integer": "9007199254740993"},
        "raw": {"blob": 2, "sha256": hashlib.sha256(b"\x00\xff").hexdigest()},
        "more": '{"a": [1]}',
    }
    loose = found["loose"]
    assert (loose.before, loose.after, loose.removed, loose.note) == (
        3,
        2,
        1,
        "It has no primary key: rows are compared whole.",
    )
    (row,) = found['other one.Odd "table'].rows
    assert row.after == {"a b": None, "A B'": 10, "c,d": "y"}
    assert found["(sequences)"].changed == 1


def test_schemas_are_compared_part_by_part(fold: Fold) -> None:
    one = fold("a", *RICH)
    other = fold(
        "b",
        "ALTER TABLE entry ADD COLUMN new text DEFAULT 'x'",
        "DROP VIEW seen",
        "CREATE TABLE fresh (id int PRIMARY KEY REFERENCES entry)",
    )
    found = compare(one, other, "", 10)
    changes = {(change.kind, change.name): change for change in found.databases[0].schema}
    assert {key: change.change for key, change in changes.items()} == {
        ("table", "entry"): "changed",
        ("table", "fresh"): "added",
        ("view", "seen"): "removed",
        ("constraint", "fresh fresh_pkey"): "added",
        ("fk constraint", "fresh fresh_id_fkey"): "added",
    }
    assert changes["table", "fresh"].after == "CREATE TABLE public.fresh (\n    id integer NOT NULL\n)"
    entry = tables(found).get("entry")
    assert entry is None  # its rows are the same by the columns that both have
    assert tables(found)["fresh"].after == 0


def test_a_summary_counts_rows(fold: Fold) -> None:
    database = sum_up(fold("a", *RICH), rows=True, sizes=True).databases[-1]
    assert database.name == "postgres"
    counts = {table.name: table.rows for table in database.tables}
    assert (counts["entry"], counts["loose"], counts["nothing"]) == (2, 3, 1)
    assert {"Zed", "zed'"} <= set(counts)  # to SQLite they are one name
    kinds = {(one.kind, one.name) for one in database.schema}
    assert {("function", "f()"), ("trigger", "entry t"), ("index", "by_text"), ("view", "seen")} <= kinds
    function = next(one.sql for one in database.schema if one.kind == "function")
    assert function.endswith("END $$")


def test_a_dump_without_rows_tells_tables_and_columns(fold: Fold) -> None:
    clauses = (
        'n int DEFAULT 1 NOT NULL, "CONSTRAINT" numeric(10,2) DEFAULT 1.5, CONSTRAINT positive CHECK (n > 0)'
    )
    foreign = ("CREATE EXTENSION file_fdw", "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
    foreign += ("CREATE FOREIGN TABLE far (n int) SERVER files OPTIONS (filename '/dev/null')",)
    folder = fold("a", *RICH, f"CREATE TABLE more ({clauses})", *foreign, words=["--schema-only"])
    database = sum_up(folder, rows=True, sizes=False).databases[-1]
    columns = {table.name: [one.name for one in table.columns] for table in database.tables}
    assert columns["far"] == ["n"]
    assert columns["entry"] == ["id", "text", "at", "size", "raw", "more"]
    assert columns['other one.Odd "table'] == ["a b", "A B", "c,d"]
    assert columns["Zed"] == ["ID"] and columns["zed"] == ["id"] and columns["nothing"] == []
    (more,) = [table for table in database.tables if table.name == "more"]
    assert [(one.name, one.type, one.required, one.default) for one in more.columns] == [
        ("n", "integer", True, "1"),
        ("CONSTRAINT", "numeric(10,2)", False, "1.5"),
    ]
    assert {table.rows for table in database.tables} == {None}
    assert {("view", "seen"), ("index", "by_text")} <= {(one.kind, one.name) for one in database.schema}


async def test_dumps_are_read_behind_walls(fold: Fold, tmp_path: Path) -> None:
    if why := sandbox.missing():
        pytest.skip(why)
    (tmp_path / "home").mkdir()
    walls = Sandbox(tmp_path / "home", {})
    one, other = fold("a", *RICH), fold("b", "TRUNCATE loose")
    found = await difference(one, other, walls=walls)
    assert tables(found)["loose"].removed == 3
    assert (await schema_of(one, walls=walls)).fingerprint == (await schema_of(other)).fingerprint


def test_a_dump_is_in_the_tar_and_the_tar_says_where_it_goes(fold: Fold, tmp_path: Path) -> None:
    place = fold("a", *RICH)
    assert export(place, tmp_path / "sqlite", "sqlite", tmp_path) == (
        "Its Postgres database is not in it: `tar` has a dump of it."
    )
    assert export(place, tmp_path / "tar", "tar", tmp_path) == ""
    with tarfile.open(tmp_path / "tar") as tar:
        assert tar.getnames() == ["postgres.dump", "database.sqlite"]
    (tmp_path / "made").mkdir()
    with pytest.raises(BadInput, match=r"has a postgres.dump"):
        take_in(tmp_path / "tar", tmp_path / "made", "", 10**9)


def test_a_dump_goes_out_as_it_is_and_as_sql(fold: Fold, tmp_path: Path) -> None:
    place = fold("a", *RICH, "GRANT SELECT ON loose TO PUBLIC")
    (place / "files").mkdir(exist_ok=True)
    (place / "files" / "logo").write_bytes(b"x")
    left_out = "1 file of DATA_DIR is not in it: `tar` has all."
    assert export(place, tmp_path / "dump", "dump", tmp_path) == left_out
    assert (tmp_path / "dump").read_bytes() == (place / "postgres.dump").read_bytes()
    assert export(place, tmp_path / "sql", "sql", tmp_path) == left_out
    text = (tmp_path / "sql").read_text()
    assert "COPY public.loose (a, b) FROM stdin;\n1\tx\n1\tx\n2\t\\N\n\\.\n" in text
    assert "CREATE TRIGGER t BEFORE INSERT ON public.entry" in text
    assert "OWNER TO" not in text and "GRANT" not in text
    (place / "postgres.dump").write_bytes((place / "postgres.dump").read_bytes()[:400])
    with pytest.raises(StepFailed, match="cannot be made SQL"):
        export(place, tmp_path / "half", "sql", tmp_path)


def test_a_dump_that_is_damaged_is_told(fold: Fold) -> None:
    one, other = fold("a", *RICH), fold("b")
    content = (other / "postgres.dump").read_bytes()
    (other / "postgres.dump").write_bytes(content[: len(content) // 2])
    found = compare(one, other, "", 10)
    assert not found.same
    assert "could not be read" in found.databases[0].note


def test_large_objects_are_not_taken_for_the_same(fold: Fold) -> None:
    one, other = fold("a", "SELECT lo_from_bytea(7, 'abc')"), fold("b", "SELECT lo_put(7, 0, 'xyz')")
    found = compare(one, other, "", 10)
    assert (found.same, found.databases[0].note) == (False, "Large objects are not compared.")
