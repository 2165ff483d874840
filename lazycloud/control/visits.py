"""Visitors of apps whom a router sent to control: there is no worker to send them to, or not yet, or not for them.

The reason that the router gives is what `resolver` told it; without one (a reserved path) the host tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import quote

from aiohttp import web

from lazycloud import hosts
from lazycloud.config import Config
from lazycloud.control.attempts import Attempts
from lazycloud.control.auth import Auth
from lazycloud.control.clients import Clients, neighbourhood
from lazycloud.control.identity import Role
from lazycloud.control.names import Names
from lazycloud.control.pages import Pages, accepts
from lazycloud.control.previews import PASSWORD, Previews
from lazycloud.control.progress import Progress
from lazycloud.control.resolver import Found, Resolver
from lazycloud.control.shares import Shares
from lazycloud.control.views import Views, without_output
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Ambiguous, BadInput, Busy, LazycloudError, NotFound, StepFailed, Unauthorised
from lazycloud.events import Asked, Event
from lazycloud.hosts import Kind, Place
from lazycloud.states import State

RESERVED = "/.well-known/lazycloud/"
REASON = "Lazycloud-Reason"
GUESSES, GUESSES_SECONDS = 10, 600.0  # of one client, at the password of an app
GUESSES_OF_ALL, GUESSES_OF_ALL_SECONDS = 1000, 3600.0
VISITOR = "a visitor of its page"


class TooLate(LazycloudError):
    status = 504
    kind = "late"


class Visits:
    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        resolver: Resolver,
        auth: Auth,
        pages: Pages,
        views: Views,
        progress: Progress,
        previews: Previews,
        shares: Shares,
        clients: Clients,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._resolver = resolver
        self._auth = auth
        self._pages = pages
        self._views = views
        self._progress = progress
        self._previews = previews
        self._shares = shares
        self._clients = clients
        self._guesses = Attempts(GUESSES, GUESSES_SECONDS)
        self._all_guesses = Attempts(GUESSES_OF_ALL, GUESSES_OF_ALL_SECONDS)
        self.tell: Callable[[Event], object] = lambda event: None  # the event log's, set by the server
        self._reserved = {
            "progress": self._follow,
            "retry": self._retry,
            "cancel": self._cancel,
            "log": self._log,
            "enter": self._enter,
            "password": self._password,
            "share": self._share,
            "tls-ask": Names(config, resolver).answer,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        host = hosts.normalise(request.host)
        place = self._resolver.place(host)
        try:
            if request.path.startswith(RESERVED):
                return await self._reserved_path(request, place)
            if request.headers.get(REASON) == "login":
                return self._to_login(request, place)
            return await self._answer(request, await self._find(place, host))
        except Ambiguous as problem:
            return self._pages.problem(request, problem, self._ambiguous(place, problem))
        except NotFound as problem:
            return self._pages.problem(request, problem, self._near(place, problem))
        except LazycloudError as problem:
            return self._pages.problem(request, problem)

    async def _find(self, place: Place, host: str) -> Found:
        if place.kind is Kind.UNKNOWN:
            advice = "This is served here:" if self._served() else ""
            raise NotFound(f"No app is served at {host or 'no host'}.", advice)
        if place.kind is Kind.INVALID:
            raise NotFound(
                f"“{place.label[:80]}” cannot name a commit, branch or tag.",
                "A label is 7 to 64 letters of a commit id, or a branch or tag in lower case with - for all else.",
            )
        return await self._resolver.find(place)

    async def _answer(self, request: web.Request, found: Found) -> web.StreamResponse:
        """By what the deployment is now, which may be newer than the router's reason."""
        deployment, reason = found.deployment, request.headers.get(REASON, "")
        if reason == "robot":
            raise Busy("This commit sleeps, and robots do not wake it.", "Open it in a browser.", 300)
        if reason == "busy":
            raise Busy("Too many requests wait for commits to start.", "Try again in a moment.")
        if reason in ("landing", "page") and request.method == "GET" and accepts(request) == "html":
            label = found.place.label or found.app.name
            progress = await self._views.progress(found.app, found.commit, deployment, label)
            if self._is_stranger(request, found.place):
                progress = without_output(progress)
            status = 502 if deployment.state is State.FAILED and not deployment.for_now else 503
            return self._pages.landing(progress, status, self._may_cancel(request, found.place))
        if deployment.state is State.FAILED and deployment.failure:
            failure = deployment.failure
            problem: LazycloudError = StepFailed(failure.sentence, failure.advice, failure.last)
            if deployment.for_now:
                problem = Busy(failure.sentence, failure.advice, 10)
            shown = () if self._is_stranger(request, found.place) else failure.last
            return self._pages.problem(request, problem, code="\n".join(shown))
        if deployment.state is State.STOPPED:
            raise Busy(f"{found.commit.short} was stopped before it was ready.", "Ask again to start it.", 1)
        if reason == "late":
            raise TooLate(
                f"{found.commit.short} was not ready within {self._config.hold_timeout:.0f} s.",
                "It is still being deployed: try again.",
            )
        raise Busy(
            f"{found.commit.short} is being deployed ({deployment.state.value}).", "Try again in a moment.", 1
        )

    async def _reserved_path(self, request: web.Request, place: Place) -> web.StreamResponse:
        handler = self._reserved.get(request.path.removeprefix(RESERVED))
        if handler is None:
            raise NotFound(f"There is no {request.path[:200]} here.")
        if handler in (self._retry, self._log) and self._is_stranger(request, place):
            raise Unauthorised("Log in to see this.", f"The control page: {self._config.addresses.control()}")
        if (
            self._resolver.needs_login(place)
            and handler not in (self._enter, self._password, self._share)
            and not self._previews.may_see(request, place.app)
        ):
            raise Unauthorised("Log in to see this preview.")
        return await handler(request, place)

    async def _follow(self, request: web.Request, place: Place) -> web.StreamResponse:
        self._auth.require_same_origin(request)
        found = await self._find(place, hosts.normalise(request.host))
        if (
            found.deployment.is_deploying
        ):  # a page that comes back after a restart of control waits for it still
            self._fleet.ask(found.deployment)
        stranger = self._is_stranger(request, place)

        def may() -> bool:
            opened = not self._resolver.needs_login(place) or self._previews.may_see(request, place.app)
            return opened and (stranger or not self._is_stranger(request, place))

        return await self._progress.websocket(request, found, stranger, may)

    async def _retry(self, request: web.Request, place: Place) -> web.StreamResponse:
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        self._auth.require_same_origin(request)
        found = await self._find(place, hosts.normalise(request.host))
        self._told(request, found, "retry")
        self._fleet.ask(found.deployment, retry=True)
        return _done(request, found, 202)

    async def _cancel(self, request: web.Request, place: Place) -> web.StreamResponse:
        """The deploy of this page's commit; how production changes is decided elsewhere."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        self._auth.require_same_origin(request)
        if not self._may_cancel(request, place):
            raise Unauthorised(
                "Log in to cancel this.", f"The control page: {self._config.addresses.control()}"
            )
        found = await self._find(place, hosts.normalise(request.host))
        await self._fleet.cancel(found.deployment, self._told(request, found, "cancel"))
        return _done(request, found, 200)

    def _told(self, request: web.Request, found: Found, what: str) -> str:
        """Who does this, who is named in the event log, too: a stranger where previews are for everybody."""
        known, app = self._previews.visitor(request, found.app.name), found.app.name
        who = known.name if known else VISITOR
        commit = found.commit.short
        self.tell(Asked(app=app, deployment=found.deployment.id, who=who, what=what, target=commit))
        return who

    async def _log(self, request: web.Request, place: Place) -> web.StreamResponse:
        """The whole log of the last attempt."""
        found = await self._find(place, hosts.normalise(request.host))
        path = found.deployment.transcript.path
        found.deployment.transcript.flush()
        try:
            text = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            raise NotFound(f"{found.commit.short} has no log: it was not deployed yet.") from None
        return web.Response(
            body=text, headers={"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        )

    async def _enter(self, request: web.Request, place: Place) -> web.StreamResponse:
        """A logged-in browser comes over from the control host: it is given this host's own cookie."""
        mark = self._auth.entered(hosts.normalise(request.host), request.query.get("ticket", ""))
        if not mark:
            raise Unauthorised("This link to the preview is too old.", "Open the preview again.")
        response = web.Response(status=303, headers={"Location": local_path(request.query.get("path", "/"))})
        self._previews.enter(response, request, place.app, mark)
        return response

    async def _password(self, request: web.Request, place: Place) -> web.StreamResponse:
        """The form of the page that asks for the app's password."""
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        self._auth.require_same_origin(request)
        if place.kind is not Kind.LABEL or self._previews.mode(place.app) != PASSWORD:
            raise NotFound("No password is needed here.")
        form = await _form(request)
        path, client = local_path(str(form.get("next", "/"))), neighbourhood(self._clients.address(request))
        self._guesses.spend(client)
        self._all_guesses.spend(place.app)
        if not await self._previews.is_password(place.app, str(form.get("password", ""))):
            return self._ask_password(request, path, "That is not the password.")
        self._guesses.give_back(client)
        self._all_guesses.give_back(place.app)
        response = web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
        self._previews.enter_by_password(response, request, place.app)
        return response

    async def _share(self, request: web.Request, place: Place) -> web.StreamResponse:
        """A link that was shared: its secret goes from the address into this host's cookie."""
        share = self._shares.read(place.app, place.label, request.query.get("ticket", ""))
        if not await self._is_at(place, share.commit):
            raise NotFound("The commit of this link is not to be found any more.")
        path = local_path(request.query.get("path", "/"))
        headers = {"Location": path, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        response = web.Response(status=303, headers=headers)
        if not self._previews.may_stay(request, place.app):
            self._previews.enter_shared(response, request, share.id, share.expires)
        return response

    async def _is_at(self, place: Place, commit_id: str) -> bool:
        """Whether the place is that commit's own: a branch, too, can be called as a commit begins."""
        try:
            return (await self._resolver.find(place)).commit.id == commit_id
        except LazycloudError:
            return False

    def _is_stranger(self, request: web.Request, place: Place) -> bool:
        """Who may look, but is not told what builds and workers wrote, which may hold secrets, and steers nothing.

        That is everybody without the role that the API asks for, but where all that reaches the server is trusted.
        """
        if not self._config.is_public and self._previews.is_open(place.app):
            return False
        who = self._previews.visitor(request, place.app)
        return who is None or who.role < Role.DEVELOPER

    def _may_cancel(self, request: web.Request, place: Place) -> bool:
        return place.kind is Kind.LABEL and not self._is_stranger(request, place)

    def _to_login(self, request: web.Request, place: Place) -> web.StreamResponse:
        """A browser is led to the login, or asked for the password; a program is told what to send."""
        by_password = self._previews.mode(place.app) == PASSWORD
        if request.method != "GET" or accepts(request) != "html":
            needs = "a password" if by_password else "a login"
            raise Unauthorised(f"This preview needs {needs}.", "Send a token as the header Lazycloud-Token.")
        if by_password:
            return self._ask_password(request, request.raw_path)
        headers = {"Location": self._login_address(request, request.raw_path), "Cache-Control": "no-store"}
        return web.Response(status=303, headers=headers)

    def _ask_password(self, request: web.Request, path: str, error: str = "") -> web.Response:
        return self._pages.password(request.host, path, self._login_address(request, path), error)

    def _login_address(self, request: web.Request, path: str) -> str:
        """Of the control page, which leads back to `path` of this host."""
        target = f"{self._config.addresses.scheme}://{request.host}{path}"
        return f"{self._config.addresses.control()}visit?to={quote(target, safe='')}"

    def _served(self) -> list[dict[str, str]]:
        """Told only to those who can reach a loopback address: a stranger learns no names."""
        if self._config.is_public:
            return []
        addresses = self._config.addresses
        served = [(addresses.production(app.domain), app.name) for app in self._fleet.apps.values()]
        served.append((addresses.control(), "the control page"))
        return [{"href": address, "label": address, "about": about} for address, about in served]

    def _ambiguous(self, place: Place, problem: Ambiguous) -> list[dict[str, str]]:
        domain = self._fleet.app(place.app).domain
        return [
            {"href": self._config.addresses.label(domain, label), "label": label[:10], "about": about}
            for label, about in problem.choices
        ]

    def _near(self, place: Place, problem: NotFound) -> list[dict[str, str]]:
        if place.kind is Kind.UNKNOWN:
            return self._served()
        if place.app not in self._fleet.apps:
            return []
        domain = self._fleet.app(place.app).domain
        return [
            {"href": self._config.addresses.label(domain, label), "label": label[:40], "about": ""}
            for label in problem.near
        ]


def local_path(path: str) -> str:
    """A path on this host: never another one's, whatever a link says. Browsers leave out tabs and ends of lines."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours else "/"


async def _form(request: web.Request) -> Mapping[str, object]:
    try:
        return await request.post()
    except ValueError as problem:
        raise BadInput("That is no form.") from problem


def _done(request: web.Request, found: Found, status: int) -> web.StreamResponse:
    """To the page's script; a plain form, in a browser without JavaScript, is led back to its page."""
    if request.headers.get("Sec-Fetch-Mode") == "navigate":
        raise web.HTTPSeeOther(_path_of(request.headers.get("Referer", "")))
    return web.json_response({"state": found.deployment.state.value}, status=status)


def _path_of(url: str) -> str:
    return local_path("/" + url.split("://", 1)[-1].partition("/")[2]) if "://" in url else "/"
