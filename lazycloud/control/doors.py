"""The API of who and what comes in: previews, links that were shared, webhooks, pull requests of forks."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lazycloud.config import Config
from lazycloud.control.auth import Auth
from lazycloud.control.bodies import json_body, text_of
from lazycloud.control.guard import Route
from lazycloud.control.identity import Role
from lazycloud.control.previews import Previews
from lazycloud.control.pulls import Pulls
from lazycloud.control.shares import SECONDS, Shares
from lazycloud.control.views import commit_view
from lazycloud.control.webhooks import Webhooks
from lazycloud.deployments.app import App
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import BadInput


class Doors:
    ROUTES: tuple[Route, ...] = (
        ("GET", "/api/apps/{app}/previews", "previews", Role.VIEWER),
        ("POST", "/api/apps/{app}/previews", "set_previews", Role.OWNER),
        ("GET", "/api/apps/{app}/shares", "shares", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/share", "share", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/shares/revoke", "revoke_shares", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/webhook", "webhook", Role.OWNER),
        ("GET", "/api/apps/{app}/pulls", "pulls", Role.VIEWER),
        ("POST", "/api/apps/{app}/pulls/{number}/allow", "allow_pull", Role.DEVELOPER),
    )
    NARROWED: frozenset[str] = frozenset()

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        auth: Auth,
        previews: Previews,
        shares: Shares,
        webhooks: Webhooks,
        pulls: Pulls,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._auth = auth
        self._previews = previews
        self._shares = shares
        self._webhooks = webhooks
        self._pulls = pulls

    def view(self, app: App) -> dict[str, Any]:
        """What the control page shows with an app."""
        pulls = [self._pulls.view(app, pull) for pull in self._pulls.of(app.name)]
        return {"previews": self._previews.mode(app.name), "pulls": pulls}

    async def previews(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._previews.view(self._app(request).name))

    async def set_previews(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        password = body.get("password") or ""
        if not isinstance(password, str):
            raise BadInput("`password` must be a text.")
        await self._previews.set(app.name, text_of(body, "mode"), password, self._who(request))
        return web.json_response(self._previews.view(app.name))

    async def shares(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        return web.json_response([self._shares.view(app, share) for share in self._shares.of(app.name)])

    async def share(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        commit = await app.wanted(text_of(body, "ref"))
        seconds = body.get("seconds", SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise BadInput("`seconds` must be a number.")
        share = await self._shares.make(app, commit, seconds, self._who(request))
        return web.json_response(self._shares.view(app, share), status=201)

    async def revoke_shares(self, request: web.Request) -> web.StreamResponse:
        """One by its id; all with `all`."""
        app, body = self._app(request), await json_body(request)
        share_id, everything = text_of(body, "id"), body.get("all") is True
        if bool(share_id) == everything:
            raise BadInput("Which link? Give its `id`, or `all`.")
        gone = await self._shares.revoke(app, share_id, self._who(request))
        return web.json_response({"revoked": [share.id for share in gone]})

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        made = await self._webhooks.make(app, body.get("rotate") is True, self._who(request))
        return web.json_response(made, headers={"Cache-Control": "no-store"})

    async def pulls(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        return web.json_response([self._pulls.view(app, pull) for pull in self._pulls.of(app.name)])

    async def allow_pull(self, request: web.Request) -> web.StreamResponse:
        app, body, number = self._app(request), await json_body(request), request.match_info["number"]
        if not (number.isascii() and number.isdecimal() and len(number) <= 9):
            raise BadInput(f"“{number[:40]}” is no number of a pull request.")
        commit = await self._pulls.allow(app, int(number), text_of(body, "commit"), self._who(request))
        address = self._config.addresses.label(app.domain, commit.short)
        return web.json_response({"commit": commit_view(commit), "address": address})

    def _app(self, request: web.Request) -> App:
        return self._fleet.app(request.match_info["app"])

    def _who(self, request: web.Request) -> str:
        return self._auth.identity(request).name
