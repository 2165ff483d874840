"""Versions: forked whole, apart from each other, never half-made."""

import asyncio
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lazycloud.data import blocks, durable, held
from lazycloud.data.archive import Archive
from lazycloud.data.line import Line, Marks
from lazycloud.data.versions import Versions
from lazycloud.deployments.snapshots import changed_since
from lazycloud.errors import BadInput, Conflict, NotFound, StepFailed, Unavailable
from tests.test_trees import deep
from tests.waiting import PATIENCE, until

from .conftest import Write
from .contents import COMMIT, OTHER, database, files, leftovers, rows, write_bulk, write_rows


async def test_a_new_version_is_an_empty_database_in_wal_mode_and_an_empty_folder(versions: Versions) -> None:
    assert not versions.exists("production")
    fork = await versions.fork("production", None)
    assert (fork.version, fork.source, fork.made) == ("production", None, True)
    assert versions.exists("production")
    assert list(files(versions, "production").iterdir()) == []
    with closing(sqlite3.connect(database(versions, "production"))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


async def test_the_environment_has_absolute_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = Versions(Path("data")).environment("production")
    assert environment == {
        "DATABASE_URL": f"sqlite:///{tmp_path}/data/production/database.sqlite",
        "DATA_DIR": f"{tmp_path}/data/production/files",
    }
    assert environment["DATABASE_URL"].startswith("sqlite:////")


async def test_a_fork_has_the_data_of_its_source_and_then_its_own(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "one", "two")
    (files(versions, "production") / "photo.jpg").write_bytes(b"pixels")
    fork = await versions.fork(COMMIT, "production")
    assert (fork.source, fork.made) == ("production", True)
    assert fork.bytes == await versions.size(COMMIT) > 0
    write_rows(versions, COMMIT, "three")
    (files(versions, COMMIT) / "photo.jpg").write_bytes(b"others")
    assert rows(versions, "production") == ["one", "two"]
    assert rows(versions, COMMIT) == ["one", "two", "three"]
    assert (files(versions, "production") / "photo.jpg").read_bytes() == b"pixels"


async def test_the_folder_of_a_version_that_was_begun_becomes_the_versions(versions: Versions) -> None:
    await versions.fork("production", None)
    begun = versions.begin(COMMIT)
    assert versions.begin(COMMIT) == begun
    assert not versions.exists(COMMIT)
    seen = begun.stat().st_ino
    await versions.fork(COMMIT, "production")
    assert versions.place(COMMIT).stat().st_ino == seen
    assert versions.begin(COMMIT) == versions.place(COMMIT)
    assert begun.resolve() == versions.place(COMMIT)  # for who was told that name
    await versions.close()
    assert leftovers(versions) == []


async def test_what_a_worker_to_come_plants_in_a_begun_version_is_written_to_by_nobody(
    versions: Versions, tmp_path: Path
) -> None:
    await versions.fork("production", None)
    (versions.place("production") / "files" / "a.txt").write_text("data")
    begun, outside = versions.begin(COMMIT), tmp_path / "outside"
    outside.write_text("the server's")
    (begun / "database.sqlite").symlink_to(outside)
    (begun / "files").symlink_to(tmp_path)
    await versions.fork(COMMIT, "production")
    assert outside.read_text() == "the server's"
    assert (versions.place(COMMIT) / "files" / "a.txt").read_text() == "data"
    for name in ("database.sqlite", "files"):
        assert not (versions.place(COMMIT) / name).is_symlink()
    assert leftovers(versions) == [begun]  # the link for who was told that name


async def test_a_version_that_was_only_begun_leaves_nothing(versions: Versions) -> None:
    versions.begin(OTHER).rmdir()  # somebody's tidy hand
    await versions.fork(OTHER, None)
    versions.begin(COMMIT)
    await versions.close()
    assert leftovers(versions) == []


async def test_two_that_make_the_first_versions_at_once_do_not_get_in_each_others_way(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.begin(OTHER)
    with monkeypatch.context() as patch:
        looks = iter([False, False])  # no version, and no folder of any: as it was when it was looked
        patch.setattr(Path, "is_dir", lambda path: next(looks, True))
        versions.begin(COMMIT)
    await versions.close()
    assert leftovers(versions) == []


async def test_a_version_that_exists_is_left_as_it_is(versions: Versions) -> None:
    await versions.fork("production", None)
    await versions.fork(COMMIT, "production")
    write_rows(versions, COMMIT, "kept")
    fork = await versions.fork(COMMIT, "production")
    assert not fork.made
    assert rows(versions, COMMIT) == ["kept"]


async def test_twenty_callers_make_one_version(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "one")
    forks = await asyncio.gather(*(versions.fork(COMMIT, "production") for _ in range(20)))
    assert [fork.made for fork in forks].count(True) == 1
    assert rows(versions, COMMIT) == ["one"]


async def test_a_caller_that_is_cancelled_leaves_a_whole_version_or_none(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "one")
    write_bulk(database(versions, "production"), 50_000_000)
    forking = asyncio.create_task(versions.fork(COMMIT, "production"))
    await until(lambda: leftovers(versions))
    forking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forking
    await versions.fork(COMMIT, "production")
    assert rows(versions, COMMIT) == ["one"]
    assert not leftovers(versions)


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_every_fork_beside_a_writer_holds_whole_transactions(
    versions: Versions, write: Write, mode: str
) -> None:
    await versions.fork("production", None)
    counter = write("production", mode)
    await until(lambda: counter.exists())
    for number in range(25):
        name, before = f"{number:07x}", int(counter.read_text() or 0)
        await versions.fork(name, "production")
        with closing(sqlite3.connect(database(versions, name))) as connection:
            ours, theirs, moves = (
                connection.execute(f"SELECT sum({what}) FROM {table}").fetchone()[0]
                for what, table in (("amount", "ours"), ("amount", "theirs"), ("1", "moves"))
            )
            assert ours + theirs == 400_000
            assert moves >= before
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        await until(lambda before=before: int(counter.read_text() or 0) > before)  # it does not stand still


async def test_a_writer_goes_on_committing_during_a_copy(versions: Versions, write: Write) -> None:
    await versions.fork("production", None)
    write_bulk(database(versions, "production"), 100_000_000)
    counter = write("production", "wal")
    await until(lambda: counter.exists() and int(counter.read_text() or 0) > 20)
    forking = asyncio.create_task(versions.fork(COMMIT, "production"))
    await until(lambda: leftovers(versions))
    before = int(counter.read_text() or 0)
    await until(lambda: forking.done() or int(counter.read_text() or 0) > before + 2)
    assert not forking.done()
    await forking


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_fork_is_in_the_mode_of_its_source(versions: Versions, mode: str) -> None:
    await versions.fork("production", None)
    with closing(sqlite3.connect(database(versions, "production"))) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA page_size=8192")
        connection.execute("VACUUM")
        connection.execute(f"PRAGMA journal_mode={mode}")
    write_rows(versions, "production", "one")
    await versions.fork(COMMIT, "production")
    with closing(sqlite3.connect(database(versions, COMMIT))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
        assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
    assert rows(versions, COMMIT) == ["one"]


async def test_what_is_only_in_the_wal_is_in_the_fork(versions: Versions) -> None:
    await versions.fork("production", None)
    with closing(sqlite3.connect(database(versions, "production"))) as app:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("CREATE TABLE IF NOT EXISTS notes (text)")
        app.execute("INSERT INTO notes VALUES ('in the wal')")
        app.commit()
        copying = (
            "import asyncio, pathlib, sys; from lazycloud.data.versions import Versions;"
            "asyncio.run(Versions(pathlib.Path(sys.argv[1])).fork(sys.argv[2], 'production'))"
        )
        # In a process of its own, as this one has the database open.
        folder = str(database(versions, "production").parent.parent)
        await _ended(await asyncio.create_subprocess_exec(sys.executable, "-c", copying, folder, COMMIT))
    assert rows(versions, COMMIT) == ["in the wal"]


async def _ended(process: asyncio.subprocess.Process) -> None:
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_a_database_that_is_held_exclusively_is_said_to_be_after_a_bounded_wait(
    versions: Versions, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.25)
    monkeypatch.setattr(versions.lines, "_patience", 1.0)
    await versions.fork("production", None)
    holding = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        f"c.execute('PRAGMA journal_mode={mode}'); c.execute('PRAGMA locking_mode=EXCLUSIVE');"
        "c.execute('BEGIN EXCLUSIVE'); c.execute('CREATE TABLE t (a)'); print('held', flush=True); time.sleep(600)"
    )
    place = str(database(versions, "production"))
    app = await asyncio.create_subprocess_exec(
        sys.executable, "-c", holding, place, stdout=asyncio.subprocess.PIPE
    )
    assert app.stdout and await app.stdout.readline() == b"held\n"
    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StepFailed, match="locked by its app") as failed:
                await versions.fork(COMMIT, "production")
    finally:
        app.kill()
        await app.wait()
    assert "locking_mode=EXCLUSIVE" in failed.value.advice
    assert not versions.exists(COMMIT)
    assert not leftovers(versions)
    await versions.fork(COMMIT, "production")


async def test_a_source_that_is_no_database_any_more_is_an_error_and_not_an_empty_fork(
    versions: Versions,
) -> None:
    await versions.fork("production", None)
    database(versions, "production").write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StepFailed, match=r"database\.sqlite is damaged"):
        await versions.fork(COMMIT, "production")
    assert not versions.exists(COMMIT)


def _folder(place: Path) -> None:
    place.mkdir()


def _file(place: Path) -> None:
    place.write_text("")


def _circle(place: Path) -> None:
    place.symlink_to(place.name)


@pytest.mark.parametrize(
    ("name", "put", "words"),
    [
        ("database.sqlite", _folder, "is a folder now, and no database"),
        ("database.sqlite", os.mkfifo, "is a pipe now, and no database"),
        ("database.sqlite", _circle, "is a link that leads out"),
        ("files", _file, "is a file now, and no folder"),
        ("files", os.mkfifo, "is a pipe now, and no folder"),
        ("files", _circle, "is a link that leads out"),
    ],
)
async def test_what_is_put_in_place_of_data_is_an_error_and_no_empty_fork(
    versions: Versions, name: str, put: Callable[[Path], None], words: str
) -> None:
    await versions.fork("production", None)
    place = versions.place("production") / name
    place.rename(place.with_name("away"))
    put(place)
    for making in (versions.fork(COMMIT, "production"), versions.snapshot("production")):
        with pytest.raises(StepFailed, match=words):
            await making
    assert not versions.exists(COMMIT)
    assert not versions.snapshots("production")
    assert not leftovers(versions)


async def test_a_source_without_a_database_gives_an_empty_one(versions: Versions) -> None:
    await versions.fork("production", None)
    database(versions, "production").unlink()
    await versions.fork(COMMIT, "production")
    assert database(versions, COMMIT).exists()


async def test_a_source_that_is_not_there_is_not_found(versions: Versions) -> None:
    with pytest.raises(NotFound, match="no data of production"):
        await versions.fork(COMMIT, "production")
    assert not versions.exists(COMMIT)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../production", "abc", "a" * 65, "ABCDEF0", "production/files", "main", "/etc", "rehearsal-",
     "rehearsal-../x", "production\n", "production.snapshots", "0123456\0"],
)  # fmt: skip
async def test_a_name_that_no_version_has_never_becomes_a_path(versions: Versions, name: str) -> None:
    for use in (versions.exists, versions.environment):
        with pytest.raises(BadInput):
            use(name)
    for call in (
        versions.fork(name, None),
        versions.drop(name),
        versions.size(name),
        versions.snapshot(name),
    ):
        with pytest.raises(BadInput):
            await call
    with pytest.raises(BadInput):
        await versions.fork(COMMIT, name)


@pytest.mark.parametrize(
    "name", ["production", "0123456", "f" * 64, "rehearsal-3f2a9c1d0b", "migration-3f2a9c1d0b"]
)
async def test_these_are_names_of_versions(versions: Versions, name: str) -> None:
    assert not versions.exists(name)


async def test_a_snapshot_keeps_what_was_when_it_was_taken(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "before")
    (files(versions, "production") / "a.txt").write_text("before")
    snapshot = (await versions.snapshot("production")).id
    write_rows(versions, "production", "after")
    (files(versions, "production") / "a.txt").write_text("after")
    await versions.fork(COMMIT, "production", at=snapshot)
    assert rows(versions, COMMIT) == ["before"]
    assert (files(versions, COMMIT) / "a.txt").read_text() == "before"
    assert rows(versions, "production") == ["before", "after"]
    later = await versions.snapshot("production")
    assert later.id > snapshot and later.bytes > 0
    assert versions.snapshots("production") == [snapshot, later.id]
    await versions.drop_snapshot("production", snapshot)
    assert versions.snapshots("production") == [later.id]
    with pytest.raises(NotFound):
        await versions.fork(OTHER, "production", at=snapshot)


@pytest.mark.parametrize("at", ["..", "../production", "latest", "20250101T000000000000-00000000/.."])
async def test_an_id_that_no_snapshot_has_never_becomes_a_path(versions: Versions, at: str) -> None:
    await versions.fork("production", None)
    with pytest.raises(BadInput):
        await versions.fork(COMMIT, "production", at=at)


async def test_an_unknown_snapshot_is_not_found(versions: Versions) -> None:
    await versions.fork("production", None)
    with pytest.raises(NotFound):
        await versions.fork(COMMIT, "production", at="20250101T000000000000-00000000")


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases are taken for large ones on a file system that shares nothing."""
    monkeypatch.setattr("lazycloud.data.held.SMALL", 1000)
    monkeypatch.setattr(Archive, "can_clone", lambda self: False)


@pytest.mark.usefixtures("costly")
async def test_snapshots_of_a_large_database_share_one_base(versions: Versions) -> None:
    await versions.fork("production", None)
    await versions.lines.hold("production")
    taken = []
    for number in range(6):
        write_rows(versions, "production", f"before {number}")
        taken.append(await versions.snapshot("production"))
        if number == 2:
            with closing(sqlite3.connect(database(versions, "production"))) as app:
                app.execute("CREATE TABLE bulk AS SELECT randomblob(5000000)")
                app.commit()
            await until(lambda: versions.lines._kept["production"].stalls)  # the WAL was moved on
    folder = versions.place("production").parent
    assert not list(folder.glob("production.snapshots/*/database.sqlite"))
    assert len(list(folder.glob("production.archive/**/base"))) == 1
    again = Versions(folder)  # control was killed
    again.clear_leftovers()
    for number, snapshot in enumerate(taken):
        name = f"{number:07x}"
        await again.fork(name, "production", at=snapshot.id)
        assert rows(again, name) == [f"before {each}" for each in range(number + 1)]
        assert snapshot.bytes >= 4096
    for snapshot in taken:
        await again.drop_snapshot("production", snapshot.id)
    await again.close()
    assert not list(folder.glob("production.archive/**/base"))


@pytest.mark.usefixtures("costly")
async def test_one_of_two_snapshots_of_the_same_moment_may_go(versions: Versions) -> None:
    await versions.fork("production", None)
    await versions.lines.hold("production")
    write_rows(versions, "production", "one")
    gone, kept = [await versions.snapshot("production") for _ in range(2)]
    await versions.drop_snapshot("production", gone.id)
    write_rows(versions, "production", "two")
    await versions.close()
    again = Versions(versions.place("production").parent)
    again.clear_leftovers()
    await again.fork(COMMIT, "production", at=kept.id)
    assert rows(again, COMMIT) == ["one"]
    await again.drop_snapshot("production", kept.id)
    await again.close()
    assert not list(again.place("production").parent.glob("production.archive/**/base"))


@pytest.mark.usefixtures("costly")
async def test_what_is_kept_for_no_snapshot_goes_at_the_next_start(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "one")
    kept, lost = [await versions.snapshot("production") for _ in range(2)]
    folder = versions.place("production").parent
    shutil.rmtree(folder / "production.snapshots" / lost.id)
    again = Versions(folder)
    again.clear_leftovers()
    assert len(list(folder.glob("production.archive/kept/*.json"))) == 1
    await again.fork(COMMIT, "production", at=kept.id)
    assert rows(again, COMMIT) == ["one"]
    await again.drop_snapshot("production", kept.id)
    await again.close()
    assert not (folder / "production.archive").exists()


async def test_a_holder_that_dies_in_the_midst_of_a_copy_costs_another_try(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "one")
    await versions.lines.hold("production")
    image, killed = Line.image, []

    async def dying(line: Line, marks: Marks, target: Path, without: Collection[str]) -> str:
        if not killed:
            killed.append(line.holder_pid)
            os.kill(line.holder_pid or 0, signal.SIGKILL)
            await until(lambda: line.holder_pid is None)
            raise Unavailable("The holder has died.")
        return await image(line, marks, target, without)

    monkeypatch.setattr(Line, "image", dying)
    await versions.fork(COMMIT, "production")
    assert killed and rows(versions, COMMIT) == ["one"]
    assert not leftovers(versions)


async def test_what_an_app_put_beside_its_folder_of_files_comes_along(versions: Versions) -> None:
    await versions.fork("production", None)
    root = versions.place("production")
    (root / "cache.txt").write_text("mine")
    (root / "more").mkdir()
    for name in ("jobs.db", "more/more.db"):
        with closing(sqlite3.connect(root / name)) as app:
            app.execute("PRAGMA journal_mode=WAL")
            app.execute("CREATE TABLE t AS SELECT 1 AS a")
            app.commit()
    for name in ("moment.json", "postgres.dump"):
        (root / name).write_text("no app has a say in these")
    snapshot = await versions.snapshot("production")
    await versions.fork(COMMIT, "production", at=snapshot.id)
    await versions.fork(OTHER, "production")
    for version in (COMMIT, OTHER):
        place = versions.place(version)
        assert (place / "cache.txt").read_text() == "mine"
        for name in ("jobs.db", "more/more.db"):
            with closing(sqlite3.connect(place / name)) as app:
                assert app.execute("SELECT a FROM t").fetchall() == [(1,)]
        assert not (place / "moment.json").exists() and not (place / "postgres.dump").exists()


async def test_a_version_is_read_from_a_copy_of_its_own(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "before")
    async with versions.unfolded("production") as place:
        write_rows(versions, "production", "after")
        with closing(sqlite3.connect(place / "database.sqlite")) as database:
            assert database.execute("SELECT text FROM notes").fetchall() == [("before",)]
    assert not place.exists()
    assert not leftovers(versions)


async def test_two_versions_take_each_others_data_and_keep_their_snapshots(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "before")
    snapshot = await versions.snapshot("production")
    await versions.fork(COMMIT, "production")
    write_rows(versions, COMMIT, "migrated")
    await versions.swap("production", COMMIT)
    assert rows(versions, "production") == ["before", "migrated"]
    assert rows(versions, COMMIT) == ["before"]
    assert versions.snapshots("production") == [snapshot.id]
    assert await Versions(versions.place("production").parent).undo_swap("production")  # control was killed
    assert rows(versions, "production") == ["before"]
    await versions.swap("production", COMMIT)
    assert await versions.undo_swaps(holds=OTHER) == {"production": COMMIT}
    await versions.swap("production", COMMIT)
    assert await versions.undo_swaps(holds=COMMIT) == {}
    assert not await versions.undo_swap("production")
    assert rows(versions, "production") == ["before", "migrated"]
    assert not leftovers(versions)


async def test_who_holds_a_version_while_it_is_swapped_holds_what_it_has_then(versions: Versions) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "before")
    await versions.fork(COMMIT, "production")
    write_rows(versions, COMMIT, "migrated")
    await asyncio.gather(
        versions.lines.hold("production"),
        versions.swap("production", COMMIT),
        versions.lines.hold("production"),
    )
    await versions.fork(OTHER, "production")
    assert rows(versions, OTHER) == ["before", "migrated"]
    await asyncio.gather(versions.undo_swap("production"), versions.lines.hold("production"))
    await versions.fork("0" * 40, "production")
    assert rows(versions, "0" * 40) == ["before"]


async def test_a_swap_that_was_only_written_down_is_not_taken_back(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", "before")
    await versions.fork(COMMIT, None)

    def killed(*places: Path) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "exchange", killed)
        with pytest.raises(OSError, match="killed"):
            await versions.swap("production", COMMIT)
    assert not await versions.undo_swap("production")
    assert rows(versions, "production") == ["before"]


async def test_a_dropped_version_is_gone_with_its_snapshots(versions: Versions) -> None:
    await versions.fork(COMMIT, None)
    snapshot = (await versions.snapshot(COMMIT)).id
    await versions.drop(COMMIT)
    await versions.drop(COMMIT)
    assert not versions.exists(COMMIT)
    assert await versions.size(COMMIT) == 0
    await versions.fork(COMMIT, None)
    with pytest.raises(NotFound):
        await versions.fork(OTHER, COMMIT, at=snapshot)
    assert not leftovers(versions)


async def test_a_version_that_is_dropped_while_it_is_made_is_gone_afterwards(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versions.fork("production", None)
    begun, persist = threading.Event(), durable.persist

    def slowly(folder: Path) -> None:
        begun.set()
        time.sleep(0.3)
        persist(folder)

    monkeypatch.setattr(durable, "persist", slowly)
    making = asyncio.create_task(versions.fork(COMMIT, "production"))
    await until(begun.is_set)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    await versions.drop(COMMIT)
    await versions.close()
    assert not versions.exists(COMMIT)
    assert leftovers(versions) == []


@pytest.mark.parametrize("whole", [False, True])
async def test_a_copy_of_a_snapshot_that_is_dropped_meanwhile_is_whole(
    versions: Versions, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versions.fork(COMMIT, None)
    write_rows(versions, COMMIT, "one")
    for number in range(4):
        (files(versions, COMMIT) / f"{number}").write_text("here")
    snapshot = await versions.snapshot(COMMIT)
    begun, give = threading.Event(), blocks.give

    def slowly(source: int, target: int) -> bool:
        begun.set()
        time.sleep(0.1)
        return give(source, target)

    monkeypatch.setattr(blocks, "give", slowly)
    making = asyncio.create_task(versions.fork(OTHER, COMMIT, snapshot.id))
    await until(begun.is_set)
    await (versions.drop(COMMIT) if whole else versions.drop_snapshot(COMMIT, snapshot.id))
    await making
    assert rows(versions, OTHER) == ["one"]
    assert len(list(files(versions, OTHER).iterdir())) == 4
    assert versions.snapshots(COMMIT) == []


async def test_production_is_dropped_only_by_force(versions: Versions) -> None:
    await versions.fork("production", None)
    with pytest.raises(Conflict):
        await versions.drop("production")
    assert versions.exists("production")
    await versions.drop("production", force=True)
    assert not versions.exists("production")


async def test_sigkill_in_the_middle_leaves_nothing_that_looks_whole(
    versions: Versions, tmp_path: Path
) -> None:
    await versions.fork("production", None)
    write_rows(versions, "production", *map(str, range(20000)))
    script = """
        import asyncio, pathlib, sys
        from lazycloud.data.versions import Versions
        async def main():
            versions = Versions(pathlib.Path(sys.argv[1]))
            for number in range(100000):
                await versions.fork(f"{number:07x}", "production")
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "data")]
    with subprocess.Popen(command) as forking:  # noqa: ASYNC220 - to be killed
        try:
            await until(lambda: versions.exists("0000002") and leftovers(versions))
        finally:
            os.kill(forking.pid, signal.SIGKILL)
    again = Versions(tmp_path / "data")
    again.clear_leftovers()
    assert not leftovers(again)
    whole = [place.name for place in (tmp_path / "data").iterdir() if place.name != "production"]
    assert len(whole) >= 3
    assert all(len(rows(again, name)) == 20000 for name in whole)


async def test_nothing_runs_until_something_is_asked_for(tmp_path: Path) -> None:
    before = threading.active_count()
    Versions(tmp_path / "data").clear_leftovers()
    assert threading.active_count() == before
    assert not (tmp_path / "data").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("where", ["database", "files", "a database among the files"])
async def test_a_full_disk_is_said_to_be_full_and_nothing_half_made_is_left(
    small_disk: Path, where: str
) -> None:
    versions = Versions(small_disk / "data")
    await versions.fork("production", None)
    if where == "files":
        (files(versions, "production") / "large").write_bytes(os.urandom(5_000_000))
    else:
        inside = files(versions, "production") / "inside.db"
        write_bulk(database(versions, "production") if where == "database" else inside, 5_000_000)
    content = _digest(small_disk)
    with pytest.raises(StepFailed, match=r"is full: [23]\.\d MB free, the data takes 5\.\d MB") as failed:
        await versions.fork(COMMIT, "production")
    assert "lazycloud prune" in failed.value.advice
    assert not versions.exists(COMMIT)
    assert not leftovers(versions)
    assert _digest(small_disk) == content
    await versions.close()
    with closing(sqlite3.connect(database(versions, "production"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(place): hashlib.sha256(place.read_bytes()).hexdigest()
        for place in sorted(folder.rglob("*"))
        if place.is_file() and not place.name.endswith(("-wal", "-shm"))
    }


@pytest.mark.parametrize("name", ["database.sqlite", "files"])
async def test_data_that_are_a_link_to_elsewhere_are_not_copied(
    versions: Versions, tmp_path: Path, name: str
) -> None:
    await versions.fork(COMMIT, None)
    outside, place = tmp_path / "outside", versions.place(COMMIT) / name
    place.rename(outside)
    place.symlink_to(outside)
    with pytest.raises(StepFailed, match="a link that leads out of that data"):
        await versions.fork(OTHER, COMMIT)
    assert not versions.exists(OTHER)
    place.unlink()
    inside = versions.place(COMMIT) / "files/own" if name == "database.sqlite" else place.with_name("own")
    outside.rename(inside)
    place.symlink_to(inside)  # a link within is nobody's harm
    await versions.fork(OTHER, COMMIT)
    assert (versions.place(OTHER) / name).resolve().is_relative_to(versions.place(OTHER))


async def test_what_versions_take_is_told_with_their_snapshots(versions: Versions) -> None:
    await versions.fork("production", None)
    (versions.place("production") / "files" / "big").write_bytes(os.urandom(1_000_000))
    await versions.fork(COMMIT, "production")
    await versions.snapshot(COMMIT)
    found = await versions.usage()
    assert set(found.own) == {"production", COMMIT}
    assert found.total >= 1_000_000 and sum(found.own.values()) <= found.total


async def test_folders_that_are_too_deep_or_closed_stop_nobody(versions: Versions) -> None:
    """An app makes some thousand in a moment."""
    await versions.fork("production", None)
    await versions.fork("e" * 40, "production")
    deep(versions.place("e" * 40) / "files" / "deep")
    database(versions, "e" * 40).unlink()
    database(versions, "e" * 40).symlink_to("database.sqlite")
    assert versions.used("e" * 40) > 0
    size = await versions.size("production")
    assert await versions.size("e" * 40) == 0 < size
    assert (await versions.usage()).own["production"] > 0
    assert changed_since(versions.place("e" * 40), 0)
    with pytest.raises(StepFailed, match="is a link"):
        await versions.fork("f" * 40, "e" * 40)
    database(versions, "e" * 40).unlink()
    with pytest.raises(StepFailed, match="too deep"):
        await versions.fork("f" * 40, "e" * 40)
    await versions.drop("e" * 40)
    assert leftovers(versions) == []


async def test_a_start_clears_what_is_deep(versions: Versions) -> None:
    await versions.fork("production", None)
    deep(versions.place("production").parent / ".dropping-x")
    versions.clear_leftovers()
    assert leftovers(versions) == []
