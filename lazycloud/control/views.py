"""The JSON shapes that pages, command line and websockets are given: docs/protocols.md lists them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from lazycloud import __version__, store
from lazycloud.build.commit import SHORT, Commit, Ref
from lazycloud.build.plan import Plan
from lazycloud.build.repository import shown_url
from lazycloud.config import Config
from lazycloud.control.inspection import stages_view
from lazycloud.control.link import Link
from lazycloud.data.names import PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.post import Post
from lazycloud.deployments.steps import usual
from lazycloud.errors import Ambiguous, LazycloudError, NotFound
from lazycloud.events import CommandStarted, EventLog, Output, Recorded, WorkerEnded, kinds
from lazycloud.states import State
from lazycloud.store import Store
from lazycloud.workers.worker import Worker

TOLD = (
    "server_started",
    "app_added",
    "commit_announced",
    "state_changed",
    "worker_ended",
    "worker_failed",
    "worker_unhealthy",
    "command_started",
    "scaled",
    "promoted",
    "promote_failed",
    "commit_pinned",
    "previews_changed",
    "share_made",
    "share_revoked",
    "webhook_made",
    "fetch_failed",
    "pull_waits",
    "pull_allowed",
    "disk_reclaimed",
    "disk_short",
    "fork_planned",
    "version_restored",
    "version_imported",
    "version_exported",
)
"""Kinds of facts that the control page lists."""

RESTING = (State.STOPPED.value, State.FAILED.value)
RESTING_MOST = 200  # of what sleeps, the newest

Json = dict[str, Any]


def commit_view(commit: Commit) -> Json:
    return {
        "id": commit.id,
        "short": commit.short,
        "subject": commit.subject,
        "author": commit.author,
        "authored": commit.authored,
    }


def error_view(problem: LazycloudError) -> Json:
    view: Json = {"kind": problem.kind, "sentence": problem.sentence, "advice": problem.advice}
    if isinstance(problem, NotFound):
        view["near"] = list(problem.near)
    if isinstance(problem, Ambiguous):
        view["choices"] = [{"label": label, "about": about} for label, about in problem.choices]
    return {"error": view}


def without_output(view: Json) -> Json:
    """A snapshot or fact without what the app wrote, or somebody ran in it: both may name paths and secrets."""
    failure = view.get("failure")
    trimmed: Json = {"failure": {**failure, "last": []}} if failure else {}
    if view.get("kind") == CommandStarted.kind:
        about = {name: view[name] for name in ("app", "deployment", "who")}
        trimmed |= {"command": "", "sentence": CommandStarted(command="", **about).sentence()}
    return {**view, **({"log": []} if "log" in view else {}), **trimmed}


def ref_words(refs: list[Ref]) -> list[str]:
    return [f"tag {ref.name}" if ref.kind == "tag" else ref.name for ref in refs]


class Views:
    def __init__(self, config: Config, fleet: Fleet, events: EventLog, state: Store, link: Link) -> None:
        self.doors: Callable[[App], Json] = lambda app: {}  # who and what comes in: told with the app
        self._config = config
        self._fleet = fleet
        self._events = events
        self._store = state
        self._link = link

    def address(self, app: App, deployment: Deployment) -> str:
        if self._fleet.is_production(deployment):
            return self._config.addresses.production(app.domain)
        return self._config.addresses.label(app.domain, deployment.key.commit[:SHORT])

    def server(self) -> Json:
        return {
            "version": __version__,
            "domain": self._config.domain,
            "home": str(self._config.home),
            "address": self._config.addresses.control(),
            "builds": {
                "concurrent": self._config.builds,
                "time": self._config.build_time,
                "memory": self._config.build_memory,
                "disk": self._config.build_disk,
            },
        }

    async def progress(self, app: App, commit: Commit, deployment: Deployment, label: str) -> Json:
        """What a landing page shows; `number` is that of the newest fact that it already tells."""
        times = usual(await asyncio.to_thread(self._store.usual_steps, app.name))
        deployment.transcript.flush()  # what it shows has its number then, and is not sent once more
        return {
            "app": app.name,
            "commit": commit_view(commit),
            "label": label,
            "version": deployment.key.version,
            "state": deployment.state.value,
            "attempt": deployment.attempt,
            "ahead": deployment.ahead,
            "steps": [step.as_dict() | {"usual": times.get(name)} for name, step in deployment.steps.items()],
            "failure": asdict(deployment.failure) if deployment.failure else None,
            "log": deployment.transcript.shown(),
            "number": self._events.last,
            "now": time.time(),
        }

    async def app(self, app: App) -> Json:
        return {
            "name": app.name,
            "source": shown_url(app.source),
            "address": self._config.addresses.production(app.domain),
            "default_branch": await _default_branch(app),
            "follow": app.follow,
            "production": await self._production(app),
            **self.doors(app),
        }

    async def commits(self, app: App, count: int) -> list[Json]:
        """The newest commits with their state, newest first."""
        newest = await app.repository.newest(count)
        ids = [commit.id for commit, _ in newest]
        rows = await asyncio.to_thread(self._store.rows, store.deployments, app=app.name, version=ids)
        deployed = {row["commit"] for row in rows}
        pinned = {
            row["commit"] for row in await asyncio.to_thread(self._store.rows, store.pins, app=app.name)
        }
        views = []
        for commit, refs in newest:
            deployment = self._fleet.get(app, commit.id) if commit.id in deployed else None
            failure = deployment.failure if deployment else None
            views.append(
                {
                    "commit": commit_view(commit),
                    "refs": ref_words(refs),
                    "state": (deployment.state if deployment else State.COLD).value,
                    "address": self._config.addresses.label(app.domain, commit.short),
                    "deployment": deployment.id if deployment else None,
                    "is_production": commit.id == app.production,
                    "is_pinned": commit.id in pinned,
                    "failure": failure.sentence if failure else None,
                }
            )
        return views

    async def releases(self, app: App, count: int = 50) -> list[Json]:
        """The history of production, newest first."""
        rows = await asyncio.to_thread(self._store.history, app.name, count)
        views = []
        for place, row in enumerate(rows):
            commit = commit_view(await app.named(row["commit"]))
            views.append(
                {
                    "commit": commit,
                    "at": row["at"],
                    "who": row["who"],
                    "why": row["why"],
                    "current": place == 0,
                }
            )
        return views

    async def running(self, app: str = "", also: str = "") -> list[Json]:
        """What has a worker, production first, then by age.

        `also`: "down" for what is to have one and has none just now, "all" for what sleeps or has failed, too.
        """
        known = [one for one in self._fleet.known() if not app or one.key.app == app]
        views = [view for one in known if one.workers and (view := await self._worker(one))]
        shown = {view["deployment"] for view in views}
        if also in ("down", "all"):
            views += [
                await self._resting(one.row()) for one in known if one.id not in shown and self._is_down(one)
            ]
        if also == "all":
            shown = {view["deployment"] for view in views}
            rows = await asyncio.to_thread(self._store.resting, app, RESTING, RESTING_MOST)
            rows = [row for row in rows if row["id"] not in shown and row["app"] in self._fleet.apps]
            views += [await self._resting(row) for row in rows]
        return sorted(views, key=lambda view: (not view["production"], not view["processes"], view["since"]))

    def _is_down(self, deployment: Deployment) -> bool:
        return deployment.state is State.RESTARTING or self._fleet.is_production(deployment)

    async def _resting(self, row: Json) -> Json:
        """The same shape, of what has no worker; `since` it is in its state."""
        app = self._fleet.app(row["app"])
        activity = self._link.activity(row["id"])
        last_end = await asyncio.to_thread(self._store.last_of, row["id"], WorkerEnded.kind)
        production = row["version"] == PRODUCTION and row["commit"] == app.production
        addresses = self._config.addresses
        return {
            "deployment": row["id"],
            "app": app.name,
            "commit": commit_view(await app.named(row["commit"])),
            "version": row["version"],
            "state": row["state"],
            "pid": None,
            "preloaded": False,
            "listens": None,
            "processes": [],
            "memory": 0,
            "cpu": 0.0,
            "restarts": 0,
            "last_end": {"at": last_end.at, **last_end.event.data()} if last_end else None,
            "idle": None,
            "pinned": await asyncio.to_thread(self._is_pinned, app.name, row["commit"]),
            "requests": activity.requests,
            "errors": activity.errors,
            "last": activity.last or None,
            "since": row["changed"],
            "failure": row["failure"]["sentence"] if row["failure"] else None,
            "address": addresses.production(app.domain)
            if production
            else addresses.label(app.domain, row["commit"][:SHORT]),
            "production": production,
        }

    async def inspect(self, app: App, commit: Commit, deployment: Deployment) -> Json:
        newest = {one.id: refs for one, refs in await app.repository.newest(500)}
        plan = await _plan(app, commit)
        data = self._store.rows(store.versions, app=app.name, name=deployment.key.version)
        worker = await self._worker(deployment) if deployment.workers else None
        pins = self._store.rows(store.pins, app=app.name, commit=commit.id)
        return {
            "commit": commit_view(commit),
            "refs": ref_words(newest.get(commit.id, [])),
            "address": self.address(app, deployment),
            "state": deployment.state.value,
            "attempt": deployment.attempt,
            "is_production": commit.id == app.production,
            "pinned": {"at": pins[0]["at"], "who": pins[0]["who"]} if pins else None,
            "deployment": deployment.id,
            "version": deployment.key.version,
            "steps": [step.as_dict() for step in deployment.steps.values()],
            "stages": await stages_view(app, commit, deployment),
            "failure": asdict(deployment.failure) if deployment.failure else None,
            "run": plan.run if plan else None,
            "found": list(plan.found) if plan else [],
            "release": deployment.release or None,
            "data": await self._data(app, data[0]) if data else None,
            "worker": worker,
        }

    async def before_newest(self, count: int, app: str, private: bool) -> int:
        """The number after which the newest facts come, so many of them; output does not count."""
        wanted = kinds(lambda kind: kind is not Output and (private or not kind.private))
        found = await asyncio.to_thread(self._store.newest, count, wanted, app)
        return found[-1].number - 1 if found else self._events.last

    async def overview(self, only: str = "") -> Json:
        """All that the control page shows, or what belongs to one app."""
        apps = []
        for app in self._fleet.apps.values():
            if only not in ("", app.name):
                continue
            view = await self.app(app) | {"history": await self.releases(app, 10), "commits": []}
            with suppress(LazycloudError):  # its repository is away: the others are shown all the same
                view["commits"] = await self.commits(app, 20)
            apps.append(view)
        recent = await asyncio.to_thread(self._store.newest, 200, TOLD)
        told = [
            without_output(view)
            for view in map(Recorded.as_dict, recent)
            if view["sentence"] and only in ("", view["app"])
        ]
        running = await self.running(only)
        return {"server": self.server(), "apps": apps, "running": running, "events": told[:50]}

    async def _production(self, app: App) -> Json | None:
        deployment = self._fleet.production(app)
        if deployment is None:
            return None
        latest = self._store.history(app.name, 1)
        return {
            "commit": commit_view(await app.named(app.production)),
            "state": deployment.state.value,
            "address": self.address(app, deployment),
            "deployment": deployment.id,
            "since": latest[0]["at"] if latest else None,
            "who": latest[0]["who"] if latest else "",
            "why": latest[0]["why"] if latest else "",
        }

    async def _worker(self, deployment: Deployment) -> Json | None:
        """One deployment that runs; `processes` are its workers one by one, the sums those of all."""
        app, activity = self._fleet.app(deployment.key.app), self._link.activity(deployment.id)
        processes = await asyncio.gather(
            *(_process(post, post.worker) for post in deployment.posts.values() if post.worker)
        )
        if not processes:  # they have ended since somebody looked
            return None
        # Of several that share production's, it counts for production.
        own = not deployment.key.is_production or self._fleet.is_production(deployment)
        kept = [await servers.memory(deployment.key.version) for servers in app.servers] if own else []
        first = min(processes, key=lambda one: (not one["name"].startswith("web."), one["name"]))
        last_end = await asyncio.to_thread(self._store.last_of, deployment.id, WorkerEnded.kind)
        # Until it is ready, the first time or again, all that is old is its workers.
        since = deployment.ready_at if deployment.state is State.READY else first["since"]
        return {
            "deployment": deployment.id,
            "app": app.name,
            "commit": commit_view(await app.named(deployment.key.commit)),
            "version": deployment.key.version,
            "state": deployment.state.value,
            "pid": first["pid"],
            "preloaded": first["preloaded"],
            "listens": first["listens"],
            "processes": processes,
            "memory": sum(one["memory"] for one in processes) + sum(kept),
            "cpu": round(sum(one["cpu"] for one in processes), 1),
            "restarts": sum(post.restarts for post in deployment.posts.values()),
            "last_end": {"at": last_end.at, **last_end.event.data()} if last_end else None,
            "idle": max(0.0, time.time() - max(activity.last, since)),
            "pinned": await asyncio.to_thread(self._is_pinned, app.name, deployment.key.commit),
            "requests": activity.requests,
            "errors": activity.errors,
            "last": activity.last or None,
            "traffic": {
                "open": activity.open,
                "sockets": activity.sockets,
                "received": activity.received,
                "sent": activity.sent,
                "answers": activity.answers,
                "failed": activity.failed,
                "latency": activity.latency,
            },
            "since": since,
            "address": self.address(app, deployment),
            "production": self._fleet.is_production(deployment),
            "log": str(deployment.log_of("web.1")),
        }

    def _is_pinned(self, app: str, commit: str) -> bool:
        return bool(self._store.rows(store.pins, app=app, commit=commit))

    async def _data(self, app: App, row: Json) -> Json:
        size = await app.versions.size(row["name"]) if app.versions.exists(row["name"]) else 0
        return {"version": row["name"], "from": row["source"], "bytes": size, "forked": row["forked"]}


async def _process(post: Post, worker: Worker) -> Json:
    usage = await asyncio.to_thread(worker.usage)
    return {
        "name": post.name,
        "pid": worker.record.pid,
        "preloaded": worker.record.preloaded,
        "listens": worker.address if post.is_web else None,
        "serves": post.serves,
        "since": post.since,
        "memory": usage.memory,
        "cpu": usage.cpu,
        "processes": usage.processes,
        "restarts": post.restarts,
        "ended": post.ended,
    }


async def _default_branch(app: App) -> str | None:
    try:
        return await app.repository.default_branch()
    except LazycloudError:
        return None


async def _plan(app: App, commit: Commit) -> Plan | None:
    try:
        return await app.plan(commit)
    except LazycloudError:
        return None  # the deployment's failure tells why
