"""The pages as control serves them: real templates, a real socket, scripted deploys."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from playwright.async_api import ConsoleMessage, Page

from tests.waiting import until

WEB = Path(__file__).parents[2] / "web"
OWN = "/.well-known/lazycloud"
IDS = {"commit": "3f2a9c1d0b" + "4" * 30, "other": "a1b2c3d4e5" + "6" * 30}
STEPS = ("source", "dependencies", "build", "data", "release", "start", "ready", "after")
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HOUR, DAY = 3600.0, 86400.0
FIRST, SECOND = "20260101T000000000000-00000001", "20260102T000000000000-00000002"  # snapshots
KEYS = ("0198f3a2-7c1e-7b7a-9d55-3e0f1c2b4a68", "0198f3a2-7c1f-7c02-8a11-90be77d3c511")  # of documents
Json = dict[str, Any]


def commit(
    commit_id: str = IDS["commit"], subject: str = "Let guests sign with a colour", **other: Any
) -> Json:
    fact = {
        "id": commit_id,
        "short": commit_id[:10],
        "subject": subject,
        "author": "Ada",
        "authored": 1_000_000,
    }
    return fact | other


def step(name: str, state: str = "waiting", **other: Any) -> Json:
    return {"name": name, "state": state, "began": None, "seconds": None, "usual": None, "note": ""} | other


def progress(**other: Any) -> Json:
    """A deploy that was just asked for, at 3 hours after its commit was written."""
    fact = {
        "app": "guestbook",
        "commit": commit(),
        "label": "3f2a9c1",
        "version": IDS["commit"],
        "state": "building",
        "attempt": 1,
        "ahead": 0,
        "steps": [step(name) for name in STEPS],
        "failure": None,
        "log": [],
        "number": 10,
        "now": 1_000_000 + 3 * 3600,
    }
    return fact | other


def overview(**other: Any) -> Json:
    """A server with one app, one production commit and one that is cold."""
    production = {
        "commit": commit(),
        "state": "ready",
        "address": "http://localhost:8000/",
        "deployment": "d1",
        "since": 1_000_000,
        "who": "ada",
        "why": "colours",
    }
    commits = [
        listed(IDS["other"], "Paint it blue"),
        listed(IDS["commit"], state="ready", is_production=True, deployment="d1", refs=["main"]),
    ]
    app = {
        "name": "guestbook",
        "source": "/srv/guestbook",
        "address": "http://localhost:8000/",
        "default_branch": "main",
        "follow": "",
        "production": production,
        "history": [
            {"commit": commit(), "at": 1_000_000, "who": "ada", "why": "colours"},
            {"commit": commit("b" * 40, "First page"), "at": 900_000, "who": "ada", "why": ""},
        ],
        "commits": commits,
    }
    fact = {
        "server": {"version": "0.1.0", "domain": "localhost", "started": 1_000_000},
        "apps": [app],
        "running": [],
        "events": [],
        "me": {"name": "ada", "role": "owner", "kind": "account", "app": None},
    }
    return fact | other


def listed(commit_id: str, subject: str = "Let guests sign with a colour", **other: Any) -> Json:
    fact = {
        "commit": commit(commit_id, subject),
        "refs": [],
        "state": "cold",
        "address": f"http://{commit_id[:10]}.localhost:8000/",
        "deployment": None,
        "is_production": False,
        "failure": None,
    }
    return fact | other


def snapshot(snapshot_id: str, ago: float, name: str = "", **other: Any) -> dict[str, Any]:
    fact = {"id": snapshot_id, "name": name, "why": "asked", "at": time.time() - ago, "who": "ada"}
    return fact | {"size": 12_300_000, "note": ""} | other


def version(name: str, ago: float, source: str = "production", **other: Any) -> dict[str, Any]:
    fact = {"name": name, "label": name[:10], "commit": name, "subject": "Paint it blue", "source": source}
    fact |= {"snapshot": "", "forked": time.time() - ago, "used": time.time() - ago / 2, "bytes": 48_200_000}
    return fact | {"own": None, "pending": False, "documents": True, "live": False, "pinned": False} | {
        "production": False,
        "snapshots": [],
    } | other  # fmt: skip


def production(**other: Any) -> dict[str, Any]:
    taken = [snapshot(FIRST, 3 * DAY, "before-import"), snapshot(SECOND, HOUR, why="promote")]
    fact = {"label": "production", "commit": IDS["commit"], "production": True, "live": True}
    return version("production", 40 * DAY, "", **fact, snapshots=taken) | other


def data() -> Json:
    """Production, and a preview that was forked from a snapshot of it."""
    preview = version(IDS["other"], 2 * DAY, live=True, snapshot=FIRST, pinned=True)
    return {"versions": [production(), preview], "keep": 30 * DAY, "limit": 0}


def documents() -> dict[str, Json]:
    """What a versionbase of two collections tells, by the end of the address that is asked."""
    made = {"datetime": "2026-11-01T12:00:00.000001Z"}
    first = [["text", "Buy milk"], ["done", False], ["price", {"decimal": "1.10"}], ["made", made]]
    photo = {"bytes": 20_480, "begin": "89504e47"}
    second = [["text", "Sow"], ["done", True], ["tags", {"list": ["a", 2]}], ["photo", photo]]
    indexes = [{"name": "made", "path": "made", "unique": False, "state": "ready"}]
    changed = {"change": "changed", "members": [{"path": ["done"], "old": False, "new": True}]}
    return {
        "": {
            "collections": [
                {"name": "tasks", "documents": 1204, "indexes": indexes, "schema": {"type": "object"}},
                {"name": "people", "documents": 1, "indexes": [], "schema": None},
            ]
        },
        "/documents": {
            "documents": [
                {"key": KEYS[0], "document": {"object": first}},
                {"key": KEYS[1], "document": {"object": second}},
            ],
            "skip": 0,
            "more": False,
            "late": False,
            "explain": {"scan": "collection", "index": None, "estimate": 1204, "sorted": False},
        },
        "/document": {
            "key": KEYS[0],
            "document": {"object": [*first, ["by", {"object": [["name", "Ada"], ["langs", {"list": []}]]}]]},
            "history": [
                {"sequence": 12, "at": "2026-11-01T12:00:00Z", **changed},
                {
                    "sequence": 3,
                    "at": "2026-10-01T12:00:00Z",
                    "change": "added",
                    "document": {"object": first},
                },
            ],
            "more": False,
        },
        "/diff": {
            "differences": [
                {"collection": "tasks", "key": KEYS[0], **changed},
                {
                    "collection": "people",
                    "key": "ada",
                    "change": "removed",
                    "document": {"object": [["name", "Ada"]]},
                },
            ],
            "more": False,
            "late": False,
        },
    }


OWNER = {"version": "0.1.0", "user": "ada", "role": "owner"}
CONTROL = OWNER | {"address": "http://localhost:8000"}
LONG = "unbroken" * 30
CHOICES = [{"href": "http://x.localhost/?a=1&b=2", "label": "3f2a9c1d0b", "about": "Let guests sign"}]
FAILURE = {"step": "build", "sentence": LONG, "advice": LONG, "last": [LONG]}


def message(**other: Any) -> dict[str, Any]:
    fact = {"status": 404, "title": "No such commit", "sentence": "s", "advice": "a", "choices": CHOICES}
    return fact | {"request_id": "8f3ac1", "code": None} | other


PAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "landing": ("landing.html", {"progress": progress(), "may_cancel": True, "noscript_refresh": 2}),
    "long": (
        "landing.html",
        {
            "progress": progress(commit=commit(subject=LONG), label=LONG),
            "may_cancel": True,
            "noscript_refresh": 2,
        },
    ),
    "failed": (
        "landing.html",
        {"progress": progress(state="failed", failure=FAILURE), "may_cancel": True, "noscript_refresh": 2},
    ),
    "message": ("message.html", message(sentence=LONG)),
    "message with code": ("message.html", message(code=f'[run]\ncommand = "{LONG}"', choices=[])),
    "login": (
        "login.html",
        {"next": "/", "error": "That token is not right.", "account": "ada", "ticket": "", "name": ""},
    ),
    "login link": (
        "login.html",
        {"next": "/", "error": "", "account": "", "ticket": "t1", "name": "ada"},
    ),
    "password": (
        "password.html",
        {"host": f"{LONG}.localhost", "next": "/", "login": "/", "error": "That is not the password."},
    ),
    "control": ("control.html", CONTROL),
    "people": ("people.html", OWNER | {"kind": "account"}),
    "data": ("data.html", OWNER | {"app": "guestbook"}),
    "documents": ("documents.html", OWNER | {"app": "guestbook"}),
}


def show(stage: Stage, name: str) -> None:
    """Put one of PAGES on the stage."""
    stage.page, stage.facts = PAGES[name]


class Stage:
    """Plays control: serves `page` with `facts` anywhere, and what a test scripts on its own addresses."""

    def __init__(self) -> None:
        self.page = "landing.html"
        self.facts: Json = {"progress": progress(), "may_cancel": True, "noscript_refresh": 2}
        self.overview: Json = overview()
        self.lists: dict[str, list[Json]] = {}  # by the last word of their path
        self.answers: dict[str, Json] = {}  # to what is posted, by path
        self.data: Json = data()
        self.documents: dict[str, Json] = documents()
        self.refused: dict[str, tuple[int, Json]] = {}  # likewise by the end of the address
        self.questions: list[tuple[str, Json]] = []  # what was asked of the versionbase
        self.differences: list[Json] = []  # one for each that is asked for, the last again and again
        self.compared: list[Json] = []  # what was asked
        self.error: tuple[int, Json] | None = None
        self.loads: list[str] = []
        self.asked_after: list[str | None] = []
        self.posts: list[tuple[str, Json, str]] = []
        self.fetches = 0
        self.address = ""
        self._sockets: set[web.WebSocketResponse] = set()
        self._templates = Environment(
            loader=FileSystemLoader([WEB / "pages", WEB / "static"]),
            autoescape=True,
            undefined=StrictUndefined,
        )

    def render(self, nonce: str = "n") -> str:
        return self._templates.get_template(self.page).render(nonce=nonce, **self.facts)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        runner = web.AppRunner(self._application(), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://localhost:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.drop()
            await runner.cleanup()

    async def send(self, *messages: Json) -> None:
        """Send to every page that follows; waits until there is one."""
        await until(lambda: bool(self._sockets))
        for message in messages:
            for socket in tuple(self._sockets):
                await socket.send_str(json.dumps(message))

    async def drop(self) -> None:
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get(f"{OWN}/progress", self._follow)
        application.router.add_get("/api/follow", self._follow)
        application.router.add_get("/api/overview", self._overview)
        application.router.add_get("/api/{list:accounts|tokens|sessions|apps}", self._list)
        application.router.add_get("/api/apps/{app}/data", self._data)
        application.router.add_get("/api/apps/{app}/data/diff", self._difference)
        application.router.add_get("/api/apps/{app}/versionbase{what:.*}", self._documents)
        application.router.add_post("/{path:.*}", self._post)
        application.router.add_get("/{path:.*}", self._page)
        return application

    async def _page(self, request: web.Request) -> web.Response:
        self.loads.append(request.path_qs)
        nonce = secrets.token_urlsafe(12)
        headers = {"Content-Security-Policy": POLICY.format(nonce), "Cache-Control": "no-store"}
        return web.Response(text=self.render(nonce), content_type="text/html", headers=headers)

    async def _follow(self, request: web.Request) -> web.WebSocketResponse:
        self.asked_after.append(request.query.get("after"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            async for _ in socket:
                pass
        finally:
            self._sockets.discard(socket)
        return socket

    async def _overview(self, _: web.Request) -> web.Response:
        self.fetches += 1
        return web.json_response(self.overview)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(self.lists.get(request.match_info["list"], []))

    async def _data(self, _: web.Request) -> web.Response:
        self.fetches += 1
        return web.json_response(self.data)

    async def _documents(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        self.questions.append((what, {name: text for name, text in request.query.items() if text}))
        status, answer = self.refused.get(what) or (200, self.documents[what])
        return web.json_response(answer, status=status)

    async def _difference(self, request: web.Request) -> web.Response:
        self.compared.append(dict(request.query))
        status, answer = self.error or (200, self.differences[0])
        if len(self.differences) > 1:
            del self.differences[0]
        return web.json_response(answer, status=status)

    async def _post(self, request: web.Request) -> web.Response:
        body = (
            await request.json() if request.content_type == "application/json" else dict(await request.post())
        )
        self.posts.append((request.path, body, request.headers.get("Sec-Fetch-Mode", "")))
        status, answer = self.error or (200, self.answers.get(request.path, {}))
        return web.json_response(answer, status=status)


class Watched:
    """A page, and what must never be on it: errors in its console, requests to another origin."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self._hear(line))
        page.on("request", lambda request: self._see(request.url, origin))

    def _hear(self, line: ConsoleMessage) -> None:
        refused = line.text.startswith("Failed to load resource")  # an answer that a test scripted
        if line.type == "error" and not refused:
            self.complaints.append(line.text)

    def _see(self, url: str, origin: str) -> None:
        if not url.startswith((origin, "data:")):
            self.complaints.append(f"asked for {url}")
