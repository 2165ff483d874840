"""The same documents in a versionbase, and in tables of SQLite and Postgres, by what an app would use for them."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from lazycloud.data import wal
from lazycloud.versionbase import upkeep
from lazycloud.versionbase.client import connect_sync
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.queries import Query
from lazycloud.versionbase.storage import Storage

SQLITE, POSTGRES, SERVED = "SQLite, JSON", "Postgres, jsonb", "lazycloud, by a socket"
MAIN, POSTS = "production", "posts"
AUTHORS, KINDS, SCORES = 10_000, 10, 10_000
BATCH = 1000
CHANCE = random.Random()  # noqa: S311 - nothing is secret here

Document = dict[str, Any]
Entry = tuple[str, Document]


def entries(first: int, count: int) -> list[Entry]:
    """Documents of some 300 bytes, the same ones each time."""
    return [(f"{number:012}", document(number)) for number in range(first, first + count)]


def document(number: int) -> Document:
    chance = random.Random(number)  # noqa: S311
    return {
        "title": f"The title of post {number}",
        "author": f"author {chance.randrange(AUTHORS)}",
        "kind": f"kind {chance.randrange(KINDS)}",
        "score": chance.randrange(SCORES),
        "at": f"2026-{chance.randrange(12) + 1:02}-01T12:00:00Z",
        "tags": [f"tag{chance.randrange(100)}" for _ in range(3)],
        "text": chance.randbytes(75).hex(),
    }


class Store(Protocol):
    """Keys and documents. What is inserted is on the disk when that returns."""

    def get(self, key: str) -> Document: ...

    def insert(self, entries: Sequence[Entry]) -> None: ...

    def index(self) -> None:
        """By author."""

    def scan(self, kind: str, score: int) -> list[Document]:
        """Of one kind, with a higher score."""

    def by(self, author: str) -> list[Document]: ...

    def logged(self) -> int:
        """Bytes of its log so far; asked after each commit."""


class Log:
    """Counts what is appended to the WAL of an SQLite database, which begins again now and then."""

    def __init__(self, place: Path) -> None:
        self._index = os.open(f"{place}-shm", os.O_RDONLY)
        self._last = self._frames = 0

    def close(self) -> None:
        os.close(self._index)

    def size(self) -> int:
        mark = wal.state(self._index).mark
        self._frames += mark.frame - self._last if mark.frame >= self._last else mark.frame
        self._last = mark.frame
        return self._frames * (wal.FRAME + mark.page_size)


class Ours:
    def __init__(self, place: Path) -> None:
        self.engine = Engine(Storage(f"sqlite:///{place}"))
        self.engine.open()
        self.engine.storage.begin(MAIN)
        self._log = Log(place)

    def close(self) -> None:
        self._log.close()
        self.engine.close()

    def get(self, key: str) -> Document:
        with self._reading() as transaction:
            (found,) = transaction.get(POSTS, [key])
        assert found
        return found

    def insert(self, entries: Sequence[Entry]) -> None:
        keys, documents = [key for key, _ in entries], [document for _, document in entries]
        self.engine.perform(MAIN, lambda transaction: transaction.insert(POSTS, documents, keys)).result()

    def index(self) -> None:
        for step in upkeep.create_index(self.engine, MAIN, POSTS, "author"):
            if hasattr(step, "result"):
                step.result()

    def scan(self, kind: str, score: int) -> list[Document]:
        return self._found("doc.kind == kind && doc.score > score", kind=kind, score=score)

    def by(self, author: str) -> list[Document]:
        return self._found("doc.author == author", author=author)

    def logged(self) -> int:
        return self._log.size()

    def _found(self, wanted: str, **params: Any) -> list[Document]:
        with self._reading() as transaction:
            return [found[1] for found in transaction.find(POSTS, Query(wanted, params)) if found]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        transaction = self.engine.transaction(MAIN, write=False)
        try:
            yield transaction
        finally:
            self.engine.close_transaction(transaction)


class Served:
    """A server of its own, asked by the client for plain code: there is a socket between, as with Postgres."""

    def __init__(self, place: Path) -> None:
        store = ["--store", f"sqlite:///{place}", "--listen", "127.0.0.1:0", "--print-url"]
        command = [sys.executable, "-m", "lazycloud", "versionbase", "serve", *store]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert self._server.stdout
        urls = (line.strip().partition("VERSIONBASE_URL=")[2] for line in self._server.stdout)
        self._database = connect_sync(next(url for url in urls if url))
        self._posts = self._database.collection(POSTS)
        self._log = Log(place)

    def close(self) -> None:
        self._log.close()
        self._database.close()
        self._server.terminate()
        self._server.wait(60)

    def get(self, key: str) -> Document:
        found = self._posts.get(key)
        assert found
        return found

    def insert(self, entries: Sequence[Entry]) -> None:
        self._posts.insert_many([document for _, document in entries], keys=[key for key, _ in entries])

    def index(self) -> None:
        self._posts.create_index("author", timeout=600)

    def scan(self, kind: str, score: int) -> list[Document]:
        params = {"kind": kind, "score": score}
        return [*self._posts.find("doc.kind == kind && doc.score > score", params=params)]

    def by(self, author: str) -> list[Document]:
        return [*self._posts.find("doc.author == author", params={"author": author})]

    def logged(self) -> int:
        return self._log.size()


class Sqlite:
    """As durable as a versionbase: a commit is on the disk. By SQLAlchemy's Core."""

    def __init__(self, place: Path) -> None:
        self._engine = sa.create_engine(f"sqlite:///{place}")
        self._connection = self._engine.connect()
        for setting in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.exec_driver_sql(f"PRAGMA {setting}")
        self._posts = sa.Table(
            POSTS, sa.MetaData(), sa.Column("key", sa.String, primary_key=True), sa.Column("doc", sa.JSON)
        )
        self._posts.create(self._connection)
        self._connection.commit()
        self._log = Log(place)

    def close(self) -> None:
        self._log.close()
        self._connection.close()
        self._engine.dispose()

    def get(self, key: str) -> Document:
        (found,) = self._found(self._posts.c.key == key)
        return found

    def insert(self, entries: Sequence[Entry]) -> None:
        rows = [{"key": key, "doc": document} for key, document in entries]
        self._connection.execute(sa.insert(self._posts), rows)
        self._connection.commit()

    def index(self) -> None:
        self._connection.execute(sa.schema.CreateIndex(sa.Index("by_author", self._member("author"))))
        self._connection.exec_driver_sql("ANALYZE")
        self._connection.commit()

    def scan(self, kind: str, score: int) -> list[Document]:
        return self._found(self._member("kind") == kind, self._member("score") > score)

    def by(self, author: str) -> list[Document]:
        return self._found(self._member("author") == author)

    def logged(self) -> int:
        return self._log.size()

    def _member(self, name: str) -> sa.ColumnElement[Any]:
        return sa.func.json_extract(self._posts.c.doc, sa.literal_column(f"'$.{name}'"))

    def _found(self, *where: sa.ColumnElement[bool]) -> list[Document]:
        found = list(self._connection.execute(sa.select(self._posts.c.doc).where(*where)).scalars())
        self._connection.commit()
        return found


class Jsonbs:
    """In a database of its own on a server, by psycopg: each request is a round trip on this machine."""

    def __init__(self, url: str) -> None:
        self._admin = psycopg.connect(url, autocommit=True)
        self._name = f"bench_{secrets.token_hex(4)}"
        self._admin.execute(f"CREATE DATABASE {self._name}".encode())
        self._connection = psycopg.connect(url, dbname=self._name, autocommit=True)
        self._connection.execute("CREATE TABLE posts (key text PRIMARY KEY, doc jsonb)")

    def close(self) -> None:
        self._connection.close()
        self._admin.execute(f"DROP DATABASE {self._name}".encode())
        self._admin.close()

    def get(self, key: str) -> Document:
        (found,) = self._found("key = %s", key)
        return found

    def insert(self, entries: Sequence[Entry]) -> None:
        rows = [(key, Jsonb(document)) for key, document in entries]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO posts VALUES (%s, %s)", rows)

    def index(self) -> None:
        self._connection.execute("CREATE INDEX ON posts ((doc->>'author'))")
        self._connection.execute("VACUUM ANALYZE posts")

    def scan(self, kind: str, score: int) -> list[Document]:
        return self._found("doc->>'kind' = %s AND (doc->>'score')::int > %s", kind, score)

    def by(self, author: str) -> list[Document]:
        return self._found("doc->>'author' = %s", author)

    def logged(self) -> int:
        row = self._connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert row
        return int(row[0])

    def _found(self, where: str, *values: Any) -> list[Document]:
        query = f"SELECT doc FROM posts WHERE {where}".encode()  # noqa: S608
        return [doc for (doc,) in self._connection.execute(query, values).fetchall()]


def environment() -> dict[str, str]:
    """In which a process finds the lazycloud that is measured."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
