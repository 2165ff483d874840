"""Backups of a large database in layers: they cost what was written, and each is what its app had committed then."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lazycloud.blobs.folder_store import FolderStore
from lazycloud.blobs.keys import SigningKey
from lazycloud.blobs.store import BACKUPS, Missing
from lazycloud.data import held
from lazycloud.data.archive import Archive
from lazycloud.data.backup import job, layering, reading
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.manifest import LAYERED, PLAIN, Backup, Entry, Manifest
from lazycloud.data.fingerprint import fingerprint, fingerprint_of
from lazycloud.data.line import Line
from lazycloud.data.versions import Versions
from lazycloud.errors import Unavailable
from tests.data.client import Client
from tests.data.numbered import Ledger, wrong
from tests.waiting import until

DATABASE, PATH = "database.sqlite", "data/database.sqlite"
MOST = 100  # backups until something must have come about


@dataclass
class Continuous:
    """Production's data, backups of it one after the other, and what a writer had committed at each."""

    versions: Versions
    folder: Path
    at: float = 1_000_000.0
    layered: str = ""
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    restored: int = 0

    def __post_init__(self) -> None:
        (self.folder / "store").mkdir()
        self.store = FolderStore(self.folder / "store", BACKUPS)
        self.key = SigningKey.of(self.folder / "key")
        self.ledger = Ledger(self.folder / "ledger")

    @property
    def place(self) -> Path:
        return self.versions.place("production") / DATABASE

    @property
    def line(self) -> Line:
        return self.versions.lines._kept["production"]

    def order(
        self, place: Path, layers: dict[str, Any], again: Iterable[str] = (), full: bool = False
    ) -> dict[str, Any]:
        written = self.folder / f"layers {self.at}.json"
        written.write_text(json.dumps({f"data/{name}": one.as_json() for name, one in layers.items()}))
        self.at += 1
        return {
            "do": "make", "store": f"file://{self.folder}/store", "key_file": str(self.folder / "key"),
            "app": "shop", "at": self.at, "roots": {"data": str(place)}, "note": "", "facts": {},
            "again": list(again), "examine": 0, "full": full, "known": self.layered,
            "layers": str(written) if layers else "",
        }  # fmt: skip

    async def make(self, full: bool = False, again: Iterable[str] = ()) -> dict[str, Any]:
        least = self.ledger.done()
        async with self.versions.layered("production", {DATABASE}, both=full) as (place, layers):
            most = self.ledger.tried()
            facts = await asyncio.to_thread(job.make, self.order(place, layers, again, full))
        assert facts["unlike"] == []
        self.taken[facts["name"]] = least, most
        if not facts["full"]:
            self.layered = facts["name"]
        return facts

    def load(self, name: str) -> Manifest:
        return reading.load(self.store, named(name), [self.key.public])

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.load(name).entries if entry.path == PATH)

    def unfold(self, name: str) -> Path:
        self.restored += 1
        target = self.folder / f"restored {self.restored}"
        reading.unfold(self.store, named(name), [self.key.public], target)
        return target / PATH

    def fault(self, name: str) -> str:
        """What is wrong with what a backup gives."""
        place = self.unfold(name)
        try:
            return wrong(place, self.ledger, *self.taken[name])
        finally:
            shutil.rmtree(place.parents[1])

    def verdict(self) -> reading.Verdict:
        return reading.verify(self.store, reading.backups(self.store), [self.key.public])

    def blob(self, piece: str) -> Path:
        return next((self.folder / "store").glob(f"*/chunks/{piece}.lazybak"))


def named(name: str) -> Backup:
    found = Backup.named(name)
    assert found
    return found


@pytest.fixture
async def continuous(
    versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Continuous]:
    """Databases count as large."""
    monkeypatch.setattr(held, "SMALL", 0)
    await versions.fork("production", None)
    await versions.lines.hold("production")
    made = Continuous(versions, tmp_path)
    yield made
    made.ledger.close()


async def fill(continuous: Continuous, size: int) -> None:
    with Client(continuous.place) as client:
        assert client.run(
            "CREATE TABLE bulk (id INTEGER PRIMARY KEY, content BLOB)",
            "INSERT INTO bulk (content) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            f" WHERE i < {size // 4000}) SELECT randomblob(4000) FROM n",
            "SELECT 1",
        ).startswith("(1,")
    assert await continuous.line.rotate()


def writer(continuous: Continuous, *options: str) -> subprocess.Popen[bytes]:
    places = str(continuous.place), str(continuous.folder / "ledger")
    return subprocess.Popen([sys.executable, "-m", "tests.data.numbered", *places, *options])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--pause", "0.001"),
        ("--autocheckpoint", "20", "--reopen", "30"),
        ("--vacuum", "150", "--synchronous", "OFF"),
    ],
    ids=" ".join,
)
async def test_each_is_exactly_what_was_committed_whatever_happens_meanwhile(
    continuous: Continuous, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """A writer goes on through rotations, its own checkpoints, and bases that are copied anew; some are removed."""
    monkeypatch.setattr(held, "ROTATE_AT", 150)
    await fill(continuous, 3_000_000)
    process = writer(continuous, *options)
    names, wals, bases, number = list[str](), dict[str, int](), set[str](), 0
    try:
        await until(lambda: continuous.ledger.done() > 20)
        # Until some went through rotations, on a base that is shared: how soon is up to the machine.
        while number < 12 or ((max(wals.values()) < 3 or len(bases) > len(names) - 4) and number < MOST):
            before, number = continuous.ledger.done(), number + 1
            names.append((await continuous.make(full=number % 6 == 5))["name"])
            entry = continuous.entry(names[-1])
            wals[names[-1]] = len(entry.wals)
            bases |= {entry.base} - {""}
            await until(lambda least=before: continuous.ledger.done() > least + 20)  # type: ignore[misc]
    finally:
        process.kill()
        process.wait()
    longest = max(names, key=lambda name: wals[name])
    assert wals[longest] > 2 and len(bases) < len(names) - 3
    assert continuous.verdict().whole == len(names) and not continuous.verdict().troubles
    assert [continuous.fault(name) for name in names] == [""] * len(names)
    by_sqlite = put_together(continuous, longest)
    assert wrong(by_sqlite, continuous.ledger, *continuous.taken[longest]) == ""
    assert fingerprint_of(by_sqlite) == fingerprint_of(continuous.unfold(longest))
    gone, left = names[1::2], names[::2]
    ids = [named(name).id for name in gone]
    reading.forget(continuous.store, named(names[0]).scope, ids, [continuous.key.public])
    assert [continuous.fault(name) for name in left] == [""] * len(left)
    assert continuous.verdict().whole == len(left)


def counted() -> int:
    """Bytes that this process has read and written, by any call."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"]) + int(facts["wchar"])


def put_together(continuous: Continuous, name: str) -> Path:
    """What a backup has in layers, without anything of ours but its pieces."""
    entry, place = continuous.entry(name), continuous.folder / "by hand.sqlite"
    piece = reading._pieces(continuous.store, named(name))
    place.write_bytes(b"".join(map(piece, entry.chunks)))
    assert entry.wals
    for one in entry.wals:
        place.with_name(f"{place.name}-wal").write_bytes(b"".join(map(piece, one.chunks)))
        with closing(sqlite3.connect(place)) as database:
            assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return place


async def test_one_more_costs_what_was_written_and_not_what_there_is(continuous: Continuous) -> None:
    await fill(continuous, 24_000_000)
    with Client(continuous.place) as client:
        client.run("UPDATE bulk SET content = randomblob(4000) WHERE rowid = 7")
        before = counted()
        first = await continuous.make()
        assert counted() - before > 24_000_000 and first["put_bytes"] > 20_000_000 and not first["full"]
        for number in range(3):
            client.run(f"UPDATE bulk SET content = randomblob(4000) WHERE rowid = {500 * number + 9}")
            expected = fingerprint_of_live(client, continuous.folder)
            before = counted()
            facts = await continuous.make()
            assert counted() - before < 400_000, number
            assert 0 < facts["put_bytes"] < 80_000 and facts["put"] <= 2
            place = continuous.unfold(facts["name"])
            assert (fingerprint_of(place), place.stat().st_size) == (expected, facts["size"])
        await continuous.line.rotate()
        before = counted()
        facts = await continuous.make()
        assert counted() - before < 400_000 and facts["put"] == 0
        assert fingerprint_of(continuous.unfold(facts["name"])) == expected
        full = await continuous.make(full=True)
        assert (
            full["full"] and full["sound"] == [PATH] and full["put_bytes"] < 200_000
        )  # it has no other pieces
        assert continuous.load(full["name"]).databases[PATH] == expected
        assert (continuous.load(full["name"]).format, continuous.load(facts["name"]).format) == (
            PLAIN,
            LAYERED,
        )


def fingerprint_of_live(client: Client, folder: Path) -> str:
    """Of a copy by SQLite."""
    copy = folder / "copy.sqlite"
    client.run(f"VACUUM INTO '{copy}'")
    try:
        return fingerprint_of(copy)
    finally:
        copy.unlink()


async def three(continuous: Continuous) -> list[str]:
    """Names of backups of a database that was written before each, through a rotation."""
    await fill(continuous, 500_000)
    names = []
    with Client(continuous.place) as client:
        for number in range(3):
            client.run(f"UPDATE bulk SET content = randomblob(4000) WHERE id % 3 = {number}")
            names.append((await continuous.make())["name"])
            assert await continuous.line.rotate()
    return names


async def test_what_is_damaged_or_missing_is_never_restored_and_the_next_mends_it(
    continuous: Continuous,
) -> None:
    names = await three(continuous)
    entry = continuous.entry(names[-1])
    assert len(entry.wals) == 3 and entry.base
    pieces = [entry.chunks[1], *(one.chunks[-1] for one in entry.wals)]
    for piece in pieces:
        blob = continuous.blob(piece)
        good = blob.read_bytes()
        blob.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
        with pytest.raises(Damaged):
            continuous.unfold(names[-1])
        assert continuous.verdict().damaged == (piece,)
        blob.unlink()
        with pytest.raises(Missing):
            continuous.unfold(names[-1])
        blob.write_bytes(good)
    for piece in pieces:  # all at once, and there as it seems
        blob = continuous.blob(piece)
        blob.write_bytes(blob.read_bytes()[:-1])
    assert continuous.verdict().whole == 0
    facts = await continuous.make(again=pieces)
    assert facts["put"] == len(pieces) and not facts["full"]
    assert continuous.verdict().whole == 4
    assert [continuous.unfold(name).stat().st_size for name in names]
    for piece in pieces:
        continuous.blob(piece).unlink()
    facts = await continuous.make()  # without being told
    assert facts["put"] == len(pieces) and continuous.verdict().whole == 5


async def test_layers_that_do_not_fit_together_are_no_database(continuous: Continuous) -> None:
    """Whoever signed them: pieces that are whole, of WALs that are not the ones."""
    names = await three(continuous)
    first, last = continuous.load(names[0]), continuous.load(names[-1])
    entry = continuous.entry(names[-1])
    one, two, three_ = entry.wals
    cut = replace(two, chunks=two.chunks[:-1])
    wrongly = {
        "A WAL is missing": (one, three_),
        "salts do not follow": (two, one, three_),
        "shorter or longer": (one, cut, three_),
        "salts are others": (replace(one, mark=str(one.at._replace(salt2=1))),),
        "not what was committed": (one, two, replace(three_, mark=str(three_.at._replace(checksum1=1)))),
    }
    for number, (why, wals) in enumerate(wrongly.items()):
        forged = [replace(each, wals=wals) if each == entry else each for each in last.entries]
        with pytest.raises(Damaged, match=why):
            continuous.unfold(put(continuous, replace(last, entries=tuple(forged)), number))
    less = [replace(each, chunks=each.chunks[:3]) if each.base else each for each in first.entries]
    with pytest.raises(Damaged, match="of the backup does not fit together"):  # as SQLite finds
        continuous.unfold(put(continuous, replace(first, entries=tuple(less)), 99))
    for mark in ("", "1-2-3", "1-1-1-1-1-1-1", str(three_.at._replace(frame=0, page_size=0))):
        bad = replace(entry, wals=(replace(one, mark=mark),))
        with pytest.raises(Damaged, match="cannot be"):
            continuous.unfold(put(continuous, replace(last, entries=(*last.entries[:1], bad)), 100))
    troubles = continuous.verdict().troubles
    assert (
        continuous.verdict().whole == 4 and len(troubles) == 5 + 4
    )  # of one, the pieces that it names are whole


def put(continuous: Continuous, manifest: Manifest, number: int) -> str:
    blob = manifest.pack(continuous.key)
    backup = Backup.of(named(continuous.layered).scope, 2_000_000.0 + number, blob)
    continuous.store.put(backup.name, io.BytesIO(blob))
    return backup.name


async def test_one_that_is_killed_in_the_middle_hurts_neither_those_before_nor_the_next(
    continuous: Continuous,
) -> None:
    names = await three(continuous)
    with Client(continuous.place) as client:
        client.run("UPDATE bulk SET content = randomblob(4000)")
        await continuous.line.rotate()
        client.run("INSERT INTO bulk (content) VALUES (randomblob(6000000))")
        expected = fingerprint_of_live(client, continuous.folder)
        blobs = len(list((continuous.folder / "store").glob("*/chunks/*")))
        async with continuous.versions.layered("production", {DATABASE}) as (place, layers):
            words = [sys.executable, "-m", "lazycloud.data.backup.job"]
            process = await asyncio.create_subprocess_exec(
                *words, json.dumps(continuous.order(place, layers)), stdout=subprocess.DEVNULL
            )
            await until(lambda: len(list((continuous.folder / "store").glob("*/chunks/*"))) > blobs + 5)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        assert len(reading.backups(continuous.store)) == 3
        assert continuous.verdict().whole == 3
        facts = await continuous.make()
    assert len(continuous.entry(facts["name"]).wals) == 5
    assert fingerprint_of(continuous.unfold(facts["name"])) == expected
    assert continuous.verdict().whole == 4
    reading.forget(continuous.store, named(names[0]).scope, [named(names[1]).id], [continuous.key.public])
    assert fingerprint_of(continuous.unfold(facts["name"])) == expected


async def test_a_wal_that_is_not_what_was_committed_is_not_backed_up(continuous: Continuous) -> None:
    """What an archive says is not believed: a disk may lie, or somebody write there."""
    await three(continuous)
    with Client(continuous.place) as client:
        client.run("UPDATE bulk SET content = randomblob(4000) WHERE id < 90")
        async with continuous.versions.layered("production", {DATABASE}) as (place, layers):
            log = layers[DATABASE].wals[-1]
            with log.place.open("r+b") as file:
                file.seek(log.mark.end // 2)
                file.write(b"damage")
            with pytest.raises(Unavailable, match="torn"):
                await asyncio.to_thread(job.make, continuous.order(place, layers))
    assert len(reading.backups(continuous.store)) == 3


def test_a_database_is_complained_of_when_it_does_not_hold_together_and_not_for_functions_of_its_app(
    tmp_path: Path,
) -> None:
    place = tmp_path / DATABASE
    with closing(sqlite3.connect(place, isolation_level=None)) as database:
        database.create_function("twice", 1, lambda value: 2 * value, deterministic=True)
        database.executescript(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a, CHECK (twice(a) > 0));"
            "CREATE INDEX by_twice ON t (twice(a)); INSERT INTO t (a) VALUES (1), (2), (3);"
        )
    assert layering.complaints(place) == []
    with closing(sqlite3.connect(place, isolation_level=None)) as database:
        database.executescript(
            "DROP INDEX by_twice; CREATE TABLE u (a); CREATE INDEX by_a ON u (a); INSERT INTO u VALUES (1), (2);"
            "PRAGMA writable_schema=ON; DELETE FROM sqlite_master WHERE name = 't';"
        )
    assert layering.complaints(place)  # pages that belong to nothing
    place.write_bytes(place.read_bytes()[:4096])
    assert layering.complaints(place)


async def test_where_files_share_blocks_one_base_goes_on_all_the_same(
    continuous: Continuous, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone costs nothing; to read it as another base would."""
    monkeypatch.setattr(Archive, "can_clone", lambda self: True)
    names = await three(continuous)
    entries = [continuous.entry(name) for name in names]
    assert [len(entry.wals) for entry in entries] == [1, 2, 3]
    assert len({(entry.base, entry.chunks) for entry in entries}) == 1
    snapshot = await continuous.versions.snapshot("production")
    assert list(continuous.place.parent.parent.glob(f"*/{snapshot.id}/{DATABASE}"))


async def test_backups_and_snapshots_do_not_forget_for_each_other(continuous: Continuous) -> None:
    """They are of one moment here."""
    await fill(continuous, 100_000)
    with Client(continuous.place) as client:
        client.run("UPDATE bulk SET content = randomblob(4000) WHERE id = 1")
        expected = fingerprint_of_live(client, continuous.folder)
        snapshot = await continuous.versions.snapshot("production")
        facts = await continuous.make()
        client.run("UPDATE bulk SET content = randomblob(4000) WHERE id = 1")
    assert fingerprint_of(continuous.unfold(facts["name"])) == expected
    await continuous.versions.close()
    again = Versions(continuous.place.parent.parent)
    again.clear_leftovers()
    try:
        await again.fork("1234567", "production", at=snapshot.id)
        with closing(sqlite3.connect(again.place("1234567") / DATABASE)) as database:
            assert fingerprint(database, rowids=True) == expected
    finally:
        await again.close()
    assert not list(continuous.place.parent.parent.glob(".reading-*"))


async def test_a_full_one_says_when_layers_are_not_what_the_app_has(continuous: Continuous) -> None:
    await three(continuous)
    with Client(continuous.place) as client:
        client.run("UPDATE bulk SET content = randomblob(4000) WHERE id < 9")
        expected = fingerprint_of_live(client, continuous.folder)
    async with continuous.versions.layered("production", {DATABASE}, both=True) as (place, layers):
        whole = layers[DATABASE]
        less = replace(whole, wals=whole.wals[:-1])  # as if an archive had gone wrong
        gap = replace(whole, wals=(whole.wals[0], *whole.wals[2:]))
        orders = [continuous.order(place, {DATABASE: one}, full=True) for one in (less, gap, whole)]
        facts = [await asyncio.to_thread(job.make, order) for order in orders]
        assert [one["unlike"] for one in facts] == [[PATH], [PATH], []]
        assert not list(whole.base.parent.glob("*-together"))
    for one in facts:  # which is right all the same
        assert continuous.load(one["name"]).format == PLAIN
        assert fingerprint_of(continuous.unfold(one["name"])) == expected


async def test_a_database_that_is_a_link_to_one_in_layers_is_a_link(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "SMALL", 0)
    await versions.fork("production", None)
    place, real = versions.place("production"), "files/real.sqlite"
    (place / DATABASE).rename(place / real)
    (place / DATABASE).symlink_to(real)
    await versions.lines.hold("production")
    with Client(place / real) as client:
        client.run("CREATE TABLE t AS SELECT 1 AS n")
    async with versions.layered("production", {real}) as (made, layers):
        assert list(layers) == [real]
        assert (made / DATABASE).readlink() == Path(real)


async def test_a_path_that_is_there_twice_is_no_backup(continuous: Continuous) -> None:
    """Its database was exchanged while it was copied, and is there as a file, too."""
    with Client(continuous.place) as client:
        client.run("CREATE TABLE t AS SELECT 1 AS n")
    async with continuous.versions.layered("production", {DATABASE}) as (place, layers):
        assert layers
        (place / DATABASE).write_bytes(b"another")
        with pytest.raises(Unavailable, match="was exchanged"):
            job.make(continuous.order(place, layers))
    assert not list((continuous.folder / "store").glob("*/backups/*"))
