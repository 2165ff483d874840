"""What it takes to know where a database is, and to prove that a WAL leads there."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from figures import Column, Figure, Verdict, compare
from kept import App, Kept
from lazycloud.data import wal
from run import Row, Sample
from trials import OURS, scratch

PREAD, SQLITE = "pread(2) alone", "SQLite, PRAGMA data_version"
READINGS, STATES = 20_000, 600
BOUNDS = {"unchanged": 3.0, "changed": 6.0}
BY_WORD = "word by word"


def marks(kept: Kept) -> list[Row]:
    """Processor seconds of one reading: of a database that did not change since the last one, and of one that did."""
    rows: list[Row] = []
    with scratch() as folder, _states(folder) as (app, states):

        def readings(read: Callable[[int], object], indexes: Sequence[int]) -> Sample:
            times = READINGS // len(indexes)
            began = time.thread_time()
            for _ in range(times):
                for index in indexes:
                    read(index)
            return Sample({"seconds": (time.thread_time() - began) / (times * len(indexes))})

        def asked() -> Sample:
            took = sorted(app.run("PRAGMA data_version", times=READINGS))
            return Sample({"seconds": took[len(took) // 2]})

        for case, indexes in {"unchanged": states[-1:], "changed": states}.items():
            if kept.only in case:
                ways: dict[str, Callable[[], Sample]] = {
                    OURS: lambda indexes=indexes: readings(wal.state, indexes),
                    PREAD: lambda indexes=indexes: readings(lambda index: os.pread(index, 136, 0), indexes),
                }
                if case == "unchanged":
                    ways[SQLITE] = asked
                rows += kept.interleaved(case, ways)
    compare(rows, "seconds", PREAD)
    return rows


@contextlib.contextmanager
def _states(folder: Path) -> Iterator[tuple[App, list[int]]]:
    """Descriptors on the index of a database as it was after each of many commits."""
    with App(folder / "app.db") as app, contextlib.ExitStack() as opened:
        app.run("CREATE TABLE t (a)")
        index, states = os.open(f"{app.place}-shm", os.O_RDONLY), []
        opened.callback(os.close, index)
        for number in range(STATES):
            app.run("INSERT INTO t VALUES (?)", number)
            states.append(os.memfd_create(f"state {number}"))
            opened.callback(os.close, states[-1])
            os.pwrite(states[-1], os.pread(index, 136, 0), 0)
        yield app, states


def proofs(kept: Kept) -> list[Row]:
    """Processor seconds for each byte of a WAL that is shown to lead to a mark."""
    rows: list[Row] = []
    for size in (512, 4096, 65536):
        case = f"pages of {size:,} bytes"
        if kept.only not in case:
            continue
        with scratch() as folder, App(folder / "app.db", f"page_size={size}") as app:
            app.run("CREATE TABLE t (a)")
            app.run("INSERT INTO t VALUES (zeroblob(4000000))")
            with contextlib.ExitStack() as opened:
                log, index = (os.open(f"{app.place}{ending}", os.O_RDONLY) for ending in ("-wal", "-shm"))
                for descriptor in (log, index):
                    opened.callback(os.close, descriptor)
                mark = wal.state(index).mark
                ways = {
                    OURS: lambda log=log, mark=mark: _spent(lambda: wal.verify(log, mark), mark.end),
                    BY_WORD: lambda log=log, mark=mark: _spent(lambda: _word_by_word(log, mark), mark.end),
                }
                rows += kept.interleaved(case, ways)
    compare(rows, "seconds", BY_WORD)
    return rows


def _spent(work: Callable[[], object], size: int) -> Sample:
    began = time.thread_time()
    work()
    return Sample({"seconds": (time.thread_time() - began) / size})


def _word_by_word(log: int, mark: wal.Mark) -> None:
    """As one writes it in Python: the checksum that a frame must have is the last one's, taken on over its words."""
    header = os.pread(log, wal.HEADER, 0)
    order = ">" if int.from_bytes(header[:4], "big") == wal.BIG else "<"
    one, two = struct.unpack(">2I", header[24:])
    words = struct.Struct(f"{order}{mark.page_size // 4 + 2}I")
    for number in range(mark.frame):
        step = wal.FRAME + mark.page_size
        frame = os.pread(log, step, wal.HEADER + number * step)
        values = iter(words.unpack(frame[:8] + frame[wal.FRAME :]))
        for first, second in zip(values, values, strict=True):
            one = (one + first + two) & 0xFFFFFFFF
            two = (two + second + one) & 0xFFFFFFFF
        assert (one, two) == struct.unpack(">2I", frame[16:24])


FIGURES = (
    Figure(
        "marks",
        "To know where a database is",
        "at most 3 × what the kernel takes to read 136 bytes, 6 × after a change",
        (Column("seconds", "µs", "{:.2f}", 1e6), Column(f"x {PREAD}", f"× {PREAD}", "{:.2f}")),
        marks,
        lambda rows: [
            Verdict(f"{row.case}: × {PREAD}", row.values[f"x {PREAD}"], BOUNDS[row.case])
            for row in rows
            if row.peer == OURS
        ],
    ),
    Figure(
        "proofs",
        "To prove that a WAL leads to a mark",
        f"at most a third of {BY_WORD}",
        (Column("seconds", "ms a MB", "{:.1f}", 1e9), Column(f"x {BY_WORD}", f"× {BY_WORD}", "{:.2f}")),
        proofs,
        lambda rows: [
            Verdict(f"{row.case}: × {BY_WORD}", row.values[f"x {BY_WORD}"], 0.33)
            for row in rows
            if row.peer == OURS
        ],
    ),
)
