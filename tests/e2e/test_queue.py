"""Who comes first, who is passed by, and what can be called off."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, UNWALLED, Server


class Gates:
    """Commits whose build goes on when the test says so."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._folder = checkout.path.parent / "gates"
        self._folder.mkdir()

    def commit(self, name: str, on_commit: str = "announce") -> str:
        waits = f"echo building {name}; until [ -e {self._folder / name} ]; do sleep 0.05; done"
        settings = f'on_commit = "{on_commit}"\n[build]\ncommand = "{waits}"\n'
        return self._checkout.commit(counter(name, **{"lazycloud.toml": settings}), name)

    def open(self, *names: str) -> None:
        for name in names:
            (self._folder / name).touch()


@pytest.fixture
def gates(checkout: Checkout) -> Gates:
    return Gates(checkout)


async def tell(server: Server, commit: str, ref: str = "refs/heads/main") -> None:
    """What a hook says."""
    headers = {"Authorization": server.authorization}
    news = {"commit": commit, "ref": ref}
    await server.request("POST", "lazycloud", "/api/apps/shop/announce", headers, json=news)


async def states(server: Server, *commits: str) -> list[str]:
    return [(await server.inspect(commit))["state"] for commit in commits]


async def changes(server: Server, commit: str, after: str) -> list[dict[str, Any]]:
    """What was told of a commit's coming into a state, on whatever data."""
    told = await server.get("lazycloud", "/api/events", Authorization=server.authorization)
    facts = [json.loads(line) for line in told.text.splitlines()]
    moves = [fact for fact in facts if fact["kind"] == "state_changed"]
    return [fact for fact in moves if fact["commit"] == commit and fact["after"] == after]


async def places(server: Server, *commits: str) -> list[int]:
    return [(await changes(server, commit, "queued"))[-1]["ahead"] for commit in commits]


async def ended(verb: subprocess.Popen[str]) -> int:
    return await asyncio.to_thread(verb.wait, PATIENCE)


async def test_who_is_waited_for_comes_before_warmers_and_old_ones_of_a_branch_are_passed_by(
    up: Up, checkout: Checkout, gates: Gates
) -> None:
    production = checkout.commit(counter("production"))
    busy, *warm = (gates.commit(name, "build") for name in ("busy", "old", "middle", "new"))
    opened, person = gates.commit("opened", "build"), gates.commit("person")
    # All are there before the server is: of what comes while it looks it would warm the newest by itself.
    server = up(checkout.path, "--builds", "1", "--production", production, **UNWALLED)
    assert await server.named("production")
    await server.get(busy, **BROWSER)
    await server.reaches(busy, "building")
    for commit in warm:
        await tell(server, commit, "refs/heads/topic")
    assert await states(server, *warm) == ["cold", "cold", "queued"]
    await tell(server, opened, "refs/heads/other")
    await server.get(person, **BROWSER)
    assert await places(server, person, warm[-1], opened) == [0, 1, 2]
    await server.get(opened, **BROWSER)
    assert await places(server, opened, person, warm[-1]) == [0, 1, 2]
    gates.open("busy", "opened", "person")
    await server.reaches(opened, "ready")  # it was only to be built, and then somebody came
    await server.reaches(person, "ready")
    gates.open("new")
    await server.reaches(warm[-1], "stopped")
    assert await states(server, *warm[:-1]) == ["cold", "cold"]


async def test_a_cancelled_deploy_says_by_whom_and_waits_to_be_asked_again(
    up: Up, checkout: Checkout, gates: Gates
) -> None:
    production = checkout.commit(counter("production"))
    server = up(checkout.path, "--builds", "1", "--production", production, **UNWALLED)
    busy, queued = gates.commit("busy"), gates.commit("queued")
    await server.get(busy, **BROWSER)
    await server.reaches(busy, "building")
    with server.going_on("deploy", queued, folder=checkout.path) as deploy:
        await server.reaches(queued, "queued")
        assert await server.verb("cancel", queued, folder=checkout.path) == f"Cancelled {queued[:10]}.\n"
        assert await ended(deploy) == 1
    assert await states(server, busy, queued) == ["building", "failed"]
    await server.verb("cancel", busy, folder=checkout.path)
    seen = await server.inspect(busy)
    failure = seen["failure"]
    assert failure["sentence"] == f"The deploy was cancelled by {failure['cancelled_by']}."
    page = await server.get(busy, **BROWSER)
    assert page.status == 502
    assert "Cancelled" in page.text and failure["sentence"] in page.text
    assert (await server.inspect(busy))["attempt"] == 1
    said = await server.verb("cancel", busy, folder=checkout.path, code=1)
    assert f"{busy[:10]} is not being deployed: there is nothing to cancel." in said
    gates.open("busy")
    await server.post(busy, "", "/.well-known/lazycloud/retry")
    await server.reaches(busy, "ready")


async def test_a_deploy_that_shares_a_build_with_a_cancelled_one_goes_on(
    up: Up, checkout: Checkout, gates: Gates
) -> None:
    production = checkout.commit(counter("production"))
    server = up(checkout.path, "--builds", "2", "--production", production, **UNWALLED)
    one = gates.commit("same")
    two = checkout.commit({}, "the same files")
    for commit in (one, two):
        await server.get(commit, **BROWSER)

    async def both_build() -> bool:
        logs = [await server.get(commit, "/.well-known/lazycloud/log") for commit in (one, two)]
        return all("building same" in log.text for log in logs)

    await server.until(both_build)
    await server.post(one, "", "/.well-known/lazycloud/cancel")
    assert await states(server, one, two) == ["failed", "building"]
    gates.open("same")
    await server.reaches(two, "ready")


async def test_a_cancelled_promote_leaves_production_as_it_was(
    up: Up, checkout: Checkout, gates: Gates
) -> None:
    production = checkout.commit(counter("before"))
    server = up(checkout.path, "--production", production, **UNWALLED)
    assert await server.named("before")
    after = gates.commit("after")

    async def builds() -> bool:
        return bool(await changes(server, after, "building"))

    with server.going_on("promote", after, folder=checkout.path) as promote:
        await server.until(builds)
        await server.verb("cancel", after, folder=checkout.path)
        assert await ended(promote) == 1
    assert await server.named("before")
    assert "did not become production of shop: It was cancelled by" in server.output
    said = await server.verb("cancel", production, folder=checkout.path, code=1)
    assert "there is nothing to cancel" in said
    gates.open("after")
    await server.verb("promote", after, folder=checkout.path)
    assert await server.named("after")


async def test_a_migration_can_be_cancelled_in_its_rehearsal_and_on_its_fork(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    production = checkout.commit(counter("before"))
    server = up(checkout.path, "--production", production, **UNWALLED)
    assert await server.named("before")
    at, go = tmp_path / "at", tmp_path / "go"
    migrates = f"touch {at}-$LAZYCLOUD_VERSION; until [ -e {go}-$LAZYCLOUD_VERSION ]; do sleep 0.05; done"
    after = checkout.commit(counter("after", Procfile=f"web: python app.py\nrelease: {migrates}\n"))

    async def comes_to(version: str) -> None:
        there = Path(f"{at}-{version}")
        await asyncio.to_thread(server.wait, there.exists, f"release command on {version}")

    with server.going_on("promote", after, folder=checkout.path) as promote:
        await comes_to(f"rehearsal-{after}")
        await server.verb("cancel", after, folder=checkout.path)
        assert await ended(promote) == 1
    assert not (server.home / f"apps/shop/data/rehearsal-{after}").exists()
    Path(f"{go}-rehearsal-{after}").touch()
    with server.going_on("promote", after, folder=checkout.path) as promote:
        await comes_to("production")
        await server.verb("cancel", after, folder=checkout.path)
        assert await ended(promote) == 1
    assert await server.named("before")
    assert not list(server.home.glob("apps/shop/data/migration-*"))
    Path(f"{go}-production").touch()
    await server.verb("promote", after, folder=checkout.path)
    assert await server.named("after")
