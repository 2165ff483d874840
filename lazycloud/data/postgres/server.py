"""One Postgres server: its databases and roles, made, cloned, renamed, dropped; its errors in words.

`CREATEDB CREATEROLE` is all that we need of it. A database is owned by us, so that its version can neither drop it
nor let others in; all within it by the role of the version. We connect to the maintenance database only, and to
databases in which nobody has made anything yet: what a version's code has put there is met as that version's role.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lazycloud.data.postgres.naming import Facts, Kind
from lazycloud.errors import BadInput, StepFailed

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 3600  # a large database is copied by one statement
LOCK_SECONDS = 60
SMALL = 200_000_000  # bytes: below, a copy through the log is faster than two checkpoints
OLDEST = 15
SHARED = ("postgres", "template1")  # databases that everybody may enter unless told otherwise
FOR_APPS = ("sslmode", "sslrootcert")  # of the URL, beside the address

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True)
class Database:
    """`open`: whether it lets anybody in; the role that owns what is in it has its name."""

    name: str
    open: bool
    facts: Facts


@dataclass(frozen=True)
class Login:
    """A role, and its password."""

    role: str
    password: str


class Server:
    """Of a URL as libpq takes it. Raises BadInput for one that it does not."""

    def __init__(self, url: str) -> None:
        try:
            found = conninfo_to_dict(url)
        except psycopg.Error as problem:
            reason = str(problem).strip().partition("\n")[0]
            raise BadInput(f"postgres_url cannot be read: {reason}.") from None
        self._params = {name: str(value) for name, value in found.items() if value is not None}
        self._params.setdefault("host", "localhost")
        self._params.setdefault("port", "5432")
        self._params.setdefault("dbname", "postgres")
        self._clones_files: bool | None = None  # whether copies of files share their blocks; None: not tried

    def __repr__(self) -> str:
        return f"<Server {self.where}>"

    @property
    def where(self) -> str:
        """For people; without the password."""
        return f"{self._params['host']}:{self._params['port']}"

    @property
    def port(self) -> int:
        return int(self._params["port"].partition(",")[0])

    @property
    def user(self) -> str:
        return self._params.get("user", "")

    @property
    def socket_folder(self) -> str:
        """Where its unix socket is; "" if it is reached by TCP."""
        return self._params["host"] if self._params["host"].startswith("/") else ""

    def environment(self, login: Login, database: str) -> dict[str, str]:
        """What an app finds a database by: a URL, and the variables that libpq reads."""
        host, port = self._params["host"], self._params["port"]
        options = {name: self._params[name] for name in FOR_APPS if name in self._params}
        address = f"{f'[{host}]' if ':' in host else host}:{port}"
        if self.socket_folder:
            address, options = "", {"host": host, "port": port, **options}
        query = f"?{urlencode(options)}" if options else ""
        return {
            "DATABASE_URL": f"postgresql://{quote(login.role)}:{quote(login.password)}@{address}/{quote(database)}{query}",
            "PGHOST": host,
            "PGPORT": port,
            "PGUSER": login.role,
            "PGPASSWORD": login.password,
            "PGDATABASE": database,
            **{f"PG{name.upper()}": self._params[name] for name in FOR_APPS if name in self._params},
        }

    def conninfo(self, login: Login, database: str) -> str:
        """For programs, without the password."""
        kept = {name: value for name, value in self._params.items() if name not in ("password", "options")}
        return make_conninfo(**kept | {"user": login.role, "dbname": database})

    @contextlib.asynccontextmanager
    async def admin(self, database: str = "") -> AsyncIterator[Connection]:
        """A session of ours, each statement a transaction. Raises StepFailed for whatever goes wrong in it."""
        async with self._session({"dbname": database} if database else {}) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def session(self, login: Login, database: str) -> AsyncIterator[Connection]:
        """The same, as a version's own role."""
        own = {"user": login.role, "password": login.password, "dbname": database}
        async with self._session(own) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _session(self, params: Mapping[str, str]) -> AsyncIterator[Connection]:
        options = (
            f"{self._params.get('options', '')} -c statement_timeout={STATEMENT_SECONDS}s "
            f"-c lock_timeout={LOCK_SECONDS}s -c search_path=pg_catalog -c client_min_messages=error"
        )
        usual = {
            "connect_timeout": str(CONNECT_SECONDS),
            "application_name": "lazycloud",
            "tcp_user_timeout": "30000",
        }
        with self.telling():
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(**usual | self._params | dict(params) | {"options": options}), autocommit=True
            )
            try:
                yield connection
            finally:
                await connection.close()

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as problem:
            raise self.in_words(problem) from problem

    def in_words(self, problem: psycopg.Error) -> StepFailed:
        said = (problem.diag.message_primary or str(problem)).strip()
        if problem.sqlstate is None:
            return self._unreached(said)
        if isinstance(problem, errors.DiskFull):
            return disk_full(self.where)
        if isinstance(problem, errors.InsufficientPrivilege):
            return StepFailed(
                f"{self.user or 'Our role'} lacks a right on the Postgres server {self.where}: {said}.",
                f"As its superuser: ALTER ROLE {self.user or '…'} CREATEDB CREATEROLE;",
            )
        return StepFailed(f"The Postgres server {self.where} says: {said}.")

    def _unreached(self, said: str) -> StepFailed:
        mark = "FATAL:" if "FATAL:" in said else "failed:"
        reason = said.rpartition(mark)[2].strip().partition("\n")[0].rstrip(".")
        if "authentication failed" in reason or "pg_hba.conf" in reason or "no password supplied" in reason:
            return StepFailed(
                f"The Postgres server {self.where} does not let us in: {reason}.",
                "Its pg_hba.conf must let roles in by password, and `postgres_url` must have the right one.",
            )
        return StepFailed(
            f"The Postgres server {self.where} cannot be used: {reason}.",
            "See that it runs, and that `postgres_url` leads to it.",
        )

    async def demand_rights(self, on: Connection) -> None:
        """Raises StepFailed if we may not do there what we are to do, or it is too old."""
        version = on.info.server_version // 10000
        if version < OLDEST:
            raise StepFailed(
                f"The Postgres server {self.where} is of version {version}, and {OLDEST} is the oldest that will do."
            )
        rights = (
            "SELECT rolsuper OR (rolcreatedb AND rolcreaterole) FROM pg_roles WHERE rolname = current_user"
        )
        if not await value(on, rights):
            user = on.info.user
            raise StepFailed(
                f"{user} may not make databases and roles on the Postgres server {self.where}.",
                f'As its superuser: ALTER ROLE "{user}" CREATEDB CREATEROLE;',
            )

    async def copy_way(self, on: Connection, size: int) -> sql.Composed:
        """How a database of that size is cloned: with blocks shared where the server can, else what is faster."""
        if self._clones_files is None:
            self._clones_files = await _can_clone_files(on)
        way = "FILE_COPY" if self._clones_files or size >= SMALL else "WAL_LOG"
        return sql.SQL("STRATEGY = {}").format(sql.Identifier(way.lower()))

    def share_no_blocks(self) -> bool:
        """Its disk cannot, after all; whether that is news."""
        was, self._clones_files = self._clones_files, False
        return bool(was)


def disk_full(where: str) -> StepFailed:
    return StepFailed(
        f"The disk of the Postgres server {where} is full.",
        "Make room there; versions and snapshots that nobody needs can be dropped.",
    )


async def _can_clone_files(on: Connection) -> bool:
    if not await value(on, "SELECT count(*) FROM pg_settings WHERE name = 'file_copy_method'"):
        return False
    await on.execute("SET file_copy_method = clone")
    return True


async def value(on: Connection, query: str, *words: object) -> Any:
    """The one that a query gives."""
    row = await (await on.execute(query.encode(), words or None)).fetchone()
    return row[0] if row else None


async def do(on: Connection, statement: str, *names: str, **values: str) -> None:
    """A statement that takes names of things at {}, and texts at {name}: quoted, as no parameters can be there."""
    filled = {name: sql.Literal(text) for name, text in values.items()}
    await on.execute(sql.SQL(statement).format(*map(sql.Identifier, names), **filled))


async def databases(on: Connection, prefix: str) -> list[Database]:
    """All whose names begin so. One whose drop was cut off is nothing any more, whatever is noted of it."""
    found = await on.execute(
        "SELECT datname, datallowconn, CASE WHEN datconnlimit <> -2 THEN shobj_description(oid, 'pg_database') END "
        "FROM pg_database "
        "WHERE starts_with(datname, %s) ORDER BY datname",
        (prefix,),
    )
    return [Database(name, is_open, Facts.of_comment(text)) async for name, is_open, text in found]


async def roles(on: Connection, prefix: str) -> list[str]:
    found = await on.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (prefix,))
    return [name async for (name,) in found]


async def is_there(on: Connection, database: str) -> bool:
    return bool(await value(on, "SELECT count(*) FROM pg_database WHERE datname = %s", database))


async def sessions(on: Connection, database: str) -> int:
    """How many of clients there are, wherever they come from."""
    found = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    return int(await value(on, found, database))


async def size(on: Connection, database: str) -> int:
    """Bytes; 0 if there is none."""
    found = await value(on, "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s", database)
    return int(found or 0)


async def sizes(on: Connection, prefix: str) -> dict[str, int]:
    """Of all whose names begin so, in bytes."""
    query = "SELECT datname, pg_database_size(oid) FROM pg_database WHERE starts_with(datname, %s)"
    return {name: int(size) async for name, size in await on.execute(query, (prefix,))}


async def make_role(on: Connection, login: Login) -> None:
    """One that may nothing but log in, and that we may act as."""
    await do(on, "CREATE ROLE {} LOGIN PASSWORD {password}", login.role, password=_verifier(on, login))
    await do(on, "GRANT {} TO CURRENT_USER", login.role)


def _verifier(on: Connection, login: Login) -> str:
    """What the server keeps of a password; the password itself would get into its log."""
    return on.pgconn.encrypt_password(login.password.encode(), login.role.encode(), b"scram-sha-256").decode()


async def make_empty(server: Server, on: Connection, login: Login) -> None:
    """A database of a role's name and its own; both are made."""
    await make_role(on, login)
    await do(on, "CREATE DATABASE {} ALLOW_CONNECTIONS = false", login.role)
    await let_in(on, login.role)
    async with server.admin(login.role) as inside:
        await do(inside, "ALTER SCHEMA public OWNER TO {}", login.role)
        await do(inside, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")


async def let_in(on: Connection, name: str) -> None:
    """Into a database, its own role alone; closed until then, so that nobody is faster."""
    await do(on, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    await do(on, "GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {} TO {}", name, name)
    await do(on, "ALTER DATABASE {} ALLOW_CONNECTIONS true", name)


async def clone(server: Server, on: Connection, source: str, login: Login) -> None:
    """A copy of a database that nobody is in, with a role of its name, which owns nothing yet."""
    await make_role(on, login)
    try:
        await _copy(server, on, source, login.role)
    except psycopg.Error:  # perhaps its disk shares no blocks
        if not server.share_no_blocks():
            raise
        await do(on, "RESET file_copy_method")
        await _copy(server, on, source, login.role)
    await let_in(on, login.role)


async def _copy(server: Server, on: Connection, source: str, name: str) -> None:
    way = await server.copy_way(on, await size(on, source))
    words = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS = false ").format(
        sql.Identifier(name), sql.Identifier(source)
    )
    await on.execute(words + way)


async def settle(
    on: Connection, name: str, login: Login, facts: Facts, limit: int = -1, sealed: bool = False
) -> None:
    """Give a database and its role the name, password and note of what it is from now on: all at once.

    `limit`: connections at a time, -1 for any number. Sealed, nobody gets in, and it cannot be dropped by mistake.
    """
    async with on.transaction():
        await _rename(on, name, login.role)
        await _note(on, login, facts, limit, sealed)


async def _rename(on: Connection, name: str, new: str) -> None:
    if name != new:
        await do(on, "ALTER DATABASE {} RENAME TO {}", name, new)
        await do(on, "ALTER ROLE {} RENAME TO {}", name, new)


async def _note(on: Connection, login: Login, facts: Facts, limit: int, sealed: bool) -> None:
    can, no = ("NOLOGIN", "false") if sealed else ("LOGIN", "true")
    words = f"ALTER ROLE {{}} {can} CONNECTION LIMIT {limit} PASSWORD {{password}}"
    await do(on, words, login.role, password=_verifier(on, login))
    await do(on, f"ALTER DATABASE {{}} ALLOW_CONNECTIONS {no} IS_TEMPLATE {str(sealed).lower()}", login.role)
    await do(on, "COMMENT ON DATABASE {} IS {text}", login.role, text=facts.to_comment())


async def exchange(
    on: Connection, sides: Sequence[tuple[Login, Facts, int]], aside: str, forgotten: Sequence[str] = ()
) -> None:
    """Two databases take each other's name, with all that goes with it; one may not be there. Sessions are ended.

    `aside` is a name that nobody has; `forgotten` are databases that are of no use from that moment.
    """
    (one, *_), (other, *_) = sides
    there = [login.role for login, *_ in sides if await is_there(on, login.role)]
    try:
        for name in there:
            await empty(on, name)
        async with on.transaction():
            for name, new in ((one.role, aside), (other.role, one.role), (aside, other.role)):
                if await is_there(on, name):
                    await _rename(on, name, new)
            for login, facts, limit in sides:
                if await is_there(on, login.role):
                    await _note(on, login, facts, limit, sealed=False)
            for name in forgotten:
                await do(on, "COMMENT ON DATABASE {} IS {text}", name, text=Facts(Kind.MAKING).to_comment())
    except psycopg.Error:
        for name in there:
            await do(on, "ALTER DATABASE {} ALLOW_CONNECTIONS true", name)
        raise


async def empty(on: Connection, name: str) -> None:
    """End all sessions of clients in a database, and let nobody in from now on.

    Those of the server itself (autovacuum) we may not end; it does when it is asked to rename or drop the database.
    """
    await do(on, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
    ending = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    ending += "WHERE datname = %s AND backend_type = 'client backend'"
    await on.execute(ending, (name,))


async def drop(on: Connection, name: str) -> None:
    """A database, its sessions and its role, as far as they are there."""
    if await is_there(on, name):
        if not await value(on, "SELECT datconnlimit = -2 FROM pg_database WHERE datname = %s", name):
            # Else a drop was cut off, and there is nothing left to do but to drop it.
            await do(on, "ALTER DATABASE {} IS_TEMPLATE false", name)
            await empty(on, name)
        # WITH (FORCE) fails where the server itself is busy there.
        await do(on, "DROP DATABASE IF EXISTS {}", name)
    if await value(on, "SELECT count(*) FROM pg_roles WHERE rolname = %s", name):
        try:
            await do(on, "DROP ROLE {}", name)
        except errors.DependentObjectsStillExist as problem:
            # Of a copy that is just being made, or in a database that lets everybody in. The next start tries again.
            await do(on, "ALTER ROLE {} NOLOGIN", name)
            log.warning("The role %s is of no use, and stays for now: %s", name, problem.diag.message_detail)


async def keep_out(on: Connection) -> None:
    """Let nobody into the databases that all may enter by default, where we may say that."""
    if await value(on, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        for name in await open_to_all(on):
            if name in SHARED:
                await do(on, "REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name)


async def open_to_all(on: Connection) -> list[str]:
    """Databases that every role may enter."""
    found = await on.execute(
        "SELECT datname FROM pg_database WHERE datallowconn AND has_database_privilege('public', oid, 'CONNECT')"
    )
    return [name async for (name,) in found]
