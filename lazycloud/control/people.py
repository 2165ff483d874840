"""The API of who may: accounts, tokens and sessions, for owners; and a person's own password."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from lazycloud.config import Config
from lazycloud.control.accounts import Account, Accounts
from lazycloud.control.api import login_link, me_view
from lazycloud.control.auth import Auth
from lazycloud.control.bodies import flag_of, json_body, text_of
from lazycloud.control.guard import Route
from lazycloud.control.guesses import Guesses
from lazycloud.control.identity import How, Kind, Role
from lazycloud.control.passwords import Passwords
from lazycloud.control.sessions import Holder, Session
from lazycloud.control.tokens import Token, Tokens
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import BadInput, Conflict, Forbidden, NotFound

Json = dict[str, Any]
ID_LENGTH = 12  # letters of a session's id that tell it from others
FARTHEST = 100 * 365 * 86400.0  # seconds ahead that a token may end: more is a mistake


class People:
    ROUTES: tuple[Route, ...] = (
        ("POST", "/api/me/password", "own_password", Role.VIEWER),
        ("GET", "/api/accounts", "list_accounts", Role.OWNER),
        ("POST", "/api/accounts", "add_account", Role.OWNER),
        ("POST", "/api/accounts/{name}/set", "set_account", Role.OWNER),
        ("POST", "/api/accounts/{name}/remove", "remove_account", Role.OWNER),
        ("POST", "/api/accounts/{name}/link", "link_account", Role.OWNER),
        ("GET", "/api/sessions", "list_sessions", Role.OWNER),
        ("POST", "/api/sessions/end", "end_sessions", Role.OWNER),
        ("GET", "/api/tokens", "list_tokens", Role.OWNER),
        ("POST", "/api/tokens", "create_token", Role.OWNER),
        ("POST", "/api/tokens/{name}/revoke", "revoke_token", Role.OWNER),
    )
    NARROWED = frozenset({"own_password"})

    def __init__(self, config: Config, fleet: Fleet, auth: Auth, passwords: Passwords) -> None:
        self._config = config
        self._fleet = fleet
        self._auth = auth
        self._passwords = passwords
        self._guesses = Guesses()

    @property
    def _accounts(self) -> Accounts:
        return self._auth.accounts

    @property
    def _tokens(self) -> Tokens:
        return self._auth.tokens

    async def own_password(self, request: web.Request) -> web.StreamResponse:
        """Somebody's own, who shows the one before if there is one. Their other browsers are logged out."""
        identity, body = self._auth.identity(request), await json_body(request)
        if identity.kind is not Kind.ACCOUNT or identity.how is not How.SESSION:
            raise BadInput(
                "Only a person who is logged in has a password.", "For another: `lazycloud account set`."
            )
        account = self._accounts.get(identity.name)
        if account.password:
            self._guesses.begin(account.name)
            if not await self._passwords.fits(_secret(body, "before"), account.password):
                raise Forbidden("That is not your password.", "Without it, an owner can give you a new one.")
            self._guesses.succeeded(account.name)
        kept = await self._passwords.hashed(_secret(body, "password"))
        await self._accounts.change(account.name, account.name, password=kept)
        mine, holder = self._auth.session(request), Holder(Kind.ACCOUNT, account.name)
        self._auth.end_sessions(holder, "the password is another one", account.name, keep=mine)
        return web.json_response(me_view(identity))

    async def list_accounts(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([self._account(account) for account in self._accounts])

    async def add_account(self, request: web.Request) -> web.StreamResponse:
        body = await json_body(request)
        name, role = text_of(body, "name").lower(), Role.read(text_of(body, "role"))
        if self._tokens.named(name):
            raise Conflict(
                f"A token is called “{name}”: the event log could not tell them apart.",
                "Choose another name.",
            )
        password = _secret(body, "password")
        kept = await self._passwords.hashed(password) if password else ""
        account = await self._accounts.add(name, role, kept, self._auth.identity(request).name)
        return web.json_response(self._account(account), status=201)

    async def set_account(self, request: web.Request) -> web.StreamResponse:
        """What changes ends the account's sessions: they began as something else."""
        body, name, who = (
            await json_body(request),
            request.match_info["name"],
            self._auth.identity(request).name,
        )
        role = Role.read(text_of(body, "role")) if "role" in body else None
        password, before = None, self._accounts.get(name)
        if "password" in body:
            text = _secret(body, "password")
            password = await self._passwords.hashed(text) if text else ""
        ended = 0
        try:
            await self._accounts.change(name, who, role, password, flag_of(body, "disabled"))
        finally:
            if self._accounts.find(name) != before:
                ended = self._auth.end_sessions(Holder(Kind.ACCOUNT, name), "the account was changed", who)
        return web.json_response(self._account(self._accounts.get(name)) | {"ended": ended})

    async def remove_account(self, request: web.Request) -> web.StreamResponse:
        name, who = request.match_info["name"], self._auth.identity(request).name
        account = self._accounts.get(name)
        try:
            await self._accounts.remove(name, who)
        finally:
            ended = self._auth.end_sessions(Holder(Kind.ACCOUNT, name), "the account was removed", who)
        return web.json_response(self._account(account) | {"ended": ended})

    async def link_account(self, request: web.Request) -> web.StreamResponse:
        """Whoever has it logs in as that person, once."""
        account = self._accounts.get(request.match_info["name"])
        if account.disabled:
            raise Conflict(
                f"The account “{account.name}” is disabled.",
                f"`lazycloud account set {account.name} --enable`",
            )
        holder = Holder(Kind.ACCOUNT, account.name)
        return web.json_response({"url": login_link(self._config, self._auth, holder)})

    async def list_sessions(self, request: web.Request) -> web.StreamResponse:
        wanted, mine = request.query.get("account", ""), self._auth.session(request)
        views = [_session(session) | {"current": session is mine} for session in self._auth.sessions]
        shown = [view for view in views if wanted in ("", view["name"])]
        return web.json_response(sorted(shown, key=lambda view: -view["seen"]))

    async def end_sessions(self, request: web.Request) -> web.StreamResponse:
        """One by its id, or all of an account, a token, or `owner`."""
        body, who = await json_body(request), self._auth.identity(request).name
        account, wanted = text_of(body, "account"), text_of(body, "session")
        if bool(account) == bool(wanted):
            raise BadInput("Which? Give `session`, its id, or `account`.")
        meant = [
            session
            for session in self._auth.sessions
            if (wanted and session.id.startswith(wanted) and len(wanted) >= ID_LENGTH)
            or account == _name(session)
        ]
        if wanted and not meant:
            raise NotFound("There is no such session.", "`lazycloud account sessions` lists them.")
        ended = self._auth.sessions.end(
            lambda one: any(one is each for each in meant), account or _name(meant[0]), f"ended by {who}", who
        )
        return web.json_response({"ended": ended})

    async def list_tokens(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([_token(token) for token in self._tokens])

    async def create_token(self, request: web.Request) -> web.StreamResponse:
        """The answer is the only one that has the token itself."""
        body, who = await json_body(request), self._auth.identity(request).name
        name, app, previews = (
            text_of(body, "name").lower(),
            text_of(body, "app"),
            flag_of(body, "previews") or False,
        )
        role = Role.read(text_of(body, "role")) if not previews else Role.VIEWER
        if app:
            self._fleet.app(app)
        if self._accounts.find(name):
            raise Conflict(
                f"An account is called “{name}”: the event log could not tell them apart.",
                "Choose another name.",
            )
        expires = _expires(body)
        if not self._tokens.named(name):
            self._auth.end_sessions(Holder(Kind.TOKEN, name), "the token expired", who)
        token, text = await self._tokens.create(name, role, who, app, previews, expires)
        return web.json_response(
            _token(token) | {"token": text}, status=201, headers={"Cache-Control": "no-store"}
        )

    async def revoke_token(self, request: web.Request) -> web.StreamResponse:
        name, who = request.match_info["name"], self._auth.identity(request).name
        try:
            token = await self._tokens.revoke(name, who)
        finally:
            ended = self._auth.end_sessions(Holder(Kind.TOKEN, name), "the token was revoked", who)
        return web.json_response(_token(token) | {"ended": ended})

    def _account(self, account: Account) -> Json:
        sessions = [one for one in self._auth.sessions if one.holder == Holder(Kind.ACCOUNT, account.name)]
        return {
            "name": account.name,
            "role": str(account.role),
            "disabled": account.disabled,
            "password": bool(account.password),
            "created": account.created,
            "who": account.who,
            "sessions": len(sessions),
            "seen": max((one.seen for one in sessions), default=None),
            "tokens": [token.name for token in self._tokens if token.who == account.name],
        }


def _token(token: Token) -> Json:
    return {
        "name": token.name,
        "role": str(token.role),
        "app": token.app or None,
        "previews": token.previews,
        "created": token.created,
        "who": token.who,
        "expires": token.expires,
        "expired": token.has_expired,
        "used": token.used,
    }


def _name(session: Session) -> str:
    return "owner" if session.holder.kind is Kind.OWNER else session.holder.name


def _session(session: Session) -> Json:
    return {
        "id": session.id[:ID_LENGTH],
        "name": _name(session),
        "kind": str(session.holder.kind),
        "created": session.created,
        "seen": session.seen,
        "expires": session.expires,
        "agent": session.agent,
        "client": session.client,
    }


def _secret(body: Json, name: str) -> str:
    """A password as it was written, spaces and all."""
    value = body.get(name) or ""
    if not isinstance(value, str):
        raise BadInput(f"`{name}` must be a text.")
    return value


def _expires(body: Json) -> float | None:
    """Unix seconds, or null for never."""
    value, now = body.get("expires"), time.time()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not now < value < now + FARTHEST:
        raise BadInput("`expires` must be a time to come, in unix seconds, or null.")
    return float(value)
