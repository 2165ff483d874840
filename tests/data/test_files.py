"""DATA_DIR: copied as it is, beside an app that goes on writing."""

import ctypes
import os
import socket
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lazycloud.data import durable, image, within
from lazycloud.data.files import Copy, Unforeseen
from lazycloud.data.files import is_database as begins_as_one
from lazycloud.data.names import new_snapshot
from lazycloud.data.versions import Versions
from lazycloud.errors import StepFailed
from tests.waiting import until

from .conftest import Write
from .contents import COMMIT, files, rows


def copied(source: Path) -> Path:
    target = source.with_name("copy")
    Copy(source, target, ()).make()
    return target


def is_database(place: Path) -> bool:
    with within.opened(place.parent, place, within.FILE) as file:
        return begins_as_one(file)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


def test_modes_and_times_are_kept(source: Path) -> None:
    (source / "folder").mkdir(mode=0o750)
    (source / "folder" / "tool").write_text("#!/bin/sh")
    (source / "folder" / "tool").chmod(0o751)
    for place in (source / "folder" / "tool", source / "folder", source):
        os.utime(place, ns=(1_000_000_000_000_000_001, 1_000_000_000_000_000_002))
    target = copied(source)
    for name in (".", "folder", "folder/tool"):
        was, now = (source / name).stat(), (target / name).stat()
        assert (was.st_mode, was.st_mtime_ns) == (now.st_mode, now.st_mtime_ns)
    assert (target / "folder" / "tool").read_text() == "#!/bin/sh"


def test_a_copied_file_is_apart_from_its_source(source: Path) -> None:
    content = os.urandom(3_000_000)
    (source / "large").write_bytes(content)
    target = copied(source)
    with (source / "large").open("r+b") as file:
        file.write(b"changed")
    assert (target / "large").read_bytes() == content


def test_a_file_of_holes_takes_no_more_room_in_the_copy(source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.seek(200_000_000)
        file.write(b"end")
    target = copied(source) / "sparse"
    assert target.stat().st_size == 200_000_003 and target.stat().st_blocks * 512 < 1_000_000
    assert target.read_bytes().endswith(b"\0end")


def test_a_file_of_many_names_is_one_file_in_the_copy(source: Path) -> None:
    (source / "folder").mkdir()
    (source / "one").write_text("one")
    for name in ("two", "folder/three"):
        os.link(source / "one", source / name)
    os.link(source / "one", source.with_name("outside"))
    target = copied(source)
    assert (target / "one").stat().st_nlink == 3 and (target / "folder" / "three").read_text() == "one"
    assert (target / "one").stat().st_ino != (source / "one").stat().st_ino


def test_a_symlink_is_a_symlink_and_is_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (source / "to outside").symlink_to(tmp_path / "outside")
    (source / "to nothing").symlink_to("nowhere")
    (source / "to parent").symlink_to("..")
    target = copied(source)
    assert (target / "to outside").readlink() == tmp_path / "outside"
    assert (target / "to nothing").readlink() == Path("nowhere")
    assert (target / "to parent").readlink() == Path("..")


def test_a_symlink_with_an_absolute_path_into_the_source_leads_into_the_copy(source: Path) -> None:
    (source / "v1").mkdir()
    (source / "v1" / "a.txt").write_text("source")
    (source / "deep").mkdir()
    (source / "deep" / "current").symlink_to(source / "v1")
    target = copied(source).rename(source.with_name("renamed"))
    (target / "deep" / "current" / "a.txt").write_text("copy")
    assert (source / "v1" / "a.txt").read_text() == "source"


def test_sockets_and_pipes_are_left_out(source: Path) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "socket"))
        (source / "file").touch()
        assert [place.name for place in copied(source).iterdir()] == ["file"]


def test_databases_that_are_copied_elsewhere_are_left_out_with_what_belongs_to_them(source: Path) -> None:
    with closing(sqlite3.connect(source / "app.db")) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE notes (text)")
        app.commit()
        (source / "app.db-journal").write_bytes(b"")
        (source / "diary-wal").write_text("not a companion of anything")
        target = source.with_name("copy")
        Copy(source, target, {"app.db"}).make()
        assert sorted(place.name for place in target.iterdir()) == ["diary-wal"]


def test_a_database_that_nobody_foresaw_is_not_copied_as_a_file(source: Path) -> None:
    with closing(sqlite3.connect(source / "app.db")) as app:
        app.execute("CREATE TABLE notes (text)")
    with pytest.raises(Unforeseen, match=r"app\.db became a database"):
        copied(source)


def test_what_is_frozen_is_copied_as_it_is(source: Path) -> None:
    with closing(sqlite3.connect(source / "app.db")) as app:
        app.execute("PRAGMA journal_mode=WAL")
        app.execute("CREATE TABLE notes (text)")
        app.commit()
        for name in ("app.db", "app.db-wal"):
            (source / "frozen").mkdir(exist_ok=True)
            (source / "frozen" / name).write_bytes((source / name).read_bytes())
    target = source.with_name("copy")
    Copy(source / "frozen", target, None).make()
    with closing(sqlite3.connect(target / "app.db")) as copy:
        assert copy.execute("SELECT count(*) FROM notes").fetchone() == (0,)


async def test_a_database_among_the_files_is_whole_in_every_fork_beside_a_writer(
    versions: Versions, write: Write, tmp_path: Path
) -> None:
    await versions.fork("production", None)
    inside = files(versions, "production") / "inside.db"
    database = Path(versions.environment("production")["DATABASE_URL"].removeprefix("sqlite:///"))
    database.unlink()
    database.symlink_to(inside)  # the writer's database is the one in DATA_DIR
    counter = write("production", "wal")
    await until(lambda: counter.exists() and counter.read_text())
    database.unlink()
    for number in range(15):
        name = f"{number:07x}"
        await versions.fork(name, "production")
        with closing(sqlite3.connect(files(versions, name) / "inside.db")) as copy:
            sums = [
                copy.execute(f"SELECT sum(amount) FROM {table}").fetchone()[0] for table in ("ours", "theirs")
            ]
            assert sum(sums) == 400_000


def test_files_that_come_and_go_do_not_hurt_a_copy(source: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(50):
                (source / f"tmp{number}").write_text("x")
                (source / f"dir{number}").mkdir()
            for number in range(50):
                (source / f"tmp{number}").unlink()
                (source / f"dir{number}").rmdir()

    (source / "stays").write_text("here")
    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for number in range(30):
            target = source.with_name(f"copy{number}")
            Copy(source, target, ()).make()
            assert (target / "stays").read_text() == "here"
    finally:
        stop.set()
        churning.join()


@pytest.mark.parametrize("what", ["folder", "file", "database"])
def test_what_becomes_a_link_while_it_is_copied_leads_nowhere(
    source: Path, tmp_path: Path, what: str
) -> None:
    outside, decoy = tmp_path / "outside", source / "decoy"
    outside.mkdir()
    (outside / "token").write_text("of the server")
    for folder in (outside, source) if what == "database" else ():
        with closing(sqlite3.connect(folder / "app.db")) as app:
            app.execute("CREATE TABLE t AS SELECT ? AS a", [f"the {folder.name}'s"])
            app.commit()
    (source / "folder").mkdir()
    (source / "file").write_text("the source's")
    place = {"folder": source / "folder", "file": source / "file", "database": source / "app.db"}[what]
    decoy.symlink_to({"folder": outside, "file": outside / "token", "database": outside / "app.db"}[what])
    stop = threading.Event()
    swapping = threading.Thread(target=swap, args=(place, decoy, stop))
    swapping.start()
    try:
        for number in range(150):
            target = tmp_path / f"copy{number}"
            try:
                Copy(source, target, ()).make()
            except Unforeseen:
                assert what == "database"
            for found in (one for one in target.rglob("*") if one.is_file() and not one.is_symlink()):
                assert found.name != "token"
                assert b"server" not in found.read_bytes()
                assert b"the outside's" not in found.read_bytes()
    finally:
        stop.set()
        swapping.join()


def swap(one: Path, other: Path, stop: threading.Event) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while not stop.is_set():
        for place in (one, other):
            assert libc.renameat2(-100, bytes(one), -100, bytes(other), 2) == 0, (
                place
            )  # both exchange their names


def test_what_cannot_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders let nobody else in
        source = Path(place) / "source"
        source.mkdir()
        (source / "private").write_text("x")
        (source / "private").chmod(0)
        source.parent.chmod(0o777)
        child = os.fork()
        if child == 0:  # as somebody who is not root
            try:
                os.setuid(65534)
                Copy(source, source.with_name("copy"), ()).make()
            except StepFailed as problem:
                os._exit(7 if "private cannot be read" in str(problem) else 8)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_many_files_are_made_durable_at_once(source: Path) -> None:
    for number in range(durable.EACH + 10):
        (source / str(number)).touch()
    durable.publish(source, source.with_name("published"))
    assert len(list(source.with_name("published").iterdir())) == durable.EACH + 10


@pytest.mark.parametrize("content", [b"", b"SQLite", b"SQLite format 2\0", b"\0" * 100])
def test_only_the_header_makes_a_database(source: Path, content: bytes) -> None:
    (source / "file").write_bytes(content)
    os.mkfifo(source / "pipe")
    assert not any(is_database(source / name) for name in ("file", "pipe", "."))


def test_an_empty_database_has_a_header_in_wal_mode(source: Path) -> None:
    image.empty(source / "new.db")
    assert is_database(source / "new.db")
    assert (source / "new.db").read_bytes()[18:20] == b"\2\2"
    assert [place.name for place in source.iterdir()] == ["new.db"]


def test_ids_of_snapshots_are_in_the_order_of_time() -> None:
    ids = [new_snapshot() for _ in range(50)]
    assert [one[:21] for one in ids] == sorted(one[:21] for one in ids)
    assert len(set(ids)) == 50


async def test_an_app_whose_files_are_all_over_is_forked_with_them(versions: Versions) -> None:
    await versions.fork("production", None)
    place = files(versions, "production") / "uploads" / "2025" / "a b%2F?.txt"
    place.parent.mkdir(parents=True)
    place.write_text("ü")
    await versions.fork(COMMIT, "production")
    assert (files(versions, COMMIT) / "uploads" / "2025" / "a b%2F?.txt").read_text() == "ü"
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        rows(versions, COMMIT)
