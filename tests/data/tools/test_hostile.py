"""Databases that were made to do harm, or that came to harm."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lazycloud.data.tools.comparing import MOST_TABLES, compare
from lazycloud.data.tools.database import JOURNAL
from lazycloud.data.tools.summing import sum_up

from .folders import insert, version

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)"


def test_views_and_triggers_that_never_end_are_never_run(tmp_path: Path) -> None:
    statements = (
        NOTES,
        f"CREATE VIEW endless AS {ENDLESS}",
        f"CREATE TRIGGER r AFTER INSERT ON notes BEGIN INSERT INTO notes (text) {ENDLESS}; END",
    )
    one, other = version(tmp_path / "a", *statements), version(tmp_path / "b", *statements)
    version(other, "DROP TRIGGER r", "INSERT INTO notes VALUES (1, 'one')")
    found = compare(one, other, "", 10)
    assert [(change.kind, change.change) for change in found.databases[0].schema] == [("trigger", "removed")]
    assert found.databases[0].tables[0].added == 1
    assert [table.name for table in sum_up(other, rows=True, sizes=True).databases[0].tables] == ["notes"]


def test_views_of_views_of_views_are_never_expanded(tmp_path: Path) -> None:
    """Each names the one before it twice: the last one has 2⁶⁰ parts."""
    views = [f"CREATE VIEW v{at + 1} AS SELECT a.x FROM v{at} AS a, v{at} AS b" for at in range(60)]
    place = version(tmp_path / "a", "CREATE VIEW v0 AS SELECT 1 AS x", *views)
    other = version(tmp_path / "b", NOTES)
    assert len(compare(place, other, "", 10).databases[0].schema) == 62
    assert len(sum_up(place, rows=True, sizes=True).databases[0].schema) == 61


def test_generated_columns_are_not_computed(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (a INTEGER PRIMARY KEY, b AS (hex(zeroblob(9000000))))"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema, "INSERT INTO t VALUES (1)")
    (row,) = compare(one, other, "", 10).databases[0].tables[0].rows
    assert row.after == {"a": 1}


@pytest.mark.parametrize(
    "name", ["a\"b'c", "new\nline", "semi; DROP TABLE x; --", "ünï😀", "[x]", "`", "%s{}\\", ""]
)
def test_evil_names_are_only_names(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    schema = f"CREATE TABLE {quoted} ({quoted} TEXT PRIMARY KEY, b)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    insert(other, quoted, [("x", 1)])
    (table,) = compare(one, other, "", 10).databases[0].tables
    assert (table.name, table.added, dict(table.rows[0].key)) == (name, 1, {name: "x"})
    (told,) = sum_up(other, rows=True, sizes=True).databases[0].tables
    assert (told.name, told.rows) == (name, 1)


def test_a_name_with_a_nul_is_shown_and_not_followed(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES)
    insert(other, "notes", [(1, "one")])
    version(
        other,
        "PRAGMA writable_schema=ON",
        "INSERT INTO sqlite_master VALUES ('table', 'n' || char(0) || 'l', 'n', 2, 'CREATE TABLE n (a)')",
    )
    found = compare(one, other, "", 10)
    assert not found.same
    assert sum_up(other, rows=True, sizes=True).databases[0].name == "database.sqlite"


def test_a_schema_that_cannot_be_parsed_is_told(tmp_path: Path) -> None:
    one, other = version(tmp_path / "a", NOTES), version(tmp_path / "b", NOTES)
    version(other, "PRAGMA writable_schema=ON", "UPDATE sqlite_master SET sql = 'CREATE TABLE notes (((('")
    found = compare(one, other, "", 10)
    assert not found.same
    assert "malformed database schema" in found.databases[0].note
    assert "malformed database schema" in sum_up(other, rows=True, sizes=True).databases[0].note


def broken(place: Path, page: int) -> None:
    """Overwrite one page of a database."""
    with (place / "database.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_a_table_with_a_broken_page_is_told_and_the_others_are_compared(tmp_path: Path) -> None:
    places = [version(tmp_path / name, "CREATE TABLE bad (a)", "CREATE TABLE good (a)") for name in "ab"]
    for place in places:
        insert(place, "bad", [("x" * 100,) for _ in range(1000)])
    insert(places[1], "good", [(1,)])
    with closing(sqlite3.connect(places[1] / "database.sqlite")) as connection:
        (page,) = connection.execute(
            "SELECT max(pageno) FROM dbstat WHERE name = 'bad' AND pagetype = 'leaf'"
        ).fetchone()
    broken(places[1], page)
    found = compare(*places, "", 10)
    assert not found.same
    tables = {table.name: table for table in found.databases[0].tables}
    assert tables["good"].added == 1
    assert "malformed" in tables["bad"].note
    assert (tables["bad"].before, tables["bad"].rows) == (None, ())
    told = {table.name: table for table in sum_up(places[1], rows=True, sizes=True).databases[0].tables}
    assert told["good"].rows == 1


def test_a_row_that_an_index_does_not_hold_is_found_all_the_same(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (name TEXT PRIMARY KEY, value)"
    one, other = version(tmp_path / "a", schema), version(tmp_path / "b", schema)
    rows = [(f"name {number}", number) for number in range(100)]
    insert(one, "t", rows)
    insert(other, "t", rows[:50])
    with closing(sqlite3.connect(other / "database.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET type='x' WHERE name='sqlite_autoindex_t_1'")
        connection.execute("DELETE FROM sqlite_master WHERE name='sqlite_autoindex_t_1'")
    found = compare(one, one, "t", 10)
    assert found.same


@pytest.mark.slow
def test_four_thousand_tables_are_told_in_bounded_room(tmp_path: Path) -> None:
    one = version(tmp_path / "a")
    other = version(tmp_path / "b", "BEGIN", *(f"CREATE TABLE t{at} (a)" for at in range(4000)), "COMMIT")
    began = time.process_time()
    found = compare(one, other, "", 10)
    assert time.process_time() - began < 20
    (database,) = found.databases
    assert len(database.tables) == MOST_TABLES
    assert "2000 more tables" in database.note
    assert not found.same
    assert compare(other, other, "", 10).same
    assert len(sum_up(other, rows=True, sizes=True).databases[0].tables) == 4000


def test_links_in_place_of_data_are_not_followed(tmp_path: Path) -> None:
    secret = version(tmp_path / "secret", NOTES)
    place = tmp_path / "a"
    (place / "files").mkdir(parents=True)
    (place / "database.sqlite").symlink_to(secret / "database.sqlite")
    (place / "files" / "x.db").symlink_to(secret / "database.sqlite")
    (place / "files" / "folder").symlink_to(secret)
    summary = sum_up(place, rows=True, sizes=True)
    assert (summary.databases, summary.files) == ((), 3)


def test_a_journal_that_names_another_file_removes_nothing(tmp_path: Path) -> None:
    place, victim = version(tmp_path / "a", NOTES, "PRAGMA journal_mode=DELETE"), tmp_path / "victim"
    victim.write_text("keep me")
    name = str(victim).encode()
    tail = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + JOURNAL
    header = JOURNAL + (0).to_bytes(4, "big") + bytes(4) + (2).to_bytes(4, "big") + (512).to_bytes(4, "big")
    header += (4096).to_bytes(4, "big")
    journal = place / "database.sqlite-journal"
    journal.write_bytes(header.ljust(512, b"\0") + bytes(4) + tail)
    assert "database.sqlite-journal" in sum_up(place, rows=True, sizes=True).databases[0].note
    assert victim.exists()


def test_what_a_crash_left_half_written_is_rolled_back(tmp_path: Path) -> None:
    one = version(tmp_path / "a", "PRAGMA journal_mode=DELETE", NOTES)
    insert(one, "notes", [(number, "text") for number in range(1000)])
    other = version(tmp_path / "b")
    (other / "database.sqlite").unlink()
    with closing(sqlite3.connect(one / "database.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE notes SET text = 'half'")
        for ending in ("", "-journal"):
            content = (one / f"database.sqlite{ending}").read_bytes()
            (other / f"database.sqlite{ending}").write_bytes(content)
        assert b"half" in (other / "database.sqlite").read_bytes()
        connection.execute("ROLLBACK")
    assert compare(one, other, "", 10).same
    assert len(compare(one, other, "notes", 10).databases[0].tables) == 1


def test_random_bytes_in_a_database_never_end_a_comparison(tmp_path: Path) -> None:
    """Whatever page is broken, it is told, and nothing is thrown."""
    one = version(tmp_path / "a", NOTES, "CREATE INDEX i ON notes (text)")
    insert(one, "notes", [(number, f"text {number}" * 10) for number in range(300)])
    content = (one / "database.sqlite").read_bytes()
    other = tmp_path / "b"
    (other / "files").mkdir(parents=True)
    for at in range(0, len(content), 509):
        (other / "database.sqlite").write_bytes(content[:at] + b"\xff\x00\x81\x7f" + content[at + 4 :])
        compare(one, other, "", 10)
        sum_up(other, rows=True, sizes=True)
