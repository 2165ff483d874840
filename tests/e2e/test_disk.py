"""The disk is kept within its bounds: what goes, what stays, and what a full disk does to a deploy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import UNWALLED, Server

MB = 1_000_000


def sized(name: str, megabytes: float) -> dict[str, str]:
    """Commits of one name share the file."""
    size = int(megabytes * MB)
    return counter(name, **{"big.txt": (name * size)[:size]})


def releases(home: Path) -> set[str]:
    return {path.parent.name for path in home.glob("apps/shop/releases/*/release.json")}


async def release(server: Server, commit: str) -> str:
    return (await server.inspect(commit))["release"]


async def built(server: Server, *commits: str) -> list[str]:
    """Start each, stop it, and say what it was built as."""
    keys = []
    for commit in commits:
        assert (await server.get(commit)).status == 200
        await server.verb("stop", "--app", "shop", commit)
        keys.append(await release(server, commit))
    return keys


async def test_prune_removes_what_nobody_claims_and_it_is_built_again_with_its_data(
    up: Up, checkout: Checkout
) -> None:
    names = ("old", "pinned", "branch", "live", "head")
    old, pinned, branch, live, _ = (checkout.commit(sized(name, 1), name) for name in names)
    checkout.git("branch", "feature", branch)
    server = up(checkout.path)
    home = server.home
    gone, kept_by_pin, kept_by_branch = await built(server, old, pinned, branch)
    assert (await server.get(live)).status == 200
    await server.post(old, "a note")
    await server.verb("stop", "--app", "shop", old)
    assert "is pinned" in server.cli("pin", pinned, folder=checkout.path)
    assert "pinned" in server.cli("ls", folder=checkout.path)
    assert server.json("inspect", pinned, folder=checkout.path)["pinned"]["who"]
    before = releases(home)
    would = server.json("prune", "--dry-run", "--all")
    assert [item["key"] for item in would["removed"]] == [gone]
    assert releases(home) == before
    shown = server.cli("disk")
    for words in ("production, newest of main, runs", "newest of feature", "pinned", "can go", "data"):
        assert words in shown
    said = server.cli("prune", "--all")
    assert old[:10] in said
    assert "1.0 MB came free" in said
    assert releases(home) == before - {gone}
    assert {kept_by_pin, kept_by_branch, await release(server, live)} < releases(home)
    assert (await server.get(old)).json["notes"] == ["a note"]
    assert (await server.get()).json["name"] == "head"
    assert "no longer pinned" in server.cli("unpin", pinned[:10], folder=checkout.path)
    await server.verb("stop", "--app", "shop", old)
    assert {item["key"] for item in server.json("prune", "--all")["removed"]} == {gone, kept_by_pin}


async def test_over_the_limit_the_largest_and_longest_unused_goes_by_itself(
    up: Up, checkout: Checkout
) -> None:
    home = checkout.path.parent / "home"
    home.mkdir()
    (home / "config.toml").write_text('[disk]\nlimit = "11.5 MB"\nreserve = 0\nkeep = 0\n')
    first, second, third, _ = (
        checkout.commit(sized(name, 4 if name == "one" else 3), name)
        for name in ("one", "two", "three", "head")
    )
    server = up(checkout.path)
    oldest, newer = await built(server, first, second)
    assert {oldest, newer} <= releases(home)
    (newest,) = await built(server, third)
    await server.told("of the disk came free")
    assert {newer, newest} & releases(home)
    assert oldest not in releases(home)
    assert "over the limit of 11.5 MB" in server.output
    assert (await server.get()).json["name"] == "head"
    assert "Nothing has to go" in server.cli("prune")


async def test_a_commit_that_the_repository_has_lost_goes_first_and_with_its_logs(
    up: Up, checkout: Checkout
) -> None:
    head = checkout.commit(counter("head"))
    lost = checkout.commit(counter("lost", **{"lazycloud.toml": '[build]\ncommand = "echo built"\n'}))
    server = up(checkout.path, "--production", head)
    (key,) = await built(server, lost)
    checkout.git("reset", "-q", "--hard", head)
    checkout.git("reflog", "expire", "--expire=all", "--all")
    checkout.git("gc", "-q", "--prune=now")
    logs = [*server.home.glob(f"apps/shop/logs/shop.{lost}.*")]
    outputs = "SELECT count(*) FROM events WHERE kind = 'output' AND deployment = ?"
    state = sqlite3.connect(server.home / "state.sqlite")
    assert logs
    assert state.execute(outputs, (f"shop.{lost}",)).fetchone() != (0,)
    gone = {item["kind"]: item["key"] for item in server.json("prune", "--all")["removed"]}
    assert gone == {"release": key, "log": f"shop.{lost}"}
    assert key not in releases(server.home)
    assert not any(log.exists() for log in logs)

    async def forgotten() -> bool:
        return state.execute(outputs, (f"shop.{lost}",)).fetchone() == (0,)

    await server.until(forgotten)
    state.close()
    assert await server.named("head")


async def test_what_is_being_deployed_or_was_adopted_stays(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    """The control that pruned did not start the worker: what it runs from is known by the state alone."""
    checkout.commit({**counter("head"), "requirements.txt": ""})
    other = checkout.commit({**counter("other"), "requirements.txt": ""})
    checkout.git("reset", "-q", "--hard", "HEAD~1")
    toml = f'[build]\ncommand = "until test -e {tmp_path}/go; do sleep 0.05; done"\n'
    slow = {**counter("slow"), "requirements.txt": "", "lazycloud.toml": toml}
    building = checkout.commit(slow)
    checkout.git("reset", "-q", "--hard", "HEAD~1")
    server = up(checkout.path, **UNWALLED)
    assert (await server.get(other)).status == 200
    before = server.workers()
    server.children()["control"].kill()
    await server.until(lambda: server.named("other", other))
    assert {worker.pid for worker in server.workers()} == {worker.pid for worker in before}
    await server.verb("deploy", "--detach", building, folder=checkout.path)
    await server.reaches(building, "building")
    environments = set((server.home / "apps/shop/environments").iterdir())
    assert environments
    removed = server.json("prune", "--all", "--cache")
    assert removed["removed"] == []
    (tmp_path / "go").touch()
    await server.reaches(building, "ready")
    assert set((server.home / "apps/shop/environments").iterdir()) >= environments
    assert await server.named("other", other)


@pytest.fixture
def disk_of() -> Iterator[Any]:
    """Make a disk of so many megabytes at a path."""
    mounted: list[Path] = []

    def mount(path: Path, megabytes: int) -> Path:
        path.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
        if subprocess.run(["mount", *options], check=False).returncode:
            pytest.skip("mounting a tmpfs needs root")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def leave_free(filler: Path, size: int) -> None:
    """Take all of its disk but so many bytes."""
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(filler.parent).free - size)


async def test_a_deploy_that_a_full_disk_stops_is_tried_once_more_when_room_could_be_made(
    up: Up, checkout: Checkout, tmp_path: Path, disk_of: Any
) -> None:
    home = disk_of(tmp_path / "disk", 40) / "home"
    home.mkdir()
    (home / "config.toml").write_text('[disk]\nlimit = "100%"\nkeep = 0\n')
    old, wanted = checkout.commit(sized("old", 16), "old"), checkout.commit(sized("wanted", 16), "wanted")
    hopeless = checkout.commit(sized("hopeless", 60), "hopeless")
    checkout.git("rm", "-q", "big.txt")
    checkout.commit(counter("head"), "head")
    server = up(checkout.path, home=home)
    await server.post("", "kept")
    (gone,) = await built(server, old)
    leave_free(home / "filler", 8 * MB)
    assert (await server.get(wanted)).json["notes"] == ["kept"]
    assert gone not in releases(home)
    assert "came free, and it is tried again" in server.cli("logs", wanted, folder=checkout.path)
    assert await server.named("head")
    answer = await server.get(hopeless)
    assert answer.status == 502
    for words in ("is full", "lazycloud disk", "lazycloud prune"):
        assert words in answer.text
    assert await release(server, wanted) in releases(home)
    assert len(releases(home)) == 2
    assert not [*home.glob("apps/shop/releases/.trash-*")]
    with sqlite3.connect(home / "state.sqlite") as state:
        assert state.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    state.close()
    (home / "filler").unlink()
    assert (await server.get(old)).json["notes"] == ["kept"]
