"""Backups of a whole server: made by themselves while the app writes, told when they cannot be, and had back."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.client import Client
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server

pytestmark = pytest.mark.slow


def settings(home: Path, store: Path, more: str = "") -> None:
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f'[data]\nbackup = "file://{store}"\nbackup_every = "1s"\n{more}')


async def standing(server: Server) -> dict[str, Any]:
    return dict((await server.api("backups"))["apps"].get("shop", {}))


async def count(server: Server) -> int:
    return len((await server.api("backups"))["backups"])


async def noting(up: Up, checkout: Checkout, tmp_path: Path) -> Server:
    """One whose app has a note, which it backs up into the folder `store` by itself."""
    store = tmp_path / "store"
    store.mkdir()
    settings(tmp_path / "home", store)
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.post("", "first")
    return server


async def test_what_is_written_is_backed_up_by_itself_and_comes_back_in_a_new_home(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    server = await noting(up, checkout, tmp_path)
    await server.until(lambda: _is_backed_up(server, 1))
    for number in range(5):
        await server.post("", f"note {number}")
    files = tmp_path / "home/apps/shop/data/production/files"
    (files / "photo.jpg").write_bytes(random.Random(1).randbytes(300_000))
    made = server.json("data", "backup", "--app", "shop")
    assert made["put"] < made["chunks"] + 1 and made["size"] > 300_000
    notes = (await server.get()).json["notes"]
    assert "1 of 1" not in server.cli("data", "backup", "--verify")
    assert "the last backup is" in server.cli("doctor", code=None)
    listed = server.json("data", "backup", "--list")
    server.stop()

    new = up(checkout.path, home=tmp_path / "new")
    assert (await new.get()).json["notes"] == []
    url = f"file://{tmp_path}/store"
    said = await new.verb("data", "restore-from", url, "--yes", "--app", "shop", code=1)
    assert "signed by another server" in said and listed["key"] in said
    said = await new.verb("data", "restore-from", url, "--signed-by", listed["key"], "--yes", "--app", "shop")
    assert "checked and restored" in said
    assert (await new.get()).json["notes"] == notes
    restored = tmp_path / "new/apps/shop/data/production/files/photo.jpg"
    assert restored.read_bytes() == (files / "photo.jpg").read_bytes()


async def _is_backed_up(server: Server, least: int) -> bool:
    return await count(server) >= least


async def test_an_older_backup_takes_production_back_and_what_it_had_is_a_snapshot(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    store = tmp_path / "a store"
    store.mkdir()
    checkout.commit(counter("one"))
    server = up(checkout.path)
    assert "no store of backups" in await server.verb("data", "backup", "--app", "shop", code=2)
    await server.post("", "kept")
    url = f"file://{tmp_path}/a%20store"
    made = json.loads(await server.verb("data", "backup", "--to", url, "--app", "shop", "--json"))
    await server.post("", "a mistake")
    newer = json.loads(await server.verb("data", "backup", "--to", url, "--app", "shop", "--json"))
    assert 0 < newer["put"] <= 2
    would = await server.verb(
        "data", "restore-from", url, "--backup", made["id"][:27], "--dry-run", "--app", "shop"
    )
    assert made["id"][:27] in would
    await server.verb("data", "restore-from", url, "--backup", made["id"][:27], "--yes", "--app", "shop")
    assert (await server.get()).json["notes"] == ["kept"]
    snapshots = server.json("data", "snapshots", "--app", "shop")
    assert [one["why"] for one in snapshots] == ["restore"]
    said = await server.verb("data", "restore-from", url, "--backup", "9", "--yes", "--app", "shop", code=1)
    assert "no such backup" in said and "--list" in said and "--of" not in said


async def test_a_store_that_is_away_or_damaged_is_told_and_tried_again_and_hurts_nothing(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    settings(tmp_path / "home", store)
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.post("", "first")
    await server.told("are not backed up: The backup store")
    assert "is not there" in server.cli("doctor", code=1)
    assert server.output.count("are not backed up") == 1  # not at each try
    store.mkdir()
    await server.until(lambda: _works(server))
    verifying = asyncio.create_task(server.verb("data", "backup", "--verify", code=1))
    sound = {blob: blob.read_bytes() for blob in store.rglob("chunks/*")}
    while not verifying.done():  # again and again: each backup that is made meanwhile mends it
        for blob, content in sound.items():
            blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        await asyncio.sleep(0.02)
    said = await verifying
    assert "lacks" in said and "0 of" in said
    await server.told("What was kept is damaged")
    await server.until(lambda: _works(server))
    await server.verb("data", "backup", "--verify")  # the next one has put them anew
    shutil.rmtree(store)
    await server.post("", "second")
    assert (await server.get()).json["notes"] == ["first", "second"]


async def _works(server: Server) -> bool:
    now = await standing(server)
    return bool(now) and not now["problem"] and bool(now["id"])


async def test_a_server_that_is_killed_in_a_backup_goes_on_with_them(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    server = await noting(up, checkout, tmp_path)
    await server.until(lambda: _is_backed_up(server, 1))
    (tmp_path / "home/apps/shop/data/production/files/large").write_bytes(
        random.Random(1).randbytes(12_000_000)
    )
    store = tmp_path / "store"
    before = len(list(store.rglob("chunks/*")))
    await server.until(lambda: _has_more(store, before + 20))
    server.children()["control"].kill()
    await server.until(lambda: _is_backed_up_with(server, 12_000_000))
    await server.verb("data", "backup", "--verify")
    assert not list((tmp_path / "home/apps/shop").glob("backup-*"))


async def test_one_more_of_a_large_database_costs_what_was_written_and_comes_back(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    server = await noting(up, checkout, tmp_path)
    place = tmp_path / "home/apps/shop/data/production/database.sqlite"
    with Client(place) as client:
        client.run("CREATE TABLE bulk AS SELECT randomblob(20000000) AS content")
    await server.until(lambda: _has_grown(place))
    full = json.loads(await server.verb("data", "backup", "--full", "--app", "shop", "--json"))
    assert full["full"] and full["sound"] == ["data/database.sqlite"]
    await server.post("", "second")
    await server.until(lambda: _is_layered(server))  # by itself
    await server.post("", "third")
    made = json.loads(await server.verb("data", "backup", "--app", "shop", "--json"))
    assert not made["full"] and made["put_bytes"] < 500_000
    notes = (await server.get()).json["notes"]
    assert notes == ["first", "second", "third"]
    await server.verb("data", "backup", "--verify")
    await server.post("", "a mistake")
    said = await server.verb("data", "restore-from", "--backup", made["id"], "--yes", "--app", "shop")
    assert "checked and restored" in said
    assert (await server.get()).json["notes"] == notes
    again = json.loads(await server.verb("data", "backup", "--full", "--app", "shop", "--json"))
    assert again["full"] and again["put_bytes"] < 500_000  # what is restored has the same pieces


async def _has_grown(place: Path) -> bool:
    return place.stat().st_size > 20_000_000


async def _is_layered(server: Server) -> bool:
    return bool((await standing(server))["layered"])


async def _has_more(store: Path, than: int) -> bool:
    return len(list(store.rglob("chunks/*"))) > than


async def _is_backed_up_with(server: Server, size: int) -> bool:
    answer = await server.get("lazycloud", "/api/backups", Authorization=server.authorization)
    return answer.status == 200 and answer.json["apps"]["shop"]["size"] > size
