"""Production's copies to fork from: a sealed template, and spares, which are databases made of it ahead.

A template is a copy of a database into which nobody gets, as only of such one can others be cloned: production is
never cloned itself, nor are its sessions disturbed. It is poured from production by pg_dump while that is written
to, and replaced by a newer one when a fork finds it old. A fork takes a spare, by a change of its name, and
another is made when nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace

from psycopg import errors

from lazycloud.data.names import PRODUCTION
from lazycloud.data.postgres import server as pg
from lazycloud.data.postgres.databases import Databases
from lazycloud.data.postgres.naming import Kind
from lazycloud.data.postgres.server import Connection, Database
from lazycloud.errors import StepFailed

log = logging.getLogger(__name__)

OLD = 600.0  # seconds after which a template is replaced when somebody forks
QUICK = 5.0  # seconds: what took less is waited for by a fork that finds the template old; else it takes the old one
SPARES = ((1_000_000_000, 2), (10_000_000_000, 1))  # bytes of a template, and how many spares up to there


class Pool:
    """Of one app."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._refreshing = asyncio.Lock()
        self._taking = asyncio.Lock()
        self._upkeep: asyncio.Task[None] | None = None
        self._refresh_wanted = False

    async def close(self) -> None:
        """What it was making is dropped."""
        if self._upkeep:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)

    async def take(self, on: Connection, version: str, fresh: bool) -> float:
        """A copy of production is that version from now on; of which unix time it is.

        `fresh`: of now, whatever that takes. Else an old one may do, and the next finds a newer one.
        """
        asked = time.time()
        template = await self._newest(on)
        age = asked - template.facts.at if template else 0.0
        if template is None or fresh or (age > OLD and template.facts.seconds < QUICK):
            template = await self._refresh(on, asked)
        self._refresh_wanted |= asked - template.facts.at > OLD
        async with self._taking:
            spare = next(iter(await self._spares(on, template)), None)
            if spare:
                await self._databases.settle(on, self._databases.login(spare.name), version)
        if spare is None:
            template = await self._clone(on, template, version)
        self.keep_up()
        return template.facts.at

    async def _clone(self, on: Connection, template: Database, version: str) -> Database:
        try:
            async with self._databases.making() as made:
                await self._databases.clone(on, template.name, made)
                await self._databases.settle(on, made, version)
        except errors.InvalidCatalogName:  # it has just been replaced by a newer one
            newer = await self._newest(on)
            if newer is None or newer.name == template.name:
                raise
            return await self._clone(on, newer, version)
        return template

    async def _refresh(self, on: Connection, asked: float) -> Database:
        """A template that is of no earlier moment than `asked`."""
        async with self._refreshing:
            template = await self._newest(on)
            if template and template.facts.at >= asked:  # somebody else waited for it, too
                return template
            async with self._databases.making() as made:
                facts = await self._databases.copy(on, PRODUCTION, made)
                login = self._databases.new(Kind.TEMPLATE)
                facts = replace(facts, kind=Kind.TEMPLATE)
                await pg.settle(on, made.role, login, facts, sealed=True)
            self._refresh_wanted = False
            return Database(login.role, False, facts)

    def keep_up(self) -> None:
        """Refresh and make spares, behind."""
        if self._upkeep is None or self._upkeep.done():
            self._upkeep = asyncio.create_task(self._keep_up(), name="upkeep of Postgres templates")

    async def _keep_up(self) -> None:
        try:
            async with self._databases.server.admin() as on:
                if self._refresh_wanted:
                    await self._refresh(on, time.time())
                await self.tidy(on)
                await self._fill(on)
        except StepFailed as problem:
            log.warning("The copies of production to fork from are not kept up: %s", problem)
        except Exception:
            log.exception("The copies of production to fork from are not kept up")

    async def tidy(self, on: Connection) -> None:
        """Drop what there is something newer than. Whoever is being cloned stays until that is done."""
        newest = await self._newest(on)
        for one in await self._databases.all(on):
            facts = one.facts
            old_template = facts.kind is Kind.TEMPLATE and newest and one.name != newest.name
            old_spare = facts.kind is Kind.SPARE and (newest is None or facts.origin != newest.name)
            if old_template or old_spare:
                async with self._taking if old_spare else contextlib.nullcontext():
                    await pg.drop(on, one.name)

    async def _fill(self, on: Connection) -> None:
        while template := await self._newest(on):
            wanted = _wanted(await pg.size(on, template.name))
            if len(await self._spares(on, template)) >= wanted:
                return
            async with self._databases.making() as made:
                await self._databases.clone(on, template.name, made)
                login = self._databases.new(Kind.SPARE)
                facts = replace(template.facts, kind=Kind.SPARE, origin=template.name)
                await pg.settle(on, made.role, login, facts)

    async def names(self, on: Connection) -> list[str]:
        """Of all templates and spares."""
        kinds = (Kind.TEMPLATE, Kind.SPARE)
        return [one.name for one in await self._databases.all(on) if one.facts.kind in kinds]

    async def _newest(self, on: Connection) -> Database | None:
        found = [one for one in await self._databases.all(on) if one.facts.kind is Kind.TEMPLATE]
        return max(found, key=lambda one: one.facts.at, default=None)

    async def _spares(self, on: Connection, template: Database) -> list[Database]:
        return [
            one
            for one in await self._databases.all(on)
            if one.facts.kind is Kind.SPARE and one.facts.origin == template.name
        ]


def _wanted(size: int) -> int:
    """How many spares of a template of that size there are to be."""
    return next((count for limit, count in SPARES if size <= limit), 0)
