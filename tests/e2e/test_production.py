"""Production is a pointer: promoted, rolled back, followed, and never without an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import aiohttp
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server

MIGRATION = 'import os, sqlite3\ndb = sqlite3.connect(os.environ["DATABASE_URL"][10:])\n'
WITH_RELEASE = {"Procfile": "web: python app.py\nrelease: python migrate.py\n"}


class Load:
    """Steady requests to production over a few keep-alive connections; counts what comes back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(4)]
        return self

    async def __aexit__(self, *args: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def until(self, name: str, count: int = 20) -> None:
        """Until so many answers came from that commit."""

        async def enough() -> bool:
            return self.seen[name] >= count

        await self.server.until(enough)

    async def _ask(self) -> None:
        async with aiohttp.ClientSession() as session:
            while not self._stop.is_set():
                try:
                    url = f"http://127.0.0.1:{self.server.port}/"
                    async with session.get(url, headers={"Host": self.server.host()}) as response:
                        body = await response.json(content_type=None)
                        self.seen[body["name"]] += 1
                        if response.status != 200:
                            self.failures.append(f"{response.status} {body}")
                except Exception as problem:
                    self.failures.append(repr(problem))


async def test_promote_and_rollback_under_steady_load_lose_no_request(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    async with Load(server) as load:
        await load.until("first")
        promoted = await asyncio.to_thread(
            server.cli, "promote", second, "-m", "it is time", folder=checkout.path
        )
        await load.until("second")
        await asyncio.to_thread(server.cli, "rollback", folder=checkout.path)
        before = load.seen["first"]
        await load.until("first", before + 20)
    assert load.failures == []
    assert second[:10] in promoted
    assert (await server.get()).json["notes"] == ["kept"]
    releases = server.json("releases", folder=checkout.path)
    assert [row["commit"]["id"] for row in releases] == [first, second, first]
    assert [row["why"] for row in releases] == ["rollback", "it is time", "first start"]
    assert releases[1]["who"]


async def answers(server: Server, text: str) -> bool:
    return (await server.get()).text == text


async def test_a_request_under_way_is_finished_by_the_worker_that_began_it(
    up: Up, checkout: Checkout
) -> None:
    slow = (
        "import http.server, os, threading\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        if self.path == '/wait':\n"
        "            while not os.path.exists(os.environ['DATA_DIR'] + '/go'): threading.Event().wait(0.02)\n"
        "        if self.path == '/go': open(os.environ['DATA_DIR'] + '/go', 'w').close()\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'NAME')\n"
        "    def log_message(self, *args): pass\n"
        "http.server.ThreadingHTTPServer((os.environ['HOST'], int(os.environ['PORT'])), H).serve_forever()\n"
    )
    files = {"Procfile": "web: python app.py\n"}
    first = checkout.commit({"app.py": slow.replace("NAME", "first"), **files})
    second = checkout.commit({"app.py": slow.replace("NAME", "second"), **files})
    third = checkout.commit({"app.py": slow.replace("NAME", "third"), **files})
    server = up(checkout.path, "--production", first)
    await server.get()
    waiting = asyncio.create_task(server.get("", "/wait"))
    for commit in (second, third):
        await asyncio.to_thread(server.cli, "promote", commit, "--app", "shop")
        name = {second: "second", third: "third"}[commit]
        await server.until(partial(answers, server, name))
        if commit == second:
            assert not waiting.done()
            await server.get("", "/go")
    assert (await waiting).text == "first"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"app.py": "raise SystemExit('no luck')\n"}, "ended with exit status 1"),
        ({"lazycloud.toml": '[build]\ncommand = "echo building; exit 3"\n'}, "ended with exit status 3"),
        ({"migrate.py": MIGRATION + "raise SystemExit('bad migration')\n", **WITH_RELEASE}, "rehearsal"),
    ],
)
async def test_a_promote_that_fails_changes_nothing(
    up: Up, checkout: Checkout, files: dict[str, str], sentence: str
) -> None:
    good = checkout.commit(counter("good"))
    bad = checkout.commit({**counter("bad"), **files})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    said = server.cli("promote", bad, folder=checkout.path, code=1)
    assert sentence in said
    answer = (await server.get()).json
    assert (answer["name"], answer["notes"]) == ("good", ["kept"])
    assert len(server.json("releases", folder=checkout.path)) == 1


async def test_a_migration_is_rehearsed_on_a_fork_before_it_touches_production(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    half = MIGRATION + "db.execute('DELETE FROM notes'); db.commit()\nraise SystemExit('too late')\n"
    bad = checkout.commit({**counter("bad"), "migrate.py": half, **WITH_RELEASE})
    fine = MIGRATION + "db.execute('ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 0'); db.commit()\n"
    new = checkout.commit({**counter("new"), "migrate.py": fine, **WITH_RELEASE})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    server.cli("promote", bad, folder=checkout.path, code=1)
    assert (await server.get()).json["notes"] == ["kept"]
    server.cli("promote", new, folder=checkout.path)
    answer = (await server.get()).json
    assert (answer["name"], answer["notes"]) == ("new", ["kept"])
    assert not list(server.home.glob("apps/shop/data/rehearsal-*"))


async def test_a_followed_branch_promotes_itself(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    checkout.commit(counter("two"))
    await server.until(partial(server.named, "two"))
    assert "following main" in server.json("releases", "--app", "shop")[0]["who"]


async def test_production_cannot_be_stopped_by_mistake(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    assert "does not stop" in server.cli("stop", "production", folder=checkout.path, code=2)
    assert (await server.get()).status == 200
