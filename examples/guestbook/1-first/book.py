"""The entries, in SQLite at DATABASE_URL."""

import os
import sqlite3
import time
from contextlib import closing, contextmanager
from urllib.parse import unquote, urlsplit


@contextmanager
def connect():
    url = urlsplit(os.environ.get("DATABASE_URL", "sqlite:///guestbook.sqlite"))
    with closing(sqlite3.connect(unquote(url.path[1:]), timeout=10)) as connection, connection:
        connection.row_factory = sqlite3.Row
        yield connection


def schema():
    """How many migrations the data has seen."""
    with connect() as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def entries():
    with connect() as connection:
        return connection.execute("SELECT * FROM entries ORDER BY id DESC LIMIT 100").fetchall()


def sign(name, message):
    with connect() as connection:
        connection.execute(
            "INSERT INTO entries (name, message, signed) VALUES (?, ?, ?)", (name, message, int(time.time()))
        )
