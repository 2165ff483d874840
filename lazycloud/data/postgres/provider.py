"""Versions and snapshots of one app's data in Postgres: each a database with a role of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from lazycloud.data.names import PRODUCTION, REHEARSAL, check_snapshot, check_version
from lazycloud.data.postgres import programs
from lazycloud.data.postgres import server as pg
from lazycloud.data.postgres.databases import Databases
from lazycloud.data.postgres.naming import Facts, Kind, Naming
from lazycloud.data.postgres.pool import Pool
from lazycloud.data.postgres.server import Connection, Database, Login, Server
from lazycloud.data.postgres.takeover import acting_as
from lazycloud.errors import StepFailed

log = logging.getLogger(__name__)

SIZES_HOLD = 10.0  # seconds


class Postgres:
    """The Provider of one app. `key`: the server's own, of which names and passwords are made.

    Nothing is asked of the Postgres server that must be answered before it is needed: one that is away costs
    deploys, not the start.
    """

    name = "postgres"

    def __init__(self, server: Server, app: str, key: bytes) -> None:
        self._server = server
        self._naming = Naming(app, key)
        self._databases = Databases(server, self._naming)
        self._pool = Pool(self._databases)
        self._is_tidy = False
        self._tidying = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._opening: asyncio.Task[None] | None = None
        self._dropping: set[asyncio.Task[None]] = set()
        self._sizes: dict[str, int] = {}
        self._measured = -SIZES_HOLD  # when, of the monotonic clock

    def __repr__(self) -> str:
        return f"<Postgres of {self._naming.app} at {self._server.where}>"

    async def open(self) -> None:
        """Begin to drop what an earlier process left half-made."""
        self._opening = asyncio.create_task(self._open(), name=f"open {self!r}")

    async def _open(self) -> None:
        try:
            async with self._admin():
                pass
        except StepFailed as problem:
            log.warning("%s", problem)

    async def close(self) -> None:
        await self._pool.close()
        tasks = [*self._dropping, *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def environment(self, version: str) -> dict[str, str]:
        login = self._databases.of(check_version(version))
        return self._server.environment(login, login.role)

    async def exists(self, version: str) -> bool:
        login = self._databases.of(check_version(version))
        async with self._admin() as on:
            return await pg.is_there(on, login.role)

    def places(self) -> tuple[Path, ...]:
        return (Path(self._server.socket_folder),) if self._server.socket_folder else ()

    def reached(self, version: str) -> tuple[int, ...]:
        return () if self._server.socket_folder else (self._server.port,)

    async def fork(self, version: str, source: str | None, at: str | None = None) -> str:
        name = self._naming.version(check_version(version))
        async with self._alone(name), self._admin() as on:
            if await pg.is_there(on, name):
                return ""
            if source is None:
                return await self._begin(on, version)
            if at is not None:
                return await self._fork_snapshot(on, version, source, at)
            origin = self._naming.version(check_version(source))
            await self._databases.demand(on, origin, f"database of {source}")
            if source == PRODUCTION:
                # A rehearsal is worth what its data are.
                fresh = version.startswith(REHEARSAL)
                return _as_of(await self._pool.take(on, version, fresh))
            async with self._databases.making() as made:
                facts = await self._databases.copy(on, source, made)
                await self._databases.settle(on, made, version)
            return _as_of(facts.at)

    async def _begin(self, on: Connection, version: str) -> str:
        async with self._databases.making() as made:
            await pg.make_empty(self._server, on, made)
            await self._databases.settle(on, made, version)
        return "an empty Postgres database"

    async def _fork_snapshot(self, on: Connection, version: str, source: str, at: str) -> str:
        origin = self._naming.snapshot(check_version(source), check_snapshot(at))
        await self._databases.demand(on, origin, f"snapshot {at} of {source}")
        facts = await self._databases.facts(on, origin) or Facts(Kind.SNAPSHOT)
        async with self._databases.making() as made:
            await self._databases.clone(on, origin, made)
            await self._databases.settle(on, made, version)
        return _as_of(facts.at)

    async def snapshot(self, version: str, snapshot: str) -> str:
        login = self._databases.login(self._naming.snapshot(check_version(version), check_snapshot(snapshot)))
        async with self._alone(login.role), self._admin() as on:
            if await pg.is_there(on, login.role):
                return ""
            await self._databases.demand(on, self._naming.version(version), f"database of {version}")
            async with self._databases.making() as made:
                facts = await self._databases.copy(on, version, made)
                facts = replace(facts, kind=Kind.SNAPSHOT, version=version, snapshot=snapshot)
                await pg.settle(on, made.role, login, facts, sealed=True)
            return f"{_as_of(facts.at)}, {await pg.size(on, login.role) / 1e6:.1f} MB"

    async def unfold(self, version: str, snapshot: str | None, place: Path) -> None:
        async with self._admin() as on, self._readable(on, version, snapshot) as login:
            await programs.dump(await self._databases.tools(on), self._server, login, place)

    async def outline(self, version: str, snapshot: str | None, place: Path) -> dict[str, int]:
        async with self._admin() as on, self._readable(on, version, snapshot) as login:
            await programs.dump(await self._databases.tools(on), self._server, login, place, rows=False)
            return {} if snapshot else await self._databases.counts(login)

    @contextlib.asynccontextmanager
    async def _readable(self, on: Connection, version: str, snapshot: str | None) -> AsyncIterator[Login]:
        """Who gets into a version's database, or into a copy of a snapshot's: into a sealed one nobody does."""
        if snapshot is None:
            login = self._databases.of(check_version(version))
            await self._databases.demand(on, login.role, f"database of {version}")
            yield login
            return
        origin = self._naming.snapshot(check_version(version), check_snapshot(snapshot))
        await self._databases.demand(on, origin, f"snapshot {snapshot} of {version}")
        async with self._databases.making() as login:
            await self._databases.clone(on, origin, login)
            yield login

    async def finish(self, version: str, like: str) -> None:
        """What SQL has filled gets the settings that another version's role has, if there is one, and statistics."""
        names = [self._naming.version(check_version(each)) for each in (version, like)]
        await self._databases.finish(self._databases.login(names[0]), names[1])

    async def load(self, version: str, place: Path) -> None:
        login = self._databases.of(check_version(version))
        async with self._alone(login.role), self._admin() as on:
            await self._databases.demand(on, login.role, f"database of {version}")
            async with self._databases.making() as made:
                await pg.make_empty(self._server, on, made)
                async with acting_as(on, made, login.role):
                    await programs.restore(await self._databases.tools(on), self._server, made, place)
                    await self._databases.finish(made, login.role)
                await self._exchange(on, [self._databases.side(version), (made, Facts(Kind.MAKING), -1)])

    async def swap(self, version: str, other: str) -> None:
        await self._swap(version, other, f"{version} {other}")

    async def swapped(self, version: str) -> None:
        async with self._admin() as on:
            for one in await self._of_swap(on, version):
                text = replace(one.facts, swap="").to_comment()
                await pg.do(on, "COMMENT ON DATABASE {} IS {text}", one.name, text=text)

    async def undo_swap(self, version: str) -> None:
        async with self._admin() as on:
            found = await self._of_swap(on, version)
        if found:
            one, other = found[0].facts.swap.split()
            await self._swap(one, other, "")

    async def _of_swap(self, on: Connection, version: str) -> list[Database]:
        return [one for one in await self._databases.all(on) if one.facts.swap.partition(" ")[0] == version]

    async def _swap(self, version: str, other: str, note: str) -> None:
        names = sorted(self._naming.version(check_version(each)) for each in (version, other))
        async with self._alone(names[0]), self._alone(names[1]), self._admin() as on:
            sides = [self._databases.side(each) for each in (version, other)]
            await self._exchange(
                on, [(login, replace(facts, swap=note), limit) for login, facts, limit in sides]
            )

    async def _exchange(self, on: Connection, sides: list[tuple[Login, Facts, int]]) -> None:
        """Copies of production as it was are given up at once with it."""
        copies = await self._copies(on) if PRODUCTION in {facts.version for _, facts, _ in sides} else []
        await pg.exchange(on, sides, self._naming.new(Kind.MAKING), copies)
        for name in copies:  # the next start would, if this one does not come to it
            await pg.drop(on, name)

    async def drop(self, version: str) -> None:
        name = self._naming.version(check_version(version))
        async with self._alone(name), self._admin() as on:
            snapshots = [
                one.name for one in await self._databases.all(on) if _is_snapshot(one.facts, version)
            ]
            copies = await self._copies(on) if version == PRODUCTION else []
            for each in (name, *snapshots, *copies):
                await self._let_go(on, each)

    async def _copies(self, on: Connection) -> list[str]:
        """Of production, to fork from; no more are made."""
        await self._pool.close()
        return await self._pool.names(on)

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        name = self._naming.snapshot(check_version(version), check_snapshot(snapshot))
        async with self._alone(name), self._admin() as on:
            await self._let_go(on, name)

    async def _let_go(self, on: Connection, name: str) -> None:
        """It is half-made from now on, and nobody is in it. To drop it may take a minute: that is done behind.

        PostgreSQL's DROP DATABASE waits for all processes of the server, and autovacuum's may sleep so long.
        """
        facts = await self._databases.facts(on, name)
        if facts is None or facts.kind is Kind.MAKING:
            await pg.drop(on, name)
            return
        gone = self._databases.new(Kind.MAKING)
        await pg.empty(on, name)
        await pg.settle(on, name, gone, Facts(Kind.MAKING), sealed=True)
        task = asyncio.create_task(self._databases.discard(gone.role), name=f"drop {gone.role}")
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def dropped(self) -> None:
        """When all that was let go is gone."""
        await asyncio.gather(*self._dropping)

    async def remove(self) -> None:
        """Drop all that there is of the app."""
        await self._pool.close()
        await self.dropped()
        async with self._admin() as on:
            there = {one.name for one in await self._databases.all(on)}
            for name in there | set(await pg.roles(on, self._naming.prefix)):
                await pg.drop(on, name)

    async def size(self, version: str, snapshot: str | None = None) -> int:
        """As of some seconds ago: who asks for one asks for all, and waits once for a server that is away."""
        name = self._naming.snapshot(version, snapshot) if snapshot else self._naming.version(version)
        if time.monotonic() - self._measured > SIZES_HOLD:
            try:
                async with self._admin() as on:
                    self._sizes = await pg.sizes(on, self._naming.prefix)
            finally:
                self._measured = time.monotonic()
        return self._sizes.get(name, 0)

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Connection]:
        """A session of ours on the server, which is tidy by then. Raises StepFailed."""
        async with self._server.admin() as on:
            async with self._tidying:
                if not self._is_tidy:
                    await self._tidy(on)
                    self._is_tidy = True
            yield on

    async def _tidy(self, on: Connection) -> None:
        await self._server.demand_rights(on)
        await pg.keep_out(on)
        await self._databases.drop_half_made(on)
        for one in await self._databases.all(on):
            if one.facts.kind is Kind.VERSION and not one.open:  # a swap was cut off
                await pg.let_in(on, one.name)
        await self._pool.tidy(on)

    def _alone(self, name: str) -> asyncio.Lock:
        """Held by one task at a time for each database."""
        return self._locks.setdefault(name, asyncio.Lock())


def _is_snapshot(facts: Facts, version: str) -> bool:
    return facts.kind is Kind.SNAPSHOT and facts.version == version


def _as_of(at: float) -> str:
    """The age of data, for people."""
    age = max(0.0, time.time() - at)
    moment = time.strftime("%H:%M:%S" if age < 43200 else "%Y-%m-%d %H:%M:%S", time.localtime(at))
    ago = f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} min" if age < 7200 else f"{age / 3600:.0f} h"
    return f"as of {moment}, {ago} ago"
