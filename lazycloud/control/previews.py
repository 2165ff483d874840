"""Who may see the previews of an app: everybody, who logs in, or also who has the app's password.

It is the server's to say (config.toml, `lazycloud previews`), never the repository's: a branch must not open itself.
What opens a preview is a *grant*, a name that its cookie holds beside the host: `l…` for who logged in, `p…` for the
password, `s…` for a link that was shared. Routers are told which grants hold, so that a cookie ends with its grant.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from lazycloud import hosts, store
from lazycloud.config import PREVIEWS, Config
from lazycloud.control.auth import Auth
from lazycloud.control.identity import How, Identity
from lazycloud.control.passwords import Passwords
from lazycloud.errors import BadInput, Conflict
from lazycloud.events import EventLog, PreviewsChanged
from lazycloud.router import access
from lazycloud.store import Store

SECONDS = 7 * 24 * 3600.0  # of a login or a password, at one preview
PUBLIC, LOGIN, PASSWORD = PREVIEWS
LOGGED_IN, KNOWS_PASSWORD, SHARED = "l", "p", "s"  # what a grant begins with


@dataclass(frozen=True)
class Rule:
    """Of one app, as it was set last. `generation` is another one after each change, and never the same again."""

    mode: str = ""  # "" where the default holds
    generation: str = "0"
    password: str = ""


class Previews:
    """`settled` are the modes of config.toml, by app.

    `told` is called when another cookie holds than before, `opened` when routes must be asked for again.
    """

    def __init__(
        self, config: Config, auth: Auth, passwords: Passwords, state: Store, events: EventLog
    ) -> None:
        self.settled: dict[str, str] = {}
        self.shared: Callable[[str], Collection[str]] = lambda app: ()  # the links of an app that hold
        self.told: Callable[[], None] = lambda: None
        self.opened: Callable[[], None] = lambda: None
        self._config = config
        self._auth = auth
        self._key = auth.keys.preview_key
        self._events = events
        self._passwords = passwords
        self._secure = config.addresses.scheme == "https"
        self._cookie = access.preview_cookie(self._secure)
        self._rules = {
            row["app"]: Rule(row["mode"], row["generation"], row["password"])
            for row in state.rows(store.previews)
        }

    def mode(self, app: str) -> str:
        default = LOGIN if self._config.previews_need_login else PUBLIC
        return self.settled.get(app) or self._rule(app).mode or default

    def is_open(self, app: str) -> bool:
        return self.mode(app) == PUBLIC

    def view(self, app: str) -> dict[str, Any]:
        where = "config.toml" if self.settled.get(app) else "server" if self._rule(app).mode else "default"
        return {"mode": self.mode(app), "set_by": where, "password": bool(self._rule(app).password)}

    async def set(self, app: str, mode: str, password: str, who: str) -> None:
        """Durable, and true for all routers, when this returns. Raises BadInput, Conflict."""
        if mode not in PREVIEWS:
            raise BadInput(f"Previews cannot be “{mode[:40]}”.", f"Give one of {', '.join(PREVIEWS)}.")
        if (settled := self.settled.get(app)) and settled != mode:
            raise Conflict(
                f"config.toml says that previews of {app} are {settled}.",
                "Change it there, then `lazycloud upgrade`.",
            )
        if mode == PASSWORD and not password:
            raise BadInput("Which password? `password` is missing.")
        if mode != PASSWORD and password:
            raise BadInput(f"A password is for the mode password, not for {mode}.")
        kept = await self._passwords.hashed(password) if password else ""
        rule = Rule(mode, secrets.token_hex(4), kept)
        row = vars(rule) | {"app": app, "changed": time.time(), "who": who}
        fact = PreviewsChanged(app=app, mode=mode, who=who)
        await self._events.commit(fact, store.put(store.previews, **row))
        self._rules[app] = rule
        self.told()
        self.opened()

    async def is_password(self, app: str, text: str) -> bool:
        return self.mode(app) == PASSWORD and await self._passwords.fits(text, self._rule(app).password)

    def grants(self, app: str) -> list[str]:
        """All that hold for the app."""
        generation = self._rule(app).generation
        people = [mark for mark, who in self._auth.marks().items() if who.app in ("", app)]
        passwords = [f"{KNOWS_PASSWORD}{generation}"] if self.mode(app) == PASSWORD else []
        shared = [f"{SHARED}{share}" for share in self.shared(app)]
        return [*(f"{LOGGED_IN}{generation}{mark}" for mark in people), *passwords, *shared]

    def access(self, apps: Collection[str]) -> dict[str, Any]:
        """For the routers."""
        tokens = {token.sha256: (token.expires or 0.0, token.app) for token in self._auth.tokens}
        tokens[self._auth.keys.token_sha256] = (0.0, "")
        return {"grants": {app: self.grants(app) for app in apps}, "tokens": tokens}

    def enter(self, answer: web.Response, request: web.Request, app: str, mark: str) -> None:
        """Give the browser of somebody who logged in a cookie of this host."""
        self._give(answer, request, f"{LOGGED_IN}{self._rule(app).generation}{mark}", time.time() + SECONDS)

    def enter_by_password(self, answer: web.Response, request: web.Request, app: str) -> None:
        self._give(answer, request, f"{KNOWS_PASSWORD}{self._rule(app).generation}", time.time() + SECONDS)

    def enter_shared(self, answer: web.Response, request: web.Request, share: str, expiry: float) -> None:
        self._give(answer, request, f"{SHARED}{share}", expiry)

    def may_see(self, request: web.Request, app: str) -> bool:
        """The same as a router checks, for the paths that always come to control."""
        return bool(self._grant(request, app) or self._by_token(request, app))

    def may_stay(self, request: web.Request, app: str) -> bool:
        """Whether the browser was let in by more than a link that was shared."""
        return self._grant(request, app).startswith((LOGGED_IN, KNOWS_PASSWORD))

    def visitor(self, request: web.Request, app: str) -> Identity | None:
        """Who visits a preview, if it is somebody who logged in, or a program of theirs."""
        grant, start = self._grant(request, app), f"{LOGGED_IN}{self._rule(app).generation}"
        if grant.startswith(start):
            return self._auth.marks().get(grant.removeprefix(start))
        return self._by_token(request, app)

    def _grant(self, request: web.Request, app: str) -> str:
        """What the browser's cookie of this host was given for, if that holds; else ""."""
        host, holding = hosts.normalise(request.host), self.grants(app)
        for cookies in request.headers.getall("Cookie", ()):
            for value in access.previews(cookies.encode("utf-8", "surrogateescape"), self._cookie):
                grant = access.grant_of(self._key, host, value, time.time())
                if grant in holding:
                    return grant
        return ""

    def _by_token(self, request: web.Request, app: str) -> Identity | None:
        holder = self._auth.holder_of_token(request.headers.get("Lazycloud-Token", ""))
        who = self._auth.identity_of(holder, How.BEARER) if holder else None
        return who if who and who.app in ("", app) else None

    def _give(self, answer: web.Response, request: web.Request, grant: str, expiry: float) -> None:
        value = access.sign(self._key, hosts.normalise(request.host), grant, int(expiry))
        answer.set_cookie(
            self._cookie,
            value,
            max_age=max(1, int(expiry - time.time())),
            httponly=True,
            secure=self._secure,
            samesite="Lax",
            path="/",
        )

    def _rule(self, app: str) -> Rule:
        return self._rules.get(app, Rule())
