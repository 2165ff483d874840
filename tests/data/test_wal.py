"""Marks, and the bytes of a WAL that lead to them, beside what SQLite makes and makes of them."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazycloud.data import wal
from lazycloud.data.wal import FRAME, HEADER, Mark, Walk
from lazycloud.errors import BadInput, Unavailable

from .app import App, commits, contents, modelled
from .wals import taken, written


@contextmanager
def holding(place: Path, data: bytes) -> Iterator[int]:
    """A descriptor on a file with these bytes."""
    place.write_bytes(data)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_mark_says_where_the_database_is_after_each_commit(tmp_path: Path, page_size: int) -> None:
    with App(tmp_path / "app.db", page_size) as app:
        before = wal.state(app.shm)
        assert before == ((before.mark[0], before.mark[1], 0, 0, 0, 0, 0), 0, 0)
        marks = [app.commit(each) for each in commits(1, 12)]
        assert [mark.frame for mark in marks] == sorted({mark.frame for mark in marks})
        for mark in marks:
            wal.verify(app.wal, mark)
            assert wal.mark(str(mark)) == mark
        mark = marks[-1]
        assert wal.last(app.wal) == mark
        assert (mark.page_size, [[mark.pages]]) == (page_size, app.run("PRAGMA page_count"))
        assert os.fstat(app.wal).st_size == mark.end
        assert wal.state(app.shm) == (mark, 0, 0)
        app.run("PRAGMA wal_checkpoint(PASSIVE)")
        assert wal.state(app.shm) == (mark, mark.frame, mark.frame)
        app.run("BEGIN")
        app.run("DELETE FROM notes")
        assert wal.state(app.shm).mark == mark
        app.run("ROLLBACK")
        assert wal.state(app.shm).mark == mark


@pytest.mark.parametrize(
    "text", ["", "1-2-3", "1-2-3-4-5-6-g", "-1-2-3-4-5-6-7", "1-2-3-4-5-6-7-8", "1-2-3-4-5-6-123456789"]
)
def test_what_is_no_mark_is_not_read_as_one(text: str) -> None:
    with pytest.raises(BadInput, match="no mark of a database"):
        wal.mark(text)


def test_an_index_that_is_torn_is_never_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "PATIENCE", 0.02)
    with App(tmp_path / "app.db") as app:
        app.commit(next(commits(1, 1)))
        whole = os.pread(app.shm, 136, 0)
    torn = {
        "short": whole[:135],
        "empty": b"",
        "not begun": bytes(136),
        "one copy written": whole[:16] + b"\xff" + whole[17:],
        "both copies bent": bytes(each ^ (at in (16, 64)) for at, each in enumerate(whole)),
        "another format": struct.pack("=I", 1) + whole[4:48] + struct.pack("=I", 1) + whole[52:],
    }
    for name, data in torn.items():
        with holding(tmp_path / name, data) as shm, pytest.raises(Unavailable, match="cannot be read"):
            wal.state(shm)


def test_an_index_that_is_being_written_is_read_as_it_was_or_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        wal, "PATIENCE", 10.0
    )  # this writer never rests, and shares an interpreter with the reader
    with App(tmp_path / "app.db") as app:
        run = commits(1, 3)
        app.commit(next(run))
        states = {wal.state(app.shm): os.pread(app.shm, 136, 0)}
        app.commit(next(run))
        states[wal.state(app.shm)] = os.pread(app.shm, 136, 0)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in states.values():  # as SQLite does: the second copy first
                os.pwrite(target, data[48:96], 48)
                os.pwrite(target, data[:48], 0)

    target = os.open(tmp_path / "shm", os.O_RDWR | os.O_CREAT)
    os.pwrite(target, next(iter(states.values())), 0)
    writing = threading.Thread(target=write)
    writing.start()
    try:
        found = {wal.state(target) for _ in range(3000)}
    finally:
        stop.set()
        writing.join()
        os.close(target)
    assert found <= set(states)


def test_a_wal_with_checksums_of_the_other_byte_order_is_the_same_to_us_and_to_sqlite(
    tmp_path: Path,
) -> None:
    with App(tmp_path / "app.db") as app, modelled() as model:
        for each in commits(4, 9):
            mark, expected = app.commit(each), model.commit(each)
        ours, theirs = (Path(f"{app.place}-wal")).read_bytes(), app.place.read_bytes()
    magic = int.from_bytes(ours[:4], "big")
    assert magic in (wal.LITTLE, wal.BIG)
    for order in "<>":
        data = written(taken(ours, mark), 4096, (mark.salt1, mark.salt2), order)
        with holding(tmp_path / "copy.db-wal", data) as file:
            found = wal.last(file)
            wal.verify(file, found)
            assert found._replace(checksum1=0, checksum2=0) == mark._replace(checksum1=0, checksum2=0)
            assert (found == mark) is (order == {wal.LITTLE: "<", wal.BIG: ">"}[magic])
        (tmp_path / "copy.db").write_bytes(theirs)
        assert contents(tmp_path / "copy.db") == expected


def test_a_wal_that_was_torn_ends_where_sqlite_says_it_ends(tmp_path: Path) -> None:
    """Cut off, overwritten, or with what an earlier WAL left behind."""
    with App(tmp_path / "app.db", 512) as app:
        base = app.place.read_bytes()
        for each in commits(6, 12):
            app.commit(each)
        older = Path(f"{app.place}-wal").read_bytes()
        app.run("PRAGMA wal_checkpoint(RESTART)")
        after = app.place.read_bytes()
        mark = app.commit([("DELETE FROM notes", [])])
        over = Path(f"{app.place}-wal").read_bytes()
    assert len(over) == len(older) > mark.end
    chance = random.Random(8)
    cases = [(after, over, mark)]
    for _ in range(25):
        at = chance.randrange(HEADER, len(older))
        cut, bent = older[:at], older[:at] + bytes([older[at] ^ 16]) + older[at + 1 :]
        cases += [(base, cut, None), (base, bent, None), (base, cut + os.urandom(2000), None)]
    for number, (file, data, expected) in enumerate(cases):
        place = tmp_path / f"copy{number}.db"
        place.write_bytes(file)
        with holding(Path(f"{place}-wal"), data) as log:
            end = wal.last(log)
            assert end == recovered(place) and expected in (None, end)
        with holding(tmp_path / "again", data) as log:
            if end.frame:
                wal.verify(log, end)
            with pytest.raises(Unavailable, match=r"torn|bytes, and frame|another history"):
                wal.verify(log, end._replace(frame=end.frame + 1, page_size=512))


def recovered(place: Path) -> Mark:
    """Where SQLite finds a database to be that nobody has open."""
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master")
        with Path(f"{place}-shm").open("rb") as shm:
            return wal.state(shm.fileno()).mark


def test_another_history_at_the_same_frame_of_the_same_wal_is_told_by_its_checksum(tmp_path: Path) -> None:
    """As after a power cut: the last commits are lost, and others take their place, with the same salts."""
    with App(tmp_path / "app.db") as app:
        run = commits(1, 5)
        kept = [app.commit(next(run)) for _ in range(3)][-1]
        lost = app.commit([("UPDATE said SET number = 77", [])])
        app.kill()
    place = tmp_path / "copy.db"
    shutil.copy(app.place, place)
    Path(f"{place}-wal").write_bytes(Path(f"{app.place}-wal").read_bytes()[: kept.end])
    with App(place) as again:
        other = again.commit([("UPDATE said SET number = 88", [])])
        assert other[:3] == lost[:3] and other != lost
        wal.verify(again.wal, kept)
        with pytest.raises(Unavailable, match="another history"):
            wal.verify(again.wal, lost)
        walk = wal.walk_to(again.wal, lost)
        for data in wal.pieces(again.wal, lost):
            walk.skim(data)
        with pytest.raises(Unavailable, match="another history"):
            walk.demand(lost)


def test_a_mark_within_a_transaction_leads_nowhere(tmp_path: Path) -> None:
    with App(tmp_path / "app.db") as app:
        mark = app.commit(next(commits(1, 1)))
        assert mark.frame > 1
        with pytest.raises(Unavailable, match="another history"):
            wal.verify(app.wal, mark._replace(frame=1))


Frames = st.lists(
    st.tuples(st.integers(1, 2**32 - 1), st.sampled_from([0, 0, 1, 7, 2**32 - 1]), st.binary(max_size=512)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(
    Frames, st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), st.sampled_from("<>"), st.data()
)
def test_a_walk_goes_as_far_as_the_book_says(
    frames: list[tuple[int, int, bytes]], salts: tuple[int, int], order: str, data: st.DataObject
) -> None:
    """However the bytes are cut into pieces, and up to the first that is bent, wherever that is."""
    frames = [(page, pages, content.ljust(512, b"\xff")) for page, pages, content in frames]
    made, step = bytearray(written(frames, 512, salts, order)), FRAME + 512
    good = len(frames)
    if frames and data.draw(st.booleans()):
        at = data.draw(st.integers(HEADER, len(made) - 1))
        made[at] ^= 1 << data.draw(st.integers(0, 7))
        good = (at - HEADER) // step
    walk, found, left = Walk(bytes(made[:HEADER])), list[tuple[int, int]](), bytes(made[HEADER:])
    while left:
        some = data.draw(st.integers(1, 9)) * step
        found += walk.feed(left[:some])
        left = left[some:]
    assert found == [frame[:2] for frame in frames[:good]]
    assert walk.frame == good and walk.has_ended == (good < len(frames))
    last = max((number for number, frame in enumerate(frames[:good], 1) if frame[1]), default=0)
    sums = struct.unpack_from(">2I", made, HEADER + last * step - 512 - 8) if last else (0, 0)
    about = (frames[last - 1][1], 512) if last else (0, 0)
    assert walk.mark == Mark(*salts, last, *sums, *about)
