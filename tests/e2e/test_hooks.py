"""`git commit` tells where the commit lives, and what the app wants done about it is done."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server


def commit_aloud(checkout: Checkout, name: str, **files: str) -> tuple[str, str]:
    """Commit as a person does; the id, and what git and the hook said."""
    for path, text in counter(name, **files).items():
        (checkout.path / path).write_text(text)
    checkout.git("add", "-A")
    said = checkout.aloud("commit", "-m", name)
    for _ in range(20):
        if "did not answer within" not in said:  # a commit waits no longer, however busy the machine is
            break
        said = checkout.aloud("commit", "--amend", "--date=now", "-m", name)
    return checkout.git("rev-parse", "HEAD"), said


async def is_in(server: Server, commit: str, state: str) -> bool:
    return server.json("inspect", commit, "--app", "shop")["state"] == state


async def test_git_commit_prints_the_new_address_and_it_works(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("first"))
    server = up(checkout.path)
    server.cli("hook", "install", folder=checkout.path)
    commit, said = commit_aloud(checkout, "second")
    assert f"http://{commit[:10]}.localhost:{server.port}/" in said
    assert (await server.get(commit[:10])).json["name"] == "second"
    server.stop()
    _, said = commit_aloud(checkout, "third")
    assert "not running" in said


@pytest.mark.parametrize(("action", "state"), [("build", "stopped"), ("start", "ready")])
async def test_an_app_says_what_is_done_on_a_commit(
    up: Up, checkout: Checkout, action: str, state: str
) -> None:
    checkout.commit(counter("first"))
    server = up(checkout.path)
    server.cli("hook", "install", folder=checkout.path)
    commit, _ = commit_aloud(checkout, "second", **{"lazycloud.toml": f'on_commit = "{action}"\n'})
    await server.until(partial(is_in, server, commit, state))
    steps = {step["name"]: step["state"] for step in server.json("inspect", commit, "--app", "shop")["steps"]}
    assert steps["source"] == "done"
    assert steps["start"] == ("waiting" if action == "build" else "done")
    assert (await server.get(commit)).json["name"] == "second"


async def test_a_push_to_a_bare_repository_prints_the_address_and_is_followed(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("first"))
    bare = tmp_path / "shop.git"
    checkout.git("clone", "-q", "--bare", str(checkout.path), str(bare))
    checkout.git("remote", "add", "origin", str(bare))
    server = up(f"shop={bare}", "--follow", "main")
    server.cli("hook", "install", str(bare))
    second = checkout.commit(counter("second"))
    said = checkout.aloud("push", "origin", "main")
    assert f"http://{second[:10]}.localhost:{server.port}/" in said
    await server.until(partial(server.named, "second"))


async def test_a_clone_announces_for_its_origin_and_a_repository_that_is_not_served_is_told_so(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("first"))
    bare, clone, other = tmp_path / "shop.git", Checkout(tmp_path / "clone"), Checkout(tmp_path / "other")
    checkout.git("clone", "-q", "--bare", str(checkout.path), str(bare))
    server = up(f"shop=file://{bare}")
    clone.git("remote", "add", "origin", f"file://{tmp_path}/shop")
    for repository in (clone, other):
        server.cli("hook", "install", folder=repository.path)
    _, said = commit_aloud(other, "elsewhere")
    assert "lazycloud: This repository is not served. `lazycloud up` does that." in said
    commit, said = commit_aloud(clone, "not pushed yet")
    assert f"lazycloud: There is no commit, branch or tag '{commit}'" in said


async def test_an_annotated_tag_is_announced_as_its_commit(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    first, bare = checkout.commit(counter("first")), tmp_path / "shop.git"
    checkout.git("clone", "-q", "--bare", str(checkout.path), str(bare))
    checkout.git("remote", "add", "origin", str(bare))
    server = up(f"shop={bare}")
    server.cli("hook", "install", str(bare))
    checkout.git("tag", "-a", "v1", "-m", "one")
    assert f"→ http://{first[:10]}.localhost:{server.port}/" in checkout.aloud("push", "origin", "v1")


async def test_a_clone_url_is_served_and_its_new_commits_are_fetched_when_asked_for(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("first"))
    server = up(f"shop=file://{checkout.path}")
    assert (await server.get()).json["name"] == "first"
    second = checkout.commit(counter("second"))
    assert (await server.get(second)).json["name"] == "second"
