"""What the command line and the control page speak: JSON over HTTP, JSON Lines for what goes on.

Documented route by route in docs/protocols.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from lazycloud.build.commit import SHORT, Commit
from lazycloud.config import Config
from lazycloud.control import logs
from lazycloud.control.artifacts import ArtifactViews
from lazycloud.control.auth import Auth
from lazycloud.control.bodies import json_body as _body
from lazycloud.control.bodies import text_of as _text
from lazycloud.control.console import Console
from lazycloud.control.guard import Route
from lazycloud.control.hook import HookCalls
from lazycloud.control.identity import Identity, Kind, Role
from lazycloud.control.inspection import comparison_view
from lazycloud.control.progress import Progress, number_of
from lazycloud.control.sessions import Holder
from lazycloud.control.storage import Storage
from lazycloud.control.views import Views, commit_view, without_output
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.disk import Disk
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.pins import Pins
from lazycloud.deployments.production import Production
from lazycloud.doctor import examine
from lazycloud.errors import BadInput, Conflict, LazycloudError, NotFound
from lazycloud.events import EventLog

T = TypeVar("T")

COUNT_MOST = 500  # rows that a listing gives at the most
LINES_MOST = 10_000  # of a log
EVENTS_MOST = 10_000  # that are asked for as the newest


class Api:
    """`ROUTES`: method, path, the method of this class that answers, the role that it needs."""

    ROUTES: tuple[Route, ...] = (
        ("GET", "/api/me", "me", Role.VIEWER),
        ("GET", "/api/server", "server", Role.VIEWER),
        ("GET", "/api/overview", "overview", Role.VIEWER),
        ("GET", "/api/apps", "apps", Role.VIEWER),
        ("GET", "/api/ps", "ps", Role.VIEWER),
        ("GET", "/api/artifacts", "artifacts", Role.VIEWER),
        ("GET", "/api/artifacts/key", "artifact_key", Role.VIEWER),
        ("GET", "/api/artifacts/verify", "verify_artifacts", Role.DEVELOPER),
        ("GET", "/api/doctor", "doctor", Role.DEVELOPER),
        ("GET", "/api/disk", "disk", Role.VIEWER),
        ("POST", "/api/prune", "prune", Role.OWNER),
        ("GET", "/api/events", "events", Role.VIEWER),
        ("GET", "/api/follow", "follow", Role.VIEWER),
        ("POST", "/api/login-link", "login_link", Role.OWNER),
        ("POST", "/api/announce", "announce_by_hook", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/commits", "commits", Role.VIEWER),
        ("GET", "/api/apps/{app}/releases", "releases", Role.VIEWER),
        ("GET", "/api/apps/{app}/inspect", "inspect", Role.VIEWER),
        ("GET", "/api/apps/{app}/compare", "compare", Role.VIEWER),
        ("POST", "/api/apps/{app}/artifacts/push", "push_artifacts", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/artifacts/pull", "pull_artifacts", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/artifacts/verify", "verify_artifacts", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/logs", "logs", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/run", "run", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/deploy", "deploy", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/stop", "stop", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/restart", "restart", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/scale", "scale", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/cancel", "cancel", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/promote", "promote", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/rollback", "rollback", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/announce", "announce", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/pin", "pin", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/unpin", "unpin", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/production/follow", "follow_promote", Role.DEVELOPER),
        ("GET", "/api/deployments/{deployment}/follow", "follow_deploy", Role.DEVELOPER),
        ("POST", "/api/deployments/{deployment}/stop", "stop_deployment", Role.DEVELOPER),
    )
    NARROWED = frozenset({"me", "server", "overview", "apps", "ps", "events", "follow", "announce_by_hook"})

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        production: Production,
        events: EventLog,
        views: Views,
        progress: Progress,
        auth: Auth,
        artifacts: ArtifactViews,
        disk: Disk,
        pins: Pins,
        console: Console,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._production = production
        self._events = events
        self._views = views
        self._progress = progress
        self._auth = auth
        self.hook_calls = HookCalls(fleet, production)
        self._artifacts = artifacts
        self._disk = disk
        self._storage = Storage(config, fleet, disk)
        self._pins = pins
        self._console = console
        self._work: set[asyncio.Task[Any]] = set()

    async def me(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(me_view(self._auth.identity(request)))

    async def server(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._views.server())

    async def overview(self, request: web.Request) -> web.StreamResponse:
        identity = self._auth.identity(request)
        view = await self._views.overview(identity.app)
        return web.json_response(view | {"me": me_view(identity)})

    async def apps(self, request: web.Request) -> web.StreamResponse:
        only = self._auth.identity(request).app
        apps = [app for app in self._fleet.apps.values() if only in ("", app.name)]
        return web.json_response([await self._views.app(app) for app in apps])

    async def ps(self, request: web.Request) -> web.StreamResponse:
        also = request.query.get("also", "")
        if also not in ("", "down", "all"):
            raise BadInput("`also` is “down” or “all”.")
        return web.json_response(await self._views.running(self._app_shown(request), also))

    async def doctor(self, request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(examine, self._config, serves=True)
        view = {"home": str(self._config.home), "findings": [finding.as_dict() for finding in found]}
        return web.json_response(view)

    async def disk(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._storage.disk())

    async def prune(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        app = _text(body, "app")
        if app:
            self._fleet.app(app)
        pruned = await self._disk.prune(
            self._who(request),
            app,
            everything=body.get("all") is True,
            with_caches=body.get("cache") is True,
            dry=body.get("dry_run") is True,
        )
        return web.json_response(await self._storage.pruned(pruned))

    async def pin(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        commit = await self._commit(app, _text(body, "ref"))
        changed = await self._pins.add(app, commit.id, self._who(request))
        return web.json_response({"commit": commit_view(commit), "changed": changed})

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        """Also a commit that the repository has lost meanwhile, by its id."""
        app, body = self._app(request), await _body(request)
        ref = _text(body, "ref")
        commit_id = self._pins.named(app, ref) or (await self._commit(app, ref)).id
        changed = await self._pins.remove(app, commit_id, self._who(request))
        return web.json_response({"commit": commit_view(await app.named(commit_id)), "changed": changed})

    async def events(self, request: web.Request) -> web.StreamResponse:
        app, after = self._app_shown(request), number_of(request, "after", 0)
        role, follow = self._auth.identity(request).role, request.query.get("follow") == "1"
        if newest := min(number_of(request, "newest", 0), EVENTS_MOST):
            after = max(after, await self._views.before_newest(newest, app, role is Role.OWNER))
        return await self._progress.lines(request, self._progress.facts(app, role, after, follow))

    async def follow(self, request: web.Request) -> web.StreamResponse:
        return await self._progress.everything(
            request, self._app_shown(request), self._auth.identity(request).role
        )

    async def login_link(self, request: web.Request) -> web.StreamResponse:
        """For who asks; a token has nobody whom it could log in."""
        identity = self._auth.identity(request)
        if identity.kind is Kind.TOKEN:
            raise BadInput(
                "A token is no person, so there is no link for it.",
                "`lazycloud account link NAME` makes a person’s.",
            )
        holder = Holder(Kind.ACCOUNT, identity.name) if identity.kind is Kind.ACCOUNT else None
        return web.json_response({"url": login_link(self._config, self._auth, holder)})

    async def commits(self, request: web.Request) -> web.StreamResponse:
        count = min(number_of(request, "count", 20), COUNT_MOST)
        return web.json_response(await self._views.commits(self._app(request), count))

    async def releases(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._views.releases(self._app(request)))

    async def inspect(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        commit, deployment = await self._named(app, request.query.get("ref", ""))
        view = await self._views.inspect(app, commit, deployment)
        trusted = self._auth.identity(request).role >= Role.DEVELOPER
        return web.json_response(view if trusted else without_output(view))

    async def compare(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        first, _ = await self._named(app, request.query.get("from", ""))
        second, _ = await self._named(app, request.query.get("to", ""))
        commits = [commit_view(commit) for commit in (first, second)]
        return web.json_response({"commits": commits, "stages": await comparison_view(app, first, second)})

    async def artifacts(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._artifacts.list())

    async def artifact_key(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._artifacts.key())

    async def push_artifacts(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        commit = await self._commit(app, _text(await _body(request), "ref"))
        return await self._progress.lines(request, await self._artifacts.push(app, commit))

    async def pull_artifacts(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        commit = await self._commit(app, _text(await _body(request), "ref"))
        return await self._progress.lines(request, await self._artifacts.pull(app, commit))

    async def verify_artifacts(self, request: web.Request) -> web.StreamResponse:
        """All in the store, or those of a commit."""
        app = self._app(request) if "app" in request.match_info else None
        commit = await self._commit(app, request.query.get("ref", "")) if app else None
        return await self._progress.lines(request, await self._artifacts.verify(app, commit))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        _, deployment = await self._named(self._app(request), request.query.get("ref", ""))
        lines = min(number_of(request, "lines", 200), LINES_MOST)
        if request.query.get("follow") == "1":
            return await self._progress.lines(request, logs.going_on(deployment, self._events, lines))
        return await self._progress.lines(request, _each(logs.written(deployment, lines)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        """`production` as a ref is production's data; a commit's, also production's, is its own."""
        app, ref = self._app(request), request.query.get("ref", "")
        if not ref:
            raise BadInput("In which commit? `ref` is missing.", "Give a commit id, branch or tag.")
        _, deployment = await self._named(app, ref)
        if self._fleet.is_production(deployment):
            self._auth.identity(request).demand(
                Role.OWNER, app.name
            )  # what is done to these data nobody undoes
        return await self._console.run(request, deployment, self._who(request))

    async def deploy(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        commit = await self._commit(app, _text(body, "ref"))
        deployment, number = self._fleet.get(app, commit.id), self._events.last
        self._fleet.ask(deployment, retry=body.get("retry") is not False)
        return web.json_response(self._begun(app, commit, deployment, number), status=202)

    async def stop(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        _, deployment = await self._named(app, _text(await _body(request), "ref"))
        return await self._stopped(deployment)

    async def restart(self, request: web.Request) -> web.StreamResponse:
        _, deployment = await self._named(self._app(request), _text(await _body(request), "ref"))
        await self._through(self._fleet.restart(deployment))
        live = [post for post in deployment.posts.values() if post.worker]
        names = [post.name for post in sorted(live, key=lambda post: (not post.is_web, post.name))]
        return web.json_response({"deployment": deployment.id, "processes": names})

    async def scale(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        ref, counts = _text(body, "ref"), body.get("counts")
        if not ref:
            raise BadInput(
                "Of which commit? `ref` is missing.", "Give a commit, branch or tag; or `production`."
            )
        if not (isinstance(counts, dict) and counts and all(type(each) is int for each in counts.values())):
            raise BadInput('How many? `counts` must be an object of numbers, such as {"web": 3}.')
        _, deployment = await self._named(self._app(request), ref)
        told = await self._through(self._fleet.staffing.scale(deployment, counts))
        return web.json_response({"deployment": deployment.id, "counts": told})

    async def _through(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, also when who asked for it has gone."""
        task = asyncio.create_task(work, name="asked for")
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        commit = await self._commit(app, _text(body, "ref"))
        cancelled = await self._production.cancel(app, commit, self._who(request))
        if not cancelled:
            raise Conflict(
                f"{commit.short} is not being deployed: there is nothing to cancel.", self._under_way()
            )
        return web.json_response({"cancelled": [one.id for one in cancelled], "commit": commit_view(commit)})

    async def stop_deployment(self, request: web.Request) -> web.StreamResponse:
        return await self._stopped(self._fleet.find(request.match_info["deployment"]))

    async def promote(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        commit_id = _text(body, "ref") or _text(body, "commit")
        return self._promote(request, app, await self._commit(app, commit_id), _text(body, "why"))

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        ref = _text(body, "ref")
        commit = await self._commit(app, ref) if ref else await self._production.before(app)
        return self._promote(request, app, commit, _text(body, "why") or "rollback")

    async def announce(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await _body(request)
        commit = await self._commit(app, _text(body, "commit"))
        action = await self._production.announce(app, commit, _text(body, "ref"))
        address = self._config.addresses.label(app.domain, commit.short)
        return web.json_response({"address": address, "action": action})

    async def announce_by_hook(self, request: web.Request) -> web.StreamResponse:
        try:
            app, commit = await self.hook_calls.take(await request.post(), self._auth.identity(request))
        except LazycloudError as problem:
            return web.Response(text=str(problem), status=problem.status)
        return web.Response(text=self._config.addresses.label(app.domain, commit.short))

    async def follow_promote(self, request: web.Request) -> web.StreamResponse:
        after = number_of(request, "after", self._events.last)
        return await self._progress.lines(request, self._progress.promote(self._app(request).name, after))

    async def follow_deploy(self, request: web.Request) -> web.StreamResponse:
        deployment = self._fleet.find(request.match_info["deployment"])
        after = number_of(request, "after", self._events.last)
        if deployment.is_deploying:  # who follows it waits for it
            self._fleet.ask(deployment)
        return await self._progress.lines(request, self._progress.deploy(deployment, after))

    def _under_way(self) -> str:
        """What else might be meant."""
        deploys = [one.key for one in self._fleet.known() if one.is_deploying]
        names = sorted({f"{key.commit[:SHORT]} of {key.app}" for key in deploys})
        return f"Under way: {', '.join(names)}." if names else ""

    def _app(self, request: web.Request) -> App:
        return self._fleet.app(request.match_info["app"])

    async def _commit(self, app: App, ref: str) -> Commit:
        return await app.wanted(ref)

    async def _named(self, app: App, ref: str) -> tuple[Commit, Deployment]:
        """The deployment of a commit on its own data; production's for no ref, or the word `production`."""
        if ref in ("", "production"):
            deployment = self._fleet.production(app)
            if deployment is None:
                raise NotFound(f"{app.name} has no production yet.", "Commit something, then promote it.")
            return await app.commit(app.production), deployment
        commit = await self._commit(app, ref)
        return commit, self._fleet.get(app, commit.id)

    def _begun(self, app: App, commit: Commit, deployment: Deployment, number: int) -> dict[str, Any]:
        return {
            "deployment": deployment.id,
            "commit": commit_view(commit),
            "address": self._views.address(app, deployment),
            "state": deployment.state.value,
            "number": number,
        }

    def _promote(self, request: web.Request, app: App, commit: Commit, why: str) -> web.StreamResponse:
        number = self._events.last
        deployment = self._production.promote(app, commit, self._who(request), why)
        return web.json_response(self._begun(app, commit, deployment, number), status=202)

    async def _stopped(self, deployment: Deployment) -> web.StreamResponse:
        app = self._fleet.app(deployment.key.app)
        if self._fleet.is_production(deployment):
            raise BadInput(
                f"This is production of {app.name}: it does not stop.", "Promote another commit instead."
            )
        return web.json_response({"stopped": await self._fleet.stop(deployment), "deployment": deployment.id})

    def _who(self, request: web.Request) -> str:
        return self._auth.identity(request).name

    def _app_shown(self, request: web.Request) -> str:
        """The app that a listing is asked for, "" for all; raises Forbidden for one of others, and NotFound."""
        asked, identity = request.query.get("app", ""), self._auth.identity(request)
        if asked:
            identity.demand(Role.VIEWER, asked)
        return self._fleet.app(asked).name if asked else identity.app


def login_link(config: Config, auth: Auth, holder: Holder | None = None) -> str:
    """Logs a browser in, once; the owner's without a `holder`."""
    return f"{config.addresses.control()}login?ticket={auth.ticket(holder)}"


def me_view(identity: Identity) -> dict[str, Any]:
    return {
        "name": identity.name,
        "role": str(identity.role),
        "kind": str(identity.kind),
        "app": identity.app or None,
    }


async def _each(lines: list[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for line in lines:
        yield line
