"""Who may: each request's identity, and what it has to show for it. One-time login tickets, cookies, Origin.

A request over the API socket is the owner's, since only the owner can open it. Programs send a token as
`Authorization: Bearer`; browsers have a session cookie of the control host, and for a preview a cookie that is good
for that one host only.
"""

from __future__ import annotations

import pwd
import secrets
import socket
import struct
import time
from functools import lru_cache

from aiohttp import web

from lazycloud.config import Config
from lazycloud.control.accounts import OWNER, Accounts
from lazycloud.control.identity import How, Identity, Kind, Role
from lazycloud.control.keys import Keys, sha256
from lazycloud.control.sessions import SECONDS, Holder, Session, Sessions
from lazycloud.control.tokens import Tokens
from lazycloud.errors import BadInput, Forbidden, NotJson, Unauthorised
from lazycloud.router import access

TICKET_SECONDS = 15 * 60.0  # a login link waits in a terminal
TICKETS = 1000  # that wait at a time
MARK_LENGTH = 12  # letters
ENTRY_SECONDS = 60.0  # the hop from the control host to a preview's
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_IDENTITY = "lazycloud.identity"


class Auth:
    """Joins what was shown to who that is. Asks no disk."""

    def __init__(
        self, config: Config, keys: Keys, accounts: Accounts, tokens: Tokens, sessions: Sessions
    ) -> None:
        self.keys = keys
        self.accounts = accounts
        self.tokens = tokens
        self.sessions = sessions
        self._local = str(config.api_socket)
        self._secure = config.addresses.scheme == "https"
        self._tickets: dict[str, tuple[float, Holder]] = {}

    @property
    def owner(self) -> Holder:
        """The owner's sessions end when the token in the home folder is another one."""
        return Holder(Kind.OWNER, self.keys.token_sha256[:16])

    def is_local(self, request: web.Request) -> bool:
        """It came over the owner's socket."""
        transport = request.transport
        return transport is not None and transport.get_extra_info("sockname") == self._local

    def identify(self, request: web.Request, again: bool = False) -> Identity | None:
        """Who asks; None for a stranger. Who shows a wrong token is one, whatever cookie is there."""
        if again or _IDENTITY not in request:
            request[_IDENTITY] = self._identify(request)
        identity: Identity | None = request[_IDENTITY]
        return identity

    def identity(self, request: web.Request) -> Identity:
        """Who asks, whom the guard has let in."""
        identity = self.identify(request)
        assert identity is not None
        return identity

    def require(self, request: web.Request, role: Role, app: str = "") -> Identity:
        """Who asks, and may. `app`: which is meant; "" the whole server, ANY_APP whatever they may see.

        Raises Unauthorised without a login, Forbidden for another role or app, and for a write from a page of
        another origin, or of which nobody knows.
        """
        identity = self.identify(request)
        if identity is None and "Authorization" in request.headers:
            raise Unauthorised(
                "This token is not one of this server, or it has ended.", "An owner makes another one."
            )
        if identity is None:
            raise Unauthorised("Log in first.", "`lazycloud open --control` prints a link that does.")
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if request.method in WRITES or upgrade:
            self.require_same_origin(request, strict=identity.how is How.SESSION)
        if (
            request.method in WRITES
            and identity.how is How.SESSION
            and request.content_type != "application/json"
        ):
            raise NotJson("A page’s form may not do that: the request must be application/json.")
        identity.demand(role, app)
        return identity

    def require_same_origin(self, request: web.Request, strict: bool = False) -> None:
        """A browser says where a write comes from; what does not is no browser's. `strict` refuses that, too."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if origin is None:
            if site in ("same-origin", "none") or (site is None and not strict):
                return
            if site is None:
                raise Forbidden(
                    "This does not say which page it comes from.", "Programs send a token, no cookie."
                )
        elif origin.lower().partition("://")[2] == request.host.lower():
            return
        raise Forbidden("This page may not do that: it belongs to another site.")

    def identity_of(self, holder: Holder, how: How) -> Identity | None:
        """What somebody is now: None when the account is disabled or gone, the token revoked or too old."""
        if holder.kind is Kind.OWNER:
            return Identity(OWNER, Role.OWNER, how, Kind.OWNER) if holder == self.owner else None
        if holder.kind is Kind.ACCOUNT:
            account = self.accounts.find(holder.name)
            if account is None or account.disabled:
                return None
            return Identity(account.name, account.role, how, Kind.ACCOUNT)
        token = self.tokens.named(holder.name)
        if token is None:
            return None
        return Identity(token.name, token.role, how, Kind.TOKEN, token.app, token.previews)

    def holder_of_token(self, text: str) -> Holder | None:
        """Whose token this is: the owner's, or one that was made."""
        if self.keys.is_token(text):
            return self.owner
        token = self.tokens.find(text)
        return Holder(Kind.TOKEN, token.name) if token else None

    def ticket(self, holder: Holder | None = None) -> str:
        """Good for one login, for a quarter of an hour; the owner's without a `holder`."""
        now = time.time()
        self._tickets = {ticket: kept for ticket, kept in self._tickets.items() if kept[0] > now}
        if len(self._tickets) >= TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = now + TICKET_SECONDS, holder or self.owner
        return ticket

    def peek_ticket(self, ticket: str) -> Identity | None:
        """Whom it would log in."""
        expiry, holder = self._tickets.get(ticket, (0.0, self.owner))
        return self.identity_of(holder, How.SESSION) if expiry > time.time() else None

    def take_ticket(self, ticket: str) -> Holder | None:
        expiry, holder = self._tickets.pop(ticket, (0.0, self.owner))
        return holder if expiry > time.time() and self.identity_of(holder, How.SESSION) else None

    def forget_tickets(self, holder: Holder) -> None:
        self._tickets = {ticket: kept for ticket, kept in self._tickets.items() if kept[1] != holder}

    def session(self, request: web.Request) -> Session | None:
        return self.sessions.find(request.cookies.get(self._cookie, ""))

    def begin_session(
        self, request: web.Request, response: web.StreamResponse, holder: Holder, how: str, client: str
    ) -> None:
        """Another one than the browser had: a cookie that somebody planted there is worth nothing afterwards."""
        identity = self.identity_of(holder, How.SESSION)
        if identity is None or identity.previews_only:
            raise BadInput("This token only opens previews: nobody logs in with it.")
        before = self.session(request)
        if before:
            self.sessions.end(lambda one: one is before, identity.name, "another login", identity.name)
        agent = request.headers.get("User-Agent", "")
        value = self.sessions.begin(holder, identity.name, how, agent, client)
        self._set_cookie(response, self._cookie, value, SECONDS)

    def end_session(self, request: web.Request, response: web.StreamResponse) -> None:
        session, identity = self.session(request), self.identify(request)
        if session:
            who = identity.name if identity else session.holder.name
            self.sessions.end(lambda one: one is session, who, "logged out", who)
        for name in access.SESSION_COOKIES:
            secure = name.startswith("__Host-")
            response.del_cookie(name, path="/", secure=secure, httponly=True, samesite="Lax")

    def end_sessions(self, holder: Holder, why: str, who: str, keep: Session | None = None) -> int:
        """All of somebody but `keep`, also those that a link would begin."""
        self.forget_tickets(holder)
        return self.sessions.end(lambda one: one.holder == holder and one is not keep, holder.name, why, who)

    def entry(self, host: str, mark: str) -> str:
        """What takes the logged-in browser of `mark` over to the preview at `host`, once it is there."""
        return f"{mark}.{self.keys.seal(f'entry|{host}|{mark}', ENTRY_SECONDS)}"

    def entered(self, host: str, text: str) -> str:
        """Whose browser comes over, by its mark; "" for nobody's."""
        mark, _, seal = text.partition(".")
        return mark if self.keys.is_seal(f"entry|{host}|{mark}", seal) else ""

    def mark(self, request: web.Request) -> str:
        """What stands for who asks in the cookies of previews; "" for a stranger."""
        if self.is_local(request):
            return self._mark(self.owner)
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        session = self.session(request)
        by_session = session.holder if session else None
        holder = self.holder_of_token(text.strip()) if scheme.lower() == "bearer" else by_session
        return self._mark(holder) if holder else ""

    def marks(self) -> dict[str, Identity]:
        """The marks of all who may log in now."""
        holders = [self.owner]
        holders += [Holder(Kind.ACCOUNT, each.name) for each in self.accounts]
        holders += [Holder(Kind.TOKEN, each.name) for each in self.tokens]
        who = [(holder, self.identity_of(holder, How.SESSION)) for holder in holders]
        return {self._mark(holder): one for holder, one in who if one and not one.previews_only}

    def _mark(self, holder: Holder) -> str:
        """Another one for an account or a token that is made anew by the same name."""
        account = self.accounts.find(holder.name) if holder.kind is Kind.ACCOUNT else None
        token = self.tokens.named(holder.name) if holder.kind is Kind.TOKEN else None
        made = account.created if account else token.created if token else 0
        return sha256(f"{holder.kind}|{holder.name}|{made}")[:MARK_LENGTH]

    @property
    def _cookie(self) -> str:
        """Browsers keep a `__Host-` cookie only if it came by https, for this very host: no other can plant one."""
        return access.HOST_SESSION_COOKIE if self._secure else access.SESSION_COOKIE

    def _identify(self, request: web.Request) -> Identity | None:
        if self.is_local(request):
            return Identity(_user(request), Role.OWNER, How.SOCKET, Kind.OWNER)
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            holder = self.holder_of_token(text.strip())
            return self.identity_of(holder, How.BEARER) if holder else None
        session = self.session(request)
        return self.identity_of(session.holder, How.SESSION) if session else None

    def _set_cookie(self, response: web.StreamResponse, name: str, value: str, seconds: float) -> None:
        response.set_cookie(
            name, value, max_age=int(seconds), httponly=True, secure=self._secure, samesite="Lax", path="/"
        )


def _user(request: web.Request) -> str:
    """The user at the other end of the owner's socket."""
    assert request.transport is not None
    peer: socket.socket = request.transport.get_extra_info("socket")
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return _user_name(user)


@lru_cache
def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
