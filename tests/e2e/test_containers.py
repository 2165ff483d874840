"""`lazycloud up` with isolation = "container", on a real engine."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from lazycloud.walls.groups import Groups
from lazycloud.walls.ports import missing
from tests.dockerd import Dockerd, base_image
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server
from tests.tools import needs

pytestmark = [needs("dockerd", "docker"), pytest.mark.slow]

NODE = """
require("http").createServer((request, response) => {
  response.end(JSON.stringify({name: "node", commit: process.env.COMMIT_ID}))
}).listen(process.env.PORT, process.env.HOST)
"""


@pytest.fixture
def contained(up: Up, dockerd: Dockerd) -> Iterator[Up]:
    """Start a server whose workers are containers. None of them is left, nor their network."""

    def start(*arguments: str | Path, **options: Path) -> Server:
        return up(*arguments, LAZYCLOUD_ISOLATION="container", DOCKER_HOST=dockerd.url, **options)

    yield start
    for child in psutil.Process().children():
        if "lazycloud" in child.cmdline():
            child.send_signal(signal.SIGINT)
            child.wait(PATIENCE)
    assert dockerd.containers() == []
    assert dockerd.docker("network", "ls", "-q", "--filter", "type=custom") == ""


async def test_python_node_and_static_sites_serve_from_containers(
    contained: Callable[..., Server], checkout: Checkout, dockerd: Dockerd
) -> None:
    python = checkout.commit(
        counter("python", Procfile="release: echo migrated > $DATA_DIR/done\nweb: python app.py\n")
    )
    everything_of_before = {"app.py": None, "Procfile": None}
    node = checkout.commit({**everything_of_before, "server.js": NODE, "Procfile": "web: node server.js\n"})
    static = checkout.commit({"server.js": None, "Procfile": None, "index.html": "<h1>static</h1>"})
    server = contained(checkout.path)
    assert (await server.get()).text == "<h1>static</h1>"
    assert (await server.post(python, "noted")).status == 201
    answer = (await server.get(python)).json
    assert (answer["notes"], answer["environment"]["HOST"]) == (["noted"], "0.0.0.0")
    assert (server.home / f"apps/shop/data/{python}/files/done").read_text() == "migrated\n"
    assert (await server.get(node)).json == {"name": "node", "commit": node}
    assert (await server.get(static)).text == "<h1>static</h1>"
    assert len(dockerd.containers()) == 4
    server.cli("stop", node, folder=checkout.path)
    assert len(dockerd.containers()) == 3


DOCKERFILE = """
FROM base
ARG WORDS=built
RUN echo $WORDS > /words; ls > /files
COPY . /app
WORKDIR /app
ENV NAME=of-the-image
CMD ["python3", "-u", "app.py"]
"""

IN_IMAGE = """
import http.server, json, os, pathlib, sqlite3
database = sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///"))
print("serves from", os.getcwd())

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        words = pathlib.Path("/words").read_text()
        told = {"words": words, "files": sorted(os.listdir()), "name": os.environ["NAME"],
                "notes": [row[0] for row in database.execute("SELECT text FROM notes")]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""

MIGRATE = """
import os, sqlite3
with sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///")) as database:
    database.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    database.execute("INSERT INTO notes VALUES ('migrated')")
"""


async def test_a_dockerfile_is_built_and_its_image_goes_with_its_release(
    contained: Callable[..., Server], checkout: Checkout, dockerd: Dockerd
) -> None:
    base_image(dockerd, "base")
    files = {"Dockerfile": DOCKERFILE, ".dockerignore": "secret*\n!secret.not\n", "app.py": IN_IMAGE}
    files |= {
        "secret.txt": "",
        "secret.not": "",
        "migrate.py": MIGRATE,
        "Procfile": "release: python3 migrate.py\n",
    }
    first = checkout.commit(files)
    broken = checkout.commit({"Dockerfile": "FROM base\nRUN echo oh dear && exit 3\n"})
    checkout.commit(
        counter("other", Dockerfile=None, **dict.fromkeys(set(files) - {"Dockerfile", "app.py", "Procfile"}))
    )
    server = contained(checkout.path)
    got = await server.get(first)
    assert got.status == 200, got
    answer = got.json
    assert answer["files"] == [
        ".dockerignore",
        "Dockerfile",
        "Procfile",
        "app.py",
        "migrate.py",
        "secret.not",
    ]
    assert (answer["words"], answer["name"], answer["notes"]) == ("built\n", "of-the-image", ["migrated"])
    log = server.cli("logs", first, folder=checkout.path)
    assert " : RUN echo $WORDS" in log and "serves from /app" in log
    failed = await server.get(broken)
    assert failed.status == 502
    assert "Dockerfile could not be built" in failed.text and "oh dear" in failed.text
    assert await server.named("other"), "production runs, too"

    server.children()["control"].kill()
    before = dockerd.containers()
    assert (await server.get(first)).json == answer
    await server.reaches(first, "ready")
    assert dockerd.containers() == before
    log = server.cli("logs", first, folder=checkout.path)
    assert log.count("serves from /app") == 1 and log.count("GET /") == 2

    assert "lazycloud/" in dockerd.docker("images")
    server.cli("stop", first, folder=checkout.path)
    server.cli("prune", "--all", folder=checkout.path)
    assert "lazycloud/" not in dockerd.docker("images")


async def test_containers_outlive_control_and_are_started_again_when_the_engine_was(
    contained: Callable[..., Server], checkout: Checkout, dockerd: Dockerd
) -> None:
    commit = checkout.commit(counter("first"))
    server = contained(checkout.path)
    await server.post("", "kept")
    await server.get(commit)
    before = dockerd.containers()
    control = server.children()["control"]
    control.kill()
    control.wait()
    assert await server.named("first", commit)
    await server.reaches(commit, "ready")
    assert dockerd.containers() == before

    dockerd.docker("kill", *before)
    await server.told("was ended by SIGKILL")
    assert await server.named("first")
    assert set(dockerd.containers()).isdisjoint(before)

    dockerd.kill()
    assert await server.named("first"), "its containers do not end with it"
    before = dockerd.containers() if dockerd.start() else []

    async def is_another() -> bool:
        return bool(dockerd.containers()) and set(dockerd.containers()).isdisjoint(before) and await is_back()

    async def is_back() -> bool:
        return (await server.get()).status == 200

    await server.until(is_another)
    assert (await server.get()).json["notes"] == ["kept"]


CALLING = """
import socket
with socket.socket() as one:
    try: one.connect(({host!r}, {port}))
    except OSError as problem: print("worker:", problem.strerror)
    else: print("worker: done")
"""


@needs("bwrap")
async def test_a_build_with_a_network_reaches_no_worker_in_a_container(
    contained: Callable[..., Server], checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    server = contained(checkout.path, "--production", good)
    if why := missing(Groups(server.home)):
        pytest.skip(f"no wall between ports: {why}")
    assert await server.named("good")
    (row,) = await server.api("ps")
    host, _, port = row["listens"].rpartition(":")
    assert not ip_address(host).is_loopback
    socket.create_connection((host, int(port))).close()
    build = "[build]\nnetwork = true\ncommand = 'python3 call.py'\n"
    files = {"call.py": CALLING.format(host=host, port=port), "lazycloud.toml": build}
    bad = checkout.commit(counter("bad", **files))
    assert await server.named("bad", bad)
    assert "worker: Operation not permitted" in server.cli("logs", bad, folder=checkout.path)


def test_a_server_without_an_engine_refuses_to_start(checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(counter("first"))
    server = Server(
        tmp_path / "home",
        checkout.path,
        environment={"LAZYCLOUD_ISOLATION": "container", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
    )
    with pytest.raises(AssertionError, match=r"none\.sock does not answer"):
        server.start()
    assert server.process.returncode == 2
