"""What is done with a versionbase as with the rest of an app's data: migrations, backups, what goes by itself."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import psutil
import pytest

from lazycloud import trees
from lazycloud.data.versionbase import notes as processes
from tests.e2e.backed_up import comes_back
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import PATIENCE, UNWALLED, Server
from tests.e2e.test_versionbase import APP, app, bases, notes

pytestmark = pytest.mark.slow

MIGRATE = """
import os, time
from versionbase import connect_sync
REAL = os.environ["LAZYCLOUD_VERSION"] == "production"
with connect_sync() as db:
    notes = db.collection("notes")
    for note in notes.find().to_list():
        notes.update(note.key, {"text": note["text"] + "!"})
"""
RELEASE = "[data]\nversionbase = true\n[run]\nrelease = 'python migrate.py'\n"


def migrating(name: str, then: str = "") -> dict[str, str]:
    """An app whose release command changes all documents, and does `then` at its end."""
    return app(name) | {"migrate.py": f"{MIGRATE}{then}\n", "lazycloud.toml": RELEASE}


async def test_a_migration_is_done_on_a_fork_and_holds_or_nothing_of_it(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    first = checkout.commit(app("first"))
    bad = checkout.commit(migrating("bad", "if REAL: raise SystemExit('not with these documents')"))
    good = checkout.commit(migrating("good"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    key = (await server.get()).json["url"].rpartition("@")[0]

    said = await server.verb("promote", bad, folder=checkout.path, code=1)
    assert "not with these documents" in said
    assert (await server.get()).json["name"] == "first" and await notes(server) == ["kept"]

    await server.verb("promote", good, folder=checkout.path)
    assert (await server.get()).json["name"] == "good" and await notes(server) == ["kept!"]
    assert (await server.get()).json["url"].rpartition("@")[0] == key
    await server.post("", "late")

    # Back to what was before it, with the documents of then.
    await server.verb("rollback", folder=checkout.path)
    assert await notes(server) == ["kept!", "late"]
    (before,) = [one["id"] for one in server.json("data", "snapshots", "production", "--app", "shop")][-1:]
    await server.verb("data", "restore", f"production@{before}", "--yes", folder=checkout.path)
    assert await notes(server) == ["kept"]
    listed = await _versions(server)
    assert not [name for name in listed if name.startswith(("migration", "rehearsal", "loading"))], listed


async def _versions(server: Server) -> list[str]:
    """Those that the server of it has, as its owner sees them."""
    from lazycloud.versionbase import keys
    from lazycloud.versionbase.client import connect

    folder = server.home / "apps/shop/versionbase"
    port = json.loads((folder / "server.json").read_text())["port"]
    owner = keys.beside(folder / "data/store.sqlite").owner
    async with connect(f"ws://production:{owner}@127.0.0.1:{port}/") as database:
        return [one["name"] for one in await database.owner.versions()]


INSERT = "self.answer(dict(key=notes.insert(dict(text=text, by=NAME))))"
FILLING = APP.replace(
    INSERT,
    f"""
        try:
            if self.path == "/clear":
                notes.drop()
            {INSERT}
        except VersionbaseError as problem:
            self.answer(dict(kind=problem.kind, said=str(problem)))""",
)


async def test_a_preview_that_fills_its_versionbase_is_refused_and_nobody_else(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    assert FILLING != APP
    first, other = checkout.commit(app("first")), checkout.commit(app("other"))
    filler = checkout.commit(app("filler") | {"app.py": FILLING.replace("{name}", "filler")})
    (home := tmp_path / "home").mkdir()
    (home / "config.toml").write_text('[workers]\ndisk = "4 MB"\n')
    server = up(checkout.path, "--production", first, home=home)
    await server.post("", "kept")

    async def refused() -> bool:
        answer = await server.post(filler, "x" * 200_000)
        assert answer.status == 200, answer.text
        if "kind" in answer.json:
            assert answer.json["kind"] == "full" and "may have 4.0 MB" in answer.json["said"], answer.json
        return "kind" in answer.json

    async def has_room() -> bool:
        return not await refused()

    assert await notes(server, other) == ["kept"]
    await server.until(refused)
    await server.post("", "production's")
    await server.post(other, "another's")
    assert (await notes(server), await notes(server, other)) == (
        ["kept", "production's"],
        ["kept", "another's"],
    )
    assert (await notes(server, filler))[0] == "kept"  # it reads

    await server.post(filler, "none", path="/clear")
    await server.until(has_room)
    assert (await notes(server)) == ["kept", "production's"]

    await server.until(refused)
    server.stop()
    server = up(home=home)
    await server.until(refused)
    assert trees.size(home / "apps/shop/versionbase/data") < 40_000_000
    assert "key" in (await server.post(other, "more")).json


async def test_a_control_killed_in_a_migration_leaves_production_as_it_was_or_is_to_be(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate, there = tmp_path / "gate", tmp_path / "there"
    waits = f"""
if REAL:
    open({str(there)!r}, "w")
while REAL and not os.path.exists({str(gate)!r}):
    time.sleep(0.05)
"""
    first = checkout.commit(app("first"))
    new = checkout.commit(migrating("new", waits))
    server = up(checkout.path, "--production", first, **UNWALLED)
    await server.post("", "kept")
    control = server.children()["control"]
    with server.going_on("promote", new, folder=checkout.path):
        await asyncio.to_thread(server.wait, there.exists, "migration")
        control.kill()
        gate.touch()
    await server.until(lambda: server.has_another_control(control))
    name = (await server.get()).json["name"]
    assert await notes(server) == (["kept!"] if name == "new" else ["kept"])
    await server.verb("promote", new, folder=checkout.path, code=None)
    assert (await server.get()).json["name"] == "new" and await notes(server) == ["kept!"]


async def test_a_backup_has_the_documents_with_the_rest(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(app("one"))
    await comes_back(up, checkout, tmp_path, notes)


async def test_what_nobody_uses_is_removed_from_it_too(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text('[data]\nkeep = "1s"\nlimit = "1MB"\n')
    first, second = checkout.commit(app("first")), checkout.commit(app("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    assert await notes(server, second) == ["kept"]
    await server.post(second, "x" * 200_000)
    (row,) = [one for one in server.json("data", "ls", "--app", "shop")["versions"] if one["name"] == second]
    assert row["bytes"] > 200_000 and row["own"] > 200_000
    assert second in await _versions(server)
    await server.verb("stop", second, folder=checkout.path)
    await server.until(lambda: _is_pruned(server, second))
    assert await notes(server, second) == ["kept"]  # forked anew
    assert await notes(server) == ["kept"]


async def _is_pruned(server: Server, version: str) -> bool:
    await server.verb("data", "prune")
    return version not in await _versions(server)


async def test_what_a_killed_server_left_is_ended_by_stop_all(up: Up, checkout: Checkout) -> None:
    checkout.commit(app("one"))
    server = up(checkout.path)
    await server.post("", "kept")
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    for one in family:
        one.kill()
    server.process.wait(PATIENCE)
    assert len(bases(server)) == 1
    server.cli("stop", "--all")
    assert server.inmates() == [] and processes(server.home / "apps") == []
    again = up(home=server.home)
    assert await notes(again) == ["kept"]
