"""An app with a Redis: each version its own, behind default walls, through sleep, kills and forks."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
import pytest

from lazycloud.data.redis import notes
from tests.e2e.backed_up import comes_back
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import PATIENCE, Server
from tests.tools import needs

pytestmark = [needs("redis-server"), pytest.mark.slow]

APP = '''
import http.server, json, os, re, socket
NAME = "{name}"

class Redis:
    """The protocol, as far as it is needed: what redis-py does, in twenty lines."""
    def __init__(self, url):
        password, host, port = re.fullmatch(r"redis://:(.+)@(.+):([0-9]+)/0", url).groups()
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.file = self.socket.makefile("rb")
        self("AUTH", password)
    def __call__(self, *words):
        parts = [b"*%d\\r\\n" % len(words)] + [b"$%d\\r\\n%s\\r\\n" % (len(w.encode()), w.encode()) for w in words]
        self.socket.sendall(b"".join(parts))
        return self.answer()
    def answer(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode() if rest != "-1" else None
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind not in (b"+", b":"):
            raise OSError(line.decode())
        return rest

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/reach/"):
            try:
                Redis(self.path.removeprefix("/reach/"))
                return self.answer("reached")
            except (OSError, AttributeError) as problem:
                return self.answer(str(problem))
        redis = Redis(os.environ["REDIS_URL"])
        self.answer(dict(name=NAME, url=os.environ["REDIS_URL"], notes=redis("LRANGE", "notes", "0", "-1"),
                         database=os.environ["DATABASE_URL"]))
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(dict(count=Redis(os.environ["REDIS_URL"])("RPUSH", "notes", text)))
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
'''
TOML = "[data]\nredis = true\n"


def app(name: str, toml: str = TOML) -> dict[str, str]:
    return {
        "app.py": APP.replace("{name}", name),
        "Procfile": "web: python app.py\n",
        "lazycloud.toml": toml,
    }


def redises(server: Server) -> list[psutil.Process]:
    return [one for one in server.workers() if one.name() == "redis-server"]


async def notes_of(server: Server, label: str = "") -> list[str]:
    return list((await server.get(label)).json["notes"])


async def test_previews_write_while_production_writes_and_nobody_sees_the_others(
    up: Up, checkout: Checkout
) -> None:
    commits = [checkout.commit(app(name)) for name in ("one", "two", "three")]
    server = up(checkout.path)
    sent: list[str] = []
    writing = asyncio.create_task(_write(server, sent))
    await server.until(lambda: _has(sent, 20))
    for commit in commits[:2]:
        before = len(sent)
        forked = await notes_of(server, commit)
        assert forked == [_note(number) for number in range(len(forked))]  # all of a moment, in order
        assert before <= len(forked) <= len(sent) + 1  # one may not have been acknowledged yet
        await server.post(commit, "its own")
        assert await notes_of(server, commit) == [*forked, "its own"]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert "its own" not in await notes_of(server)
    url = (await server.get()).json["url"]
    reached = (await server.get(commits[0], f"/reach/{url}")).json
    assert reached in ("[Errno 1] Operation not permitted", "reached")
    if "keeps" in server.cli("doctor", code=None):
        assert reached != "reached"
    guess = url.replace(url[9:12], "abc", 1)
    assert "reached" not in (await server.get("", f"/reach/{guess}")).json
    assert not [one for one in server.home.glob("apps/shop/data/*/*") if one.name.endswith((".rdb", ".aof"))]


async def _write(server: Server, sent: list[str]) -> None:
    """Each note is in `sent` once it is acknowledged."""
    while True:
        text = _note(len(sent))
        await asyncio.shield(server.post("", text))
        sent.append(text)


def _note(number: int) -> str:
    return f"note {number}"


async def _has(sent: list[str], count: int) -> bool:
    return len(sent) >= count


async def test_sleep_and_wake_keep_data_and_a_server_sleeps_with_its_last_worker(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(app("one"))
    checkout.commit(app("two"))
    plain = checkout.commit(app("none", toml=""))
    server = up(checkout.path)
    await server.get(plain, "/reach/nobody")
    assert redises(server) == []  # it wants none
    await server.post(first, "kept")
    assert len(redises(server)) == 1
    (row,) = [row for row in server.json("ps") if row["commit"]["id"] == first]
    assert row["memory"] > sum(one["memory"] for one in row["processes"])
    await server.verb("stop", first, folder=checkout.path)
    await server.until(lambda: _runs(server, 0))
    assert await notes_of(server, first) == ["kept"]
    await server.verb("stop", first, folder=checkout.path)
    await server.until(lambda: _runs(server, 0))
    # A command wakes it, too, and it sleeps again when that has ended.
    assert "kept" in await server.verb("run", first, "--", "python", "-c", RUN, folder=checkout.path)
    await server.until(lambda: _runs(server, 0))


RUN = (
    "import os, re, socket;"
    "p, port = re.fullmatch('redis://:(.+)@127.0.0.1:([0-9]+)/0', os.environ['REDIS_URL']).groups();"
    "s = socket.create_connection(('127.0.0.1', int(port)));"
    "s.sendall(('AUTH %s\\r\\nLRANGE notes 0 -1\\r\\nQUIT\\r\\n' % p).encode());"
    "print(s.makefile().read())"
)


async def _runs(server: Server, count: int) -> bool:
    return len(redises(server)) == count


async def test_a_killed_redis_and_a_killed_control_lose_nothing_that_was_acknowledged(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(app("one"))
    server = up(checkout.path)
    for number in range(20):
        await server.post("", f"note {number}")
    (redis,) = redises(server)
    redis.kill()
    redis.wait(PATIENCE)
    await server.until(lambda: _answers(server))
    assert await notes_of(server) == [f"note {number}" for number in range(20)]
    (redis,) = redises(server)
    control = server.children()["control"]
    control.kill()
    await server.post("", "while control is away")
    await server.until(lambda: server.has_another_control(control))
    assert (await notes_of(server))[-1] == "while control is away"
    assert redises(server) == [redis]
    control = server.children()["control"]
    control.suspend()  # both at once: the next control starts it where its worker looks for it
    redis.kill()
    control.kill()
    redis.wait(PATIENCE)
    await server.until(lambda: _answers(server))
    (started,) = redises(server)
    await server.until(lambda: server.has_another_control(control))
    assert len(await notes_of(server)) == 21
    assert redises(server) == [started]
    server.stop()
    assert redises(server) == []


async def _answers(server: Server) -> bool:
    return (await server.get()).status == 200


async def test_what_a_killed_server_left_is_ended_by_stop_all(up: Up, checkout: Checkout) -> None:
    checkout.commit(app("one"))
    server = up(checkout.path)
    await server.post("", "kept")
    family = psutil.Process(server.process.pid).children()
    for one in (psutil.Process(server.process.pid), *family):
        one.send_signal(signal.SIGSTOP)
    for one in (psutil.Process(server.process.pid), *family):
        one.kill()
    server.process.wait(PATIENCE)
    assert len(redises(server)) == 1
    assert "1 " in server.cli("stop", "--all")
    assert server.inmates() == [] and notes(server.home / "apps") == []
    again = up(home=server.home)
    assert await notes_of(again) == ["kept"]


MIGRATE = "from app import Redis; import os; Redis(os.environ['REDIS_URL'])('RPUSH', 'notes', 'migrated')"


async def test_a_release_command_and_a_restore_change_it_with_the_rest(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    files = app("one")
    files["app.py"] = files["app.py"].replace(
        "\nhttp.server.Threading", "\nif __name__ == '__main__': http.server.Threading"
    )
    checkout.commit(files)
    server = up(checkout.path)
    await server.post("", "kept")
    second = checkout.commit(
        {"lazycloud.toml": TOML + '[run]\nrelease = "python migrate.py"\n', "migrate.py": MIGRATE}
    )
    await server.verb("promote", second, folder=checkout.path)
    assert await notes_of(server) == ["kept", "migrated"]
    await server.post("", "late")
    before = server.json("data", "snapshots", "production", "--app", "shop")[-1]["id"]
    said = await server.verb("data", "diff", f"production@{before}", "production", folder=checkout.path)
    assert "same" not in said and "What is in Redis is not compared." in said
    said = await server.verb("data", "export", "production", str(tmp_path / "shop.tar"), folder=checkout.path)
    assert "Its Redis is not in it." in said
    await server.verb("data", "restore", f"production@{before}", "--yes", folder=checkout.path)
    assert await notes_of(server) == ["kept", "migrated"]  # its release command has run on these, too


async def test_a_backup_has_it_with_the_rest(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(app("one"))
    await comes_back(up, checkout, tmp_path, notes_of)
