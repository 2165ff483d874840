"""Who comes first, and who is passed by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, Server


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


async def test_who_is_waited_for_comes_before_warmers_and_old_ones_of_a_branch_are_passed_by(
    up: Up, checkout: Checkout, gates: Gates
) -> None:
    checkout.commit(counter("production"))
    server = up(checkout.path, "--builds", "1")
    assert await server.named("production")
    checkout.git("checkout", "-q", "-b", "elsewhere")
    busy, *warm = (gates.commit(name, "build") for name in ("busy", "old", "middle", "new"))
    opened, person = gates.commit("opened", "build"), gates.commit("person")
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
