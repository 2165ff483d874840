"""Apps as their users bring them: the folders of examples/, and variations, each from its own git repository.

One server serves all of them, so that they share what was downloaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import uv
from websockets.asyncio.client import connect

from tests.e2e.repository import Checkout, counter
from tests.e2e.server import INSTALLING, PATIENCE, Answer, Server

pytestmark = pytest.mark.timeout(1800)

EXAMPLES = Path(__file__).parents[2] / "examples"
UPLOAD = 20_000_000
INSTALLED = 8 * PATIENCE  # seconds for all packages of production to be there
FASTAPI = "fastapi>=0.115,<1\nuvicorn>=0.34,<1\nwebsockets>=15\n"
BUILT = {
    "package.json": json.dumps({"scripts": {"build": "node build.js $COMMIT_ID"}}),
    "build.js": (
        "require('fs').mkdirSync('dist');\n"
        "require('fs').writeFileSync('dist/index.html', '<h1>Built for ' + process.argv[2] + '</h1>');\n"
    ),
}
IMPORTING = """
import http.server, os, sys
sys.path.insert(0, "vendor")
from greeting import GREETING

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(GREETING.encode())

http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def example(name: str) -> dict[str, str]:
    """The files of an example."""
    folder = EXAMPLES / name
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def history() -> dict[str, dict[str, Mapping[str, str | None]]]:
    """The apps, and the commits of each by name."""
    return {
        "flask": {
            "plain": example("flask"),
            "gunicorn": {"requirements.txt": example("flask")["requirements.txt"] + "gunicorn>=23\n"},
        },
        "fastapi": {
            "pyproject": example("fastapi"),
            "requirements": {"pyproject.toml": None, "requirements.txt": FASTAPI},
        },
        "django": {
            "plain": example("django"),
            "gunicorn": {"requirements.txt": example("django")["requirements.txt"] + "gunicorn>=23\n"},
        },
        "express": {"locked": example("express")},
        "static": {"plain": example("static"), "built": {"index.html": None, **BUILT}},
        "procfile": {"plain": example("procfile")},
        "script": {"plain": {"app.py": counter("script")["app.py"]}},
        "generated": {"nothing yet": {"index.html": "<h1>Soon</h1>"}},
    }


class Cloud:
    """The server and its apps; a commit is named by its app and its message."""

    def __init__(self, folder: Path) -> None:
        self.checkouts = {name: Checkout(folder / name) for name in history()}
        self._ids = {
            (name, message): self.checkouts[name].commit(files, message)
            for name, commits in history().items()
            for message, files in commits.items()
        }
        self.checkouts["vendored"] = Checkout(folder / "vendored")
        self._ids["vendored", "submodule"] = commit_with_submodule(self.checkouts["vendored"], folder)
        sources = (f"{name}={checkout.path}" for name, checkout in self.checkouts.items())
        self.server = Server(folder / "home", *sources, environment=INSTALLING)

    def id(self, app: str, message: str) -> str:
        return self._ids[app, message]

    def commit(self, app: str, message: str) -> None:
        """All that is in the work tree, while the server runs."""
        self._ids[app, message] = self.checkouts[app].commit({}, message)

    def label(self, app: str, message: str) -> str:
        """<sha> for the app that has the server's domain, <sha>.<app> for another."""
        commit = self.id(app, message)
        return commit if app == "flask" else f"{commit}.{app}"

    async def get(self, app: str, message: str, path: str = "/", **headers: str) -> Answer:
        answer = await self.server.get(self.label(app, message), path, **headers)
        assert answer.status == 200, (answer, self.server.output)
        return answer

    async def submit(self, app: str, message: str, fields: Mapping[str, str], **headers: str) -> None:
        """A form of the first page, which leads back to it."""
        answer = await self.server.request("POST", self.label(app, message), "/", headers, data=fields)
        assert (answer.status // 100, answer.headers.get("Location")) == (3, "/"), answer

    def found(self, app: str, message: str) -> str:
        """What the log of its deploy says."""
        return self.server.cli("logs", self.id(app, message), "--app", app)

    @asynccontextmanager
    async def opened(
        self, method: str, app: str, message: str, path: str, **options: object
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body has yet to be read."""
        headers = {"Host": self.server.host(self.label(app, message))}
        timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, headers=headers, **options) as response,
        ):
            yield response


def commit_with_submodule(checkout: Checkout, folder: Path) -> str:
    greeting = Checkout(folder / "greeting")
    greeting.commit({"greeting.py": 'GREETING = "Hello from the submodule"\n'})
    checkout.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(greeting.path), "vendor"
    )
    return checkout.commit({"app.py": IMPORTING}, "submodule")


def startproject(folder: Path, cache: Path) -> None:
    """What a Django tutorial begins with."""
    tool = [uv.find_uv_bin(), "tool", "run", "--quiet", "--from", "django>=5.2,<6"]
    command = [*tool, "django-admin", "startproject", "shop", "."]
    subprocess.run(command, cwd=folder, env=os.environ | {"UV_CACHE_DIR": str(cache)}, check=True)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    cloud.server.start()
    # Builds are kind to all else: on a machine that does much else they take their time.
    cloud.server.wait(
        lambda: cloud.server.output.count("(production) is ready") >= len(cloud.checkouts), "app", INSTALLED
    )
    yield cloud
    cloud.server.stop()
    assert not cloud.server.workers(), cloud.server.output


@pytest.mark.registry
@pytest.mark.slow
async def test_flask_keeps_a_list_for_each_commit(cloud: Cloud) -> None:
    plain = await cloud.get("flask", "plain")
    assert "<h1>Shopping list</h1>" in plain.text
    assert "Werkzeug" in plain.headers["Server"]
    await cloud.submit("flask", "plain", {"item": "bread & butter"})
    assert "<li>bread &amp; butter</li>" in (await cloud.get("flask", "plain")).text
    gunicorn = await cloud.get("flask", "gunicorn")
    assert gunicorn.headers["Server"] == "gunicorn"
    assert "<li>" not in gunicorn.text
    assert "<li>" not in (await cloud.server.get()).text
    for commit, answer in (("plain", plain), ("gunicorn", gunicorn)):
        own = cloud.id("flask", commit)
        assert f"{own[:7]} at http://{own}.localhost:{cloud.server.port}/" in answer.text


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("commit", ["pyproject", "requirements"])
async def test_fastapi_is_served_by_uvicorn_wherever_its_packages_are_named(
    cloud: Cloud, commit: str
) -> None:
    page = await cloud.get("fastapi", commit)
    assert "<h1>Room</h1>" in page.text
    assert page.headers["Server"] == "uvicorn"
    said = cloud.found("fastapi", commit)
    assert "Found main.py with the FastAPI application `app`: runs `python -m uvicorn" in said
    origin = {"pyproject": "pyproject.toml", "requirements": "requirements.txt"}[commit]
    assert f"Python packages come from {origin}." in said


@pytest.mark.registry
@pytest.mark.slow
async def test_a_websocket_is_echoed_by_fastapi(cloud: Cloud) -> None:
    address = f"ws://{cloud.server.host(cloud.label('fastapi', 'pyproject'))}/echo"
    async with connect(address, host="127.0.0.1", port=cloud.server.port, open_timeout=PATIENCE) as socket:
        for text in ("hello", "", "ä" * 200_000):
            await socket.send(text)
            assert await socket.recv() == text


@pytest.mark.registry
@pytest.mark.slow
async def test_server_sent_events_come_one_by_one_as_they_are_made(cloud: Cloud) -> None:
    async with cloud.opened("GET", "fastapi", "pyproject", "/events") as events:
        assert events.content_type == "text/event-stream"
        assert await events.content.readuntil(b"\n\n") == b": welcome\n\n"
        # Each is said only once the one before has come: an answer that were held back would come to a halt here.
        for words in ("one", "two", "three"):
            said = await cloud.server.post(cloud.label("fastapi", "pyproject"), words, "/say")
            assert said.status == 202
            assert await events.content.readuntil(b"\n\n") == f"data: {words}\n\n".encode()


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_file_goes_up_and_comes_down_unharmed(cloud: Cloud, chunked: bool) -> None:
    content = os.urandom(UPLOAD)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, UPLOAD, 1_000_000):
            yield content[start : start + 1_000_000]

    body = pieces() if chunked else content
    async with cloud.opened("POST", "fastapi", "pyproject", "/files", data=body) as answer:
        assert await answer.json() == {"name": hashlib.sha256(content).hexdigest(), "size": UPLOAD}
    name = hashlib.sha256(content).hexdigest()
    async with cloud.opened("GET", "fastapi", "pyproject", f"/files/{name}") as answer:
        assert await answer.read() == content


@pytest.mark.registry
@pytest.mark.slow
async def test_an_app_sees_the_address_that_was_asked_and_who_asked(cloud: Cloud) -> None:
    host = cloud.server.host(cloud.label("fastapi", "pyproject"))
    seen = (await cloud.get("fastapi", "pyproject", "/request?q=1", X_Forwarded_For="6.6.6.6")).json
    assert seen["url"] == f"http://{host}/request?q=1"
    assert seen["client"] == "127.0.0.1"
    forwarded = {name: value for name, value in seen["headers"].items() if name.startswith("x-forwarded-")}
    assert forwarded == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": host,
    }
    assert seen["headers"]["host"] == host


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize(("commit", "server"), [("plain", "WSGIServer"), ("gunicorn", "gunicorn")])
async def test_django_migrates_its_own_data_and_takes_a_form(cloud: Cloud, commit: str, server: str) -> None:
    page = await cloud.get("django", commit)
    assert page.headers["Server"].startswith(server)
    assert "$ python manage.py migrate --noinput" in cloud.found("django", commit)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    # Django compares Origin with Host: the form is refused unless the router passes both on as they are.
    origin = f"http://{cloud.server.host(cloud.label('django', commit))}"
    fields = {"csrfmiddlewaretoken": token, "text": f"stuck by {commit}"}
    await cloud.submit("django", commit, fields, Cookie=cookie, Origin=origin)
    assert re.findall("<p>(.*)</p>", (await cloud.get("django", commit)).text) == [f"stuck by {commit}"]


@pytest.mark.registry
@pytest.mark.slow
async def test_what_startproject_of_django_writes_is_served_where_it_may_write_beside_itself(
    cloud: Cloud,
) -> None:
    """Its database lies in the project's folder; behind walls that is the release."""
    folder = cloud.checkouts["generated"].path
    (folder / "index.html").unlink()
    (folder / "requirements.txt").write_text(example("django")["requirements.txt"])
    await asyncio.to_thread(startproject, folder, cloud.server.home / "cache" / "uv")
    (folder / "lazycloud.toml").write_text("[run]\nwritable = true\n")
    cloud.commit("generated", "startproject")
    assert "The install worked successfully!" in (await cloud.get("generated", "startproject")).text


@pytest.mark.registry
@pytest.mark.slow
async def test_express_is_installed_by_its_lockfile_and_counts_for_each_commit(cloud: Cloud) -> None:
    page = await cloud.get("express", "locked")
    assert page.headers["X-Powered-By"] == "Express"
    assert f"<footer>http://{cloud.server.host(cloud.label('express', 'locked'))}</footer>" in page.text
    assert "tea: 0" in page.text
    await cloud.submit("express", "locked", {"drink": "tea"})
    assert "tea: 1" in (await cloud.get("express", "locked")).text
    assert "tea: 0" in (await cloud.server.get("express")).text


async def test_a_folder_of_files_is_a_site(cloud: Cloud) -> None:
    assert "<h1>Garden</h1>" in (await cloud.get("static", "plain")).text
    assert "<h1>About</h1>" in (await cloud.get("static", "plain", "/about")).text
    style = await cloud.get("static", "plain", "/style.css")
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert (await cloud.server.get(cloud.label("static", "plain"), "/nothing")).status == 404


async def test_a_site_with_a_build_script_is_what_the_build_leaves(cloud: Cloud) -> None:
    page = await cloud.get("static", "built")
    assert page.text == f"<h1>Built for {cloud.id('static', 'built')}</h1>"
    missing = await cloud.server.get(cloud.label("static", "built"), "/build.js")
    assert missing.status == 404


async def test_a_procfile_is_enough(cloud: Cloud) -> None:
    own = cloud.id("procfile", "plain")
    page = await cloud.get("procfile", "plain")
    assert f"Commit {own}, with the data of {own}." in page.text
    assert (await cloud.get("procfile", "plain", "/starts.txt")).text.splitlines()[-1] == own
    production = await cloud.server.get("procfile")
    assert f"Commit {own}, with the data of production." in production.text
    assert own not in (await cloud.server.get("procfile", "/starts.txt")).text


async def test_a_script_that_reads_PORT_is_enough(cloud: Cloud) -> None:
    await cloud.server.post(cloud.label("script", "plain"), "own")
    answer = (await cloud.get("script", "plain", "/deep?q=1")).json
    assert (answer["name"], answer["path"], answer["notes"]) == ("script", "/deep?q=1", ["own"])
    assert (await cloud.server.get("script")).json["notes"] == []


async def test_what_a_submodule_brings_is_there(cloud: Cloud) -> None:
    assert (await cloud.get("vendored", "submodule")).text == "Hello from the submodule"
