"""Exported and imported again, a version is what it was."""

import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazycloud.data.tools import export, import_, script
from lazycloud.data.tools.exporting import export as write
from lazycloud.data.tools.importing import take_in
from lazycloud.data.tools.process import Limits
from lazycloud.errors import BadInput, Conflict, DiskFull, StepFailed

from .folders import contents, insert, version

RICH = (
    "CREATE TABLE notes"
    " (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, twice AS (id * 2), kept AS (id * 3) STORED)",
    "INSERT INTO notes (text) VALUES"
    " ('one'), ('it''s\ntwo;'), (NULL), (CAST(x'41004200' AS TEXT)), (CAST(x'ff' AS TEXT))",
    'CREATE TABLE loose (a, b BLOB, "it\'s; ""c" REAL)',
    "INSERT INTO loose VALUES (1, 1.0, 1), ('1', x'00ff', 9e999), (-9223372036854775808, '', -9e999)",
    "INSERT INTO loose VALUES (0.1, 5e-324, 1.7976931348623157e308), (9223372036854775807, NULL, 1e23)",
    "CREATE TABLE pairs (a TEXT, b TEXT COLLATE NOCASE, c, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "INSERT INTO pairs VALUES ('x', 'Y', 1), ('x', 'z', 2)",
    "CREATE TABLE strict (a ANY, b INT) STRICT",
    "INSERT INTO strict VALUES (1.0, 1), ('1', 2)",
    "CREATE VIRTUAL TABLE docs USING fts5(text)",
    "INSERT INTO docs VALUES ('the quick fox'), ('a lazy dog')",
    "CREATE VIRTUAL TABLE places USING rtree(id, a, b)",
    "INSERT INTO places VALUES (1, 2, 3)",
    "CREATE UNIQUE INDEX by_text ON notes (text) WHERE text > 'm'",
    "CREATE INDEX by_length ON notes (length(text))",
    "CREATE VIEW v AS SELECT * FROM gone -- a comment at its end",
    "CREATE TRIGGER r AFTER INSERT ON notes BEGIN INSERT INTO loose VALUES (new.id, ';', 1); SELECT 1; END",
    "DELETE FROM notes WHERE id = 3",
    "ANALYZE",
    "PRAGMA user_version=42",
    "PRAGMA application_id=-7",
)


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return version(tmp_path / "rich", *RICH)


@pytest.mark.parametrize("kind", ["sqlite", "sql", "tar"])
async def test_an_export_is_imported_as_what_it_was(tmp_path: Path, rich: Path, kind: str) -> None:
    target = tmp_path / "out" / "data"
    target.parent.mkdir()
    exported = await export(rich, target, kind)
    assert (exported.bytes, exported.note) == (target.stat().st_size, "")
    made = tmp_path / "made"
    imported = await import_(target, made)
    assert (imported.kind, imported.warnings) == (kind, ())
    assert contents(made) == contents(rich)
    with closing(sqlite3.connect(made / "database.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT text FROM docs WHERE docs MATCH 'lazy'").fetchall() == [
            ("a lazy dog",)
        ]
    assert sorted(entry.name for entry in made.iterdir()) == ["database.sqlite", "files"]
    assert sorted(entry.name for entry in rich.iterdir()) == ["database.sqlite", "files"]


@pytest.mark.parametrize("kind", ["sqlite", "sql", "tar"])
async def test_an_empty_version_is_exported_and_imported_too(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    await export(tmp_path / "empty", tmp_path / "data", kind)
    assert (await import_(tmp_path / "data", tmp_path / "made")).kind == kind
    assert contents(tmp_path / "made") == contents(version(tmp_path / "other"))


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the program sqlite3")
def test_the_program_sqlite3_reads_our_sql_and_we_read_its(tmp_path: Path, rich: Path) -> None:
    write(rich, tmp_path / "ours.sql", "sql", tmp_path)
    with (tmp_path / "ours.sql").open() as sql:
        read = subprocess.run(["sqlite3", tmp_path / "theirs.db"], stdin=sql, capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")
    assert contents(tmp_path, "theirs.db") == contents(rich)
    # What it loses in its own dump is lost before: texts with a NUL, the smallest numbers, user_version.
    version(
        rich,
        "DELETE FROM notes WHERE id > 3",
        "DELETE FROM loose WHERE b = 5e-324",
        "PRAGMA user_version=0",
        "PRAGMA application_id=0",
    )
    dump = subprocess.run(["sqlite3", rich / "database.sqlite", ".dump"], capture_output=True, check=True)
    (tmp_path / "theirs.sql").write_bytes(dump.stdout)
    (tmp_path / "made").mkdir()
    assert take_in(tmp_path / "theirs.sql", tmp_path / "made", "", 10**9) == ("sql", [])
    assert contents(tmp_path / "made") == contents(rich)


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["'", "\0", "\n;\n", "--", "/*", '"', "a'b;"]),
    st.binary(max_size=9),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5).filter(
    lambda name: not name.lower().startswith("sqlite_")
)


@settings(deadline=None, max_examples=60)
@given(table=NAMES, column=NAMES, rows=st.lists(VALUES, max_size=20))
def test_any_value_under_any_name_comes_back_from_sql(
    tmp_path_factory: pytest.TempPathFactory, table: str, column: str, rows: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    quoted, name = ('"' + each.replace('"', '""') + '"' for each in (table, column))
    place = version(
        folder / "a", f'CREATE TABLE {quoted} ({name}, {name[:-1]}2")', f"CREATE INDEX i ON {quoted} ({name})"
    )
    if rows:
        insert(place, quoted, [(each, each) for each in rows])
    write(place, folder / "sql", "sql", folder)
    (folder / "made").mkdir()
    take_in(folder / "sql", folder / "made", "sql", 10**9)
    assert contents(folder / "made") == contents(place)


@pytest.mark.parametrize("piece", [*range(1, 80), 1 << 16])
def test_statements_are_told_apart_wherever_a_piece_ends(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(script, "PIECE", piece)
    parts = [
        "\ufeff-- a; comment\n/* one; more */ SELECT 1;",
        "\n\nSELECT ';', 'it''s', \"a;\"\"b\", `;`, [;] -- ; '\n, /* ' */ 2;",
        " SELECT 3;",
        "SELECT 1 - - 2 / 3;",
        "\nCREATE TRIGGER r AFTER INSERT ON t BEGIN\n SELECT ';'; DELETE FROM t; END;",
        "\nCREATE temp\nTRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END;",
        ";",
        "\n-- the end",
    ]
    found = list(script.split(io.BytesIO("".join(parts).encode())))
    assert [line for line, _ in found] == [2, 4, 5, 5, 6, 8, 9]
    assert found[1][1] == parts[1].strip()
    assert found[4][1] == parts[4].strip()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "CREATE TABLE t (a);\n\nINSERT INTO nowhere\nVALUES (1);",
            "Line 3 of the SQL cannot be taken: no such table: nowhere",
        ),
        ("SELECT 1;\nSELECT 'never ends", "The statement on line 2 of the SQL has no end"),
        ("ATTACH 'x.db' AS x;", "Line 1 of the SQL cannot be taken: not authorized"),
        ("VACUUM INTO 'x.db';", "Line 1 of the SQL cannot be taken"),
        ("SELECT load_extension('x');", "Line 1 of the SQL cannot be taken: "),
        (
            "CREATE TABLE t (a);\nROLLBACK; -- due to errors",
            "Line 2 of the SQL cannot be taken: it ends with ROLLBACK",
        ),
        (
            "CREATE TABLE t (a);\nINSERT INTO sqlite_master VALUES ('table','x','x',2,'CREATE TABLE x (a)');",
            "Line 2",
        ),
        ("CREATE VIRTUAL TABLE d USING dbstat(main);", "Line 1 of the SQL cannot be taken: not authorized"),
        ("SELECT \0;", "Line 1 of the SQL cannot be taken"),
        (
            "CREATE TABLE `t` (`id` int(11) NOT NULL) ENGINE=InnoDB;",
            "Line 1 of the SQL cannot be taken: near",
        ),
    ],
)
def test_sql_that_cannot_be_taken_is_told_with_its_line(tmp_path: Path, sql: str, said: str) -> None:
    (tmp_path / "sql").write_text(sql)
    (tmp_path / "made").mkdir()
    with pytest.raises(BadInput) as raised:
        take_in(tmp_path / "sql", tmp_path / "made", "", 10**9)
    assert said in raised.value.sentence
    assert not Path("x.db").exists()


def test_settings_that_a_script_makes_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "sql").write_text(
        "PRAGMA writable_schema=ON; PRAGMA journal_mode=OFF; BEGIN; CREATE TABLE t (a); PRAGMA user_version = 3; END;"
    )
    (tmp_path / "made").mkdir()
    take_in(tmp_path / "sql", tmp_path / "made", "", 10**9)
    with closing(sqlite3.connect(tmp_path / "made" / "database.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_script_that_never_ends_is_ended_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    (tmp_path / "in" / "sql").write_text(f"CREATE TABLE t (a);\nINSERT INTO t {endless};")
    with pytest.raises(DiskFull):
        await import_(tmp_path / "in" / "sql", tmp_path / "made", limits=Limits(disk=2_000_000))
    (tmp_path / "in" / "sql").write_text(f"SELECT max(i) FROM ({endless});")
    with pytest.raises(StepFailed, match="took more than 2 s"):
        await import_(tmp_path / "in" / "sql", tmp_path / "made", limits=Limits(seconds=2))
    assert list((tmp_path / "made").iterdir()) == []


async def test_what_is_there_is_not_mixed_with_what_is_sent(tmp_path: Path) -> None:
    place = version(tmp_path / "a", "CREATE TABLE t (a)")
    (tmp_path / "sql").write_text("CREATE TABLE u (a);")
    with pytest.raises(Conflict):
        await import_(tmp_path / "sql", place)
    with pytest.raises(BadInput, match="no kind of export"):
        await import_(tmp_path / "sql", tmp_path / "made", kind="csv")
    with pytest.raises(BadInput, match="no kind of export"):
        await export(place, tmp_path / "x", "csv")


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    place = version(tmp_path / "a", "CREATE TABLE t (a)", "CREATE INDEX i ON t (a)")
    insert(place, "t", [("x" * 100,) for _ in range(500)])
    with (place / "database.sqlite").open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * 4096)
    for name in ("made", "madesqlite", "madetar"):
        (tmp_path / name).mkdir()
    with pytest.raises(BadInput, match="damaged"):
        take_in(place / "database.sqlite", tmp_path / "made", "", 10**9)
    (tmp_path / "made" / "database.sqlite").unlink()
    (tmp_path / "none").write_bytes(b"\xff\xfe\x00garbage")
    for kind, said in (("sqlite", "no SQLite database"), ("tar", "cannot be read"), ("", "no end|no UTF-8")):
        with pytest.raises(BadInput, match=said):
            take_in(tmp_path / "none", tmp_path / f"made{kind}", kind, 10**9)


def test_foreign_keys_that_lead_nowhere_are_a_warning(tmp_path: Path) -> None:
    place = version(
        tmp_path / "a",
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (p REFERENCES p)",
        "INSERT INTO c VALUES (1), (2)",
    )
    (tmp_path / "made").mkdir()
    _, warnings = take_in(place / "database.sqlite", tmp_path / "made", "", 10**9)
    assert warnings == ["2 rows of c in database.sqlite name rows of p that are not there."]


def test_a_database_with_an_apps_own_collation_is_carried_as_it_is(tmp_path: Path) -> None:
    place = version(tmp_path / "a")
    with closing(sqlite3.connect(place / "database.sqlite")) as connection:
        connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        connection.execute("CREATE TABLE t (a TEXT COLLATE backwards PRIMARY KEY)")
        connection.executemany("INSERT INTO t VALUES (?)", [(letter,) for letter in "abcdef"])
        connection.commit()
    note = write(place, tmp_path / "out", "sqlite", tmp_path)
    assert "not compacted" in note
    (tmp_path / "made").mkdir()
    _, warnings = take_in(tmp_path / "out", tmp_path / "made", "", 10**9)
    assert ["not checked whole" in warning for warning in warnings] == [True]
    with closing(sqlite3.connect(tmp_path / "made" / "database.sqlite")) as connection:
        connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute(
            "SELECT group_concat(a, '') FROM (SELECT a FROM t ORDER BY a)"
        ).fetchone() == ("fedcba",)


def test_a_main_database_that_is_none_is_not_exported_as_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "database.sqlite").write_text("garbage")
    for kind in ("sqlite", "sql", "tar"):
        with pytest.raises(StepFailed, match="no SQLite database"):
            write(tmp_path / "a", tmp_path / f"out.{kind}", kind, tmp_path)
    (tmp_path / "a" / "database.sqlite").unlink()
    (tmp_path / "a" / "database.sqlite").symlink_to(
        version(tmp_path / "secret", "CREATE TABLE s (a)") / "database.sqlite"
    )
    with pytest.raises(StepFailed, match="no SQLite database"):
        write(tmp_path / "a", tmp_path / "out", "sqlite", tmp_path)


async def test_a_tar_has_files_links_within_and_databases_whole(tmp_path: Path) -> None:
    place = version(tmp_path / "a", "CREATE TABLE t (a)")
    version(place, "CREATE TABLE u (a)", "INSERT INTO u VALUES (1)", database="files/deep/app.db")
    (place / "files" / "photo.jpg").write_bytes(b"pixels")
    (place / "files" / "photo.jpg").chmod(0o4640)
    os.utime(place / "files" / "photo.jpg", (1_000_000, 1_000_000))
    (place / "files" / "near").symlink_to("deep/app.db")
    (place / "files" / "far").symlink_to("/etc/passwd")
    (place / "files" / "up").symlink_to("../database.sqlite")
    exported = await export(place, tmp_path / "out", "tar")
    assert exported.note == (
        "far is a link that leads out of DATA_DIR, and is not in it. "
        "up is a link that leads out of DATA_DIR, and is not in it."
    )
    made = tmp_path / "made"
    await import_(tmp_path / "out", made)
    assert contents(made, "files/deep/app.db") == contents(place, "files/deep/app.db")
    assert sorted(entry.name for entry in (made / "files").iterdir()) == ["deep", "near", "photo.jpg"]
    assert (made / "files" / "near").readlink() == Path("deep/app.db")
    facts = (made / "files" / "photo.jpg").stat()
    assert (facts.st_mode & 0o7777, int(facts.st_mtime)) == (0o640, 1_000_000)
    assert (made / "files" / "photo.jpg").read_bytes() == b"pixels"
    assert "3 files of DATA_DIR are not in it" in (await export(made, tmp_path / "again", "sqlite")).note


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, to, size
    return made


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("/etc/x")], "leads out"),
        ([member("files/../../x")], "leads out"),
        ([member("x")], "is neither database.sqlite nor in files/"),
        ([member("files/x", tarfile.LNKTYPE, "files/y")], "neither a file, a folder nor a link"),
        ([member("files/x", tarfile.CHRTYPE)], "neither a file, a folder nor a link"),
        ([member("files/x", tarfile.FIFOTYPE)], "neither a file, a folder nor a link"),
        ([member("database.sqlite", tarfile.SYMTYPE, "files/x")], "neither a file, a folder nor a link"),
        (
            [
                member("database.sqlite"),
                member("files/a/b/c/up", tarfile.SYMTYPE, "../../.."),
                member("files/a/b/c/out", tarfile.SYMTYPE, "up/../../etc"),
            ],
            "leads out",
        ),
        ([member("files/a", tarfile.SYMTYPE, "b"), member("files/b", tarfile.SYMTYPE, "a")], "leads out"),
        ([member("files", tarfile.SYMTYPE, "/etc")], "leads out"),
        (
            [member("files/a", tarfile.SYMTYPE, "../.."), member("files/a/planted", tarfile.SYMTYPE, "x")],
            "leads out",
        ),
        ([member("files/x", tarfile.SYMTYPE, "/etc/passwd")], "leads out"),
        ([member("files/x", tarfile.SYMTYPE, "../../y")], "leads out"),
        ([member("files/a"), member("files/a")], "there twice"),
        ([member("files/a"), member("files/a/b")], "there twice"),
        (
            [member("files/a", tarfile.SYMTYPE, "b"), member("files/a/x"), member("database.sqlite")],
            "there twice",
        ),
        ([member("files/a")], "no database.sqlite"),
        ([member("database.sqlite", size=2_000_000)], "larger than may be written"),
    ],
)
def test_a_hostile_tar_writes_nothing_elsewhere(
    tmp_path: Path, members: list[tarfile.TarInfo], said: str
) -> None:
    with tarfile.open(tmp_path / "tar", "w") as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    (tmp_path / "made").mkdir()
    with pytest.raises(BadInput, match=said):
        take_in(tmp_path / "tar", tmp_path / "made", "", 1_000_000)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["made", "tar"]


def test_a_tar_of_a_database_that_was_in_use_is_refused(tmp_path: Path) -> None:
    place = version(tmp_path / "a", "CREATE TABLE t (a)")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(place / "database.sqlite", "./database.sqlite")
        tar.addfile(member("./database.sqlite-wal"))
    (tmp_path / "made").mkdir()
    with pytest.raises(BadInput):
        take_in(tmp_path / "tar", tmp_path / "made", "", 10**9)


def test_a_tar_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    place = version(tmp_path / "a", "CREATE TABLE t (a)")
    write(place, tmp_path / "tar", "tar", tmp_path)
    content = (tmp_path / "tar").read_bytes()
    (tmp_path / "tar").write_bytes(content[:3000])
    (tmp_path / "made").mkdir()
    with pytest.raises(BadInput, match="cannot be read"):
        take_in(tmp_path / "tar", tmp_path / "made", "tar", 10**9)
