"""Runs SQL that somebody sent in a database of Postgres which is there for nothing else. See `tasks.load`.

It is run as the role of a version, which may do anything in that database and nothing elsewhere: the server sees to
that. Here nothing of it is run: there is no psql, and no file is opened that it names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from lazycloud.data.tools.statements import Script, Statement
from lazycloud.data.tools.values import readable
from lazycloud.errors import BadInput, DiskFull, StepFailed

SHOWN = 120  # characters of a statement, in errors
CONNECT_SECONDS = 10
OPTIONS = (
    "-c statement_timeout=3600s -c synchronous_commit=off -c client_min_messages=error "
    "-c client_connection_check_interval=500ms"  # what is killed holds no locks any longer
)
# A whole statement that says whose something is, or who may do what with it, as pg_dump writes them.
_WHOSE = re.compile(
    rb"(?:GRANT|REVOKE|ALTER\s+DEFAULT\s+PRIVILEGES)\b"
    rb"|ALTER\s(?:[^'\";]|\"[^\"]*\")*\sOWNER\s+TO\s+(?:\"(?:[^\"]|\"\")+\"|[\w$\x80-\xff]+)\s*;\Z",
    re.IGNORECASE,
)
_SETTING = re.compile(rb"SET\s+([\w.]+)\s*(?:=|\sTO\s)", re.IGNORECASE)
_OF_EXTENSION = re.compile(rb"COMMENT\s+ON\s+EXTENSION\b", re.IGNORECASE)
_PUBLIC = re.compile(rb"CREATE\s+SCHEMA\s+public\s*;", re.IGNORECASE)
_ROW = re.compile(r"COPY .*?, line (\d+)", re.DOTALL)
_UNKNOWN, _DENIED, _TWICE, _DISK_FULL = "42704", "42501", "42P06", "53100"  # SQLSTATE
_OF_THE_SERVER = ("53", "57", "58", "XX")  # classes: nothing that the SQL is to blame for


def load(file: Path, login: Mapping[str, str], told: str) -> list[str]:
    """All of it, or an error; warnings. `login`: as libpq's variables have it; `told`: what the SQL is called.

    Raises BadInput with the line, StepFailed for the server, DiskFull for its disk.
    """
    with _connected(login) as connection, file.open("rb") as content:
        return _Load(connection, Script(content), told).run()


@contextlib.contextmanager
def _connected(login: Mapping[str, str]) -> Iterator[PGconn]:
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    names |= {"PGDATABASE": "dbname", "PGSSLMODE": "sslmode", "PGSSLROOTCERT": "sslrootcert"}
    params = {names[name]: value for name, value in login.items() if name in names}
    words = make_conninfo(**params, options=OPTIONS, connect_timeout=CONNECT_SECONDS)
    connection: PGconn = pq.PGconn.connect(words.encode())
    try:
        if connection.status != ConnStatus.OK:
            raise StepFailed(f"The Postgres server does not let the data in: {_said(connection)}.")
        yield connection
    finally:
        connection.finish()


def _said(connection: PGconn) -> str:
    return readable(connection.error_message.decode(errors="replace")).strip().rstrip(".")


class _Load:
    """Of one script, by one session."""

    def __init__(self, connection: PGconn, script: Script, told: str) -> None:
        self._connection = connection
        self._script = script
        self._told = told
        self._whose = 0  # statements that were left out
        self._settings: list[str] = []

    def run(self) -> list[str]:
        for statement in self._script.statements():
            if _WHOSE.match(statement.text):
                self._whose += 1
            else:
                self._do(statement)
                self._script.escapes = (
                    self._connection.parameter_status(b"standard_conforming_strings") == b"off"
                )
        if self._connection.transaction_status != TransactionStatus.IDLE:
            raise BadInput(f"There is a transaction without its end in {self._told}: the file was cut off.")
        return list(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self._whose:
            what = "statement was" if self._whose == 1 else "statements were"
            yield (
                f"{self._whose} {what} left out, of owners and privileges: all belongs to the version’s own role."
            )
        if self._settings:
            yield f"This server has no such settings: {', '.join(self._settings[:20])}."

    def _do(self, statement: Statement) -> None:
        """Raises as `load` does."""
        is_alone = self._connection.transaction_status == TransactionStatus.IDLE
        self._connection.send_query(statement.text)
        self._connection.set_single_row_mode()  # nobody wants them: they are not to be collected
        began = 0  # the line of the first row of a COPY
        while result := self._connection.get_result():
            try:
                if result.status == ExecStatus.COPY_IN:
                    began = self._copy(statement)
                elif result.status in (ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
                    raise self._refused(statement.line, "nothing is copied out while data come in", statement)
                elif result.status == ExecStatus.FATAL_ERROR:
                    self._demand(statement, result, began, is_alone)
            finally:
                result.clear()

    def _copy(self, statement: Statement) -> int:
        """Returns the line on which its rows begin."""
        began = statement.line + statement.text.count(b"\n") + 1
        for piece in self._script.rows():
            self._connection.put_copy_data(piece)
        self._connection.put_copy_end()
        return began

    def _demand(self, statement: Statement, result: PGresult, began: int, is_alone: bool) -> None:
        """What does no harm is told, or not even that, unless a transaction ends by it. Raises as `load` does."""
        said = _fields(result)
        state = said(DiagnosticField.SQLSTATE)
        if is_alone and self._is_forgiven(statement, state):
            return
        sentence = said(DiagnosticField.MESSAGE_PRIMARY) or _said(self._connection)
        if state == _DISK_FULL:
            raise DiskFull("The disk of the Postgres server is full.", "Make room there.")
        if not state or state.startswith(_OF_THE_SERVER):
            raise StepFailed(f"The Postgres server did not take line {statement.line}: {sentence}.")
        line = statement.line
        if (row := _ROW.search(said(DiagnosticField.CONTEXT))) and began:
            line = began + int(row[1]) - 1
        elif position := said(DiagnosticField.STATEMENT_POSITION):
            line = statement.line_at(int(position))
        raise self._refused(line, sentence, statement)

    def _is_forgiven(self, statement: Statement, state: str) -> bool:
        """Of a dump of a newer server, or of one where somebody else made the extensions."""
        setting = _SETTING.match(statement.text)
        if setting and state == _UNKNOWN:
            self._settings.append(readable(setting[1][:60].decode(errors="replace")))
            return True
        return bool(
            (state == _DENIED and _OF_EXTENSION.match(statement.text))
            or (state == _TWICE and _PUBLIC.match(statement.text))
        )

    def _refused(self, line: int, sentence: str, statement: Statement) -> BadInput:
        shown = " ".join(statement.text[: 4 * SHOWN].decode(errors="replace").split())[:SHOWN]
        why = f"{readable(sentence).rstrip('.')} (in “{readable(shown)}”)"
        return BadInput(
            f"Line {line} of {self._told} cannot be taken: {why}.",
            "It is run as the version’s own role, in its own database only.",
        )


def _fields(result: PGresult) -> Callable[[DiagnosticField], str]:
    return lambda field: (result.error_field(field) or b"").decode(errors="replace")
