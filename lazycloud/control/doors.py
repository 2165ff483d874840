"""The API of who comes in: the previews of an app, and the links that were shared."""

from __future__ import annotations

from aiohttp import web

from lazycloud.control.auth import Auth
from lazycloud.control.bodies import json_body, text_of
from lazycloud.control.guard import Route
from lazycloud.control.identity import Role
from lazycloud.control.previews import Previews
from lazycloud.control.shares import SECONDS, Shares
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
    )
    NARROWED: frozenset[str] = frozenset()

    def __init__(self, fleet: Fleet, auth: Auth, previews: Previews, shares: Shares) -> None:
        self._fleet = fleet
        self._auth = auth
        self._previews = previews
        self._shares = shares

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

    def _app(self, request: web.Request) -> App:
        return self._fleet.app(request.match_info["app"])

    def _who(self, request: web.Request) -> str:
        identity = self._auth.identify(request)
        assert identity is not None
        return identity.name
