"""Visitors of apps whom a router sent to control: there is no worker to send them to, or not yet, or not for them.

The reason that the router gives is what `resolver` told it; without one (a reserved path) the host tells.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from aiohttp import web

from lazycloud import hosts
from lazycloud.config import Config
from lazycloud.control.auth import Auth
from lazycloud.control.names import Names
from lazycloud.control.pages import Pages, accepts
from lazycloud.control.progress import Progress
from lazycloud.control.resolver import Found, Resolver
from lazycloud.control.views import Views, without_output
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Ambiguous, Busy, LazycloudError, NotFound, StepFailed, Unauthorised
from lazycloud.hosts import Kind, Place
from lazycloud.states import State

RESERVED = "/.well-known/lazycloud/"
REASON = "Lazycloud-Reason"


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
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._resolver = resolver
        self._auth = auth
        self._pages = pages
        self._views = views
        self._progress = progress
        self._reserved = {
            "progress": self._follow,
            "retry": self._retry,
            "cancel": self._cancel,
            "log": self._log,
            "enter": self._enter,
            "tls-ask": Names(config, resolver).answer,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        host = hosts.normalise(request.host)
        place = self._resolver.place(host)
        try:
            if request.path.startswith(RESERVED):
                return await self._reserved_path(request, place)
            if request.headers.get(REASON) == "login":
                return self._to_login(request)
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
            status = 502 if deployment.state is State.FAILED else 503
            return self._pages.landing(progress, status, self._may_cancel(request, found.place))
        if deployment.state is State.FAILED and deployment.failure:
            failure = deployment.failure
            problem = StepFailed(failure.sentence, failure.advice, failure.last)
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
            and handler != self._enter
            and not self._auth.may_see_preview(request)
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
        return await self._progress.websocket(request, found, self._is_stranger(request, place))

    async def _retry(self, request: web.Request, place: Place) -> web.StreamResponse:
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        self._auth.require_same_origin(request)
        found = await self._find(place, hosts.normalise(request.host))
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
        await self._fleet.cancel(found.deployment, "a visitor of its page")
        return _done(request, found, 200)

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
        host = hosts.normalise(request.host)
        if not self._auth.is_entry(host, request.query.get("ticket", "")):
            raise Unauthorised("This link to the preview is too old.", "Open the preview again.")
        response = web.Response(status=303, headers={"Location": local_path(request.query.get("path", "/"))})
        self._auth.enter_preview(response, host)
        return response

    def _is_stranger(self, request: web.Request, place: Place) -> bool:
        """Production of a public server is for everybody; what its build and worker wrote is not."""
        public = self._config.is_public and place.kind is Kind.PRODUCTION
        return public and not self._auth.may_see_preview(request)

    def _may_cancel(self, request: web.Request, place: Place) -> bool:
        """Whoever may see previews, on a server where not everybody may."""
        known = not self._config.is_public or self._auth.may_see_preview(request)
        return known and place.kind is Kind.LABEL

    def _to_login(self, request: web.Request) -> web.StreamResponse:
        if request.method != "GET" or accepts(request) != "html":
            raise Unauthorised("This preview needs a login.", "Send the token as the header Lazycloud-Token.")
        target = f"{self._config.addresses.scheme}://{request.host}{request.raw_path}"
        return web.Response(
            status=303,
            headers={
                "Location": f"{self._config.addresses.control()}visit?to={quote(target, safe='')}",
                "Cache-Control": "no-store",
            },
        )

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
    """A path on this host: never another one's, whatever a link says."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _done(request: web.Request, found: Found, status: int) -> web.StreamResponse:
    """To the page's script; a plain form, in a browser without JavaScript, is led back to its page."""
    if request.headers.get("Sec-Fetch-Mode") == "navigate":
        raise web.HTTPSeeOther(_path_of(request.headers.get("Referer", "")))
    return web.json_response({"state": found.deployment.state.value}, status=status)


def _path_of(url: str) -> str:
    return local_path("/" + url.split("://", 1)[-1].partition("/")[2]) if "://" in url else "/"
