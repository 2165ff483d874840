"""A dump of a Postgres database, made an SQLite database, so that it is compared and summed up like any other.

pg_restore writes it as text, and needs no server for that. Each table becomes one, under its name (with its schema,
if that is not public). Integers stay integers and bytea are blobs; all else is the text that Postgres has for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from lazycloud.data.tools.database import Unreadable, explained
from lazycloud.data.tools.shapes import Column, SchemaObject
from lazycloud.data.tools.sql import in_schema, quoted

SEQUENCES = "(sequences)"  # the table of where they stand
NOTHING = "(nothing)"  # the column of a table that has none
_PACKAGES = Path("/usr/lib/postgresql")
_WORDS = ("--no-owner", "--no-privileges")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEAD = re.compile(r"-- (?:Data for )?Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: .*$")
_NAME = r'(?:"(?:[^"]|"")*"|[^\s,()."]+)'
_NAMES = re.compile(_NAME)
_QUALIFIED = rf"({_NAME})\.({_NAME})"
_COPY = re.compile(rf"COPY {_QUALIFIED} (?:\((.*)\))? FROM stdin;$")
_CREATE = re.compile(rf"CREATE (?:UNLOGGED |FOREIGN )?TABLE {_QUALIFIED} ")
_COLUMN = re.compile(rf"    (?!CONSTRAINT )({_NAME}) (.+?)(?: DEFAULT (.+?))?( NOT NULL)?,?$")
_TYPE = re.compile(r"(smallint|integer|bigint|bytea)\b(?!\[)")
_KEY = re.compile(rf"ALTER TABLE (?:ONLY )?{_QUALIFIED}\s+ADD CONSTRAINT {_NAME} PRIMARY KEY \(([^)]*)\)")
_SEQUENCE = re.compile(r"SELECT pg_catalog\.setval\('((?:[^']|'')*)', (\d+), (true|false)\);$")
_SETTINGS = re.compile(r"(?:\s+SET default_\w+ = [^\n]*;)+\s*\Z")  # of what comes next
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_TYPES = {"smallint": "INTEGER", "integer": "INTEGER", "bigint": "INTEGER", "bytea": "BLOB"}
_LARGE_OBJECTS = ("BLOB", "BLOBS", "BLOB METADATA")


@dataclass
class Outline:
    """Of a dump: its schema, and of tables, by name, their columns, keys and those types that mean something here."""

    schema: list[SchemaObject] = field(default_factory=list)
    columns: dict[str, tuple[Column, ...]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    note: str = ""
    taken: set[str] = field(default_factory=set)  # names of tables, in lower case


@contextlib.contextmanager
def converted(dump: Path, rows: bool) -> Iterator[tuple[Path, Outline]]:
    """An SQLite database with its tables (none unless `rows`), gone afterwards. Raises Unreadable."""
    outline = _outline(dump)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        place = Path(folder) / "postgres.sqlite"
        with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as connection, explained():
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN")
            if rows:
                _fill(connection, outline, _restored(dump, "--data-only"))
            connection.execute("COMMIT")
        yield place, outline


def write_sql(dump: Path, target: Path) -> None:
    """As text, as `pg_dump --no-owner --no-privileges` writes it. Raises Unreadable; OSError for a full disk."""
    words = [_program(), *_WORDS, f"--file={target}", str(dump)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    if any(os.strerror(number) in said for number in _FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode != 0:
        raise Unreadable(_last(said, done.returncode))


def _last(said: str, status: int) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else f"pg_restore ended with {status}"


@contextlib.contextmanager
def _restored(dump: Path, what: str) -> Iterator[Iterator[str]]:
    """The lines of the text that pg_restore makes of it, without their ends."""
    with tempfile.TemporaryFile() as errors:
        words = [_program(), what, *_WORDS, "--file=-", str(dump)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout
        try:
            with process.stdout as lines:
                yield map(_text, lines)
            process.wait()
        finally:
            process.kill()  # nothing, if it has ended
            process.wait()
        if process.returncode != 0:
            errors.seek(0)
            raise Unreadable(_last(errors.read().decode(errors="replace"), process.returncode))


def _text(line: bytes) -> str:
    """Mostly UTF-8; of a database in another encoding the same bytes are always the same text."""
    try:
        return line.decode().rstrip("\n")
    except UnicodeDecodeError:
        return line.decode("latin-1").rstrip("\n")


def _program() -> str:
    """The newest there is: it reads dumps of all older ones."""
    found = [place for place in _PACKAGES.glob("*/bin/pg_restore") if place.parts[-3].isdigit()]
    newest = max(found, key=lambda place: int(place.parts[-3]), default=None)
    if program := newest or shutil.which("pg_restore"):
        return str(program)
    raise Unreadable("there is no pg_restore here: install postgresql-client")


def _outline(dump: Path) -> Outline:
    found: dict[tuple[str, str], str] = {}
    outline = Outline()
    with _restored(dump, "--schema-only") as lines:
        for head, text in _parts(lines):
            kind, name = head[2].lower(), in_schema(head[3], head[1])
            sql = _SETTINGS.sub("", "\n".join(text)).strip().rstrip(";")
            found[kind, name] = f"{found[kind, name]};\n{sql}" if (kind, name) in found else sql
            if match := _CREATE.match(sql):
                columns = outline.columns[_qualified(match)] = tuple(_columns(text))
                types = {one.name: _TYPE.match(one.type) for one in columns}
                outline.types[_qualified(match)] = {
                    name: _TYPES[kind[1]] for name, kind in types.items() if kind
                }
            if match := _KEY.match(sql):
                outline.keys[_qualified(match)] = _listed(match[3])
    outline.schema = [SchemaObject(kind, name, sql) for (kind, name), sql in found.items()]
    return outline


def _columns(text: Iterable[str]) -> Iterator[Column]:
    """Of a table, as pg_restore writes them: each on a line. What their keys are is said elsewhere."""
    for line in takewhile(lambda line: not line.startswith(")"), text):
        if match := _COLUMN.match(line):
            yield Column(_plain(match[1]), match[2], bool(match[4]), match[3], 0)


def _parts(lines: Iterator[str]) -> Iterator[tuple[re.Match[str], list[str]]]:
    """What is between the heads that pg_restore puts before each part."""
    head: re.Match[str] | None = None
    text: list[str] = []
    for line in lines:
        if match := _HEAD.match(line):
            if head:
                yield head, text[:-1]  # a line of its frame comes before
            head, text = match, []
        elif not line.startswith("\\") and (text or line not in ("--", "")):
            text.append(line)
    if head:
        yield head, _without_end(text)


def _without_end(text: list[str]) -> list[str]:
    """Of the last part: what pg_restore says in the end is none of it."""
    ends = (
        text.index("-- PostgreSQL database dump complete")
        if "-- PostgreSQL database dump complete" in text
        else 0
    )
    return text[: ends - 1] if ends else text


def _fill(connection: sqlite3.Connection, outline: Outline, restored: Any) -> None:
    sequences: list[tuple[str, int, str]] = []
    with restored as lines:
        for line in lines:
            if match := _COPY.match(line):
                _copy(connection, outline, _qualified(match), _listed(match[3] or ""), lines)
            elif match := _SEQUENCE.match(line):
                sequences.append((match[1].replace("''", "'"), int(match[2]), match[3]))
            elif (head := _HEAD.match(line)) and head[2] in _LARGE_OBJECTS:
                outline.note = "Large objects are not compared."
    if sequences:
        name = quoted(SEQUENCES)
        connection.execute(
            f"CREATE TABLE {name} (name TEXT PRIMARY KEY, value INTEGER, called TEXT) WITHOUT ROWID"
        )
        connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", sequences)  # noqa: S608


def _copy(
    connection: sqlite3.Connection, outline: Outline, name: str, columns: Sequence[str], lines: Iterable[str]
) -> None:
    """One table, up to the line that ends its rows."""
    types = outline.types.get(name, {})
    taken: set[str] = set()
    names = {column: quoted(_apart(column, taken)) for column in columns or [NOTHING]}
    key = [names[column] for column in outline.keys.get(name, ()) if column in names]
    parts = [f"{names[column]} {types.get(column, 'TEXT')}" for column in names]
    parts += [f"PRIMARY KEY ({', '.join(key)})"] if key else []
    ending = " WITHOUT ROWID" if key else ""
    name = _apart(name, outline.taken)
    connection.execute(f"CREATE TABLE {quoted(name)} ({', '.join(parts)}){ending}")
    blobs = [at for at, column in enumerate(columns) if types.get(column) == "BLOB"]
    marks = ", ".join("?" * len(names))
    connection.executemany(f"INSERT INTO {quoted(name)} VALUES ({marks})", _rows(lines, blobs))  # noqa: S608


def _rows(lines: Iterable[str], blobs: Sequence[int]) -> Iterator[list[Any]]:
    for line in lines:
        if line == "\\.":
            return
        row: list[Any] = (
            [_value(each) for each in line.split("\t")] if "\\" in line else list(line.split("\t"))
        )
        for at in blobs:
            if row[at] is not None:
                row[at] = bytes.fromhex(row[at].removeprefix("\\x"))
        yield row


def _value(text: str) -> str | None:
    """A field of COPY's text."""
    if text == "\\N":
        return None
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), text) if "\\" in text else text


def _apart(name: str, taken: set[str]) -> str:
    """A name that SQLite takes beside the others: to it a and A are the same."""
    while name.lower() in taken or name.lower().startswith("sqlite_"):
        name = f"{name}'" if name.lower() in taken else f"({name})"
    taken.add(name.lower())
    return name


def _qualified(match: re.Match[str]) -> str:
    return in_schema(_plain(match[1]), _plain(match[2]))


def _listed(names: str) -> list[str]:
    return [_plain(name) for name in _NAMES.findall(names)]


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
