"""An app whose every answer names its commit and its data, and visitors who believe none of it unchecked."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.router.stage import PATIENCE, Answer, Wire

LOST = 9 * PATIENCE  # seconds; longer than anybody is held, and than any blow lasts
PAUSE = 0.02  # seconds between two requests: the machine is shared with what is tested

APP = """
import contextlib, http.server, json, os, sqlite3

NAME = "{name}"
FACTS = dict(name=NAME, commit=os.environ["COMMIT_ID"], version=os.environ["LAZYCLOUD_VERSION"], pid=os.getpid())
DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

@contextlib.contextmanager
def database():
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=60)) as db, db:
        yield db

with database() as db:
    db.execute("CREATE TABLE IF NOT EXISTS marks (mark TEXT PRIMARY KEY)")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200)
    def do_POST(self):
        mark = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with database() as db:
            db.execute("INSERT INTO marks VALUES (?)", (mark,))
        self.answer(201)
    def answer(self, status):
        with database() as db:
            (count,) = db.execute("SELECT count(*) FROM marks").fetchone()
        data = json.dumps(FACTS | dict(count=count, path=self.path)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

CLOCK = """
import fcntl, os, time
place = os.environ["DATA_DIR"]
lock = open(place + "/clock.lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(place + "/clock.twice", "a").write(os.environ["COMMIT_ID"] + "\\n")
while True:
    time.sleep(60)
"""
"""A background process that notes when another one runs on the same data."""


def files(name: str, workers: int = 1) -> dict[str, str]:
    return {
        "app.py": APP.replace("{name}", name),
        "clock.py": CLOCK,
        "Procfile": "web: python app.py\nclock: python clock.py\n",
        "lazycloud.toml": f"[run]\nworkers = {workers}\nstop_timeout = 3\n",
    }


@dataclass(frozen=True)
class Visit:
    """One request and what came of it; unix times. `mark`: what it wrote, if it was a POST."""

    label: str
    began: float
    ended: float
    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""

    @property
    def is_good(self) -> bool:
        return self.what in ("200", "201")


class Visitors:
    """They visit labels ("" is production's) until they are told to leave.

    `commits`: by the name that the code of a commit says. `wrongs`: sentences of what must never be.
    """

    def __init__(self, port: int, commits: Mapping[str, str], random: Random) -> None:
        self.visits: list[Visit] = []
        self.wrongs: list[str] = []
        self._port = port
        self._commits = commits
        self._random = random
        self._numbers = itertools.count(1)
        self._counted: dict[str, int] = {}  # by label: the most marks that an answer has told of
        self._leaving = False

    @asynccontextmanager
    async def going_on(self, labels: list[Callable[[], str]]) -> AsyncIterator[None]:
        """One visitor for each function that names the label to visit next."""
        tasks = [asyncio.create_task(self._visit_on(label)) for label in labels]
        try:
            yield
        finally:
            self._leaving = True
            await asyncio.gather(*tasks)

    def outcomes(self) -> Counter[str]:
        return Counter(
            f"{'production' if not visit.label else 'previews'}: {visit.what}" for visit in self.visits
        )

    def acknowledged(self, label: str) -> set[str]:
        """The marks that the app said it has written."""
        return {visit.mark for visit in self.visits if visit.label == label and visit.what == "201"}

    async def _visit_on(self, label: Callable[[], str]) -> None:
        while not self._leaving:
            wire, host = await self._connect(), label()
            if wire is None:
                continue
            for _ in range(self._random.choice((1, 1, 20))):
                if self._leaving or not await self._visit(wire, host):
                    break
                await asyncio.sleep(PAUSE)
            wire.close()

    async def _connect(self) -> Wire | None:
        """Never refused: somebody listens whatever dies."""
        try:
            async with asyncio.timeout(LOST):
                return Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        except OSError as problem:
            self.wrongs.append(f"A connection was refused: {problem!r}.")
            await asyncio.sleep(1)
            return None

    async def _visit(self, wire: Wire, label: str) -> bool:
        """One request; whether its connection can take another."""
        number = next(self._numbers)
        mark = f"{label or 'production'}-{number}" if self._random.random() < 0.3 else ""
        least, began = self._counted.get(label, 0), time.time()
        host = f"{label}.localhost" if label else "localhost"
        head = f"{'POST' if mark else 'GET'} /{number} HTTP/1.1\r\nHost: {host}:{self._port}\r\n"
        raw = f"{head}Content-Length: {len(mark)}\r\n\r\n{mark}".encode()
        what, facts, keeps = await _ask(wire, raw)
        visit = Visit(label, began, time.time(), what, facts, mark)
        self.visits.append(visit)
        if visit.is_good:
            self._look_at(visit, least, f"/{number}")
        elif what == "lost":
            self.wrongs.append(f"{host}/{number} had neither an answer nor an error for {LOST:g} s.")
        elif "app" in what:
            self.wrongs.append(f"{host}/{number}: the app itself answered {what}.")
        return keeps

    def _look_at(self, visit: Visit, least: int, path: str) -> None:
        label, facts = visit.label, visit.facts
        at = f"{label or 'production'}{path}"
        if self._commits.get(facts["name"]) != facts["commit"]:
            self.wrongs.append(f"{at}: code of “{facts['name']}” runs as {facts['commit'][:10]}.")
        if facts["path"] != path:
            self.wrongs.append(f"{at} got the answer to {facts['path']}.")
        if label and (facts["commit"], facts["version"]) != (label, label):
            self.wrongs.append(f"{at} was answered by {facts['commit'][:10]} on {facts['version'][:10]}.")
        if not label and facts["version"] != "production":
            self.wrongs.append(f"{at} was answered by {facts['commit'][:10]} on {facts['version'][:10]}.")
        if facts["count"] < least:
            self.wrongs.append(f"{at}: its data went back from {least} marks to {facts['count']}.")
        self._counted[label] = max(self._counted.get(label, 0), facts["count"])


async def _ask(wire: Wire, raw: bytes) -> tuple[str, dict[str, Any], bool]:
    """What came of a request, the app's facts if it answered, and whether the connection can take another.

    `502 router`: who answered it; `cut`: in its answer; `closed`: before that; `lost`: nothing at all came.
    """
    head = b""
    try:
        async with asyncio.timeout(LOST):
            wire.writer.write(raw)
            await wire.writer.drain()
            head = await wire.reader.readuntil(b"\r\n\r\n")
            answer = Answer(head)
            if answer.field("transfer-encoding") == "chunked":
                answer.body = b"".join((await wire.chunks())[0])
            else:
                answer.body = await wire.reader.readexactly(int(answer.field("content-length") or 0))
    except (ConnectionError, asyncio.IncompleteReadError):
        return ("cut" if head else "closed"), {}, False
    except TimeoutError:
        return "lost", {}, False
    keeps = answer.field("connection") != "close"
    if answer.status not in (200, 201):
        return f"{answer.status} {answer.field('lazycloud-answer') or 'app'}", {}, keeps
    return str(answer.status), json.loads(answer.body), keeps
