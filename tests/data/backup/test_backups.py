"""Backups: bit for bit, small where little changed, and never mistaken for whole when they are not."""

import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazycloud.blobs.folder_store import FolderStore
from lazycloud.blobs.keys import SigningKey
from lazycloud.blobs.store import BACKUPS, Missing, StoreFailed
from lazycloud.data.backup import chunks, reading
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.making import Making
from lazycloud.data.backup.manifest import (
    FILE,
    FOLDER,
    LINK,
    PLAIN,
    Backup,
    Entry,
    Manifest,
    Untrusted,
    scope,
)
from lazycloud.data.fingerprint import fingerprint_of
from tests.waiting import until

KEY = SigningKey(bytes(range(32)))
OURS = scope("shop", KEY.public)


class Place:
    """A store, and a version's folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "store").mkdir()
        self.store = FolderStore(folder / "store", BACKUPS)
        self.data = folder / "version"
        (self.data / "files").mkdir(parents=True)
        self.at = 1_000_000.0
        with self.database() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        self.write(1, "one")

    def database(self) -> "closing[sqlite3.Connection]":
        return closing(sqlite3.connect(self.data / "database.sqlite", isolation_level=None))

    def write(self, number: int, text: str) -> None:
        with self.database() as database:
            database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (number, text))

    def make(self, again: frozenset[str] = frozenset()) -> tuple[Backup, Making]:
        self.at += 1
        making = Making(self.store, "shop", KEY, again)
        return making.make({"data": self.data}, self.at, "", {"commit": "3f2a"}), making

    def unfold(self, backup: Backup, name: str = "restored") -> Path:
        reading.unfold(self.store, backup, [KEY.public], self.folder / name)
        return self.folder / name / "data"

    def blobs(self) -> list[Path]:
        return sorted((self.folder / "store").rglob("*.lazybak"))

    def verdict(self, *expected: str) -> reading.Verdict:
        return reading.verify(self.store, reading.backups(self.store), [KEY.public], expected)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def same(one: Path, other: Path) -> bool:
    """Every path, byte, mode, time and link."""

    def facts(root: Path) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(root.rglob("*")):
            stat = path.lstat()
            content = (
                str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            )
            mode = 0 if path.is_symlink() else stat.st_mode
            found[str(path.relative_to(root))] = (mode, stat.st_mtime_ns, content)
        return found

    return facts(one) == facts(other)


def test_what_is_restored_is_what_there_was_bit_for_bit(place: Place) -> None:
    files = place.data / "files"
    (files / "deep" / "er").mkdir(parents=True)
    (files / "deep" / "er" / "large.bin").write_bytes(random.Random(1).randbytes(3 * chunks.SIZE + 17))
    (files / "empty").touch()
    (files / "secret").write_text("x")
    (files / "secret").chmod(0o600)
    (files / "latest").symlink_to("deep/er")
    (files / "outside").symlink_to("/etc/passwd")
    (files / os.fsdecode(b"not utf-8 \xff")).write_text("y")
    os.utime(files / "deep", ns=(5, 1_700_000_000_123_456_789))
    with closing(sqlite3.connect(files / "own.db")) as database:
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    before = fingerprint_of(place.data / "database.sqlite")
    backup, _ = place.make()
    restored = place.unfold(backup)
    assert same(place.data, restored)
    assert fingerprint_of(restored / "database.sqlite") == before
    manifest = reading.load(place.store, backup, [KEY.public])
    assert set(manifest.databases) == {"data/database.sqlite", "data/files/own.db"}
    assert (manifest.facts, manifest.note) == ({"commit": "3f2a"}, "")


def test_what_is_still_in_a_wal_is_backed_up(place: Place) -> None:
    holding = sqlite3.connect(place.data / "database.sqlite", isolation_level=None)
    holding.execute("INSERT INTO notes VALUES (7, 'in the WAL')")
    copy = place.folder / "copy"
    copy.mkdir()
    for name in ("database.sqlite", "database.sqlite-wal"):
        (copy / name).write_bytes((place.data / name).read_bytes())
    holding.close()
    backup = Making(place.store, "shop", KEY).make({"data": copy}, 1.0, "", {})
    with closing(sqlite3.connect(place.unfold(backup) / "database.sqlite")) as database:
        assert ("in the WAL",) in database.execute("SELECT text FROM notes").fetchall()


def test_a_backup_costs_what_changed(place: Place) -> None:
    (place.data / "files" / "large.bin").write_bytes(random.Random(1).randbytes(40 * chunks.SIZE))
    with place.database() as database:
        database.executescript(
            "CREATE TABLE bulk (x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
            " INSERT INTO bulk SELECT randomblob(2000) FROM n"
        )
    _, first = place.make()
    assert first.put > 60
    _, nothing = place.make()
    assert nothing.put == 0
    place.write(2, "two")
    _, little = place.make()
    assert 0 < little.put <= 3 and little.put_bytes < first.put_bytes / 10


def test_any_bit_that_flips_is_noticed(place: Place) -> None:
    (place.data / "files" / "text").write_text("words, words, words\n" * 2000)
    backups = [place.make()[0] for _ in range(2)]
    place.write(2, "two")
    backups.append(place.make()[0])
    assert place.verdict() == reading.Verdict(3, 3, place.verdict().chunks, (), ())
    dice = random.Random(int(os.environ.get("SEED", "1")))
    for blob in place.blobs():
        good = blob.read_bytes()
        for _ in range(12):
            bad = bytearray(good)
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
            blob.write_bytes(bad)
            verdict = place.verdict()
            assert verdict.troubles and verdict.whole < 3, blob
        for bad_one in (b"", good[:-1], good + b"\0"):
            blob.write_bytes(bad_one)
            assert place.verdict().troubles, blob
        blob.write_bytes(good)
    assert place.verdict().whole == 3


def test_what_is_damaged_is_never_restored_and_leaves_nothing(place: Place) -> None:
    backup, _ = place.make()
    for blob in place.blobs():
        good = blob.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 4
        blob.write_bytes(bad)
        with pytest.raises(Damaged):
            place.unfold(backup)
        assert not (place.folder / "restored").exists()
        for left in place.folder.glob(".restored*"):
            subprocess.run(["rm", "-r", left], check=True)
        blob.write_bytes(good)
    assert same(place.data, place.unfold(backup))


def test_a_piece_under_the_name_of_another_is_no_piece(place: Place) -> None:
    (place.data / "files" / "text").write_text("one")
    backup, _ = place.make()
    one, other = [blob for blob in place.blobs() if "chunks" in str(blob)][:2]
    one.write_bytes(other.read_bytes())
    verdict = place.verdict()
    assert len(verdict.troubles) == 1 and verdict.damaged == (one.name.removesuffix(".lazybak"),)
    with pytest.raises(Damaged, match="something else"):
        place.unfold(backup)


def test_what_went_missing_is_noticed_and_the_next_backup_mends_what_it_can(place: Place) -> None:
    kept = place.make()[0]
    gone = place.make()[0]
    chunk = next(blob for blob in place.blobs() if "chunks" in str(blob))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    verdict = place.verdict(kept.id, gone.id)
    assert verdict.damaged == (chunk.name.removesuffix(".lazybak"),)
    _, making = place.make(again=frozenset(verdict.damaged))
    assert making.put == 1
    assert place.verdict().whole == 3  # those before, too
    chunk.unlink()
    assert "lacks 1 pieces, of data/" in place.verdict().troubles[0]
    place.make()
    assert place.verdict().whole == 4
    place.store.delete(gone.name)
    assert "not there any more" in place.verdict(kept.id, gone.id).troubles[0]
    with pytest.raises(Missing):
        place.unfold(gone)


def test_what_another_server_signed_counts_only_if_somebody_trusts_it(place: Place) -> None:
    backup, _ = place.make()
    other = SigningKey(bytes(32))
    with pytest.raises(Untrusted, match="ed25519:") as caught:
        reading.load(place.store, backup, [other.public])
    assert "--signed-by" in caught.value.advice
    blob = io.BytesIO()
    place.store.get(backup.name, blob)
    forged = bytearray(blob.getvalue())
    forged[8:40] = other.public  # signed by us, and said to be by another
    false = Backup.of(backup.scope, backup.at, bytes(forged))
    place.store.put(false.name, io.BytesIO(bytes(forged)))
    with pytest.raises(Damaged, match="not signed by whom it says"):
        reading.load(place.store, false, [other.public])


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("../x", FILE, 0o600, 0)],
        [Entry("/etc/x", FILE, 0o600, 0)],
        [Entry("a/b", FILE, 0o600, 0)],
        [Entry("a", LINK, 0, 0, target="/etc"), Entry("a/b", FILE, 0o600, 0)],
        [Entry("a", FOLDER, 0o700, 0), Entry("a", LINK, 0, 0, target="/etc")],
        [Entry("a", "device", 0o700, 0)],
        [Entry("a", FILE, 0o600, 0, chunks=("../../x",))],
        [Entry("", FILE, 0o600, 0)],
    ],
)
def test_whoever_signed_it_nothing_is_written_outside_or_through_a_link(
    place: Place, entries: list[Entry]
) -> None:
    blob = Manifest("shop", 1.0, "", {}, tuple(entries), {}).pack(KEY)
    backup = Backup.of(OURS, 1.0, blob)
    place.store.put(backup.name, io.BytesIO(blob))
    with pytest.raises(Damaged, match="cannot be"):
        place.unfold(backup)


def test_what_is_forgotten_takes_the_pieces_that_nobody_else_needs(place: Place) -> None:
    (place.data / "files" / "early").write_text("early")
    early = place.make()[0]
    (place.data / "files" / "early").unlink()
    place.write(2, "two")
    late = place.make()[0]
    before = len(place.blobs())
    assert reading.forget(place.store, OURS, [early.id], [KEY.public]) > 0
    assert before - len(place.blobs()) >= 2
    assert reading.backups(place.store) == [late]
    assert same(place.data, place.unfold(late))
    blob = next(blob for blob in place.blobs() if "backups" in str(blob))
    good = blob.read_bytes()
    blob.write_bytes(good[:-1])
    place.make()
    count = len(place.blobs())
    assert reading.forget(place.store, OURS, [], [KEY.public]) == 0  # nobody knows what the damaged one needs
    assert len(place.blobs()) == count


def test_a_database_that_is_damaged_is_kept_and_said(place: Place) -> None:
    content = bytearray((place.data / "database.sqlite").read_bytes())
    (place.data / "files" / "bad\x1b[2J.db").write_bytes(content[:16] + b"\xff" * 4000)
    backup, _ = place.make()
    assert (
        "data/files/bad�[2J.db is no whole database" in reading.load(place.store, backup, [KEY.public]).note
    )
    assert same(place.data, place.unfold(backup))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_store_that_is_full_or_away_says_so_and_has_what_it_had(place: Place, small_disk: Path) -> None:
    place.store = FolderStore(small_disk, BACKUPS)
    kept, _ = place.make()
    (place.data / "files" / "large.bin").write_bytes(random.Random(1).randbytes(6_000_000))
    with pytest.raises(StoreFailed, match=r"backup store .* is full"):
        place.make()
    assert reading.backups(place.store) == [kept]
    assert place.verdict().whole == 1
    (place.data / "files" / "large.bin").unlink()
    place.unfold(kept)
    reading.forget(place.store, OURS, [], [KEY.public])  # what nobody names makes room
    place.write(2, "two")
    place.make()
    assert place.verdict().whole == 2
    place.store = FolderStore(place.folder / "away", BACKUPS)
    with pytest.raises(StoreFailed, match="is not there"):
        place.make()


async def test_one_that_is_killed_in_the_middle_leaves_the_last_whole_one(place: Place) -> None:
    """At any moment: what is half put has no name yet."""
    kept, _ = place.make()
    (place.data / "files" / "large.bin").write_bytes(random.Random(1).randbytes(200 * chunks.SIZE))
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from tests.data.backup.test_backups import *
        store = FolderStore(Path({str(place.folder / "store")!r}), BACKUPS)
        print("go", flush=True)
        Making(store, "shop", KEY).make({{"data": Path({str(place.data)!r})}}, 2_000_000.0, "", {{}})
        """
    )
    for number in (1, 120):
        process = subprocess.Popen(  # noqa: ASYNC220 - which is quick
            [sys.executable, "-c", script], cwd=Path(__file__).parents[3]
        )
        await until(lambda least=number: len(place.blobs()) > least)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert reading.backups(place.store) == [kept]
        assert place.verdict().whole == 1 and not place.verdict().troubles
    last, making = place.make()
    assert making.put < 200  # what was put counts
    assert same(place.data, place.unfold(last))


@given(st.binary(max_size=2000))
def test_a_piece_is_what_it_was(data: bytes) -> None:
    assert chunks.unpacked(chunks.name_of(data), chunks.packed(data)) == data


def test_a_piece_that_would_grow_without_end_is_damaged() -> None:
    data = bytes(50 * chunks.SIZE)
    with pytest.raises(Damaged):
        chunks.unpacked(chunks.name_of(data), chunks.packed(data))


def test_what_was_made_before_databases_came_in_layers_is_read_as_ever(tmp_path: Path) -> None:
    """Made by the lazycloud of then, whose format goes on being that of all that has no layers."""
    shutil.copytree(Path(__file__).with_name("format_1"), tmp_path / "store")
    store = FolderStore(tmp_path / "store", BACKUPS)
    (backup,) = reading.backups(store)
    assert reading.verify(store, [backup], [KEY.public]) == reading.Verdict(1, 1, 2, (), ())
    manifest = reading.unfold(store, backup, [KEY.public], tmp_path / "restored")
    assert (manifest.format, manifest.note, manifest.facts) == (PLAIN, "noted", {"commit": "3f2a"})
    assert (tmp_path / "restored/data/files/text").read_text() == "words"
    with closing(sqlite3.connect(tmp_path / "restored/data/database.sqlite")) as database:
        assert database.execute("SELECT * FROM notes").fetchall() == [(1, "of before")]
    blob = io.BytesIO()
    store.get(backup.name, blob)
    assert blob.getvalue()[:8] == b"lazybak\1" == manifest.pack(KEY)[:8]
    assert reading.load(store, backup, [KEY.public]) == manifest


def test_a_format_that_is_not_known_is_said_to_be_one(place: Place) -> None:
    backup, _ = place.make()
    manifest = reading.load(place.store, backup, [KEY.public])
    newer = replace(manifest, format=9).pack(KEY)
    backup = Backup.of(OURS, 5.0, newer)
    place.store.put(backup.name, io.BytesIO(newer))
    with pytest.raises(Damaged, match="another format") as caught:
        place.unfold(backup)
    assert "newer lazycloud" in caught.value.advice
