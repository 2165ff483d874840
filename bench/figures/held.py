"""What an app notices of its database's being held, so that any moment of it can be had."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from figures import Column, Figure, Verdict, compare
from kept import App, Kept
from lazycloud.data.line import Line
from run import Row, Sample
from trials import OURS, scratch

ALONE, MARKED = "not held", "held, a mark each ms"
COMMITS = 3000  # of each sample: some thousand frames, so some rotations
PAUSE = 0.001  # seconds between commits, as of an app that does something else, too
BOUNDS = {"seconds": 1.1, "p99": 1.5}
INSERT = "INSERT INTO events (text) VALUES (hex(randomblob(200)))"
NAMES = {"seconds": "median", "p99": "99th percentile"}
SETTINGS = {
    "synchronous=NORMAL": "commits that wait for no disk",
    "synchronous=FULL": "commits that wait for it",
}


class Control:
    """A line in a thread of its own, as control has it; its loop does nothing else."""

    def __init__(self, place: Path, marks_every: float = 0.0) -> None:
        self._place = place
        self._every = marks_every
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.mark_seconds: list[float] = []

    def __enter__(self) -> Control:
        self._thread.start()
        self.line = self._do(Line.open(self._place, self._place.with_name("archive"))).result()
        self._marking = self._do(self._mark()) if self._every else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._marking:
            self._marking.cancel()
        self._do(self.line.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _mark(self) -> None:
        while True:
            began = time.perf_counter()
            self.line.mark()
            self.mark_seconds.append(time.perf_counter() - began)
            await asyncio.sleep(self._every)

    def _do(self, work) -> Future:  # type: ignore[no-untyped-def,type-arg]
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def held(kept: Kept) -> list[Row]:
    """Seconds of an app's commits, of one row each, with its own checkpoints as SQLite has them by itself."""
    rows: list[Row] = []
    for setting, case in SETTINGS.items():
        if kept.only in case:
            ways = {
                ALONE: lambda setting=setting: _committed(setting, None),
                OURS: lambda setting=setting: _committed(setting, 0.0),
                MARKED: lambda setting=setting: _committed(setting, 0.001),
            }
            rows += kept.interleaved(case, ways)
    _compare(rows)
    return rows


def _compare(rows: list[Row]) -> None:
    for quantile in BOUNDS:
        compare(rows, quantile, ALONE)
        for row in rows:
            if f"x {ALONE}" in row.values:
                row.values[f"x {quantile}"] = row.values.pop(f"x {ALONE}")


def _committed(setting: str, marks_every: float | None) -> Sample:
    with scratch() as folder, App(_version(folder) / "database.sqlite", setting) as app:
        app.run("CREATE TABLE events (id INTEGER PRIMARY KEY, text TEXT)")
        app.run("PRAGMA wal_autocheckpoint=1000")
        with _control(folder / "version", marks_every) as control:
            app.run(INSERT, times=500)
            took = sorted(app.run(INSERT, times=COMMITS, pause=PAUSE))
            values = {"seconds": took[COMMITS // 2], "p99": took[COMMITS * 99 // 100], "worst": took[-1]}
            if control and control.line.stalls:
                stalls = sorted(control.line.stalls)
                values["stall"] = stalls[len(stalls) // 2]
            if control and control.mark_seconds:
                values["mark"] = sorted(control.mark_seconds)[len(control.mark_seconds) // 2]
    return Sample(values)


def _version(folder: Path) -> Path:
    (folder / "version" / "files").mkdir(parents=True)
    return folder / "version"


@contextlib.contextmanager
def _control(place: Path, marks_every: float | None) -> Iterator[Control | None]:
    if marks_every is None:
        yield None
        return
    with Control(place, marks_every) as control:
        yield control
    shutil.rmtree(place.with_name("archive"), ignore_errors=True)


def judge(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(f"{row.case}: {NAMES[quantile]} × {ALONE}", row.values[f"x {quantile}"], bound)
        for row in rows
        if row.peer == OURS
        for quantile, bound in BOUNDS.items()
        if f"x {quantile}" in row.values
    ]


FIGURES = (
    Figure(
        "held",
        "Commits of an app whose database is held",
        "median at most 1.1 × and 99th percentile at most 1.5 × of one that is not held",
        (
            Column("seconds", "median µs", "{:,.0f}", 1e6),
            Column("p99", "99 % µs", "{:,.0f}", 1e6),
            Column("worst", "worst ms", "{:,.1f}", 1e3),
            Column("x seconds", "× median", "{:.2f}"),
            Column("x p99", "× 99 %", "{:.2f}"),
            Column("stall", "writers kept out, ms", "{:,.1f}", 1e3),
            Column("mark", "a mark, µs", "{:,.1f}", 1e6),
        ),
        held,
        judge,
    ),
)
