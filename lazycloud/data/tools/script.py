"""Runs SQL that somebody sent: one statement after the other, in one transaction, on a database of its own.

It reaches nothing but that database. What dumps have at their edges means nothing here: transactions, and settings of
the connection. What they write to the schema itself is taken for virtual tables only.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lazycloud.data.tools.database import SETTINGS
from lazycloud.errors import BadInput

LONGEST = 200_000_000  # bytes of one statement
SHOWN = 120  # characters of one, in errors
PIECE = 1 << 16
_MODULES = {"fts3", "fts4", "fts5", "rtree", "rtree_i32", "geopoly"}
_BLANK = re.compile(rb"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_TRIGGER = re.compile(rb"CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?TRIGGER\s", re.IGNORECASE)
_EDGES = {"BEGIN", "COMMIT", "END"}
_SETTING = re.compile(rf"\s*PRAGMA\s+(?:{'|'.join(SETTINGS)})\s*=\s*-?\d+\s*;", re.IGNORECASE)
_VIRTUAL = re.compile(
    r"\s*INSERT\s+INTO\s+sqlite_(?:schema|master)\s*\(\s*type\s*,\s*name\s*,\s*tbl_name\s*,\s*rootpage\s*,\s*sql\s*\)"
    r"\s*VALUES\s*\(\s*'table'\s*,\s*'(?:[^']|'')*'\s*,\s*'(?:[^']|'')*'\s*,\s*0\s*,"
    r"\s*'CREATE\s+VIRTUAL\s+TABLE\s(?:[^']|'')*'\s*\)\s*;",
    re.IGNORECASE,
)
_TOKENS = re.compile(rb"'|\"|`|\[|--|/\*|;")
# All that is no end, as far as it is there whole: one step for most statements.
_WHOLE = re.compile(
    rb"""(?:[^'"`\[;/-]++|'[^']*+'|"[^"]*+"|`[^`]*+`|\[[^\]]*+\]|--[^\n]*+\n|/\*.*?\*/|-(?=[^-])|/(?=[^*]))*+""",
    re.DOTALL,
)
_CLOSED_BY = {b"'": b"'", b'"': b'"', b"`": b"`", b"[": b"]", b"--": b"\n", b"/*": b"*/"}
_REFUSED = {
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
}
_DANGEROUS = {"load_extension", "fts3_tokenizer"}


def run(file: Path, database: Path, most: int) -> None:
    """All of it, or an error. `most`: bytes of the database.

    Raises BadInput with the line, sqlite3's error for a full disk.
    """
    connection = sqlite3.connect(database, isolation_level=None, cached_statements=0)
    with contextlib.closing(connection), file.open("rb") as text:
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        for pragma in ("trusted_schema=OFF", "ignore_check_constraints=ON", f"max_page_count={most // page}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.execute("BEGIN")
        connection.set_authorizer(_allowed)
        for line, statement in split(text):
            with _told(line, statement):
                _run(connection, statement)
        connection.set_authorizer(None)
        connection.execute("COMMIT")


def _run(connection: sqlite3.Connection, statement: str) -> None:
    word = _first_word(statement)
    if word == "ROLLBACK":
        raise BadInput("it ends with ROLLBACK, so whoever wrote it met errors")
    if word in _EDGES or (word == "PRAGMA" and not _SETTING.fullmatch(statement)):
        return
    if _VIRTUAL.fullmatch(statement):
        connection.set_authorizer(None)
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(statement)
        connection.execute("PRAGMA writable_schema=OFF")
        connection.set_authorizer(_allowed)
        return
    connection.execute(statement).close()


def _first_word(statement: str) -> str:
    """Of a statement without comments before it."""
    word = re.match(r"[A-Za-z]*", statement)
    assert word
    return word[0].upper()


def _allowed(action: int, one: str | None, other: str | None, schema: str | None, by: str | None) -> int:
    """An authorizer."""
    refused = (
        action in _REFUSED
        or (action == sqlite3.SQLITE_PRAGMA and one not in SETTINGS)
        or (action == sqlite3.SQLITE_FUNCTION and other in _DANGEROUS)
        or (action == sqlite3.SQLITE_CREATE_VTABLE and (other or "").lower() not in _MODULES)
    )
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


@contextlib.contextmanager
def _told(line: int, statement: str) -> Iterator[None]:
    """An error of a statement, with its line."""
    try:
        yield
    except BadInput as problem:
        raise BadInput(f"Line {line} of the SQL cannot be taken: {problem.sentence}.") from problem
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as problem:
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise
        shown = " ".join(statement[: 4 * SHOWN].split())[:SHOWN]
        raise BadInput(
            f"Line {line} of the SQL cannot be taken: {str(problem) or 'it is too large'} (in “{shown}”).",
            "SQL is what `sqlite3 FILE .dump` writes: another database's is written differently.",
        ) from problem


def split(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Statements, and the lines on which they begin, from 1. Raises BadInput for one without an end, or no text."""
    found, line, scan = bytearray(file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)), 1, _Scan()
    while piece := file.read(PIECE):
        found += piece
        begins = 0
        while (end := scan.end(found, begins)) >= 0:
            statement = bytes(found[begins:end])
            blank = _BLANK.match(statement)
            assert blank
            yield line + statement.count(b"\n", 0, blank.end()), _text(statement[blank.end() :], line)
            line += statement.count(b"\n")
            begins = end
        del found[:begins]
        scan.at -= begins
        if len(found) > LONGEST:
            raise BadInput(
                f"The statement on line {line} of the SQL is longer than {LONGEST // 1_000_000} MB."
            )
    blank = _BLANK.match(found)
    assert blank
    if blank.end() < len(found):
        line += found.count(b"\n", 0, blank.end())
        raise BadInput(f"The statement on line {line} of the SQL has no end, or the file is no SQL.")


class _Scan:
    """Looks for the end of a statement in text that is still coming: `at` is how far it got."""

    def __init__(self) -> None:
        self.at = 0
        self._closes = b""  # what ends the quoted text or the comment that it is in

    def end(self, text: bytearray, begins: int) -> int:
        """Behind the semicolon that ends the statement which begins there; -1 if that is still to come."""
        while True:
            if self._closes:
                closed = text.find(self._closes, self.at)
                if closed < 0:  # the last letter may be half of what is looked for
                    self.at = max(self.at, len(text) - 1)
                    return -1
                self.at, self._closes = closed + len(self._closes), b""
            whole = _WHOLE.match(text, self.at)
            assert whole
            self.at = whole.end()
            token = _TOKENS.search(text, self.at)
            if not token:
                return -1
            self.at = token.end()
            if token[0] != b";":
                self._closes = _CLOSED_BY[token[0]]
            elif _is_complete(text, begins, self.at):
                return self.at


def _is_complete(text: bytearray, begins: int, end: int) -> bool:
    """A trigger has statements within."""
    blank = _BLANK.match(text, begins, end)
    assert blank
    if not _TRIGGER.match(text, blank.end(), end):
        return True
    with contextlib.suppress(ValueError):
        return sqlite3.complete_statement(text[begins:end].decode(errors="replace"))
    return True


def _text(statement: bytes, line: int) -> str:
    try:
        return statement.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise BadInput(f"The SQL is no UTF-8 text, on line {line} or after it.") from problem
