"""Control as an aiohttp application: by host, the control page with its API, or a visitor of an app."""

from __future__ import annotations

import logging
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from lazycloud import hosts
from lazycloud.config import Config
from lazycloud.control.auth import Auth
from lazycloud.control.identity import ANY_APP, Identity, Role
from lazycloud.control.logins import Logins, go_to
from lazycloud.control.pages import Pages
from lazycloud.control.resolver import Resolver
from lazycloud.control.visits import RESERVED, Visits
from lazycloud.errors import LazycloudError, NotFound
from lazycloud.hosts import Kind

log = logging.getLogger(__name__)


class ControlHost:
    """The pages of lazycloud.<domain>."""

    def __init__(self, config: Config, auth: Auth, logins: Logins, pages: Pages, resolver: Resolver) -> None:
        self._config = config
        self._auth = auth
        self._logins = logins
        self._pages = pages
        self._resolver = resolver

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self.home)
        router.add_get("/people", self.people)
        router.add_get("/apps/{app}/data", self.data)
        router.add_get("/apps/{app}/documents", self.documents)
        router.add_get("/visit", self.visit)
        self._logins.add_to(router)

    async def home(self, request: web.Request) -> web.StreamResponse:
        identity = self._auth.identify(request)
        if identity is None:
            return self._pages.login("/")
        identity.demand(Role.VIEWER, ANY_APP)
        return self._pages.control(self._config.addresses.control(), identity)

    async def people(self, request: web.Request) -> web.StreamResponse:
        """Who may: for owners, and for each their own password."""
        identity = self._auth.identify(request)
        if identity is None:
            return self._pages.login("/people")
        identity.demand(Role.VIEWER, ANY_APP)
        return self._pages.people(identity)

    async def data(self, request: web.Request) -> web.StreamResponse:
        """The versions of an app's data."""
        return self._of_app(request, self._pages.data)

    async def documents(self, request: web.Request) -> web.StreamResponse:
        """What is in an app's versionbase."""
        return self._of_app(request, self._pages.documents)

    def _of_app(
        self, request: web.Request, page: Callable[[str, Identity], web.Response]
    ) -> web.StreamResponse:
        identity, name = self._auth.identify(request), request.match_info["app"]
        if identity is None:
            return self._pages.login(request.raw_path)
        identity.demand(Role.VIEWER, name)
        return page(self._resolver.app(name).name, identity)

    async def visit(self, request: web.Request) -> web.StreamResponse:
        """A browser that wants to see a preview: with a login here it is given a way in there."""
        try:
            target = urlsplit(request.query.get("to", ""))
        except ValueError:
            raise NotFound("That is no preview of this server.") from None
        identity = self._auth.identify(request)
        if identity is None:
            return self._pages.login(request.raw_path)
        host = hosts.normalise(target.netloc)
        place = self._resolver.place(host)
        addresses = self._config.addresses
        ours = target.scheme == addresses.scheme and target.netloc.endswith(
            f":{addresses.port}" if addresses.port else host
        )
        if not ours or place.kind not in (Kind.LABEL, Kind.PRODUCTION):
            raise NotFound("That is no preview of this server.")
        path = target.path + (f"?{target.query}" if target.query else "")
        identity.demand(Role.VIEWER, place.app)
        ticket = self._auth.entry(host, self._auth.mark(request))
        query = urlencode({"ticket": ticket, "path": path or "/"})
        return go_to(f"{target.scheme}://{target.netloc}{RESERVED}enter?{query}")


def make_application(
    config: Config,
    auth: Auth,
    logins: Logins,
    pages: Pages,
    resolver: Resolver,
    visits: Visits,
    add_api: Callable[[web.UrlDispatcher], None],
) -> web.Application:
    """One application for both sockets: the owner's API socket, and the one that routers relay to."""

    @web.middleware
    async def by_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        ours = auth.is_local(request) or resolver.place(hosts.normalise(request.host)).kind is Kind.CONTROL
        try:
            if not ours or request.path.startswith(RESERVED):
                return await visits.handle(request)
            return await handler(request)
        except LazycloudError as problem:
            return pages.problem(request, problem)
        except web.HTTPNotFound:
            return pages.problem(request, NotFound(f"There is no {request.path[:200]} here."))
        except web.HTTPException as answer:
            if answer.status < 400:
                raise
            return pages.problem(request, _refusal(request, answer))
        except ConnectionError:
            raise
        except Exception as bug:
            log.exception("A bug met %s %r", request.method, request.path)
            return pages.problem(
                request, LazycloudError(f"lazycloud failed: {type(bug).__name__}.", "Its log says more.")
            )

    application = web.Application(middlewares=[by_host], client_max_size=1 << 20)
    application.on_response_prepare.append(_sign)
    ControlHost(config, auth, logins, pages, resolver).add_to(application.router)
    add_api(application.router)
    return application


async def _sign(request: web.Request, answer: web.StreamResponse) -> None:
    """Whatever is answered here says that lazycloud made it, and to which request."""
    answer.headers.setdefault("Lazycloud-Answer", "control")
    if request_id := request.headers.get("X-Request-Id"):
        answer.headers.setdefault("X-Request-Id", request_id)


def _refusal(request: web.Request, answer: web.HTTPException) -> LazycloudError:
    """What aiohttp refuses by itself, as a sentence of ours."""
    sentence, advice = f"This request cannot be met: {answer.reason.lower()}.", ""
    if isinstance(answer, web.HTTPMethodNotAllowed):
        sentence = f"{request.method[:40]} is not for this address."
        advice = f"It takes {' and '.join(sorted(answer.allowed_methods))}."
    elif isinstance(answer, web.HTTPRequestEntityTooLarge):
        sentence = "The request’s body is larger than lazycloud’s own pages take."
    problem = LazycloudError(sentence, advice)
    problem.status, problem.kind = answer.status, answer.reason.lower()
    return problem
