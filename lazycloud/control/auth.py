"""Who may: the token, one-time login tickets, signed sessions, cookies of previews, and Origin.

The owner's token is made at the first start and kept in a file only the owner can read. A browser trades a
ticket or the token for a session cookie of the control host; for a preview it is given a cookie that is good for
that one host only. Programs send the token as `Authorization: Bearer`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from lazycloud import hosts
from lazycloud.errors import Forbidden, Unauthorised
from lazycloud.router import access

SESSION_SECONDS = 30 * 24 * 3600.0
PREVIEW_SECONDS = 7 * 24 * 3600.0
TICKET_SECONDS = 15 * 60.0  # a login link waits in a terminal
ENTRY_SECONDS = 60.0  # the hop from the control host to a preview's
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Auth:
    """`token` and `key` are what `secret` made; `local_socket` is the API socket only the owner can open."""

    def __init__(self, token: str, key: bytes, local_socket: Path, secure: bool) -> None:
        self._token = token
        self._key = key
        self._local = str(local_socket)
        self._secure = secure
        self._tickets: dict[str, float] = {}

    def is_local(self, request: web.Request) -> bool:
        """It came over the owner's socket."""
        transport = request.transport
        return transport is not None and transport.get_extra_info("sockname") == self._local

    def is_logged_in(self, request: web.Request) -> bool:
        if self.is_local(request):
            return True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(token.strip())
        return self._session_is_valid(request.cookies.get(access.SESSION_COOKIE, ""))

    def require(self, request: web.Request) -> None:
        """Raises Unauthorised without a login, Forbidden for a write from a page of another origin."""
        if not self.is_logged_in(request):
            raise Unauthorised("Log in first.", "`lazycloud open --control` prints a link that does.")
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if request.method in WRITES or upgrade:
            self.require_same_origin(request)

    def require_same_origin(self, request: web.Request) -> None:
        """A browser says where a write comes from; what has no Origin is no browser's."""
        origin = request.headers.get("Origin")
        if origin is None:
            if request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none"):
                return
        elif origin.lower().partition("://")[2] == request.host.lower():
            return
        raise Forbidden("This page may not do that: it belongs to another site.")

    def is_token(self, text: str) -> bool:
        return bool(text) and hmac.compare_digest(_bytes(text), self._token.encode())

    def ticket(self) -> str:
        """Good for one login, for a quarter of an hour."""
        now = time.time()
        self._tickets = {ticket: expiry for ticket, expiry in self._tickets.items() if expiry > now}
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = now + TICKET_SECONDS
        return ticket

    def take_ticket(self, ticket: str) -> bool:
        return self._tickets.pop(ticket, 0.0) > time.time()

    def begin_session(self, response: web.Response) -> None:
        expiry = int(time.time() + SESSION_SECONDS)
        self._set_cookie(
            response, access.SESSION_COOKIE, f"{expiry}.{self._sign(f'session|{expiry}')}", SESSION_SECONDS
        )

    def end_session(self, response: web.Response) -> None:
        response.del_cookie(access.SESSION_COOKIE)

    def entry(self, host: str) -> str:
        """What takes a logged-in browser over to the preview at `host`, once it is there."""
        expiry = int(time.time() + ENTRY_SECONDS)
        return f"{expiry}.{self._sign(f'entry|{host}|{expiry}')}"

    def is_entry(self, host: str, text: str) -> bool:
        return self._is_signed(text, lambda expiry: f"entry|{host}|{expiry}")

    def enter_preview(self, response: web.Response, host: str) -> None:
        value = access.sign(self.preview_key, host, int(time.time() + PREVIEW_SECONDS))
        self._set_cookie(response, access.PREVIEW_COOKIE, value, PREVIEW_SECONDS)

    def may_see_preview(self, request: web.Request) -> bool:
        """The same as a router checks, for the paths that always come to control."""
        value = request.cookies.get(access.PREVIEW_COOKIE, "")
        host = hosts.normalise(request.host)
        return access.valid(self.preview_key, host, value, time.time()) or self.is_token(
            request.headers.get("Lazycloud-Token", "")
        )

    @property
    def preview_key(self) -> bytes:
        return hmac.digest(self._key, b"preview", "sha256")

    @property
    def token_sha256(self) -> str:
        return hashlib.sha256(self._token.encode()).hexdigest()

    def _session_is_valid(self, text: str) -> bool:
        return self._is_signed(text, lambda expiry: f"session|{expiry}")

    def _is_signed(self, text: str, what: Callable[[str], str]) -> bool:
        expiry, _, signature = text.partition(".")
        if not (expiry.isascii() and expiry.isdecimal()):
            return False
        genuine = hmac.compare_digest(_bytes(signature), self._sign(what(expiry)).encode())
        return genuine and int(expiry) > time.time()

    def _sign(self, what: str) -> str:
        return hmac.new(self._key, what.encode(), "sha256").hexdigest()

    def _set_cookie(self, response: web.Response, name: str, value: str, seconds: float) -> None:
        response.set_cookie(
            name, value, max_age=int(seconds), httponly=True, secure=self._secure, samesite="Lax", path="/"
        )


def _bytes(text: str) -> bytes:
    """What came as a header, whatever bytes it had."""
    return text.encode("utf-8", "surrogateescape")


def secret(path: Path) -> str:
    """The secret in a file of the home folder, made at first: 32 random bytes, mode 0600."""
    try:
        if text := path.read_text().strip():
            return text
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = secrets.token_urlsafe(32)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    return text
