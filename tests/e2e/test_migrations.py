"""A release command on production's data: requests wait, and it is all done or nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import UNWALLED, Server
from tests.e2e.test_edges import new_control
from tests.e2e.test_production import Load
from tests.e2e.test_queue import ended

MIGRATE = (
    "import os, sqlite3, sys, time\n"
    "db = sqlite3.connect(os.environ['DATABASE_URL'][10:])\n"
    "db.execute('ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 0'); db.commit()\n"
    "is_real = os.environ['LAZYCLOUD_VERSION'] == 'production'\n"
)
IS_REAL = "os.environ['LAZYCLOUD_VERSION'] == 'production'"


def migrating(name: str, then: str = "", start: str = "") -> dict[str, str]:
    """An app with a column more; `then` is what its release command does at its end, `start` its app at its begin."""
    files = counter(name)
    return {
        **files,
        "app.py": f"import os, time\n{start}\n{files['app.py']}",
        "migrate.py": f"{MIGRATE}{then}\n",
        "Procfile": "web: python app.py\nrelease: python migrate.py\n",
    }


def columns(server: Server) -> list[str]:
    place = server.home / "apps/shop/data/production/database.sqlite"
    with contextlib.closing(sqlite3.connect(place)) as database:
        return [row[1] for row in database.execute("PRAGMA table_info(notes)")]


def passing(server: Server) -> list[Path]:
    folder = server.home / "apps/shop/data"
    found = [*folder.glob("migration-*"), *folder.glob("rehearsal-*"), *folder.glob(".*ing-*")]
    return [place for place in found if not place.is_symlink()]


def told(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.cli("events", "--json", "-n", "1000").splitlines()]


async def test_requests_wait_for_a_migration_and_none_is_lost(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    gate, there = tmp_path / "gate", tmp_path / "there"
    waits = (
        f"if is_real: open('{there}', 'w')\nwhile is_real and not os.path.exists('{gate}'): time.sleep(0.05)"
    )
    new = checkout.commit(migrating("new", waits))
    server = up(checkout.path, "--production", good, **UNWALLED)
    async with Load(server) as load:
        await load.until("good")
        await server.post("", "kept")
        with server.going_on("promote", new, folder=checkout.path) as promote:
            await asyncio.to_thread(server.wait, there.exists, "migration")
            waiting = asyncio.create_task(server.get("", Accept="text/html", Sec_Fetch_Mode="navigate"))
            gate.touch()
            assert await ended(promote) == 0
        await load.until("new")
    assert "new" in (await waiting).text
    assert not load.failures
    assert (await server.get()).json["notes"] == ["kept"]
    assert "stars" in columns(server)
    assert not passing(server)
    (rehearsed,) = [row for row in told(server) if row["kind"] == "migration_rehearsed"]
    assert rehearsed["changes"] == ["table notes: +stars"]
    (migrated,) = [row for row in told(server) if row["kind"] == "migrated"]
    assert migrated["snapshot"] in [
        place.name for place in (server.home / "apps/shop/data/production.snapshots").iterdir()
    ]


async def test_a_rollback_tells_how_the_schema_has_moved_and_offers_the_data_of_before(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    new = checkout.commit(migrating("new"))
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    said = await server.verb("promote", new, folder=checkout.path)
    assert re.search(
        r"The release command of \w+ took \d+\.\d s in its rehearsal: table notes: \+stars\.\n", said
    )
    await server.post("", "lost")
    said = await server.verb("rollback", folder=checkout.path)
    assert "table notes: +stars" in said
    assert (await server.get()).json["name"] == "good"
    (offer,) = [line for line in said.splitlines() if "lazycloud data restore" in line]
    await server.verb("data", "restore", offer.split()[-1], "--yes", folder=checkout.path)
    assert (await server.get()).json["notes"] == ["kept"]
    assert "stars" not in columns(server)
    await server.verb("promote", new, folder=checkout.path)
    assert "stars" in columns(server)
    assert "schema_moved" in [row["kind"] for row in told(server)]


@pytest.mark.parametrize(
    ("then", "start"),
    [
        ("if is_real: raise SystemExit('not with these data')", ""),
        ("", f"if {IS_REAL}: raise SystemExit('not with these data')"),
    ],
)
async def test_what_fails_on_productions_data_leaves_it_as_it_was(
    up: Up, checkout: Checkout, then: str, start: str
) -> None:
    """In the command, and at the start of the app after it."""
    good = checkout.commit(counter("good"))
    bad = checkout.commit(migrating("bad", then, start))
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    async with Load(server) as load:
        await load.until("good")
        said = await server.verb("promote", bad, folder=checkout.path, code=1)
        await load.until("good", load.seen["good"] + 20)
    assert "not with these data" in said
    assert not load.failures and set(load.seen) == {"good"}
    assert (await server.get()).json["notes"] == ["kept"]
    assert "stars" not in columns(server)
    assert not passing(server)
    fine = checkout.commit(migrating("fine"))
    await server.verb("promote", fine, folder=checkout.path)
    assert (await server.get()).json["name"] == "fine"
    assert "stars" in columns(server)


async def test_a_control_that_is_killed_before_the_pointer_moves_leaves_the_data_as_they_were(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    there, gate = tmp_path / "there", tmp_path / "gate"
    start = f"if {IS_REAL} and not os.path.exists('{gate}'):\n    open('{there}', 'w')\n    time.sleep(600)"
    new = checkout.commit(migrating("new", start=start))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await server.post("", "kept")
    with server.going_on("promote", new, folder=checkout.path):
        await asyncio.to_thread(server.wait, there.exists, "start of the candidate on the migrated data")
        assert "stars" in columns(server)
        await new_control(server)
        await server.until(partial(server.named, "good"))
    assert (await server.get()).json["notes"] == ["kept"]
    assert "stars" not in columns(server)
    assert not passing(server)
    assert "change_undone" in [row["kind"] for row in told(server)]
    gate.touch()
    await server.verb("promote", new, folder=checkout.path)
    assert (await server.get()).json["name"] == "new"
    assert "stars" in columns(server)
