"""Ctrl-C leaves nothing, SIGKILL of anything loses nothing, and a restart knows what was."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server


async def test_ctrl_c_leaves_no_process_socket_or_temporary_file(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    server = up(checkout.path)
    await server.get()
    await server.get(first)
    assert len(server.workers()) >= 2
    family = psutil.Process(server.process.pid).children(recursive=True)
    server.stop()
    assert server.process.returncode == 0
    _, left = psutil.wait_procs(family, PATIENCE)
    assert left == []
    left = [
        path
        for path in server.home.rglob("*")
        if path.is_socket() or path.name.startswith((".making", "trash"))
    ]
    assert left == []
    assert not (server.home / "run").exists()
    assert not list(server.home.glob("scratch/*"))


async def test_started_again_it_knows_its_apps_production_history_and_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path)
    await server.post("", "production's")
    await server.post(first, "first's")
    server.cli("promote", first, "-m", "going back", folder=checkout.path)
    server.stop()
    again = up(home=server.home)
    assert (await again.get()).json["name"] == "first"
    assert (await again.get()).json["notes"] == ["production's"]
    assert (await again.get(first)).json["notes"] == ["production's", "first's"]
    assert [row["commit"]["id"] for row in again.json("releases", "--app", "shop")] == [first, second]


async def test_workers_go_on_serving_when_control_is_killed_and_are_found_again(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    server = up(checkout.path)
    production, preview = (await server.get()).json["born"], (await server.get(first)).json["born"]
    known = {row["pid"] for row in ps(server)}
    control = server.children()["control"]
    control.send_signal(signal.SIGSTOP)
    assert (await server.get()).json["born"] == production
    assert (await server.get(first)).json["born"] == preview
    control.kill()
    assert (await server.get(first)).json["born"] == preview
    server.wait(lambda: server.children().get("control") not in (None, control), "new control")
    server.wait(lambda: {row["pid"] for row in ps(server)} == known, "adopted workers")
    assert (await server.get(first)).json["born"] == preview
    assert (await server.get()).json["born"] == production


def ps(server: Server) -> list[dict]:
    """None while control is away."""
    said = server.cli("ps", "--json", code=None)
    return json.loads(said) if said.startswith("[") else []


@pytest.mark.slow
async def test_a_router_that_hangs_for_good_is_replaced(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--routers", "1")
    await server.get()
    router = server.children()["router"]
    router.send_signal(signal.SIGSTOP)
    assert (await server.get()).status == 200  # it waited in the backlog for the next router
    assert server.children()["router"].pid != router.pid
    assert "router 1 hangs: it has not moved for 20 s." in server.output


IMPATIENT = """
import os, signal, sys

if "up" in sys.orig_argv:
    from lazycloud import server

    server.FIRST_SILENCE = server.ROUTER_SILENCE = 6
for name in ("control", "router"):
    if f"lazycloud.{name}" in sys.orig_argv and os.path.exists(flag := f"{os.path.dirname(__file__)}/{name}"):
        os.unlink(flag)
        os.kill(os.getpid(), signal.SIGSTOP)
"""
"""Python's `sitecustomize` of a server that waits 6 s for a beat of a router, or a first one. Its next control stops
as it starts if there is a file of that name beside, and so does its next router."""


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """A folder with it, for PYTHONPATH."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    return folder


@pytest.mark.slow
async def test_a_router_and_a_control_that_hang_as_they_start_are_replaced(
    up: Up, checkout: Checkout, impatient: Path
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--routers", "1", PYTHONPATH=str(impatient))
    await server.get()
    before = server.children()
    for name, child in before.items():
        (impatient / name).touch()
        child.kill()
    assert (await server.get("lazycloud")).status < 500  # it waited for both
    after = server.children()
    assert after.keys() == before.keys() == {"control", "router"}
    assert "router 1 hangs: it has not moved in its first 6 s." in server.output
    assert "control hangs: it has not moved in its first 6 s." in server.output


@pytest.mark.slow
async def test_an_old_router_that_hangs_while_it_leaves_is_ended(
    up: Up, checkout: Checkout, impatient: Path
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--routers", "1", PYTHONPATH=str(impatient))
    await server.get()
    old = server.children()["router"]
    old.send_signal(signal.SIGSTOP)
    await server.verb("upgrade")
    assert old.is_running()
    assert (await server.get()).status == 200
    await server.told("the old router 1 hangs: it has not moved for 6 s.")
    psutil.wait_procs([old], PATIENCE)
    assert not old.is_running()
    assert old not in server.routers()
    assert len(server.routers()) == 1


async def test_a_router_that_is_killed_is_started_again_also_when_the_terminal_is_gone(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    for leaves in (lambda: None, server.hang_up):
        leaves()
        router = server.children()["router"]
        router.kill()
        assert (await server.get()).status == 200  # the listening socket stayed: this waited in its backlog
        assert server.children()["router"].pid != router.pid


async def test_workers_outlive_a_parent_that_is_killed_and_the_next_server_finds_them(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    born, (pid,) = (await server.get()).json["born"], [row["pid"] for row in ps(server)]
    children = server.children().values()
    server.process.kill()
    server.process.wait()
    psutil.wait_procs(children, timeout=PATIENCE)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert psutil.pid_exists(pid)
    again = up(home=server.home)
    assert (await again.get()).json["born"] == born
    assert [row["pid"] for row in ps(again)] == [pid]


async def test_a_port_in_use_is_said_with_what_to_do(
    shared: Server, shared_checkout: Checkout, tmp_path: Path
) -> None:
    server = shared
    said = server.cli(
        "up",
        str(shared_checkout.path),
        "--listen",
        f"localhost:{server.port}",
        "--home",
        str(tmp_path / "other"),
        code=1,
    )
    assert f"Port {server.port} of 127.0.0.1 is in use.\nGive another: --listen" in said
