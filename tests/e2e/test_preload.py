"""Commits of a Python app in a whole server: the first one teaches, those after it start preloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path / "shop")
    checkout.commit(counter("first"), "first")
    return checkout


@pytest.fixture
def server(tmp_path: Path, checkout: Checkout) -> Iterator[Server]:
    server = Server(tmp_path / "home", f"shop={checkout.path}").start()
    yield server
    server.stop()
    assert not server.workers(), server.output
    assert not parents(server)


def parents(server: Server) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line[:1] == ["lazycloud: preloaded"] and str(server.home) in line[1]:
            found.append(process)
    return found


async def running(server: Server, commit: str) -> dict[str, Any]:
    """The worker of a commit on data of its own."""
    rows = [row for row in await server.api("ps") if row["commit"]["id"] == row["version"] == commit]
    return dict(rows[0])


async def test_a_commit_starts_preloaded_once_another_has_run_and_outlives_control(
    server: Server, checkout: Checkout
) -> None:
    first = checkout.git("rev-parse", "HEAD")
    assert await server.named("first", first)
    assert not (await running(server, first))["preloaded"]
    environments = server.home / "apps" / "shop" / "environments"
    await asyncio.to_thread(server.wait, lambda: [*environments.glob("*/preload/verdicts/*.json")], "verdict")

    second = await opened_preloaded(server, checkout, {"app.py": counter("second")["app.py"]})
    answer = (await server.get(second)).json
    assert answer["name"] == "second"
    assert answer["environment"]["COMMIT_ID"] == second
    assert "modules had been imported ahead" in await server.verb("logs", second, "--app", "shop")
    assert ", preloaded" in await server.verb("inspect", second, "--app", "shop")

    plain = checkout.commit({"lazycloud.toml": "[run]\npreload = false\n"}, "plainly")
    assert await server.named("second", plain)
    assert not (await running(server, plain))["preloaded"]
    assert "preload" not in await server.verb("logs", plain, "--app", "shop")

    pid = (await running(server, second))["pid"]
    server.children()["control"].kill()
    await server.until(lambda: answers(server))
    assert (await running(server, second))["pid"] == pid
    assert (await running(server, second))["preloaded"]  # as the next control knows from its store
    psutil.Process(pid).kill()  # it is nobody's child now but the server's own process', which reaps it
    await asyncio.to_thread(server.wait, lambda: not psutil.pid_exists(pid), "reaping")


async def test_a_site_of_files_is_served_by_forks_of_a_python_of_ours(tmp_path: Path) -> None:
    site = Checkout(tmp_path / "site")
    one = site.commit({"index.html": "<h1>one</h1>"})
    server = Server(tmp_path / "home", f"site={site.path}").start()
    try:
        assert (await server.get(one)).text == "<h1>one</h1>"
        memory = server.home / "apps" / "site" / "static" / "preload"
        await asyncio.to_thread(server.wait, lambda: [*memory.glob("verdicts/*.json")], "verdict")
        two = await opened_preloaded(server, site, {"index.html": "<h1>two</h1>"})
        assert (await server.get(two)).text == "<h1>two</h1>"
    finally:
        server.stop()


async def test_sites_of_two_apps_share_a_python_and_each_is_served(tmp_path: Path) -> None:
    sites = [Checkout(tmp_path / name) for name in ("one", "two")]
    for site in sites:
        site.commit({"index.html": f"<h1>{site.path.name}</h1>"})
    server = Server(tmp_path / "home", *(site.path for site in sites)).start()
    try:
        assert (await server.get()).text == "<h1>one</h1>"
        assert (await server.get("two")).text == "<h1>two</h1>"
        assert len(parents(server)) <= 1
        assert "failed" not in server.output
    finally:
        server.stop()


async def opened_preloaded(server: Server, checkout: Checkout, files: dict[str, str]) -> str:
    """A commit of these that started preloaded. On a machine that is too busy to fork at once it starts plainly."""
    for attempt in range(20):
        commit = checkout.commit(files | {"attempt": str(attempt)})
        assert (await server.get(commit)).status == 200
        if (await running(server, commit))["preloaded"]:
            return commit
    raise AssertionError(server.output)


async def answers(server: Server) -> bool:
    """Whether control is there again."""
    answer = await server.get("lazycloud", "/api/ps", Authorization=server.authorization)
    return answer.status == 200
