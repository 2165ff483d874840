"""SQL as psql takes it, apart: where statements begin and end, and the rows of a COPY."""

from __future__ import annotations

import io

import pytest

from lazycloud.data.tools import statements
from lazycloud.data.tools.statements import Script
from lazycloud.errors import BadInput

WHOLE = [
    "SELECT 1;",
    "SELECT ';', 'it''s; \\', \";\", E'\\'; \\\\', e'a'';b', U&'\\0061;', x'00';",
    "SELECT date'2026-01-01', typee'x;', 1-1, 4/2, -1;",
    "SELECT $$;$$, $a$ ; $$ ; $a$, a$b$c, $1, 'x'::text;",
    "SELECT 1 -- a comment; with a '\n, 2;",
    "SELECT 1 /* ; /* ' */ ; */, 2;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;",
    "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT (CASE WHEN true THEN 1 END); END;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN; RETURN 1; END $$;",
    "CREATE RULE r AS ON DELETE TO a DO ALSO (INSERT INTO b VALUES (1); DELETE FROM b);",
    "CREATE TABLE \"begin\" (a int DEFAULT ((1)));",
    "DO $body$ BEGIN PERFORM '\\'; END $body$;",
]  # fmt: skip


def read(text: str) -> list[tuple[int, str]]:
    found = []
    script = Script(io.BytesIO(text.encode()))
    for one in script.statements():
        found.append((one.line, one.text.decode()))
        if one.text.upper().startswith(b"COPY"):
            found.append((0, b"".join(script.rows()).decode()))
    return found


@pytest.fixture(params=[1, 7, 1 << 18], ids=["letter by letter", "in pieces", "at once"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "PIECE", request.param)


@pytest.mark.usefixtures("pieces")
def test_statements_end_where_they_do_for_psql() -> None:
    text = "\ufeff-- of a dump\n\n" + "\n".join(WHOLE) + "\n -- the end"
    assert [one for _, one in read(text)] == WHOLE
    assert [line for line, _ in read(text)][:6] == [3, 4, 5, 6, 7, 9]


@pytest.mark.usefixtures("pieces")
def test_rows_of_a_copy_go_up_to_the_line_that_ends_them() -> None:
    rows = "1\tit's; \\\\\n2\t\\N\n\\\\.\n3\t$$\n"
    text = f"COPY a FROM stdin;\n{rows}\\.\n\nCOPY b FROM stdin;\n\\.\nSELECT 1;\nCOPY c FROM stdin;\r\nx\r\n\\.\r\n"
    assert read(text) == [
        (1, "COPY a FROM stdin;"), (0, rows), (8, "COPY b FROM stdin;"), (0, ""),
        (10, "SELECT 1;"), (11, "COPY c FROM stdin;"), (0, "x\r\n"),
    ]  # fmt: skip
    assert read("COPY a FROM stdin;\n1\n\\.") == [(1, "COPY a FROM stdin;"), (0, "1\n")]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "text, said",
    [
        ("SELECT 1;\n\\! touch /tmp/owned\n", "Line 2 of the SQL has \\!, a command of psql’s"),
        ("SELECT 1 \\g /tmp/owned\n", "Line 1 of the SQL has \\g,"),
        ("\\copy a FROM PROGRAM 'id'\n", "Line 1 of the SQL has \\copy,"),
        ("SELECT 1;\n\n  \\i /etc/passwd", "Line 3 of the SQL has \\i,"),
        ("\\connect other\n", "\\connect,"),
        ("\\restrict\nSELECT 1;\n", "\\restrict,"),
        ("SELECT 1 \\restrict x\n;", "Line 1 of the SQL has \\restrict,"),
        ("SELECT 1;\n\\.\n", "Line 2 of the SQL has \\.,"),
        ("SELECT 1;\n\nSELECT 'a;", "statement on line 3 of the SQL has no end"),
        ("SELECT $$ 1;", "statement on line 1 of the SQL has no end"),
        ("SELECT /* 1;", "statement on line 1 of the SQL has no end"),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;", "has no end"),
        ("COPY a FROM stdin;\n1\n2\n", "rows that begin on line 2 of the SQL have no end"),
        ("COPY a FROM stdin; SELECT 1;\n1\n\\.\n", "are to begin on a line of their own"),
        ("SELECT '\0';", "There is a NUL byte on line 1"),
    ],
)
def test_what_is_none_of_it_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(BadInput) as failed:
        read(text)
    assert said in failed.value.sentence


@pytest.mark.usefixtures("pieces")
def test_the_edges_of_newer_dumps_are_left_out() -> None:
    text = "--\n\n\\restrict aB3\n\nSELECT 1;\n\n\\unrestrict aB3\n\n"
    assert read(text) == [(5, "SELECT 1;")]


def test_backslashes_escape_where_the_session_says_so() -> None:
    script = Script(io.BytesIO(b"SELECT 'a\\';SELECT 'b\\';SELECT';"))
    found = []
    for one in script.statements():
        found.append(one.text)
        script.escapes = True
    assert found == [b"SELECT 'a\\';", b"SELECT 'b\\';SELECT';"]


def test_a_statement_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "LONGEST", 1_000_000)
    with pytest.raises(BadInput, match="What begins on line 1 of the SQL is longer than 1 MB"):
        read(f"SELECT '{'x' * 2_000_000}")
