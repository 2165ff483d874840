"""Images of a database at a mark, compared by contents with a model that never saw its files."""

from __future__ import annotations

import itertools
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from lazycloud.data import blocks, image, wal
from lazycloud.data.image import DATABASE
from lazycloud.errors import Unavailable
from tests.tools import needs

from .app import App, commits, contents, modelled
from .wals import taken, written

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


@contextmanager
def opened(place: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(place, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def folded(folder: Path, *segments: Path, marks: list[wal.Mark]) -> Path:
    """A copy of the image's base in a folder with WALs folded into it."""
    with opened(folder / DATABASE) as base:
        descriptors = [os.open(segment, os.O_RDONLY) for segment in segments]
        image.fold(base, zip(descriptors, marks, strict=True))
        for descriptor in descriptors:
            os.close(descriptor)
    return folder / DATABASE


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_every_mark_of_a_run_gives_what_was_committed_there(tmp_path: Path, page_size: int) -> None:
    with App(tmp_path / "app.db", page_size) as app, modelled() as model:
        run = [(app.commit(each), model.commit(each)) for each in commits(page_size, 20)]
        assert len({mark.frame for mark, _ in run}) == 20 and {mark.page_size for mark, _ in run} == {
            page_size
        }
        for number, (mark, expected) in enumerate(run):
            folder = made(tmp_path / str(number))
            image.make(app.base, app.wal, mark, folder, app.shm, trusted=bool(number % 2))
            assert names(folder) == [DATABASE, f"{DATABASE}-wal"]
            copy = made(folder / "folded")
            image.make(app.base, -1, mark._replace(frame=0), copy)
            assert contents(folded(copy, folder / f"{DATABASE}-wal", marks=[mark])) == expected
            assert contents(folder / DATABASE) == expected


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL", "FULL"])
@pytest.mark.parametrize("autocheckpoint", [0, 1, 1000])
def test_an_image_is_right_or_refused_whatever_the_checkpoints_do(
    tmp_path: Path, autocheckpoint: int, synchronous: str
) -> None:
    refused, before = 0, None
    with (
        App(tmp_path / "app.db", 512, autocheckpoint, f"PRAGMA synchronous={synchronous}") as app,
        modelled() as model,
    ):
        for number, each in enumerate(commits(7, 20)):
            if number in (6, 14):  # of which each takes some 600 frames
                each.append(("INSERT INTO notes VALUES (hex(zeroblob(150000)), 300000)", []))
            mark, expected = app.commit(each), model.commit(each)
            image.make(app.base, app.wal, mark, made(tmp_path / f"{number}"), app.shm)
            assert contents(tmp_path / f"{number}" / DATABASE) == expected
            if before:
                old, was = before
                folder = made(tmp_path / f"{number} old")
                try:
                    image.make(app.base, app.wal, old, folder, app.shm)
                except Unavailable:
                    refused += 1
                    assert not names(folder)
                else:
                    assert contents(folder / DATABASE) == was
            before = mark, expected
    assert {0: refused == 0, 1: refused == 19, 1000: 0 < refused < 19}[autocheckpoint], refused


def test_an_image_that_breaks_the_rule_is_wrong_where_sqlite_says_ok_and_the_index_tells(
    tmp_path: Path,
) -> None:
    ids = "WITH ids (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM ids LIMIT 20)"
    rows = f"CREATE TABLE t AS {ids} SELECT id, hex(zeroblob(1500)) AS a FROM ids"
    with App(tmp_path / "app.db") as app, modelled() as model:
        app.commit([(rows, [])]), model.commit([(rows, [])])
        app.run("PRAGMA wal_checkpoint(RESTART)")
        changes = [
            [("UPDATE t SET a = substr(a, 2) || 'x' WHERE id = ?", [number])] for number in range(1, 21)
        ]  # each on a page of its own
        run = [(app.commit(each), model.commit(each)) for each in changes]
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        wrong = 0
        for number, (mark, expected) in enumerate(run[:-1]):
            folder = made(tmp_path / str(number))
            with pytest.raises(Unavailable, match="A checkpoint has written"):
                image.make(app.base, app.wal, mark, folder, app.shm)
            image.make(app.base, app.wal, mark, folder)  # the caller answers for it, and should not have
            with closing(sqlite3.connect(folder / DATABASE)) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            wrong += contents(folder / DATABASE) != expected
        image.make(app.base, app.wal, run[-1][0], made(tmp_path / "last"), app.shm)
        assert contents(tmp_path / "last" / DATABASE) == run[-1][1]
    assert wrong == 19


def test_images_taken_beside_a_writer_are_each_of_one_commit(tmp_path: Path) -> None:
    expected, history = [], list(commits(11, 250))
    with modelled() as model:
        expected = [model.commit(each) for each in history]
    tried = right = refused = latest = 0
    with App(tmp_path / "app.db", autocheckpoint=200) as app:
        script = "import json, sys\nfrom tests.data.app import writing\nwriting(*json.loads(sys.argv[1]))"
        writer = subprocess.Popen([sys.executable, "-c", script, f'["{app.place}", 11, 250]'])
        while writer.poll() is None:
            mark = wal.state(app.shm).mark
            folder, tried = made(tmp_path / f"{tried}"), tried + 1
            try:
                image.make(app.base, app.wal, mark, folder, app.shm, trusted=right % 2 == 0)
            except Unavailable:
                refused += 1
                continue
            with closing(sqlite3.connect(folder / DATABASE)) as copy:
                if not copy.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    continue
                ((number,),) = copy.execute("SELECT number FROM said").fetchall()
            assert contents(folder / DATABASE) == expected[number] and number >= latest
            right, latest = right + 1, number
        assert writer.returncode == 0
    assert right > 5, refused


def test_a_chain_of_wals_over_one_base_folds_to_what_sqlite_makes_of_it(tmp_path: Path) -> None:
    segments, marks = list[Path](), list[wal.Mark]()
    with App(tmp_path / "app.db", 1024) as app, modelled() as model:
        folder = made(tmp_path / "image")
        image.make(app.base, app.wal, wal.state(app.shm).mark, folder, app.shm)
        for number, each in enumerate(commits(5, 90)):
            mark, expected = app.commit(each), model.commit(each)
            if number % 15 == 14:
                segments.append(tmp_path / f"segment{number}")
                segments[-1].write_bytes((tmp_path / "app.db-wal").read_bytes())
                marks.append(mark)
                app.run("PRAGMA wal_checkpoint(RESTART)")
        assert all(wal.follows(*pair) for pair in itertools.pairwise(marks))
        place = folded(folder, *segments, marks=marks)
        assert place.read_bytes() == (tmp_path / "app.db").read_bytes()
        assert contents(place) == expected
        again = made(tmp_path / "gap")
        with pytest.raises(Unavailable, match="missing between two"):
            (again / DATABASE).write_bytes(place.read_bytes())
            folded(again, segments[0], segments[2], marks=[marks[0], marks[2]])


def test_a_database_that_shrinks_and_grows_folds_as_sqlite_checkpoints(tmp_path: Path) -> None:
    with App(tmp_path / "app.db", 512, more="PRAGMA auto_vacuum=FULL") as app:
        folder = made(tmp_path / "image")
        image.make(app.base, app.wal, wal.state(app.shm).mark, folder, app.shm)
        app.run("CREATE TABLE t (a)")
        for size in (50_000, 400_000, 10_000, 90_000):
            app.run("DELETE FROM t")
            app.run("INSERT INTO t VALUES (hex(zeroblob(?)))", size)
        app.run("DELETE FROM t")
        app.run("VACUUM")
        mark = wal.state(app.shm).mark
        segment = tmp_path / "segment"
        segment.write_bytes((tmp_path / "app.db-wal").read_bytes())
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
        place = folded(folder, segment, marks=[mark])
        assert place.read_bytes() == (tmp_path / "app.db").read_bytes()
        assert place.stat().st_size == mark.pages * 512


def test_after_the_wal_has_started_over_an_old_mark_is_refused(tmp_path: Path) -> None:
    with App(tmp_path / "app.db") as app, modelled() as model:
        run = commits(1, 9)
        for each in (next(run), next(run)):
            old = app.commit(each)
            model.commit(each)
        app.run("PRAGMA wal_checkpoint(TRUNCATE)")
        restarted = wal.state(app.shm).mark
        assert restarted[2:] == (0, 0, 0, 0, 0) and wal.follows(old, restarted)
        folder = made(tmp_path / "image")
        with pytest.raises(Unavailable, match="started over"):
            image.make(app.base, app.wal, old, folder, app.shm)
        expected = model.commit([])
        image.make(app.base, app.wal, restarted, folder, app.shm)
        assert names(folder) == [DATABASE] and contents(folder / DATABASE) == expected
        for each in run:
            new, expected = app.commit(each), model.commit(each)
        with pytest.raises(Unavailable, match="started over"):
            wal.verify(app.wal, old)
        with pytest.raises(Unavailable, match="started over"):
            image.make(app.base, app.wal, old, made(tmp_path / "old"))
        with pytest.raises(Unavailable, match=r"A checkpoint|started over"):
            app.run("PRAGMA wal_checkpoint(PASSIVE)")
            image.make(app.base, -1, restarted, made(tmp_path / "base"), app.shm)
        image.make(app.base, app.wal, new, made(tmp_path / "new"), app.shm)
        assert contents(tmp_path / "new" / DATABASE) == expected


def test_a_wal_that_starts_over_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    """Even where only its salts are looked at: its new header is there before any of its new frames."""
    with App(tmp_path / "app.db") as app:
        mark = app.commit(next(commits(1, 1)))
        copy = tmp_path / "wal"
        copy.write_bytes((tmp_path / "app.db-wal").read_bytes())

        class Swapped(wal.Walk):
            def skim(self, data: bytes) -> None:
                super().skim(data)
                with copy.open("r+b") as file:
                    file.write(written([], mark.page_size, (1, 2)))

        with opened(copy) as live, pytest.MonkeyPatch.context() as patch:
            patch.setattr(wal, "Walk", Swapped)
            with pytest.raises(Unavailable, match="started over while"):
                image.make(app.base, live, mark, made(tmp_path / "image"), trusted=True)
        assert not names(tmp_path / "image")


def test_over_a_gigabyte_the_page_that_is_only_locked_stays_a_hole(tmp_path: Path) -> None:
    size, place = 4096, tmp_path / "app.db"
    image.empty(place)
    with place.open("r+b") as file:  # all pages but the first were never used, which SQLite does not mind
        file.seek(28)
        file.write(struct.pack(">I", (1 << 30) // size - 12))
        file.truncate((1 << 30) - 12 * size)
    with App(place) as app, modelled() as model:
        folder = made(tmp_path / "image")
        run = list(commits(2, 30))
        for each in run[:5]:
            app.commit(each), model.commit(each)
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        first = wal.state(app.shm).mark
        image.make(app.base, app.wal, first, folder, app.shm)
        app.run("PRAGMA wal_checkpoint(RESTART)")
        for each in run[5:]:
            mark, expected = app.commit(each), model.commit(each)
        assert first.pages < (1 << 30) // size < mark.pages - 2
        other = made(tmp_path / "other")
        image.make(app.base, app.wal, mark, other, app.shm)
        segment = tmp_path / "segment"
        segment.write_bytes((tmp_path / "app.db-wal").read_bytes())
        assert contents(other / DATABASE) == expected
        (folder / f"{DATABASE}-wal").rename(tmp_path / "first")
        result = folded(folder, tmp_path / "first", segment, marks=[first, mark])
        assert (other / DATABASE).stat().st_blocks * 512 < 10_000_000
        assert result.stat().st_blocks * 512 < 10_000_000
        assert result.stat().st_size == mark.pages * size > 1 << 30
        with result.open("rb") as file:
            file.seek(1 << 30)
            assert not any(file.read(size))
        assert contents(result) == expected


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def reflinking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where files can share blocks."""
    home = tmp_path_factory.mktemp(request.param)
    disk, place = home / "disk", made(home / "mounted")
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    for command in ([f"mkfs.{request.param}", "-q", disk], ["mount", "-o", "loop", disk, place]):
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"only root can mount a small {request.param}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@needs("mkfs.xfs", "mkfs.btrfs")
def test_where_files_can_share_blocks_an_image_takes_none_for_the_base(reflinking: Path) -> None:
    with App(reflinking / "app.db") as app, modelled() as model:
        app.run("CREATE TABLE bulk AS SELECT zeroblob(20000000) AS a")
        model.commit([("CREATE TABLE bulk AS SELECT zeroblob(20000000) AS a", [])])
        app.run("PRAGMA wal_checkpoint(RESTART)")
        before = available(reflinking)
        for number, each in enumerate(commits(4, 6)):
            mark, expected = app.commit(each), model.commit(each)
            folder = made(reflinking / str(number))
            assert image.make(app.base, app.wal, mark, folder, app.shm)
            assert contents(folder / DATABASE) == expected
        assert before - available(reflinking) < 15_000_000


def available(place: Path) -> int:
    """Bytes, when all that was written there has its blocks."""
    subprocess.run(["sync", "--file-system", place], check=True)
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_bsize


def test_a_copy_has_the_holes_and_the_bytes_of_its_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for at in (0, 5_000_000, 9_000_001):
            file.seek(at)
            file.write(os.urandom(300_000))
        file.truncate(50_000_000)
    for give in (blocks.give, blocks.copy):
        target = tmp_path / "target"
        with opened(source) as one, opened(target, os.O_RDWR | os.O_CREAT) as two:
            give(one, two)
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_blocks * 512 < 2_000_000
        target.unlink()


def test_an_empty_database_is_what_sqlite_makes(tmp_path: Path) -> None:
    image.empty(tmp_path / "ours")
    with closing(sqlite3.connect(tmp_path / "theirs", isolation_level=None)) as connection:
        assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    ours, theirs = [(tmp_path / name).read_bytes() for name in ("ours", "theirs")]
    assert ours[:96] + ours[100:] == theirs[:96] + theirs[100:]  # but for which SQLite wrote it last
    with closing(sqlite3.connect(tmp_path / "ours")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("CREATE TABLE t (a)")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with pytest.raises(FileExistsError):
        image.empty(tmp_path / "ours")


def test_a_database_says_how_it_is_written(tmp_path: Path) -> None:
    for mode, expected in {"delete": "rollback", "wal": "wal"}.items():
        with closing(sqlite3.connect(tmp_path / mode, isolation_level=None)) as connection:
            connection.execute("PRAGMA page_size=65536")
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("CREATE TABLE t (a)")
        with opened(tmp_path / mode) as base:
            assert (image.journal_mode(base), image.page_size(base)) == (expected, 65536)
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a database" * 100)
    with opened(tmp_path / "empty") as base:
        assert image.journal_mode(base) == ""
        with pytest.raises(Unavailable, match="is empty"):
            image.page_size(base)
    with opened(tmp_path / "text") as base, pytest.raises(Unavailable, match="no SQLite database"):
        image.journal_mode(base)


def test_a_database_in_another_mode_has_no_image(tmp_path: Path) -> None:
    with App(tmp_path / "app.db") as app:
        mark = app.commit(next(commits(1, 1)))
        with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.execute("CREATE TABLE t (a)")
        with opened(tmp_path / "other.db") as base:
            with pytest.raises(Unavailable, match="not in WAL mode"):
                image.make(base, app.wal, mark, tmp_path)
            with pytest.raises(Unavailable, match="not in WAL mode"):
                image.fold(base, [(app.wal, mark)])


def test_pages_of_another_size_are_refused(tmp_path: Path) -> None:
    image.empty(tmp_path / "small")
    with App(tmp_path / "app.db", 8192) as app, opened(tmp_path / "small") as base:
        mark = app.commit(next(commits(1, 1)))
        with pytest.raises(Unavailable, match="pages of 4096 bytes, and its WAL of 8192"):
            image.make(base, app.wal, mark, tmp_path)
        with pytest.raises(Unavailable, match="pages of 4096 bytes, and its WAL of 8192"):
            image.fold(base, [(app.wal, mark)])


def bent(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_nothing_is_folded_from_a_wal_that_is_not_whole(tmp_path: Path) -> None:
    with App(tmp_path / "app.db") as app:
        empty = (tmp_path / "app.db").read_bytes()
        *_, mark = [app.commit(each) for each in commits(1, 9)]
        whole = (tmp_path / "app.db-wal").read_bytes()
    frames = taken(whole, mark)
    salts = mark.salt1, mark.salt2
    lock = (1 << 30) // mark.page_size + 1
    rollback = frames[0][2][:18] + b"\x01\x01" + frames[0][2][20:]
    cases = {
        "has .* bytes, and frame": (whole[: mark.end - 1], mark),
        "torn: it is good up to frame 2,": (bent(whole, wal.HEADER + 2 * (wal.FRAME + 4096) + 500), mark),
        "header is damaged": (bent(whole, 13), mark),
        "no whole header": (b"", mark),
        "another history": (whole, mark._replace(checksum1=7)),
        "started over": (whole, mark._replace(salt2=7)),
    }
    for number, frame in enumerate([(lock, lock + 1, bytes(4096)), (1, mark.pages, rollback)]):
        data = written([*frames, frame], 4096, salts)
        (tmp_path / "crafted").write_bytes(data)
        with opened(tmp_path / "crafted") as file:
            end = wal.last(file)
        assert end.frame == mark.frame + 1
        cases[("only ever locked", "out of WAL mode")[number]] = data, end
    for said, (data, end) in cases.items():
        (tmp_path / "base").write_bytes(empty)
        (tmp_path / "wal").write_bytes(data)
        with opened(tmp_path / "base") as base, opened(tmp_path / "wal") as file:
            with pytest.raises(Unavailable, match=said):
                image.fold(base, [(file, end)])
            assert (tmp_path / "base").read_bytes() == empty
            if "locked" not in said and "mode" not in said:
                with pytest.raises(Unavailable, match=said):
                    image.make(base, file, end, made(tmp_path / said.replace("/", "")))
