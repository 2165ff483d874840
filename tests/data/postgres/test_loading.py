"""Files that somebody sends, as the contents of a database: all of it or an error, and nothing elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lazycloud.data import tools
from lazycloud.data.names import PRODUCTION
from lazycloud.data.postgres.provider import Postgres as Provider
from lazycloud.data.tools.dumps import write_sql
from lazycloud.data.tools.loading import load
from lazycloud.errors import BadInput, StepFailed
from lazycloud.walls import sandbox
from lazycloud.walls.sandbox import Sandbox
from tests.data.postgres.conftest import ONE, OTHER, rows, run
from tests.data.tools.folders import version
from tests.data.tools.test_dumps import RICH
from tests.postgres import Postgres

MORE = (
    "CREATE EXTENSION pgcrypto",
    "CREATE TYPE mood AS ENUM ('a', 'b')",
    "CREATE TABLE rich (id int GENERATED ALWAYS AS IDENTITY, m mood, t text,"
    " g int GENERATED ALWAYS AS (1 + 1) STORED)",
    "INSERT INTO rich (m, t) VALUES ('a', E'\\\\. \\\\N \\t ;\\n\\\\.\\n$$'), ('b', NULL)",
    "CREATE FUNCTION two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
    "CREATE VIEW many AS SELECT two() AS n, t FROM rich",
    "CREATE MATERIALIZED VIEW kept AS SELECT t FROM rich",
    "CREATE RULE twice AS ON DELETE TO loose DO ALSO (INSERT INTO zed VALUES (1); INSERT INTO zed VALUES (2))",
    "SELECT lo_from_bytea(7, 'abc')",
    "GRANT SELECT ON rich TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sql", "dump"])
async def test_what_goes_out_comes_in_as_it_was(
    provider: Provider, postgres: Postgres, tmp_path: Path, kind: str
) -> None:
    walls = None if sandbox.missing() else Sandbox(tmp_path / "home", {})
    (tmp_path / "home").mkdir()
    for name in (PRODUCTION, ONE):
        await provider.fork(name, None)
    await run(provider, PRODUCTION, *RICH, *MORE)
    before, after = version(tmp_path / "a"), version(tmp_path / "b")
    await provider.unfold(PRODUCTION, None, before / "postgres.dump")
    file = version(tmp_path / "sent") / "data"
    if kind == "sql":
        write_sql(before / "postgres.dump", file)
    else:
        file.write_bytes((before / "postgres.dump").read_bytes())
    login = await provider.environment(ONE)
    reach: tuple[Path, ...] = ()
    if kind == "sql":  # by its socket, of which only the folder is shown
        login, reach = login | {"PGHOST": str(postgres.folder)}, (postgres.folder,)
    done = await tools.load(file, kind, login, walls=walls, reach=reach)
    assert (done.kind, done.warnings) == (kind, ())
    await provider.unfold(ONE, None, after / "postgres.dump")
    found = await tools.difference(before, after)
    assert [(one.schema, one.tables, one.note) for one in found.databases] == [
        ((), (), "Large objects are not compared.")
    ]
    assert await rows(provider, ONE, "SELECT lo_get(7)") == [b"abc"]
    assert await rows(provider, ONE, "SELECT two()") == [2]


BY_PSQL, BY_THE_SERVER = (
    "a command of psql’s",
    r"permission denied|must be |must have |access to library|requires",
)
HOSTILE = [
    ("COPY a FROM PROGRAM 'touch {touched}';", BY_THE_SERVER),
    ("COPY a TO PROGRAM 'touch {touched}';", BY_THE_SERVER),
    ("COPY a FROM '/etc/passwd';", BY_THE_SERVER),
    ("COPY a TO '{touched}';", BY_THE_SERVER),
    ("COPY a TO STDOUT;", "nothing is copied out"),
    ("\\! touch {touched}\n", BY_PSQL),
    ("SELECT 'touch {touched}' \\g |sh\n", BY_PSQL),
    ("\\copy a FROM PROGRAM 'touch {touched}'\n", BY_PSQL),
    ("\\i /etc/passwd\n", BY_PSQL),
    ("\\connect {other}\n", BY_PSQL),
    ("SELECT pg_read_file('/etc/passwd');", BY_THE_SERVER),
    ("SELECT pg_ls_dir('/');", BY_THE_SERVER),
    ("SELECT lo_import('/etc/passwd');", BY_THE_SERVER),
    ("LOAD '{touched}';", BY_THE_SERVER),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS '{touched}';", BY_THE_SERVER),
    ("CREATE EXTENSION postgres_fdw;", BY_THE_SERVER),
    ("CREATE EXTENSION dblink;", BY_THE_SERVER),
    ("SET ROLE \"{other}\";", BY_THE_SERVER),
    ("SET SESSION AUTHORIZATION \"{other}\";", BY_THE_SERVER),
    ("DO $$ BEGIN EXECUTE 'GRANT \"{other}\" TO CURRENT_USER'; END $$;", BY_THE_SERVER),
    ("DO $$ BEGIN EXECUTE 'GRANT ' || quote_ident(current_user) || ' TO \"{other}\"'; END $$;", BY_THE_SERVER),
    ("ALTER ROLE \"{other}\" PASSWORD 'x';", BY_THE_SERVER),
    ("ALTER ROLE CURRENT_USER SUPERUSER;", BY_THE_SERVER),
    ("CREATE ROLE x;", BY_THE_SERVER),
    ("CREATE DATABASE x;", BY_THE_SERVER),
    ("DROP DATABASE \"{other}\";", BY_THE_SERVER),
    ("ALTER DATABASE \"{own}\" CONNECTION LIMIT 5;", BY_THE_SERVER),
    ("ALTER SYSTEM SET fsync = off;", BY_THE_SERVER),
    ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{admin}';", ""),
]  # fmt: skip


async def test_hostile_sql_gets_nowhere(either: Provider, tmp_path: Path) -> None:
    """Each is refused, on its line; by the server, or, where it is for psql, before it would get there."""
    for name in (ONE, OTHER):
        await either.fork(name, None)
    login = await either.environment(ONE)
    touched, other = tmp_path / "touched", (await either.environment(OTHER))["PGDATABASE"]
    names = {"touched": touched, "other": other, "own": login["PGDATABASE"], "admin": "lazycloud"}
    file = tmp_path / "sent"
    for statement, said in HOSTILE:
        for name, value in names.items():
            statement = statement.replace(f"{{{name}}}", str(value))
        file.write_text(f"CREATE TEMPORARY TABLE a (t text);\n\n{statement}")
        if not said:
            load(file, login, "the SQL")
            continue
        with pytest.raises(BadInput) as failed:
            load(file, login, "the SQL")
        assert failed.value.sentence.startswith("Line 3 of the SQL "), statement
        assert re.search(said, failed.value.sentence), statement
    assert not touched.exists()
    assert await rows(either, ONE, "SELECT 1") == await rows(either, OTHER, "SELECT 1") == [1]


@pytest.mark.parametrize(
    "text, said",
    [
        ("SELECT 1;\n\nSELECT\n  nothing_such;", 'Line 4 of the SQL cannot be taken: column "nothing_such" does not'),
        ("CREATE TABLE a (id int);\nCOPY a FROM stdin;\n1\n2\nthree\n\\.\n", "Line 5 of the SQL cannot be taken"),
        ("CREATE TABLE a (id int UNIQUE);\nCOPY a FROM stdin;\n1\n1\n\\.\n", "Line 4 of the SQL cannot be taken"),
        ("CREATE TABLE a (id int);\nCOPY a FROM stdin;\n1\n2\n", "rows that begin on line 3 of the SQL have no end"),
        ("SELECT 1;\nBEGIN;\nSELECT 2;", "There is a transaction without its end in the SQL"),
        ("SELECT 1;\nBEGIN;\nSET timeout_of_99 = 0;\nCOMMIT;", "Line 3 of the SQL cannot be taken: unrecog"),
        ("PRAGMA foreign_keys=OFF;", "Line 1 of the SQL cannot be taken: syntax error"),
    ],
)  # fmt: skip
async def test_an_error_names_the_line(provider: Provider, tmp_path: Path, text: str, said: str) -> None:
    await provider.fork(ONE, None)
    (tmp_path / "sent").write_text(text)
    with pytest.raises(BadInput) as failed:
        load(tmp_path / "sent", await provider.environment(ONE), "the SQL")
    assert said in failed.value.sentence


async def test_what_is_elsewhere_only_is_left_out_and_told(provider: Provider, tmp_path: Path) -> None:
    await provider.fork(ONE, None)
    (tmp_path / "sent").write_text(
        "SET transaction_timeout_of_99 = 0;\nCREATE SCHEMA public;\n"
        "COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL';\n"
        "CREATE TABLE public.entry (id int, text text DEFAULT ' OWNER TO x;');\n"
        "ALTER TABLE public.entry OWNER TO shop;\n"
        'ALTER VIEW "it\'s" OWNER TO "the shop";\n'
        "GRANT ALL ON TABLE public.entry TO reader;\n"
        "ALTER DEFAULT PRIVILEGES FOR ROLE shop GRANT SELECT ON TABLES TO reader;\n"
        "ALTER TABLE public.entry ALTER text SET DEFAULT ' OWNER TO x;';\n"
        "INSERT INTO entry VALUES (1, 'one'), (2, DEFAULT);\n"
    )
    warnings = load(tmp_path / "sent", await provider.environment(ONE), "the SQL")
    assert warnings == [
        "4 statements were left out, of owners and privileges: all belongs to the version’s own role.",
        "This server has no such settings: transaction_timeout_of_99.",
    ]
    assert await rows(provider, ONE) == ["one", " OWNER TO x;"]


async def test_a_file_that_is_no_dump_is_refused(provider: Provider, tmp_path: Path) -> None:
    await provider.fork(ONE, None)
    login = await provider.environment(ONE)
    for content, said in (
        (b"no dump", "does not begin as one"),
        (b"PGDMP, or not", "The dump cannot be read"),
    ):
        (tmp_path / "sent").write_bytes(content)
        with pytest.raises(BadInput, match=said):
            await tools.load(tmp_path / "sent", "dump", login)
    with pytest.raises(BadInput, match="no text"):
        (tmp_path / "sent").write_bytes(b"\0\1\2;")
        await tools.load(tmp_path / "sent", "sql", login)


async def test_a_server_that_is_away_is_not_the_files_fault(
    provider: Provider, postgres: Postgres, tmp_path: Path
) -> None:
    await provider.fork(ONE, None)
    login = await provider.environment(ONE)
    (tmp_path / "sent").write_text("SELECT pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(StepFailed, match="did not take line 1"):
        load(tmp_path / "sent", login, "the SQL")
    with pytest.raises(StepFailed, match="does not let the data in") as failed:
        load(tmp_path / "sent", login | {"PGPASSWORD": "wr0ng"}, "the SQL")
    assert "wr0ng" not in str(failed.value)
