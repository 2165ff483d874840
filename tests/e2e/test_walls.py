"""What walls mean to an app that means no harm, and to the owner of a server without them."""

from __future__ import annotations

import os
import zipfile

import psutil
import pytest

from lazycloud.walls import sandbox
from lazycloud.walls.groups import Groups
from lazycloud.walls.ports import missing
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter

walled = pytest.mark.skipif(
    bool(sandbox.missing()) and "CI" not in os.environ, reason=f"no sandbox: {sandbox.missing()}"
)

SELF_MADE = """
import os
from pathlib import Path
with open("visits.txt", "a") as file:
    file.write(os.environ["LAZYCLOUD_VERSION"] + chr(10))
NAME = Path("visits.txt").read_text()
"""
"""Begins with a change of a file beside it, and tells what is in it."""

PRYING = """
try:
    with open({secret!r}, "r+") as file:
        NAME = file.read()
        file.write("changed")
except OSError as problem:
    NAME = type(problem).__name__
"""


STEALING = """
import socket
def attempt(what, does, port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try: getattr(one, does)(("127.0.0.1", port))
        except OSError as problem: print(what, problem.strerror, sep=": ")
        else: print(what, "done", sep=": ")
attempt("worker", "connect", {worker})
attempt("server", "bind", {server})
"""


@walled
async def test_an_app_changes_its_own_files_and_no_other_deployment_s(up: Up, checkout: Checkout) -> None:
    app = counter("x")["app.py"].replace('NAME = "x"\n', "")
    files = counter("x", **{"visits.txt": "", "lazycloud.toml": "[run]\nwritable = true\n"})
    commit = checkout.commit({**files, "app.py": SELF_MADE + app})
    server = up(checkout.path, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get()).json["name"] == "production\n"
    assert (await server.get(commit)).json["name"] == f"{commit}\n"
    for tree in server.home.glob("apps/shop/releases/*/tree"):
        assert (tree / "visits.txt").read_text() == ""
    server.cli("stop", commit, folder=checkout.path)
    assert (await server.get(commit)).json["name"] == f"{commit}\n"


@walled
async def test_a_build_has_no_say_in_what_its_workers_are_shown(up: Up, checkout: Checkout) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get(good)).json["name"] == "good"
    secret = server.home / "secret"
    secret.write_text("of the server")
    memory = "$VIRTUAL_ENV/../preload"
    led = f"rm -f {memory}/learned {memory}/imports; ln -s ../../../../../secret {memory}/imports; true"
    app = counter("x")["app.py"].replace('NAME = "x"\n', "")
    bad = checkout.commit(
        {"app.py": PRYING.format(secret=str(secret)) + app, "lazycloud.toml": f"[build]\ncommand = '{led}'\n"}
    )
    assert (await server.get(bad)).json["name"] == "FileNotFoundError"
    assert secret.read_text() == "of the server"


@walled
async def test_who_writes_into_a_release_is_told_where_to_write(up: Up, checkout: Checkout) -> None:
    good = checkout.commit(counter("good"))
    files = counter("x")
    bad = checkout.commit({**files, "app.py": SELF_MADE + files["app.py"]})
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get(bad)).status == 502
    failure = (await server.inspect(bad))["failure"]
    assert "$DATA_DIR" in failure["advice"]
    assert any("Read-only file system" in line for line in failure["last"])


@walled
async def test_a_build_that_misses_the_network_is_told_how_to_have_it(up: Up, checkout: Checkout) -> None:
    good = checkout.commit(counter("good"))
    script = "import urllib.request as u; u.urlopen('http://example.com')"
    bad = checkout.commit({"lazycloud.toml": f'[build]\ncommand = "python -c \\"{script}\\""\n'})
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get(bad)).status == 502
    assert "`network = true` under [build]" in (await server.inspect(bad))["failure"]["advice"]


@walled
async def test_a_build_with_a_network_reaches_no_worker_and_takes_no_visitor(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    if why := missing(Groups(server.home)):
        pytest.skip(f"no wall between ports: {why}")
    assert (await server.get()).json["name"] == "good"
    (row,) = await server.api("ps")
    worker = int(row["listens"].rpartition(":")[2])
    assert row["listens"].startswith("127.0.0.1:")
    build = "[build]\nnetwork = true\ncommand = 'python steal.py'\n"
    steal = STEALING.format(worker=worker, server=server.port)
    bad = checkout.commit(counter("bad", **{"steal.py": steal, "lazycloud.toml": build}))
    assert (await server.get(bad)).json["name"] == "bad"
    said = server.cli("logs", bad, folder=checkout.path)
    assert "worker: Operation not permitted" in said
    assert "server: Operation not permitted" in said
    assert not list(Groups(server.home).unified.glob("build-*"))


@walled
async def test_what_uv_cannot_link_out_of_its_cache_it_copies_without_a_word(
    up: Up, checkout: Checkout
) -> None:
    with zipfile.ZipFile(checkout.path / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing.py", "NAME = 'thing'\n")
        wheel.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        wheel.writestr(
            "thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("thing-1.dist-info/RECORD", "")
    app = counter("x")["app.py"].replace('NAME = "x"\n', "from thing import NAME\n")
    checkout.commit({"app.py": app, "requirements.txt": "./thing-1-py3-none-any.whl\n"})
    server = up(checkout.path, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get()).json["name"] == "thing"
    said = server.cli("logs", "production", folder=checkout.path)
    assert "+ thing==1" in said
    assert "warning" not in said


@walled
async def test_daemons_of_an_app_end_with_it(up: Up, checkout: Checkout) -> None:
    daemon = "import subprocess\nsubprocess.Popen(['setsid', '-f', 'sleep', '987'])\n"
    files = counter("x")
    checkout.commit({**files, "app.py": daemon + files["app.py"]})
    server = up(checkout.path, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get()).status == 200

    def daemons() -> list[psutil.Process]:
        return [one for one in server.workers() if "987" in one.cmdline()]

    server.wait(daemons, "daemon")

    def worker() -> int | None:
        """None while there is none."""
        processes = server.json("ps", folder=checkout.path)[0]["processes"]
        return processes[0]["pid"] if processes else None

    before = worker()
    app = next(one for one in server.workers() if "app.py" in one.cmdline())
    app.kill()
    server.wait(lambda: worker() not in (None, before), "new worker")
    server.wait(lambda: len(daemons()) == 1, "end of the daemon of the first")


async def test_without_walls_a_public_address_warns(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--listen", "0.0.0.0:0", LAZYCLOUD_ISOLATION="none")
    assert "WARNING: APPS AND BUILDS HAVE NO WALLS" in server.output
    assert "LAZYCLOUD_ISOLATION" in server.output  # what says so here
    server.stop()
    quiet = up(checkout.path, home=server.home, LAZYCLOUD_ISOLATION="none")
    assert "WALLS" not in quiet.output
