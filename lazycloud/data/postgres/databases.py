"""The databases of one app: made under a name of half-made things, copied, and given the name of what they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
from psycopg import errors, sql

from lazycloud.data.names import PRODUCTION
from lazycloud.data.postgres import programs
from lazycloud.data.postgres import server as pg
from lazycloud.data.postgres.naming import Facts, Kind, Naming
from lazycloud.data.postgres.programs import Programs
from lazycloud.data.postgres.server import Connection, Database, Login, Server
from lazycloud.data.postgres.takeover import acting_as, take_defaults, take_over, take_settings
from lazycloud.data.tools.sql import in_schema
from lazycloud.errors import NotFound, StepFailed

log = logging.getLogger(__name__)

CONNECTIONS = 20  # at a time, of a preview: a server has 100 by default, for all
LOOK_EVERY = 1.0  # seconds between looks at who waits for a dump
COUNT_SECONDS = 10.0  # for the rows of all tables: those of others are not known
LOOKS = 2  # that find somebody waiting, one after the other, end the dump

WAITING = (
    "SELECT count(*) FROM pg_stat_activity waits "
    "JOIN pg_stat_activity dumps ON dumps.pid = ANY(pg_blocking_pids(waits.pid)) "
    "WHERE waits.datname = %s AND waits.wait_event_type = 'Lock' AND dumps.application_name = 'pg_dump'"
)


TABLES = (
    "SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence <> 't' "
    "AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%' ORDER BY relpages"
)


class Databases:
    """Of one app on a server."""

    def __init__(self, server: Server, naming: Naming) -> None:
        self.server = server
        self.naming = naming
        self._programs: Programs | None = None

    def login(self, role: str) -> Login:
        return Login(role, self.naming.password(role))

    def new(self, kind: Kind) -> Login:
        """With a name that nobody has."""
        return self.login(self.naming.new(kind))

    def of(self, version: str) -> Login:
        return self.login(self.naming.version(version))

    async def all(self, on: Connection) -> list[Database]:
        """What has a name of half-made things is one, whatever is noted of it."""
        found, half = await pg.databases(on, self.naming.prefix), Facts(Kind.MAKING)
        return [replace(one, facts=half) if self.naming.is_half_made(one.name) else one for one in found]

    async def facts(self, on: Connection, name: str) -> Facts | None:
        """None if there is no such database."""
        return next((one.facts for one in await self.all(on) if one.name == name), None)

    async def demand(self, on: Connection, name: str, what: str) -> None:
        """Raises NotFound without that database."""
        if not await pg.is_there(on, name):
            raise NotFound(f"There is no {what[:100]} in Postgres.")

    async def drop_half_made(self, on: Connection) -> None:
        """Databases that are nothing, and roles without a database."""
        whole = {one.name for one in await self.all(on) if one.facts.kind is not Kind.MAKING}
        there = {one.name for one in await self.all(on)} | set(await pg.roles(on, self.naming.prefix))
        for name in there - whole:
            log.info("%s was left half-made, and is dropped", name)
            await pg.drop(on, name)

    @contextlib.asynccontextmanager
    async def making(self) -> AsyncIterator[Login]:
        """A role, and a name for a database to be made and given another; what has that one in the end is dropped."""
        login = self.new(Kind.MAKING)
        try:
            yield login
        finally:
            await asyncio.shield(self.discard(login.role))

    async def discard(self, name: str) -> None:
        """In a session of its own: that of the making may be of no use any more. The next start tries again."""
        try:
            async with self.server.admin() as on:
                await pg.drop(on, name)
        except StepFailed as problem:
            log.warning("%s stays for now: %s", name, problem)

    async def settle(self, on: Connection, made: Login, version: str) -> None:
        """What was made is a version from now on."""
        login, facts, limit = self.side(version)
        await pg.settle(on, made.role, login, facts, limit)

    def side(self, version: str) -> tuple[Login, Facts, int]:
        """What belongs to a version: its login, its note, how many connections it may have."""
        limit = -1 if version == PRODUCTION else CONNECTIONS
        return self.of(version), Facts(Kind.VERSION, version=version), limit

    async def copy(self, on: Connection, version: str, made: Login) -> Facts:
        """All of a version into a database to be made. Of what moment it is, and what it took.

        As files, which keeps others out meanwhile, if nobody is there and it is not production; else by a dump.
        """
        origin, began = self.of(version), time.time()
        lsn = str(await pg.value(on, "SELECT pg_current_wal_lsn()"))
        if version != PRODUCTION and not await pg.sessions(on, origin.role):
            await self.clone(on, origin.role, made)
        else:
            await self._pour(on, origin, made)
        return Facts(Kind.MAKING, at=began, lsn=lsn, seconds=time.time() - began)

    async def clone(self, on: Connection, source: str, made: Login) -> None:
        """A database that nobody is in, into one to be made."""
        await pg.clone(self.server, on, source, made)
        await take_over(self.server, on, made, source)

    async def tools(self, on: Connection) -> Programs:
        if self._programs is None:
            self._programs = await asyncio.to_thread(programs.find, on.info.server_version // 10000)
        return self._programs

    async def _pour(self, on: Connection, origin: Login, made: Login) -> None:
        await pg.make_empty(self.server, on, made)
        async with acting_as(on, made, origin.role):
            await self._dump(on, origin, made)
            await self.finish(made, origin.role)

    async def _dump(self, on: Connection, origin: Login, made: Login) -> None:
        copying = asyncio.create_task(programs.copy(await self.tools(on), self.server, origin, made))
        watching = asyncio.create_task(_see_somebody_wait(on, origin.role))
        try:
            await asyncio.wait({copying, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = copying.done()
            for task in (watching, copying):
                task.cancel()
            results = await asyncio.gather(copying, watching, return_exceptions=True)
        if not ended:
            if isinstance(results[1], Exception):
                raise results[1]
            raise StepFailed(
                "Tables were changed while they were to be copied; it was not to wait for the copy."
            )
        copying.result()

    async def counts(self, login: Login) -> dict[str, int]:
        """The rows of its tables, by the names that they have in a dump; of small ones first, for `COUNT_SECONDS`."""
        found: dict[str, int] = {}
        ends = time.monotonic() + COUNT_SECONDS
        async with self.server.session(login, login.role) as inside:
            tables = await (await inside.execute(TABLES.encode())).fetchall()
            for schema, name in tables:
                left = round((ends - time.monotonic()) * 1000)
                if left <= 0:
                    break
                await inside.execute(f"SET statement_timeout = {left}".encode())
                counting = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
                try:
                    row = await (await inside.execute(counting)).fetchone()
                except (psycopg.ProgrammingError, errors.QueryCanceled, errors.LockNotAvailable):
                    continue  # it takes too long, is locked, or was dropped just now
                if row:
                    found[in_schema(schema, name)] = int(row[0])
        return found

    async def finish(self, made: Login, like: str) -> None:
        """After a restore: with the settings of a role, and statistics, without which plans are bad."""
        async with self.server.session(made, made.role) as inside:
            await take_defaults(inside, like)
            await take_settings(inside, like)
            await inside.execute("ANALYZE")


async def _see_somebody_wait(on: Connection, database: str) -> None:
    """Until a dump of a database keeps somebody waiting who changes tables, for whom in turn all others wait."""
    seen = 0
    while seen < LOOKS:
        await asyncio.sleep(LOOK_EVERY)
        seen = seen + 1 if await pg.value(on, WAITING, database) else 0
