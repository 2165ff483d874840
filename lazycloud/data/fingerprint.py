"""What an SQLite database holds, as a number: equal only for equal contents, wherever on its pages they lie.

It is made of the schema's texts, of user_version and application_id, and of the rows of each table: by the order of
their rowids, or of the primary key in a table that has no rowids. Not part of it are what page sizes, text
encoding, auto_vacuum and free pages are; so a copy by VACUUM has the same one.

- A text is what its bytes are in UTF-8, well-formed or not, and never equal to a blob. 1, 1.0 and "1" are three.
- Generated columns count where they are stored; others follow from the rest.
- A virtual table counts by the tables in which its module keeps it (fts5: `…_data`, `…_idx`, …): by what is stored,
  not by what it would answer. So nothing needs its module; and two indexes of the same texts may differ.
- Nor are an app's functions and collations needed, but for the collation of a key in a table without rowids.
- Indexes count by their text. That they agree with their tables is asked by `PRAGMA integrity_check`, which is
  satisfied with pages of two different commits and says nothing about contents.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

_LONG = 1 << 12  # characters or bytes of a value, from which on its digest stands for it
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name"
_NEVER_STORED = (1, 2)  # hidden in a virtual table, generated when read


def fingerprint(connection: sqlite3.Connection, *, rowids: bool = False) -> str:
    """Of all contents, as 64 hexadecimal digits. Reads all of it, in one transaction.

    `rowids`: also of the hidden ones, which VACUUM may number anew. Raises sqlite3.Error for what cannot be read.
    """
    return _digest(parts(connection, rowids=rowids).items())


def resting(database: Path) -> closing[sqlite3.Connection]:
    """A connection to read one that nobody writes to."""
    uri = f"file:{quote(str(database))}?mode=ro&immutable=1"
    return closing(sqlite3.connect(uri, uri=True, isolation_level=None))


def fingerprint_of(database: Path) -> str:
    """Of one that nobody writes to, with its rowids. Raises sqlite3.Error."""
    with resting(database) as connection:
        return fingerprint(connection, rowids=True)


def parts(connection: sqlite3.Connection, *, rowids: bool = False) -> dict[str, str]:
    """The same for each table, for `schema` and for `settings`: where two databases differ."""
    with _reading(connection) as cursor:
        tables = [name for (name,) in cursor.execute(_TABLES).fetchall()]
        found = {
            "settings": _digest(
                cursor.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")
            ),
            "schema": _digest(cursor.execute(_SCHEMA)),
        }
        for table in tables:
            found[f"table {table}"] = _digest(cursor.execute(_query(cursor, table, rowids)))
    return found


def _query(cursor: sqlite3.Cursor, table: str, rowids: bool) -> str:
    """All rows of a table, in an order that nothing but its contents decides."""
    columns = cursor.execute(
        f"PRAGMA table_xinfo({_quoted(table)})"
    ).fetchall()  # number, name, …, key, hidden
    stored = [_quoted(column[1]) for column in columns if column[6] not in _NEVER_STORED]
    rowid = _rowid(cursor, table, {column[1].lower() for column in columns})
    if rowid is None:
        keys = [
            name for _, name in sorted((column[5], _quoted(column[1])) for column in columns if column[5])
        ]
        order = ", ".join(
            f"{name} COLLATE BINARY" for name in keys + stored
        )  # an app's own may be unknown here
    else:
        order = rowid
        stored += [rowid] if rowids else []
    return f"SELECT {', '.join(stored)} FROM {_quoted(table)} ORDER BY {order}"  # noqa: S608 - quoted


def _rowid(cursor: sqlite3.Cursor, table: str, taken: set[str]) -> str | None:
    """By which name a table's rowids are asked for; None if it has none, or all their names are those of columns."""
    for name in ("rowid", "_rowid_", "oid"):
        if name not in taken:
            try:
                cursor.execute(f"SELECT {name} FROM {_quoted(table)} LIMIT 0")  # noqa: S608 - quoted
            except sqlite3.OperationalError:
                return None
            return name
    return None


@contextmanager
def _reading(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """A cursor in a transaction, whose texts are what their bytes are."""
    factory, own = connection.text_factory, not connection.in_transaction
    connection.text_factory = _text
    cursor = connection.cursor()
    cursor.row_factory = None
    try:
        if own:
            cursor.execute("BEGIN")
        yield cursor
    finally:
        cursor.close()
        connection.text_factory = factory
        if own and connection.in_transaction:
            connection.rollback()


def _text(found: bytes) -> str:
    return found.decode("utf-8", "surrogateescape")


def _digest(rows: Iterable[Sequence[object]]) -> str:
    """Of rows, by how Python writes them, which tells all types and values apart and is the same everywhere."""
    made = hashlib.sha256()
    for row in rows:
        made.update(ascii([_short(value) for value in row]).encode())
    return made.hexdigest()


def _short(value: object) -> object:
    if isinstance(value, str | bytes) and len(value) >= _LONG:
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        return type(value), len(value), hashlib.sha256(data).digest()
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
