"""The database of a store: had by one process, written by one connection, read by one of each thread.

A store is had by a lock: of a file beside an SQLite database; in Postgres an advisory one, which the writing
connection holds. So whoever may write has the store, and when a new connection has the lock, the old one's last
transaction is over: whether it took place can be looked up, and is never guessed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lazycloud.errors import BadInput, Conflict, DiskFull, LazycloudError, NotFound
from lazycloud.versionbase.tables import FORMAT, metadata, nodes, store

PATIENCE = 20.0  # seconds in which a Postgres that went away is tried again
OPENING = 3.0  # seconds in which the lock is tried for: Postgres may not know yet that its holder was killed
PAUSE = 0.1  # seconds between two tries
LOCK = 0x6C617A79  # "lazy": of the advisory lock; its second number is the schema's


class Database:
    """`read` from any thread; `change` by one at a time, which the caller sees to."""

    def __init__(self, url: str, relaxed: bool = False) -> None:
        self.url = _parsed(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._relaxed = relaxed
        # Connections are kept by who uses them: there is nothing to pool.
        self._engine: Engine = create_engine(self.url, poolclass=NullPool, connect_args=self._arguments())
        if self.is_sqlite:
            event.listen(self._engine, "connect", self._prepare_sqlite)
        self._error: type[Exception] = self._engine.dialect.dbapi.Error  # type: ignore[union-attr]
        self._token = secrets.token_hex(8)
        self._lock: int | None = None
        self._writer: Connection | None = None
        self._own = threading.local()
        self._readers: list[Connection] = []
        self._listing = threading.Lock()

    def __str__(self) -> str:
        return self.url.render_as_string()

    def in_its_words(self, statement: str) -> str:
        """A statement with ? for its arguments, as the driver wants it."""
        return statement if self.is_sqlite else statement.replace("?", "%s")

    def open(self, make: bool = True) -> None:
        """Makes what is not there; without `make` it raises NotFound then, and leaves a strange database as it is.

        Raises Conflict if another has it, BadInput for what is no store of ours.
        """
        try:
            if self.is_sqlite:
                if not make:
                    self._demand_tables_of_file()
                self._lock = _lock_file(Path(f"{self.url.database}.lock"))
                Path(f"{self.url.database}").touch(mode=0o600)  # as will be what SQLite puts beside it
            self._writer = self._patiently(self._connect, OPENING)
            self._prepare(make)
        except (SQLAlchemyError, OSError, self._error) as error:
            self.close()
            raise self._told(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self._listing:
            connections, self._readers = self._readers, []
        for connection in [*connections, self._writer]:
            if connection is not None:
                with suppress(SQLAlchemyError):
                    connection.close()
        self._writer = None
        self._own = threading.local()
        self._engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, query: Any, *arguments: Any) -> CursorResult[Any]:
        """What is committed, by a connection of this thread's own. Text is handed to the driver as it is.

        All rows are to be fetched before the next one. Raises LazycloudError.
        """
        for is_last in (False, True):
            try:
                reader = self._reader()
                if isinstance(query, str):
                    return reader.exec_driver_sql(query, *arguments)
                return reader.execute(query, *arguments)
            except SQLAlchemyError as error:
                self._forget_reader()
                if is_last or not _is_lost(error):
                    raise self._told(error) from error
        raise AssertionError

    def find(self, statement: str, *arguments: object) -> Any:
        """The one row of a query in the driver's words, None if there is none. As `find_all`."""
        rows = self.find_all(statement, arguments)
        return rows[0] if rows else None

    def find_all(self, statement: str, arguments: Sequence[object]) -> Sequence[Any]:
        """The rows of a query in the driver's words. Past SQLAlchemy, which takes longer than SQLite does.

        Raises LazycloudError.
        """
        try:
            cursor = getattr(self._own, "cursor", None)
            if cursor is None:
                cursor = self._own.cursor = self._reader().connection.cursor()
            cursor.execute(statement, arguments)
            rows: Sequence[Any] = cursor.fetchall()  # what is not over keeps SQLite's log from being emptied
        except (SQLAlchemyError, self._error):
            self._forget_reader()
            rows = self.read(statement, tuple(arguments)).all()
        return rows

    @contextmanager
    def beside(self) -> Iterator[Connection]:
        """A connection for results that are fetched little by little. Raises LazycloudError."""
        try:
            with self._engine.connect() as connection:
                yield connection.execution_options(stream_results=True, max_row_buffer=1000)
        except SQLAlchemyError as error:
            raise self._told(error) from error

    def change(self, work: Callable[[Connection], object], is_done: Callable[[Connection], bool]) -> None:
        """One transaction. `is_done` tells whether it took place; `work` may be done twice, if it did not.

        Raises DiskFull, Conflict (another has the store now), LazycloudError: then nothing has changed; or, if the
        database does not come back, it is not known, which `ready` finds out.
        """
        for is_last in (False, True):
            try:
                writer = self._writing()
                with writer.begin():
                    work(writer)
                return
            except SQLAlchemyError as error:
                if self._is_done(is_done, error):
                    return
                if is_last or not _is_lost(error):
                    raise self._told(error) from error

    def clear(self, work: Callable[[Connection], object]) -> None:
        """A change that nobody waits for: it may be lost with the machine, or be done twice. Raises as `change` does.

        It does not wait for the disk, so it stops nobody for long; the next one waits for it, too.
        """
        if self.is_sqlite:
            self._wait_for_disk(False)
            try:
                self.change(work, lambda connection: False)
            finally:
                self._wait_for_disk(True)
            return

        def unhurried(connection: Connection) -> None:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            work(connection)

        self.change(unhurried, lambda connection: False)

    def settle(self) -> None:
        """Carry SQLite's log into its database, while others write: else one of them has to, and waits for it."""
        if self.is_sqlite:
            self.read("PRAGMA wal_checkpoint(PASSIVE)").all()

    def _wait_for_disk(self, is_wanted: bool) -> None:
        """Of SQLite's next transactions. A connection that does not take it is not used any more."""
        if self._relaxed or self._writer is None:
            return
        try:
            self._writer.connection.cursor().execute(
                f"PRAGMA synchronous={'FULL' if is_wanted else 'NORMAL'}"
            )
        except (SQLAlchemyError, self._error):
            self._forget_writer()

    def ready(self) -> bool:
        """Before anything is read that is to be changed: whether the connection is the one of the last change.

        If not, there may have been a change of which nobody was told. Raises what `change` does.
        """
        if self._writer is not None and not self._writer.closed and not self._writer.invalidated:
            return True
        try:
            self._writing()
        except SQLAlchemyError as error:
            raise self._told(error) from error
        return False

    def _is_done(self, is_done: Callable[[Connection], bool], error: Exception) -> bool:
        """Whether a change took place that ended with an error. Raises LazycloudError if nobody can say."""
        try:
            writer = self._writing()
            with writer.begin():
                return is_done(writer)
        except Conflict as problem:
            raise Conflict(f"{problem.sentence} {_UNKNOWN}", problem.advice) from error
        except SQLAlchemyError as problem:
            self._forget_writer()
            raise self._told(error, _UNKNOWN) from problem

    def _writing(self) -> Connection:
        """The writing connection; another one if that was lost, as soon as it has the lock."""
        if self._writer is not None and (self._writer.closed or self._writer.invalidated):
            self._forget_writer()
        if self._writer is None:
            writer = self._patiently(self._connect, PATIENCE)
            with writer.begin():
                opened = writer.execute(select(store.c.opened)).scalar()
            if opened != self._token:
                writer.close()
                raise Conflict(f"Another has opened {self} since its connection was lost.", "Start again.")
            self._writer = writer
        return self._writer

    def _patiently(self, connect: Callable[[], Connection], patience: float) -> Connection:
        """Raises SQLAlchemyError, Conflict (an old connection of ours may have the lock yet) when that is over."""
        until = time.monotonic() + (0 if self.is_sqlite else patience)
        while True:
            try:
                return connect()
            except (SQLAlchemyError, Conflict):
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSE)

    def _forget_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(SQLAlchemyError):
                writer.invalidate()
                writer.close()

    def _reader(self) -> Connection:
        reader: Connection | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._own.reader = reader
            with self._listing:
                self._readers.append(reader)
        return reader

    def _forget_reader(self) -> None:
        reader: Connection | None = getattr(self._own, "reader", None)
        self._own.reader = self._own.cursor = None
        if reader is not None:
            with self._listing, suppress(ValueError):
                self._readers.remove(reader)
            with suppress(SQLAlchemyError):
                reader.invalidate()
                reader.close()

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        if not self.is_sqlite:
            try:
                self._lock_postgres(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _lock_postgres(self, connection: Connection) -> None:
        """Held until the connection ends."""
        words = {"lock": LOCK}
        with connection.begin():
            wanted = "SELECT pg_try_advisory_lock(:lock, hashtext(current_schema()))"
            if not connection.execute(text(wanted), words).scalar():
                holder = connection.execute(text(_HOLDER), words).first()
                who = f": {holder[0]} (process {holder[1]} of Postgres)" if holder else ""
                raise Conflict(
                    f"{self} is open already{who}.", "One server may have it at a time; stop that one."
                )
            if self._relaxed:
                connection.execute(text("SET synchronous_commit = off"))

    def _demand_tables_of_file(self) -> None:
        """By a connection that changes nothing, as the usual one sets how a file is written. Raises NotFound."""
        path = Path(f"{self.url.database}").absolute()
        if not path.is_file():
            raise self._none()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (store.name,)).fetchone():
                raise self._none()

    def _none(self) -> NotFound:
        return NotFound(f"There is no versionbase in {self}.", "Look at --store.")

    def _prepare(self, make: bool) -> None:
        assert self._writer is not None
        with self._writer.begin():
            if not inspect(self._writer).has_table(store.name):
                if not make:
                    raise self._none()
                metadata.create_all(self._writer)
                self._writer.execute(insert(store).values(format=FORMAT, opened=""))
            found = self._writer.execute(select(store.c.format)).scalar()
            if found != FORMAT:
                raise BadInput(
                    f"{self} has format {found}; this lazycloud knows {FORMAT} only.",
                    "Use the lazycloud that made it, or a newer one.",
                )
            self._writer.execute(update(store).values(opened=self._token))
            if all(column["name"] != "writer" for column in inspect(self._writer).get_columns(nodes.name)):
                self._writer.exec_driver_sql(
                    _ADD_WRITER
                )  # a store of an earlier lazycloud, which can go on with it

    def _arguments(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"check_same_thread": False}  # each is used by one thread, and closed by any
        who = f"lazycloud versionbase, {socket.gethostname()[:30]} {os.getpid()}"
        return {"application_name": who, "connect_timeout": 10}

    def _prepare_sqlite(self, connection: Any, _: object) -> None:
        cursor = connection.cursor()
        # Small pages, as a commit writes a few nodes and a row or two, and the log takes whole pages.
        cursor.execute("PRAGMA page_size=1024")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")  # pages
        cursor.execute(f"PRAGMA synchronous={'NORMAL' if self._relaxed else 'FULL'}")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.close()

    def _told(self, error: Exception, consequence: str = "Nothing was changed.") -> LazycloudError:
        """What a database says, as one of ours."""
        cause = getattr(error, "orig", None) or error
        words = str(cause).strip().split("\n")[0]
        if advice := _advice(cause):
            return LazycloudError(f"{self} failed: {words}. {consequence}", advice)
        if _is_full(cause):
            return DiskFull(f"The disk of {self} is full: {words}. {consequence}", "Make room and try again.")
        return LazycloudError(f"{self} failed: {words}. {consequence}", "See to it and try again.")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise BadInput(
            f"{url[:200]!r} is no URL of a database.", "Like sqlite:///FILE or postgresql://…"
        ) from error
    name = parsed.get_backend_name()
    if name == "sqlite" and parsed.database and parsed.database != ":memory:":
        if Path(parsed.database).is_dir():
            raise BadInput(
                f"{parsed.database} is a folder, and a versionbase is kept in a file.",
                f"Like {parsed.set(database=str(Path(parsed.database) / 'notes.db'))}",
            )
        return parsed
    if name in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    what = parsed.render_as_string()
    raise BadInput(f"{what} is no place for a versionbase.", "It is kept in sqlite:///FILE or postgresql://…")


def _lock_file(path: Path) -> int:
    """The lock of a store in a file: held till it is closed, by the end of the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {Path(sys.argv[0]).name}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another"
        os.close(lock)
        where = path.with_suffix("")
        advice = "One server may have it at a time; stop that one."
        raise Conflict(f"{where} is open already: process {holder} has it.", advice) from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _is_lost(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _is_full(cause: BaseException) -> bool:
    is_full = (
        getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(cause, "sqlstate", "") == "53100"
    )
    return is_full or (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))


def _advice(cause: BaseException) -> str:
    """What to do about a file that SQLite cannot use, or a folder in which nothing can be made."""
    if isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _UNREADABLE["SQLITE_CANTOPEN"]
    return _UNREADABLE.get(getattr(cause, "sqlite_errorname", ""), "")


_UNREADABLE = {
    "SQLITE_CANTOPEN": "Its folder has to be one to write in: the lock and SQLite's log are beside the file.",
    "SQLITE_CORRUPT": "It is damaged: put back a copy (`lazycloud versionbase verify` says whether it is whole).",
    "SQLITE_NOTADB": "Give the file of a versionbase, or one that is not there yet; if it was one, put back a copy.",
}
"""What to do, by what SQLite says."""

_ADD_WRITER = f"ALTER TABLE {nodes.name} ADD COLUMN writer BIGINT"

_UNKNOWN = "Whether the last change took place is not known."

_HOLDER = """
SELECT activity.application_name, activity.pid FROM pg_locks
JOIN pg_stat_activity AS activity ON activity.pid = pg_locks.pid
WHERE locktype = 'advisory' AND classid = :lock AND objid::bigint = hashtext(current_schema())::bigint & 4294967295
AND granted
"""
