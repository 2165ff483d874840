"""Between a route of the API and its handler: the role it needs, the event that says who, errors as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from lazycloud.control.auth import WRITES, Auth
from lazycloud.control.identity import ANY_APP, Identity, Role
from lazycloud.control.progress import LOOK
from lazycloud.control.seldom import Seldom
from lazycloud.control.views import error_view
from lazycloud.errors import Forbidden, LazycloudError
from lazycloud.events import Asked, EventLog, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Route = tuple[str, str, str, Role]
TARGETS = (
    "ref",
    "point",
    "to",
    "commit",
    "name",
    "account",
    "command",
)  # of a body, what a command is given for
TARGET_LENGTH = 200


class Routes(Protocol):
    """`ROUTES`: method, path, the method that answers, the role that it needs.

    `NARROWED` are those without an app in their path that show each only what they may see; others without one are
    about the whole server, and not for a token of one app.
    """

    ROUTES: tuple[Route, ...]
    NARROWED: frozenset[str]


class Guard:
    """A request that goes on for long, such as one that follows events, ends when who asked may no longer."""

    def __init__(self, auth: Auth, events: EventLog) -> None:
        self._auth = auth
        self._events = events
        self._refusals = Seldom(30, 60.0)
        self._open: dict[asyncio.Task[Any], tuple[web.Request, Role, str]] = {}
        self._look: asyncio.TimerHandle | None = None

    def add(self, router: web.UrlDispatcher, groups: Sequence[Routes]) -> None:
        for group in groups:
            for method, path, name, role in group.ROUTES:
                handler = self._guarded(
                    getattr(group, name), name.replace("_", " "), role, name in group.NARROWED
                )
                router.add_route(method, path, handler)

    def _guarded(self, handler: Handler, what: str, role: Role, narrowed: bool) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                app = _app(request) or (ANY_APP if narrowed else "")
                identity = self._may(request, role, app, what)
                if request.method in WRITES:
                    await self._tell(request, identity, what)
                    return await handler(request)
                return await self._watched(handler, request, role, app)
            except LazycloudError as problem:
                return problem_answer(problem)

        return guarded

    async def _watched(
        self, handler: Handler, request: web.Request, role: Role, app: str
    ) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = request, role, app
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK, self._look_again)
        try:
            return await handler(request)
        finally:
            del self._open[task]

    def _look_again(self) -> None:
        self._look = None
        for task, (request, role, app) in self._open.items():
            identity = self._auth.identify(request, again=True)
            if identity is None or not identity.may(role, app):
                task.cancel()
        if self._open:
            self._look = asyncio.get_running_loop().call_later(LOOK, self._look_again)

    def _may(self, request: web.Request, role: Role, app: str, what: str) -> Identity:
        try:
            return self._auth.require(request, role, app)
        except Forbidden as problem:
            identity = self._auth.identify(request)
            if identity and (count := self._refusals.take()):
                fact = Refused(
                    app=_app(request), who=identity.name, what=what, problem=str(problem), count=count
                )
                self._events.append(fact)
            raise

    async def _tell(self, request: web.Request, identity: Identity, what: str) -> None:
        """Before it is done, so that nothing that is done is unnamed, not even if it takes the server with it."""
        deployment = request.match_info.get("deployment", "")
        named = request.match_info.get("name", "") or deployment.partition(".")[2][:10]
        target = named or await _target(request)
        self._events.append(
            Asked(app=_app(request), deployment=deployment, who=identity.name, what=what, target=target)
        )


def problem_answer(problem: LazycloudError) -> web.Response:
    return web.json_response(error_view(problem), status=problem.status)


def _app(request: web.Request) -> str:
    """The app that the path names, itself or by a deployment."""
    return request.match_info.get("app", "") or request.match_info.get("deployment", "").partition(".")[0]


async def _target(request: web.Request) -> str:
    if request.content_type != "application/json":
        return ""
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        return ""
    given = [body.get(name) for name in TARGETS] if isinstance(body, dict) else []
    text = next((value for value in given if isinstance(value, str) and value), "")
    return "".join(letter for letter in text if letter.isprintable())[:TARGET_LENGTH]
