"""`lazycloud up` with isolation = "container", on a real engine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.dockerd import Dockerd
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server
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
            child.wait(60)
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


async def test_containers_go_on_serving_when_control_is_killed_and_are_found_again(
    contained: Callable[..., Server], checkout: Checkout, dockerd: Dockerd
) -> None:
    commit = checkout.commit(counter("first"))
    server = contained(checkout.path)
    await server.get()
    await server.get(commit)
    before = dockerd.containers()
    control = server.children()["control"]
    control.kill()
    control.wait()
    assert await server.named("first", commit)
    await server.reaches(commit, "ready")
    assert dockerd.containers() == before
    dockerd.docker("kill", before[0])
    dockerd.docker("kill", before[1])
    assert await server.named("first")
    assert set(dockerd.containers()).isdisjoint(before)
    assert "was ended by SIGKILL" in server.output or "SIGKILL" in server.cli("ps", folder=checkout.path)


async def test_an_engine_that_was_restarted_has_production_again(
    contained: Callable[..., Server], checkout: Checkout, dockerd: Dockerd
) -> None:
    checkout.commit(counter("first"))
    server = contained(checkout.path)
    await server.post("", "kept")
    dockerd.kill()
    assert await server.named("first"), "its containers do not end with it"
    dockerd.start()

    async def is_back() -> bool:
        return (await server.get()).status == 200

    await server.told("ended")
    await server.until(is_back)
    assert (await server.get()).json["notes"] == ["kept"]


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
