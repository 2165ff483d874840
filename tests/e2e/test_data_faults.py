"""What goes wrong with data in a whole server: somebody is told in words, nothing is lost, nothing half-made stays.

A full disk, a database that is gone or something else, apps that lock it, two servers on one home, control killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import COUNTER, Checkout
from tests.e2e.server import Answer, Server

MB = 1_000_000
OBEYING = COUNTER.replace(
    "    def do_POST(self):",
    "    def do_PUT(self):\n"
    "        exec(self.rfile.read(int(self.headers['Content-Length'])).decode(), globals())\n"
    "        self.answer(200, {})\n"
    "    def do_POST(self):",
)
"""The app of `counter`, which does to its data what it is told: Python."""

ENDINGS = "('', '-wal', '-shm')"
MOVE = (
    f"for e in {ENDINGS}: os.path.exists(DATABASE + e) and os.rename(DATABASE + e, DATABASE + '.away' + e)\n"
)
BACK = (
    "(os.rmdir if os.path.isdir(DATABASE) else os.unlink)(DATABASE)\n"
    f"for e in {ENDINGS}:\n"
    "    if os.path.exists(DATABASE + '.away' + e): os.rename(DATABASE + '.away' + e, DATABASE + e)\n"
)
DELETE = f"for e in {ENDINGS}: os.path.exists(DATABASE + e) and os.unlink(DATABASE + e)\n"
REPLACED = {
    "os.mkdir(DATABASE)": "is a folder now, and no database",
    "os.mkfifo(DATABASE)": "is a pipe now, and no database",
    "os.symlink('/etc/passwd', DATABASE)": "is a link that leads out of that data",
    "open(DATABASE, 'w').write('x' * 5000)": "is damaged, or none",
}


def obeying(name: str, pragma: str = "", **files: str) -> dict[str, str]:
    """`pragma`: what each of its connections begins with."""
    text = OBEYING.replace("{name}", name)
    if pragma:
        opened = "sqlite3.connect(DATABASE, timeout=60)"
        text = text.replace(
            f"    return {opened}", f"    db = {opened}\n    db.execute('PRAGMA {pragma}')\n    return db"
        )
    return {"app.py": text, "Procfile": "web: python app.py\n", **files}


async def told(server: Server, label: str, code: str) -> None:
    """Let the app run that."""
    assert (await server.request("PUT", label, "/", data=code)).status == 200


async def notes(server: Server, label: str = "") -> list[str]:
    answer = await server.get(label)
    assert answer.status == 200, (answer, server.output)
    found: list[str] = answer.json["notes"]
    return found


def names(server: Server) -> set[str]:
    """What there is in the folder of data, half-made or not."""
    return {place.name for place in (server.home / "apps/shop/data").iterdir()}


def half_made(server: Server) -> list[Path]:
    """What is being made or dropped, or is a second name of what was just made."""
    folder = server.home / "apps/shop/data"
    return [
        place
        for pattern in (".making-*", ".dropping-*", ".reading-*", "*/.making-*")
        for place in folder.glob(pattern)
    ]


async def settled(server: Server) -> None:
    """Until nothing half-made is left."""

    async def clean() -> bool:
        return not half_made(server)

    await server.until(clean)


def snapshots(server: Server) -> list[dict[str, object]]:
    found: list[dict[str, object]] = server.json("data", "snapshots", "--app", "shop")
    return found


@pytest.mark.slow
async def test_what_an_app_puts_in_place_of_its_database_is_said_and_not_copied(
    up: Up, checkout: Checkout
) -> None:
    first, second = checkout.commit(obeying("first")), checkout.commit(obeying("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    for put, words in REPLACED.items():
        await told(server, "", MOVE + put)
        assert words in await server.verb("data", "snapshot", "--app", "shop", code=1)
        await server.verb("deploy", second, "--app", "shop", code=1)
        refused = await server.get(second)
        assert refused.status == 502
        assert words in refused.text
        await told(server, "", BACK)
    await settled(server)
    assert snapshots(server) == []
    assert second not in names(server)
    await server.verb("data", "snapshot", "--app", "shop")
    await server.verb("deploy", second, "--app", "shop")
    assert await notes(server, second) == await notes(server) == ["kept"]


@pytest.mark.slow
async def test_a_database_that_its_app_deletes_comes_back_from_a_snapshot(up: Up, checkout: Checkout) -> None:
    first, second = checkout.commit(obeying("first")), checkout.commit(obeying("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    await server.verb("data", "snapshot", "--name", "good", "--app", "shop")
    await told(server, "", DELETE)
    assert await notes(server, second) == []  # a preview has what production has: nothing
    await server.verb("data", "restore", "production@good", "--yes", "--app", "shop")
    assert await notes(server) == ["kept"]
    await server.post("", "more")
    await server.verb("data", "reset", second, "--yes", "--app", "shop")
    assert await notes(server, second) == ["kept", "more"]
    await settled(server)


@pytest.mark.slow
async def test_an_app_that_refuses_wal_is_forked_snapshotted_and_restored_while_it_writes(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(obeying("first", "journal_mode=DELETE"))
    second = checkout.commit(obeying("second", "journal_mode=DELETE"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    writing = asyncio.create_task(_write(server))
    try:
        await server.verb("data", "snapshot", "--name", "good", "--app", "shop")
        seen = await notes(server, second)
        await server.post(second, "its own")
    finally:
        writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    all_of_it = await notes(server)
    assert all_of_it[: len(seen)] == seen and seen[0] == "kept" and "its own" not in all_of_it
    assert await notes(server, second) == [*seen, "its own"]
    await server.verb("data", "restore", "production@good", "--yes", "--app", "shop")
    restored = await notes(server)
    assert restored == all_of_it[: len(restored)] and restored[0] == "kept"
    await settled(server)


async def _write(server: Server) -> None:
    for number in range(100_000):
        assert (await server.post("", str(number))).status == 201


@pytest.mark.slow
async def test_an_app_that_locks_its_database_for_good_is_named_and_copied_once_it_rests(
    up: Up, checkout: Checkout
) -> None:
    """A worker of Python's http.server with one connection for all, that never lets go."""
    held = obeying("first")["app.py"].replace(
        'with database() as db:\n    db.execute("CREATE',
        "HELD = sqlite3.connect(DATABASE, timeout=10, check_same_thread=False)\n"
        "HELD.execute('PRAGMA locking_mode=EXCLUSIVE')\n"
        'def database():\n    return HELD\n\nwith database() as db:\n    db.execute("CREATE',
    )
    assert "HELD" in held
    first = checkout.commit(obeying("first"))
    second = checkout.commit({**obeying("second"), "app.py": held})
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    assert (await server.post(second, "its own")).status == 201
    said = await server.verb("data", "snapshot", second, "--app", "shop", code=1)
    assert "is locked by its app" in said and "locking_mode=EXCLUSIVE" in said and "stop it" in said
    assert await notes(server, second) == ["kept", "its own"]
    assert snapshots(server) == []
    await server.verb("stop", second, "--app", "shop")
    await server.verb("data", "snapshot", second, "--name", "at-rest", "--app", "shop")
    assert (await server.post(second, "more")).status == 201
    await server.verb("data", "restore", f"{second}@at-rest", "--yes", "--app", "shop")
    assert await notes(server, second) == ["kept", "its own"]
    await settled(server)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The data of `shop` lie on a disk of 16 MB."""
    place = tmp_path / "home/apps/shop/data"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


FILL = (
    "with database() as db:\n"
    "    db.execute('CREATE TABLE IF NOT EXISTS bulk (data BLOB)')\n"
    "    db.execute('INSERT INTO bulk VALUES (randomblob({size}))')\n"
    "db = database(); db.execute('PRAGMA wal_checkpoint(TRUNCATE)'); db.close()\n"
)


@pytest.mark.slow
async def test_a_disk_that_is_full_is_said_to_be_and_everything_goes_on_as_it_was(
    small_disk: Path, up: Up, checkout: Checkout
) -> None:
    first, second = checkout.commit(obeying("first")), checkout.commit(obeying("second"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    await server.verb("data", "snapshot", "--name", "small", "--app", "shop")
    await told(server, "", FILL.format(size=6 * MB))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, _free(small_disk) - 3 * MB)))
    await settled(server)
    before = names(server)

    said = await server.verb("data", "snapshot", "--name", "large", "--app", "shop", code=1)
    assert "is full" in said and "lazycloud disk" in said
    refused = await server.get(second)
    assert refused.status == 502 and "is full" in refused.text
    said = await server.verb("data", "restore", "production@small", "--yes", "--app", "shop", code=1)
    assert "is full" in said
    await settled(server)
    assert names(server) == before
    assert [one["name"] for one in snapshots(server)] == ["small"]
    assert await notes(server) == ["kept"]
    assert (await server.post("", "goes on")).status == 201

    freed = filler.stat().st_size
    filler.unlink()
    server.wait(lambda: _free(small_disk) >= freed, "room")  # which ext4 gives with its next commit
    await server.verb("deploy", second, "--app", "shop")
    assert await notes(server, second) == await notes(server) == ["kept", "goes on"]
    await server.verb("data", "rm", second, "--yes", "--app", "shop")
    await server.verb("data", "restore", "production@small", "--yes", "--app", "shop")
    assert await notes(server) == ["kept"]
    await settled(server)


def _free(place: Path) -> int:
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_frsize


async def test_a_second_server_on_one_home_is_refused_and_the_first_goes_on(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(obeying("first"))
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    said = server.cli(
        "up", str(checkout.path), "--home", str(server.home), "--listen", "localhost:0", code=None
    )
    assert f"A lazycloud server runs on {server.home} already (process {server.process.pid})" in said
    assert "another --home" in said
    await server.post("", "more")
    assert await notes(server) == ["kept", "more"]


@pytest.mark.slow
async def test_control_that_is_killed_while_it_copies_leaves_whole_snapshots_and_forks_or_none(
    up: Up, checkout: Checkout
) -> None:
    """At moments that differ each time; all that is listed afterwards is what production had, to the last row."""
    chance = random.Random(7)

    async def answers() -> bool:
        return (await server.get("lazycloud", "/login")).status == 200

    first = checkout.commit(obeying("first"))
    previews = [checkout.commit(obeying(f"preview {number}")) for number in range(3)]
    server = up(checkout.path, "--production", first)
    await told(server, "", FILL.format(size=30 * MB))
    for number, preview in enumerate(previews):
        await server.post("", f"note {number}")
        opening = asyncio.create_task(_tolerant(server, preview))
        taking = asyncio.create_task(
            server.verb("data", "snapshot", "--name", f"kill-{number}", "--app", "shop", code=None)
        )
        while not half_made(server) and not (opening.done() and taking.done()):
            await asyncio.sleep(0.002)
        await asyncio.sleep(chance.uniform(0, 0.1))
        server.children()["control"].kill()
        await asyncio.gather(opening, taking)
        await server.until(answers)
        await settled(server)

    expected = [f"note {number}" for number in range(len(previews))]
    for number, preview in enumerate(previews):
        if (await server.get(preview)).status != 200:  # its deploy failed with control
            await server.verb("deploy", preview, "--app", "shop")
        found = await notes(server, preview)
        assert found == expected[: len(found)] and len(found) > number
    assert await notes(server) == expected
    folder = server.home / "apps/shop/data/production.snapshots"
    listed = {str(one["id"]): one for one in snapshots(server)}
    assert {place.name for place in folder.glob("*")} == set(listed)
    for snapshot, one in listed.items():
        await server.verb(
            "data", "fork", f"production@{snapshot}", "--to", _next(checkout, snapshot), "--app", "shop"
        )
        label = checkout.git("rev-parse", "HEAD")
        number = int(str(one["name"]).removeprefix("kill-"))
        assert await notes(server, label) == expected[: number + 1]
        database = server.home / "apps/shop/data" / label / "database.sqlite"
        with contextlib.closing(sqlite3.connect(database)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT length(data) FROM bulk").fetchone() == (30 * MB,)
        await server.verb("data", "rm", label, "--yes", "--app", "shop")


def _next(checkout: Checkout, name: str) -> str:
    return checkout.commit({"name.txt": name})


async def _tolerant(server: Server, label: str) -> Answer | None:
    """A request that may be cut off with control."""
    with contextlib.suppress(Exception):
        return await server.get(label)
    return None
