"""A forge says what moved: a real server, a real remote, and requests as forges and as strangers send them."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lazycloud.control.webhooks import WRONG, WRONG_SECONDS
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Answer, Server
from tests.e2e.test_security import CONTROL

pytestmark = pytest.mark.slow

_numbers = itertools.count()


class Forge:
    """A bare repository, and what its host says of it."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout = checkout
        self.path = folder / "forge/shop.git"
        self.url = f"file://{self.path}"
        checkout.git("clone", "-q", "--bare", ".", str(self.path))
        checkout.git("remote", "add", "forge", str(self.path))
        self.server: Server | None = None
        self.secret = ""

    def push(self, to: str) -> None:
        self.checkout.git("push", "-q", "forge", f"+HEAD:{to}")

    def hook(self, server: Server, *flags: str) -> None:
        self.server = server
        self.secret = server.json("webhook", "shop", *flags)["secret"]

    async def say(self, event: str, said: dict[str, Any] | None = None, **headers: str) -> Answer:
        """As GitHub does."""
        body = json.dumps(said if said is not None else {"n": next(_numbers)})
        headers = {"X_GitHub_Event": event, "X_GitHub_Delivery": f"id-{next(_numbers)}"} | headers
        headers.setdefault("X_Hub_Signature_256", self.signature(body))
        return await self.post(body, **headers)

    async def post(self, body: str, path: str = "/hooks/shop", **headers: str) -> Answer:
        assert self.server
        return await self.server.post(CONTROL, body, path, **headers)

    def signature(self, body: str) -> str:
        return "sha256=" + hmac.new(self.secret.encode(), body.encode(), "sha256").hexdigest()

    def pull(self, commit: str, owner: str = "mallory", action: str = "opened") -> dict[str, Any]:
        return {
            "action": action,
            "number": 7,
            "pull_request": {
                "title": "Paint it blue",
                "html_url": "https://forge.example/shop/pull/7",
                "user": {"login": owner},
                "state": "closed" if action == "closed" else "open",
                "head": {"sha": commit, "repo": {"full_name": f"{owner}/shop"}},
                "base": {"repo": {"full_name": "ada/shop"}},
            },
        }


@pytest.fixture
def forge(checkout: Checkout, tmp_path: Path) -> Forge:
    checkout.commit(counter("first"))
    (tmp_path / "forge").mkdir()
    return Forge(checkout, tmp_path)


@pytest.fixture
def server(up: Up, forge: Forge, tmp_path: Path) -> Server:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("fetch_every = 3600\n")  # so that only webhooks fetch
    server = up(f"shop={forge.url}")
    forge.hook(server)
    return server


async def events(server: Server, kind: str) -> list[dict[str, Any]]:
    answer = await server.get(CONTROL, "/api/events", Authorization=server.authorization)
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    return [line for line in lines if line["kind"] == kind]


async def test_a_push_is_fetched_and_announced_at_once(server: Server, forge: Forge) -> None:
    assert (await forge.say("ping")).json["action"] == "pong"
    commit = forge.checkout.commit(counter("second"))
    forge.push("refs/heads/feature")
    answer = await forge.say("push")
    assert (answer.status, answer.json["action"]) == (202, "fetch")
    await server.told(f"feature is now at {commit[:10]}")
    assert (await server.get("feature")).json["name"] == "second"
    forge.checkout.git("push", "-q", "forge", ":refs/heads/feature")
    assert (await forge.say("delete")).status == 202

    async def gone() -> bool:
        return (await server.get("feature")).status == 404

    await server.until(gone)
    assert (await forge.say("star")).json["action"] == "ignored"
    forge.path.rename(forge.path.with_name("away"))
    assert (await forge.say("push")).status == 202
    await server.told("shop could not be fetched")


async def test_who_does_not_have_the_secret_is_not_heard(server: Server, forge: Forge) -> None:
    signature = forge.signature("{}")
    say = {"X_GitHub_Event": "push"}
    for headers in (
        {},
        {"X_Hub_Signature_256": forge.signature("{} ")},
        {"X_Hub_Signature_256": "sha256="},
        {"X_Hub_Signature_256": ""},
        {"X_Gitlab_Token": "guess"},
    ):
        assert (await forge.post("{}", **say, **headers)).status == 401, headers
    assert (await forge.post("{}", "/hooks/blog", X_Hub_Signature_256=signature, **say)).status == 404
    assert (await forge.post("{}", X_Hub_Signature_256=signature, **say)).status == 202
    gitlab = {"X_Gitlab_Event": "Push Hook", "X_Gitlab_Token": forge.secret}
    assert (await forge.post('{"by": "gitlab"}', **gitlab)).status == 202
    old = forge.secret
    forge.hook(server, "--rotate")
    assert forge.secret != old
    assert (await forge.say("push", X_Hub_Signature_256=signature)).status == 401
    for path in server.home.glob("state.sqlite*"):
        assert forge.secret.encode() not in path.read_bytes()
    began, wrong = time.monotonic(), 0
    while (await forge.post("{}", **say)).status == 401:
        wrong += 1
        assert wrong <= WRONG + 1 + (time.monotonic() - began) * WRONG / WRONG_SECONDS


async def test_what_was_heard_before_is_refused_also_after_a_restart(
    up: Up, server: Server, forge: Forge
) -> None:
    said = {"ref": "refs/heads/main", "after": "c" * 40}
    first = await forge.say("push", said, X_GitHub_Delivery="one")
    assert first.status == 202
    assert (await forge.say("push", {"another": 1}, X_GitHub_Delivery="one")).status == 409
    assert (await forge.say("push", said, X_GitHub_Delivery="two")).status == 409  # the id is not signed
    at_a_time = [forge.say("push", {"at": "a time"}, X_GitHub_Delivery="three") for _ in range(5)]
    assert sorted(answer.status for answer in await asyncio.gather(*at_a_time)) == [202] + [409] * 4
    server.stop()
    forge.server = up(home=server.home)
    assert (await forge.say("push", said, X_GitHub_Delivery="two")).status == 409
    assert len(await events(forge.server, "webhook_received")) == 2


async def test_what_is_no_webhook_costs_little(server: Server, forge: Forge) -> None:
    large = "x" * (5 << 20) + "x"
    assert (await forge.post(large, X_GitHub_Event="push")).status == 401  # its body is not read
    signed = forge.signature(large)
    assert (await forge.post(large, X_GitHub_Event="push", X_Hub_Signature_256=signed)).status == 413
    odd = forge.signature("[]")
    assert (await forge.post("[]", X_GitHub_Event="pull_request", X_Hub_Signature_256=odd)).status == 422
    assert (await forge.post("[]", X_Hub_Signature_256=odd)).status == 422
    assert (await server.get(CONTROL, "/hooks/shop")).status == 405


async def test_a_forks_pull_request_waits_until_its_commit_is_allowed(
    server: Server, forge: Forge, checkout: Checkout
) -> None:
    checkout.git("checkout", "-q", "-b", "theirs")
    before = checkout.commit(counter("before"))
    theirs = checkout.commit(counter("theirs"))
    forge.push("refs/pull/7/head")
    answer = await forge.say("pull_request", forge.pull(theirs))
    assert (answer.status, answer.json["action"]) == (202, "waits")
    await server.told("Pull request 7 “Paint it blue” by mallory waits")
    assert (await server.get(theirs[:10])).status == 404
    assert "waits" in await server.verb("allow", "shop")
    (shown,) = (await server.api("overview"))["apps"]
    assert [(pull["number"], pull["waits"]) for pull in shown["pulls"]] == [(7, True)]
    assert shown["previews"] == "public"
    assert "COMMIT" in await server.verb("allow", "shop", "7", code=2)

    later = checkout.commit(counter("later"))
    forge.push("refs/pull/7/head")
    assert "whole id" in await server.verb("allow", "shop", "7", theirs[:39], code=2)
    moved = await server.verb("allow", "shop", "7", theirs, code=1)
    assert later[:10] in moved  # nobody has looked at that one yet
    assert (await server.get(theirs[:10])).status == (await server.get(later[:10])).status == 404

    assert (await forge.say("pull_request", forge.pull(later, action="synchronize"))).status == 202
    said = await server.verb("allow", "shop", "7", later)
    assert f"{later[:10]}.localhost" in said
    assert (await server.get(later[:10])).json["name"] == "later"
    for hidden in (before, theirs):
        assert (await server.get(hidden[:10])).status == 404
    (allowed,) = await events(server, "pull_allowed")
    assert allowed["commit"] == later

    newest = checkout.commit(counter("newest"))
    forge.push("refs/pull/7/head")
    assert (await forge.say("pull_request", forge.pull(newest, action="synchronize"))).status == 202
    assert (await server.get(newest[:10])).status == 404
    assert (await server.get(later[:10])).json["name"] == "later"
    assert (await forge.say("pull_request", forge.pull(newest, action="closed"))).status == 202
    assert server.json("allow", "shop") == []
    assert "No fork has told" in server.cli("allow", "shop")


async def test_a_pull_request_of_the_repository_itself_is_a_push(
    server: Server, forge: Forge, checkout: Checkout
) -> None:
    commit = checkout.commit(counter("own"))
    forge.push("refs/heads/own")
    answer = await forge.say("pull_request", forge.pull(commit, owner="ada"))
    assert answer.json["action"] == "fetch"
    await server.told(f"own is now at {commit[:10]}")


async def test_an_app_of_a_folder_needs_no_webhook_and_says_so(up: Up, checkout: Checkout) -> None:
    commit = checkout.commit(counter("one"))
    server = up(checkout.path)
    assert "seen without it" in server.cli("webhook", "shop")
    forge = Forge.__new__(Forge)
    forge.hook(server)
    answer = await forge.say("push")
    assert (answer.status, answer.json["action"]) == (200, "nothing")
    assert "Fetch the pull request there" in server.cli("allow", "shop", "7", commit, code=2)
