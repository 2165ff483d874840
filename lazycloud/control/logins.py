"""Logging in and out: by a one-time link, by account and password, by a token. Wrong ones ever more slowly."""

from __future__ import annotations

from aiohttp import web

from lazycloud.control.accounts import OWNER
from lazycloud.control.auth import Auth
from lazycloud.control.clients import Clients, neighbourhood
from lazycloud.control.guesses import Guesses, TooManyAttempts
from lazycloud.control.identity import Kind
from lazycloud.control.pages import Pages
from lazycloud.control.passwords import Passwords
from lazycloud.control.seldom import Seldom
from lazycloud.control.sessions import Holder
from lazycloud.control.visits import local_path
from lazycloud.errors import BadInput
from lazycloud.events import EventLog, LoginFailed

TOLD, TOLD_SECONDS = 30, 60.0  # failures that the event log takes a minute


class Logins:
    def __init__(
        self, auth: Auth, passwords: Passwords, clients: Clients, pages: Pages, events: EventLog
    ) -> None:
        self._auth = auth
        self._passwords = passwords
        self._clients = clients
        self._pages = pages
        self._events = events
        self._guesses = Guesses()
        self._failures = Seldom(TOLD, TOLD_SECONDS)

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get(
            "/login", self.login, allow_head=False
        )  # a link works once: who only looks does not use it up
        router.add_post("/login", self.log_in)
        router.add_post("/logout", self.log_out)

    async def login(self, request: web.Request) -> web.StreamResponse:
        """A link with a ticket logs in at once; it works one time."""
        next_url = local_path(request.query.get("next", "/"))
        ticket = request.query.get("ticket", "")
        if ticket and _is_from_elsewhere(request) and (guest := self._auth.peek_ticket(ticket)):
            return self._pages.login(next_url, ticket=ticket, name=guest.name)
        if ticket and (holder := self._auth.take_ticket(ticket)):
            response = go_to(next_url)
            self._begin(request, response, holder, "link")
            return response
        if self._auth.identify(request):
            return go_to(next_url)
        return self._pages.login(next_url, "This link was used before, or is too old." if ticket else "")

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        self._auth.require_same_origin(request, strict=True)
        try:
            form = {name: str(value) for name, value in (await request.post()).items()}
        except ValueError as problem:
            raise BadInput("That is no login form.") from problem
        next_url = local_path(form.get("next", "/"))
        account = form.get("account", "").strip().lower()[:100]
        try:
            holder, how, error = await self._holder(request, form, account)
        except TooManyAttempts as problem:
            return self._pages.login(
                next_url, str(problem), account, status=429, retry_after=problem.retry_after
            )
        if holder is None:
            return self._pages.login(next_url, error, account)
        response = self._pages.onward(next_url)
        self._begin(request, response, holder, how)
        return response

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        self._auth.require_same_origin(request, strict=True)
        response = go_to("/login")
        self._auth.end_session(request, response)
        return response

    async def _holder(
        self, request: web.Request, form: dict[str, str], account: str
    ) -> tuple[Holder | None, str, str]:
        """Whom the form logs in, how; else why not. Raises TooManyAttempts."""
        if ticket := form.get("ticket"):
            return self._auth.take_ticket(ticket), "link", "This link was used before, or is too old."
        client = self._clients.address(request)
        address, secret = neighbourhood(client), form.get("token", "")
        self._guesses.begin(address, account)
        if account:
            found = await self._by_password(account, secret)
            how, error = "password", "That is not the password, or there is no such account."
        else:
            found = self._auth.holder_of_token(secret.strip())
            how, error = "token", "That is not the token. With a password, give the name of your account too."
        if found is None:
            if count := self._failures.take():
                known = account if self._auth.accounts.find(account) else ""
                self._events.append(LoginFailed(account=known, client=client, count=count))
        else:
            self._guesses.succeeded(address, account)
        return found, how, error

    async def _by_password(self, name: str, password: str) -> Holder | None:
        """An account's; who writes “owner” there has the owner's token."""
        if name == OWNER:
            return self._auth.owner if self._auth.keys.is_token(password.strip()) else None
        account = self._auth.accounts.find(name)
        fits = await self._passwords.fits(password, account.password if account else "")
        account = self._auth.accounts.find(name)  # it may have been disabled meanwhile
        return Holder(Kind.ACCOUNT, name) if fits and account and not account.disabled else None

    def _begin(self, request: web.Request, response: web.StreamResponse, holder: Holder, how: str) -> None:
        self._auth.begin_session(request, response, holder, how, self._clients.address(request))


def _is_from_elsewhere(request: web.Request) -> bool:
    """Whether another site's page, a chat's for example, led here: it must not choose who this browser is."""
    return request.headers.get("Sec-Fetch-Site") == "cross-site"


def go_to(url: str) -> web.Response:
    return web.Response(status=303, headers={"Location": url, "Cache-Control": "no-store"})
