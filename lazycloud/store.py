"""Control's own state: the tables, their migrations, and the few questions that are asked of them.

Changes are SQL statements that go with an event into one transaction (events.EventLog.append); only the log
writes, in one thread (and `note`, what may be lost). Reading happens where it is needed: the rows are few and
indexed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    false,
    func,
    insert,
    inspect,
    or_,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.sql import Executable

from lazycloud.errors import LazycloudError
from lazycloud.events import Output, Recorded, revive

SCHEMA = 1

metadata = MetaData()

facts = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("app", String, nullable=False),
    Column("deployment", String, nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_of_deployment", "deployment", "number"),
)

apps = Table(
    "apps",
    metadata,
    Column("name", String, primary_key=True),
    Column("source", String, nullable=False, unique=True),
    Column("domain", String, nullable=False, default=""),
    Column("follow", String, nullable=False, default=""),
    Column("added", Float, nullable=False),
)

previews = Table(
    "previews",
    metadata,
    Column("app", String, primary_key=True),
    Column("mode", String, nullable=False),
    Column("generation", String, nullable=False),
    Column("password", String, nullable=False),  # as passwords.hashed writes it; "": none
    Column("changed", Float, nullable=False),
    Column("who", String, nullable=False),
)

shares = Table(
    "shares",
    metadata,
    Column("id", String, primary_key=True),
    Column("app", String, nullable=False),
    Column("commit", String, nullable=False),
    Column("made", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("who", String, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("app", String, primary_key=True),
    Column("generation", String, nullable=False),  # the secret is made of it and of the server's key
    Column("made", Float, nullable=False),
    Column("who", String, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("app", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("at", Float, nullable=False),
)

pulls = Table(
    "pulls",
    metadata,
    Column("app", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("commit", String, nullable=False),
    Column("title", String, nullable=False),
    Column("author", String, nullable=False),
    Column("url", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("allowed", String, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", String, primary_key=True),
    Column("app", String, nullable=False, index=True),
    Column("commit", String, nullable=False),
    Column("version", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("steps", JSON, nullable=False),
    Column("failure", JSON, nullable=True),
    Column("release", String, nullable=False, default=""),
    Column("released", String, nullable=False, default=""),
    Column("worker", JSON, nullable=True),
    Column("changed", Float, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("app", String, nullable=False, index=True),
    Column("commit", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("who", String, nullable=False),
    Column("why", String, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("app", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("source", String, nullable=False),
    Column("forked", Float, nullable=False),
    Column("size", Integer, nullable=False),  # bytes, when it was forked
    Column("snapshot", String, nullable=False, server_default=""),  # of the source, at which; "": as it was
    Column("pending", Boolean, nullable=False, server_default=false()),  # it has no bytes yet
    Column("used", Float, nullable=False, server_default="0"),  # last time that it was; unix time
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("app", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),  # "": it has none, and is thinned out by its age
    Column("why", String, nullable=False),  # of data.names.WHYS
    Column("at", Float, nullable=False),
    Column("who", String, nullable=False),
    Column("commit", String, nullable=False),  # that ran on it: production's, of production
    Column("size", Integer, nullable=False),  # bytes of its contents, however they are stored
    Column("note", String, nullable=False),  # what is less than exact of it, in words; "": nothing
)

pins = Table(
    "pins",
    metadata,
    Column("app", String, primary_key=True),
    Column("commit", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", String, nullable=False),
)

scales = Table(
    "scales",
    metadata,
    Column("app", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("process", String, primary_key=True),
    Column("count", Integer, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("password", String, nullable=False, default=""),  # as passwords.hashed writes it; "": none
    Column("created", Float, nullable=False),
    Column("who", String, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", String, primary_key=True),
    Column("sha256", String, nullable=False, unique=True),
    Column("role", String, nullable=False),
    Column("app", String, nullable=False, default=""),
    Column("previews", Boolean, nullable=False, default=False),
    Column("created", Float, nullable=False),
    Column("who", String, nullable=False),
    Column("expires", Float, nullable=True),
    Column("used", Float, nullable=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),  # sha256 of the cookie's value
    Column("kind", String, nullable=False),
    Column("holder", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("agent", String, nullable=False),
    Column("client", String, nullable=False),
)

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", String))


class Store:
    """`url` is SQLAlchemy's; the constructor opens nothing."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.engine: Engine = create_engine(self._url)
        if self._url.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)

    def open(self) -> None:
        """Make the tables, or bring them to this version. Raises LazycloudError for a newer schema."""
        if self._url.database and self._url.get_backend_name() == "sqlite":
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.engine.begin() as connection:
            known = inspect(connection).has_table("meta")
            schema = _schema(connection) if known else SCHEMA
            if schema > SCHEMA:
                raise LazycloudError(
                    f"The state in {self._url.database} was written by a newer lazycloud.",
                    "Install that version again, or use another --home.",
                )
            metadata.create_all(connection)
            _add_columns(connection)
            if not known:
                connection.execute(insert(meta).values(key="schema", value=str(SCHEMA)))

    def close(self) -> None:
        self.engine.dispose()

    def last_number(self) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.max(facts.c.number))).scalar() or 0

    def write(self, batch: Sequence[Recorded]) -> None:
        """Facts and the changes that go with them, in one transaction. Raises OSError for a disk that takes none."""
        try:
            self._write(batch)
        except (IntegrityError, DataError, ProgrammingError):
            raise
        except DatabaseError as problem:  # full, read-only, gone, damaged
            raise OSError(str(problem.orig)) from problem

    def _write(self, batch: Sequence[Recorded]) -> None:
        rows = [
            {
                "number": recorded.number,
                "at": recorded.at,
                "kind": recorded.event.kind,
                "app": recorded.event.app,
                "deployment": recorded.event.deployment,
                "data": recorded.event.data(),
            }
            for recorded in batch
        ]
        with self.engine.begin() as connection:
            for recorded in batch:
                for change in recorded.changes:
                    connection.execute(change)
            connection.execute(insert(facts), rows)

    def note(self, changes: Sequence[Executable]) -> None:
        """Changes that go with no fact, and may be lost: when something was used last. Raises OSError."""
        try:
            with self.engine.begin() as connection:
                for each in changes:
                    connection.execute(each)
        except DatabaseError as problem:
            raise OSError(str(problem.orig)) from problem

    def read(self, after: int, limit: int) -> list[Recorded]:
        """Facts above a number, oldest first."""
        return self._recorded(
            select(facts).where(facts.c.number > after).order_by(facts.c.number).limit(limit)
        )

    def newest(self, limit: int, kinds: Iterable[str], app: str = "") -> list[Recorded]:
        """The newest facts of some kinds, of one app or of all, newest first."""
        query = select(facts).where(facts.c.kind.in_(list(kinds)))
        query = query.where(facts.c.app == app) if app else query
        return self._recorded(query.order_by(facts.c.number.desc()).limit(limit))

    def resting(self, app: str, states: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Deployments in one of these states, of an app or of all for "", the one that changed last first."""
        table = deployments.c
        query = select(
            table.id, table.app, table.commit, table.version, table.state, table.failure, table.changed
        )
        query = query.where(table.state.in_(states), table.app == app if app else true())
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(table.changed.desc()).limit(limit))
            return [dict(row._mapping) for row in rows]

    def last_of(self, deployment: str, kind: str) -> Recorded | None:
        """A deployment's newest fact of a kind."""
        query = select(facts).where(facts.c.deployment == deployment, facts.c.kind == kind)
        return next(iter(self._recorded(query.order_by(facts.c.number.desc()).limit(1))), None)

    def _recorded(self, query: Executable) -> list[Recorded]:
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        revived = ((row, revive(row.kind, row.app, row.deployment, row.data)) for row in rows)
        return [Recorded(row.number, row.at, fact) for row, fact in revived if fact is not None]

    def rows(self, table: Table, **where: Any) -> list[dict[str, Any]]:
        """Whole rows whose columns have these values; a list means any of them."""
        query = select(table)
        for name, value in where.items():
            column = table.c[name]
            query = query.where(column.in_(value) if isinstance(value, list) else column == value)
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def unfinished(self, states: Sequence[str]) -> list[dict[str, Any]]:
        """Deployments in one of these states, and those with a worker."""
        table = deployments.c
        has_worker = type_coerce(table.worker, String) != "null"
        query = select(deployments).where(or_(table.state.in_(states), has_worker))
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def history(self, app: str, limit: int = 100) -> list[dict[str, Any]]:
        """An app's promotions, newest first."""
        query = select(promotions).where(promotions.c.app == app).order_by(promotions.c.number.desc())
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query.limit(limit))]

    def deployed(self, app: str) -> list[dict[str, Any]]:
        """Which release each deployment of an app was last built as: `id, commit, release, changed`."""
        table = deployments.c
        query = select(table.id, table.commit, table.release, table.changed)
        with self.engine.connect() as connection:
            rows = connection.execute(query.where(table.app == app, table.release != ""))
            return [dict(row._mapping) for row in rows]

    def usual_steps(self, app: str, limit: int = 40) -> list[list[dict[str, Any]]]:
        """The steps of an app's deployments that changed last, to tell how long each usually takes."""
        query = select(deployments.c.steps).where(deployments.c.app == app)
        with self.engine.connect() as connection:
            return list(
                connection.execute(query.order_by(deployments.c.changed.desc()).limit(limit)).scalars()
            )


def put(table: Table, **values: Any) -> Executable:
    """A row, written over an older one with its key."""
    statement = sqlite_insert(table).values(**values)
    keys = [column.name for column in table.primary_key]
    return statement.on_conflict_do_update(
        index_elements=keys,
        set_={name: statement.excluded[name] for name in values if name not in keys},
    )


def change(table: Table, key: Any, **values: Any) -> Executable:
    (column,) = table.primary_key.columns
    return update(table).where(column == key).values(**values)


def drop(table: Table, keys: Collection[Any]) -> Executable:
    """The rows with these keys."""
    (column,) = table.primary_key.columns
    return delete(table).where(column.in_(list(keys)))


def remove(table: Table, **values: Any) -> Executable:
    """Rows whose columns have these values."""
    return delete(table).where(*(table.c[name] == value for name, value in values.items()))


def forget_version(app: str, name: str) -> Executable:
    return delete(versions).where(versions.c.app == app, versions.c.name == name)


def unpin(app: str, commit: str) -> Executable:
    return delete(pins).where(pins.c.app == app, pins.c.commit == commit)


def forget_releases(app: str, version: str) -> Executable:
    """No release command has run on that version's data."""
    ours = (deployments.c.app == app) & (deployments.c.version == version)
    return update(deployments).where(ours).values(released="")


def forget_output(deployment: str) -> Executable:
    """Drop what earlier attempts wrote: their whole logs are files."""
    return delete(facts).where(facts.c.deployment == deployment, facts.c.kind == Output.kind)


def _add_columns(connection: Connection) -> None:
    """Columns that tables written by an older lazycloud lack; each has a default of the server."""
    for table in metadata.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                spec = CreateColumn(column).compile(connection)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {spec}")


def _schema(connection: Connection) -> int:
    return int(connection.execute(select(meta.c.value).where(meta.c.key == "schema")).scalar() or 0)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # a promotion is flushed; facts may lose the last moment
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
