"""Versions and snapshots of data, as people use them: over the real command line, on a real server."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Answer, Server
from tests.e2e.test_production import MIGRATION, WITH_RELEASE, Load

pytestmark = pytest.mark.slow


async def notes(server: Server, label: str = "") -> list[str]:
    found: list[str] = (await server.get(label)).json["notes"]
    return found


async def versions(server: Server) -> dict[str, Any]:
    return {one["label"]: one for one in (await server.api("apps/shop/data"))["versions"]}


async def snapshots(server: Server) -> list[dict[str, Any]]:
    """Of all versions, newest first."""
    taken = [one for version in (await versions(server)).values() for one in version["snapshots"]]
    return sorted(taken, key=lambda one: -one["at"])


async def post(server: Server, route: str, **body: Any) -> Answer:
    """What the command line does, without its start."""
    headers = {"Authorization": server.authorization}
    answer = await server.request("POST", "lazycloud", f"/api/apps/shop/data/{route}", headers, json=body)
    assert answer.status < 300, answer
    return answer


async def test_a_snapshot_is_taken_listed_forked_and_removed(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "old")
    taken = server.cli("data", "snapshot", "--name", "before-import", folder=checkout.path)
    assert "production@before-import" in taken
    await server.post("", "new")
    said = server.cli("data", "snapshot", "--name", "before-import", folder=checkout.path, code=1)
    assert "is called “before-import” already" in said
    server.cli("data", "snapshot", "--name", "10min-ago", folder=checkout.path, code=2)

    server.cli("data", "fork", "@before-import", "--to", second, folder=checkout.path)
    planned = (await versions(server))[second[:10]]
    assert planned["pending"] and planned["source"] == "production" and planned["bytes"] == 0
    said = server.cli("data", "rm", "@before-import", "--yes", folder=checkout.path, code=1)
    assert f"The data of {second[:10]} will be forked from this snapshot" in said
    assert await notes(server, second[:10]) == ["old"]
    forked = (await versions(server))[second[:10]]
    assert not forked["pending"] and forked["snapshot"] == planned["snapshot"] and forked["live"]
    said = server.cli("data", "fork", "production", "--to", second, folder=checkout.path, code=1)
    assert "has data already" in said

    listed = server.json("data", "snapshots", folder=checkout.path)
    assert [(one["version"], one["name"], one["why"]) for one in listed] == [
        ("production", "before-import", "asked")
    ]
    shown = server.cli("data", "ls", folder=checkout.path)
    assert "production" in shown and f"└─ {second[:10]}" in shown and "before-import" in shown
    assert max(map(len, shown.splitlines())) <= 110
    said = server.cli("data", "rm", "@nothing", "--yes", folder=checkout.path, code=1)
    assert "has no snapshot “nothing”" in said and "before-import" in said
    server.cli("data", "rm", "@before-import", "--yes", folder=checkout.path)
    assert server.json("data", "snapshots", folder=checkout.path) == []
    assert not list((server.home / "apps/shop/data/production.snapshots").glob("*"))


async def test_a_preview_is_reset_and_removed_and_production_is_not(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    label = second[:10]
    server = up(checkout.path, "--production", first)
    await server.post("", "production’s")
    await server.post(label, "its own")
    assert await notes(server, label) == ["production’s", "its own"]
    said = server.cli("data", "reset", second, folder=checkout.path, code=2)
    assert f"Reset the data of {label}" in said and "Say --yes" in said
    assert "are being forked anew" in server.cli("data", "reset", second, "--yes", folder=checkout.path)
    assert await notes(server, label) == ["production’s"]
    await post(server, "snapshot", ref=second, name="kept")
    server.cli("data", "rm", second, "--yes", folder=checkout.path)
    assert label not in await versions(server)
    assert (await server.inspect(second))["state"] == "stopped"
    assert await notes(server, label) == ["production’s"]
    for verb in ("reset", "rm"):
        said = server.cli("data", verb, "production", folder=checkout.path, code=2)
        assert "Production’s data are not dropped" in said and "--yes" not in said
    said = server.cli("data", "restore", "production", folder=checkout.path, code=2)
    assert "These are the data that production has" in said and "--yes" not in said
    assert await notes(server) == ["production’s"]


async def test_a_version_is_not_changed_while_somebody_is_at_it(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await notes(server, second[:10])
    with server.going_on("run", second, "--", "echo began; sleep 600", folder=checkout.path) as command:
        assert command.stdout and command.stdout.readline() == "began\n"
        for verb in ("reset", "rm"):
            said = server.cli("data", verb, second, "--yes", folder=checkout.path, code=1)
            assert "lazycloud run" in said
    assert (await server.inspect(second))["state"] == "ready"


async def test_what_a_crash_left_of_a_snapshot_is_removed(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await notes(server)
    await post(server, "snapshot", name="gone")
    await post(server, "snapshot", name="kept")
    server.stop()
    folder = server.home / "apps/shop/data/production.snapshots"
    gone, kept = sorted(folder.iterdir())
    gone.rename(folder / "20260101T000000000000-00000000")
    server = up(checkout.path)
    assert [one["name"] for one in await snapshots(server)] == ["kept"]
    assert list(folder.iterdir()) == [kept]
    told = server.cli("events", "--json", folder=checkout.path)
    (dropped,) = [
        json.loads(line) for line in told.splitlines() if json.loads(line)["kind"] == "snapshot_dropped"
    ]
    assert (dropped["name"], dropped["why"]) == ("gone", "it was gone")


FUSSY = """
import sqlite3, sys, os
with sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///")) as db:
    db.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    if db.execute("SELECT count(*) FROM notes WHERE text = 'poison'").fetchone()[0]:
        sys.exit("these data are poisoned")
"""
"""Begins an app that does not start on some data."""


async def test_production_is_restored_under_load_and_no_request_is_lost(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "old")
    await post(server, "snapshot", name="good")
    await server.post("", "bad")
    async with Load(server) as load:
        await load.until("first")
        said = await server.verb("data", "restore", "@good", "--yes", folder=checkout.path)
        before = load.seen["first"]
        await load.until("first", before + 20)
    assert load.failures == []
    assert await notes(server) == ["old"]
    kept = said.split("production@")[-1].strip()
    await server.verb("data", "restore", f"@{kept}", "--yes", folder=checkout.path)
    assert await notes(server) == ["old", "bad"]
    whys = [one["why"] for one in await snapshots(server)]
    assert whys == ["restore", "restore", "asked"]
    assert not list((server.home / "apps/shop/data").glob("rehearsal-*"))


async def test_production_that_does_not_start_on_other_data_goes_on_with_its_own(
    up: Up, checkout: Checkout
) -> None:
    app = counter("first")
    first = checkout.commit({**app, "app.py": FUSSY + app["app.py"]})
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "good")
    await server.post(second[:10], "poison")
    await post(server, "snapshot", ref=second, name="bad")
    async with Load(server) as load:
        await load.until("first")
        wish = ("data", "restore", f"{second}@bad", "--to", "production", "--yes")
        said = await server.verb(*wish, folder=checkout.path, code=1)
        assert "Production did not start on these data" in said and "these data are poisoned" in said
        before = load.seen["first"]
        await load.until("first", before + 20)
    assert load.failures == []
    assert await notes(server) == ["good"]
    assert not list((server.home / "apps/shop/data").glob("rehearsal-*"))


async def test_a_preview_is_restored_and_its_release_command_runs_again(up: Up, checkout: Checkout) -> None:
    migrate = 'db.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")\n'
    migrate += "db.execute(\"INSERT INTO notes VALUES ('migrated')\"); db.commit()\n"
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second", **WITH_RELEASE, **{"migrate.py": MIGRATION + migrate}))
    label = second[:10]
    server = up(checkout.path, "--production", first)
    await server.post("", "old")
    await post(server, "snapshot", name="old")
    assert await notes(server, label) == ["old", "migrated"]
    await server.post(label, "its own")
    server.cli("data", "restore", "@old", "--to", second, "--yes", folder=checkout.path)
    assert await notes(server, label) == ["old", "migrated"]
    assert (await versions(server))[label]["source"] == "production"
    (undo,) = server.json("data", "snapshots", second, folder=checkout.path)
    said = server.cli("data", "restore", f"{second}@nothing", "--yes", folder=checkout.path, code=1)
    assert undo["id"] in said
    server.cli("data", "restore", f"{second}@{undo['id']}", "--yes", folder=checkout.path)
    assert await notes(server, label) == ["old", "migrated", "its own", "migrated"]
    said = server.cli("data", "restore", second, "--yes", folder=checkout.path, code=2)
    assert f"These are the data that {label} has" in said


async def test_data_that_nobody_used_go_after_a_while_and_others_stay(up: Up, checkout: Checkout) -> None:
    commits = {name: checkout.commit(counter(name)) for name in ("first", "old", "pinned", "named", "live")}
    server = up(checkout.path, "--production", commits["first"])
    for name in ("old", "pinned", "named", "live"):
        assert await server.named(name, commits[name][:10])
    server.stop()
    (server.home / "config.toml").write_text('[data]\nkeep = "1s"\n')
    server = up(checkout.path)
    server.cli("pin", commits["pinned"], folder=checkout.path)
    await post(server, "snapshot", ref=commits["named"], name="mine")
    assert await server.named("live", commits["live"][:10])

    async def has_expired() -> bool:
        would = await server.verb("data", "prune", "--dry-run", "--json", folder=checkout.path)
        return [one["version"] for one in json.loads(would)["removed"]] == [commits["old"]]

    await server.until(has_expired)
    assert set(await versions(server)) == {"production", *(one[:10] for one in [*commits.values()][1:])}
    said = server.cli("data", "prune", folder=checkout.path)
    assert commits["old"][:10] in said and "nobody used them for" in said and "came free" in said
    left = await versions(server)
    assert set(left) == {"production", *(commits[name][:10] for name in ("pinned", "named", "live"))}
    kept = {one["label"]: one["why"] for one in server.json("data", "prune", folder=checkout.path)["kept"]}
    assert kept["production"] == "production, runs" and kept[commits["pinned"][:10]] == "pinned"
    assert kept[commits["named"][:10]] == "has a snapshot with a name"
    parts = {part["what"]: part for part in server.json("disk", folder=checkout.path)["apps"][0]["parts"]}
    assert (parts["data"]["count"], parts["snapshots"]["count"]) == (4, 1)
    assert parts["data"]["bytes"] > 0 and parts["snapshots"]["bytes"] > 0


async def test_when_data_were_used_is_known_after_they_slept(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    assert await server.named("second", second[:10])
    forked = (await versions(server))[second[:10]]["forked"]
    server.cli("stop", second, folder=checkout.path)

    async def is_noted() -> bool:
        one = (await server.api("apps/shop/data"))["versions"][1]
        return not one["live"] and one["used"] > forked + 0.1

    await server.until(is_noted)


def sql(server: Server, checkout: Checkout, text: str, *arguments: str, code: int = 0) -> str:
    """What `lazycloud data shell` says to it."""
    done = subprocess.run(
        [sys.executable, "-m", "lazycloud", "data", "shell", *arguments],
        cwd=checkout.path,
        env=os.environ | {"LAZYCLOUD_HOME": str(server.home), "NO_COLOR": "1"},
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


async def test_a_shell_is_on_the_data_and_of_a_snapshot_on_a_copy(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    await post(server, "snapshot", name="before")
    sql(server, checkout, "INSERT INTO notes VALUES ('two')", "production", "--yes")
    assert await notes(server) == ["one", "two"]
    assert sql(server, checkout, "SELECT text FROM notes", "@before") == "one\n"
    said = sql(server, checkout, "DELETE FROM notes;\n", "@before", code=1)
    assert "readonly" in said
    assert "readonly" in sql(server, checkout, "DELETE FROM notes", "production", "--read-only", code=1)
    assert "Say --yes" in sql(server, checkout, "DELETE FROM notes", "production", code=2)
    assert sql(server, checkout, "SELECT count(*) FROM notes", second).startswith("2\n")
    sql(server, checkout, "DELETE FROM notes", second)
    assert (await notes(server), await notes(server, second[:10])) == (["one", "two"], [])
    assert not list((server.home / "apps/shop/data").glob(".reading-*"))
    told = server.cli("events", folder=checkout.path)
    assert "runs “a database shell on production@" in told and "a database shell on a copy" in told


async def test_what_differs_is_told_and_what_a_restore_would_lose(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    await post(server, "snapshot", name="before")
    said = server.cli("data", "diff", "@before", "production", folder=checkout.path)
    assert "They are the same" in said
    await server.post("", "two")
    (server.home / "apps/shop/data/production/files/new.txt").write_text("12345")
    said = server.cli("data", "diff", "@before", "production", "--rows", folder=checkout.path)
    for line in (
        "database.sqlite",
        "notes: 1 row → 2 rows (1 added)",
        '+ text="two"',
        "+ files/new.txt  5 B",
    ):
        assert line in said
    answer = server.json("data", "diff", "@before", "production", folder=checkout.path)
    (table,) = answer["databases"][0]["tables"]
    assert (table["before"], table["after"], table["added"], table["rows"]) == (1, 2, 1, [])
    for arguments in (("--dry-run",), ()):
        wish = ("data", "restore", "@before", *arguments)
        said = server.cli(*wish, folder=checkout.path, code=0 if arguments else 2)
        assert "From what production has now to what it would have" in said
        assert "notes: 2 rows → 1 row (1 removed)" in said and "- files/new.txt" in said
    assert "Restore production of shop?" in said and "Say --yes" in said
    assert await notes(server) == ["one", "two"]


async def test_data_go_out_as_a_file_and_come_in_again(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    for name in ("out.sqlite", "out.sql", "out.tar"):
        file = checkout.path / name
        server.cli("data", "export", "production", str(file), folder=checkout.path)
        assert file.stat().st_mode & 0o777 == 0o600
        if (await versions(server)).get(second[:10]):
            await post(server, "rm", ref=second)
        server.cli("data", "import", str(file), second, "--yes", folder=checkout.path)
        assert await notes(server, second[:10]) == ["one"]
        assert sql(server, checkout, "PRAGMA journal_mode", second) == "wal\n"
    await server.post(second[:10], "two")
    said = server.cli("data", "import", str(file), second, "--yes", folder=checkout.path)
    assert await notes(server, second[:10]) == ["one"]
    undo = said.split(f"{second[:10]}@")[-1].strip()
    await post(server, "restore", point=f"{second}@{undo}")
    assert await notes(server, second[:10]) == ["one", "two"]
    said = server.cli("data", "export", "production", str(file), folder=checkout.path, code=2)
    assert "is there already" in said
    with sqlite3.connect(checkout.path / "out.sqlite") as db:
        assert db.execute("SELECT text FROM notes").fetchall() == [("one",)]
    told = await server.get("lazycloud", "/api/events", Authorization=server.authorization)
    kinds = [json.loads(line)["kind"] for line in told.text.splitlines()]
    assert kinds.count("version_exported") == 3 and kinds.count("version_imported") == 4
    assert not list((server.home / "apps/shop/data").glob(".reading-*"))


async def test_what_cannot_be_data_is_refused_and_changes_nothing(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    born = (await server.get()).json["born"]
    bad = checkout.path / "bad.sqlite"
    for contents in (b"", b"SQLite format 3\0" + b"\1" * 5000, b"not ; even ( sql"):
        bad.write_bytes(contents)
        said = server.cli("data", "import", str(bad), "production", "--yes", folder=checkout.path, code=2)
        assert "Traceback" not in said and "lazycloud failed" not in said
        answer = (await server.get()).json
        assert (answer["notes"], answer["born"]) == (["one"], born)  # it was not even stopped
    assert await snapshots(server) == []
    assert not list((server.home / "apps/shop/data").glob("rehearsal-*"))


async def test_a_file_for_which_the_disk_has_no_room_is_refused(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    server.stop()
    (server.home / "config.toml").write_text('[disk]\nreserve = "100%"\n')
    server = up(checkout.path)
    big = checkout.path / "big.sqlite"
    big.write_bytes(b"x" * 5_000_000)
    said = server.cli("data", "import", str(big), "production", "--yes", folder=checkout.path, code=1)
    assert "the file does not fit" in said
    assert await notes(server) == ["one"]


async def test_who_may_what_with_data(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "one")
    await notes(server, second[:10])
    await post(server, "snapshot", name="one")
    bearer = {}
    for role in ("viewer", "developer"):
        made = server.json("token", "create", f"a-{role}", "--role", role, folder=checkout.path)
        bearer[role] = f"Bearer {made['token']}"

    async def may(role: str, method: str, route: str, **body: Any) -> bool:
        """Whether the role was enough."""
        headers = {"Authorization": bearer[role]}
        data = {"json": body} if method == "POST" else {"params": body}
        answer = await server.request(method, "lazycloud", f"/api/apps/shop/data{route}", headers, **data)
        assert answer.status < 500, answer
        return answer.status != 403

    compare = {"a": "@one", "b": "production"}
    assert await may("viewer", "GET", "") and await may("viewer", "GET", "/diff", **compare)
    for method, route, body in (
        ("GET", "/diff", {**compare, "rows": 1}),
        ("POST", "/snapshot", {"ref": "production"}),
        ("GET", "/export", {"point": second, "format": "none"}),
        ("POST", "/restore", {"point": "@one", "to": second}),
        ("POST", "/reset", {"ref": second}),
        ("GET", "/shell", {"point": "@one"}),
        ("POST", "/import?ref=" + second, {}),
    ):
        assert not await may("viewer", method, route, **body), route
        assert await may("developer", method, route, **body), route
    for method, route, body in (
        ("POST", "/restore", {"point": "@one"}),
        ("GET", "/export", {"point": "@one"}),
        ("POST", "/import?ref=production", {}),
        ("POST", "/forget", {"point": "@one"}),
        ("GET", "/shell", {"point": "production"}),
        ("POST", "/prune", {"dry_run": True}),
    ):
        assert not await may("developer", method, route, **body), route
    assert await notes(server) == ["one"]


async def test_a_control_that_is_killed_during_a_restore_leaves_whole_data(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "old")
    await post(server, "snapshot", name="old")
    await server.post("", "new")
    asked = f"{server.home}/run/api"
    for moment in (0.0, 0.05, 0.15, 0.3, 0.6):  # copied, stopped, swapped, started, done
        control = server.wait(lambda: server.children().get("control"), "control")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(asked)) as session:
            restoring = asyncio.create_task(restored(session))
            await asyncio.sleep(moment)
            control.kill()
            await asyncio.to_thread(control.wait, PATIENCE)  # else it may be taken for the next one
            await asyncio.gather(restoring, return_exceptions=True)
        found = await notes(server)
        assert found in (["old"], ["old", "new"])
        if found == ["old"]:  # what it was is there
            (undo, *_) = await snapshots(server)
            assert undo["why"] == "restore"
            server.cli("data", "restore", f"@{undo['id']}", "--yes", folder=checkout.path)
        assert await notes(server) == ["old", "new"]
    server.cli("data", "ls", folder=checkout.path)  # a new control is there
    beside = [place.name for place in (server.home / "apps/shop/data").iterdir()]
    assert set(beside) <= {"production", "production.snapshots", "production.archive"}


async def restored(session: aiohttp.ClientSession) -> None:
    await session.post("http://localhost/api/apps/shop/data/restore", json={"point": "@old"})


async def test_a_fork_whose_release_command_failed_is_forked_at_the_same_snapshot_again(
    up: Up, checkout: Checkout
) -> None:
    count = "if db.execute('SELECT count(*) FROM notes').fetchone()[0] < 2: raise SystemExit('too few')\n"
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second", **WITH_RELEASE, **{"migrate.py": MIGRATION + count}))
    server = up(checkout.path, "--production", first)
    await server.post("", "old")
    await post(server, "snapshot", name="few")
    await server.post("", "new")
    server.cli("data", "fork", "@few", "--to", second, folder=checkout.path)
    for _ in range(2):
        said = server.cli("deploy", second, folder=checkout.path, code=1)
        assert "too few" in said
        assert (await versions(server))[second[:10]]["pending"]
    server.cli("data", "rm", second, "--yes", folder=checkout.path)
    server.cli("deploy", second, folder=checkout.path)
    assert await notes(server, second[:10]) == ["old", "new"]
