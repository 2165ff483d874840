"""The API of backups: what there is, one now, whether all are whole, and production's data back from one."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from aiohttp import web

from lazycloud.blobs.keys import parse_public
from lazycloud.config import Config
from lazycloud.control.auth import Auth
from lazycloud.control.bodies import flag_of, json_body, text_of
from lazycloud.control.guard import Route
from lazycloud.control.identity import Role
from lazycloud.data.names import PRODUCTION, point
from lazycloud.deployments.app import App
from lazycloud.deployments.backups import Backups
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import BadInput

Json = dict[str, Any]


class BackupViews:
    ROUTES: tuple[Route, ...] = (
        ("GET", "/api/backups", "list_backups", Role.OWNER),
        ("POST", "/api/backups/verify", "verify_backups", Role.OWNER),
        ("POST", "/api/apps/{app}/data/backup", "back_up", Role.OWNER),
        ("POST", "/api/apps/{app}/data/restore-from", "restore_backup", Role.OWNER),
    )
    NARROWED: frozenset[str] = frozenset()

    def __init__(self, config: Config, fleet: Fleet, auth: Auth, backups: Backups) -> None:
        self._upkeep = config.data
        self._fleet = fleet
        self._auth = auth
        self._backups = backups

    async def list_backups(self, request: web.Request) -> web.StreamResponse:
        store = request.query.get("from", "")
        standing = {name: asdict(one) for name, one in self._backups.standing.items()}
        facts = {
            "store": self._upkeep.backup,
            "every": self._upkeep.backup_every,
            "keep": self._upkeep.backup_keep,
        }
        return web.json_response({**facts, "apps": standing, **await self._backups.list(store)})

    async def verify_backups(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        return web.json_response(await self._backups.verify(text_of(body, "from"), _key(body)))

    async def back_up(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        store, full = self._other_store(request, text_of(body, "to")), bool(flag_of(body, "full"))
        return web.json_response(
            await self._backups.make(app, self._auth.identity(request).name, store, full), status=201
        )

    async def restore_backup(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        store = self._other_store(request, text_of(body, "from"))
        which, of, at = text_of(body, "backup"), text_of(body, "of"), _moment(text_of(body, "at"))
        if flag_of(body, "dry_run"):
            return web.json_response({"backup": await self._backups.find(app, store, which, at, of)})
        who = self._auth.identity(request).name
        facts, replaced = await self._backups.restore(app, who, store, which, at, of, _key(body))
        return web.json_response(
            {
                "backup": facts,
                "version": replaced.version,
                "before": replaced.before,
                "seconds": replaced.seconds,
                "still": replaced.still,
            }
        )

    def _other_store(self, request: web.Request, store: str) -> str:
        """One that somebody names is a folder of this machine: who may do what he likes with one app may not."""
        if store and store != self._upkeep.backup:
            self._auth.identity(request).demand(Role.OWNER)
        return store

    def _app(self, request: web.Request) -> App:
        return self._fleet.app(request.match_info["app"])


def _key(body: Json) -> str:
    key = text_of(body, "signed_by")
    if key:
        parse_public(key)
    return key


def _moment(text: str) -> float:
    """Unix time of `10min-ago`, or of a date in UTC; 0 for none. Raises BadInput."""
    if not text:
        return 0.0
    meant = point(f"{PRODUCTION}@{text}", time.time())
    if not meant.at:
        raise BadInput(f"`at` cannot be {text[:40]!r}.", "Such as 10min-ago, or 2026-01-31T12:00 (UTC).")
    return meant.at
