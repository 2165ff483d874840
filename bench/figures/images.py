"""What an image of a live database takes, beside copies of it made in other ways."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import Column, Figure, Verdict, compare
from kept import App, Kept, timed
from lazycloud.data import image, wal
from run import Row, Sample
from trials import OURS

CP, REFLINK, VACUUM = "cp", "cp --reflink", "VACUUM INTO"
PROVED = "lazycloud, each page proved"
FRAMES = 900  # in the WAL, when there is most


@dataclass
class _Live:
    """A database that is open elsewhere, and its files here."""

    app: App
    base: int
    log: int
    index: int

    def image(self, folder: Path, trusted: bool) -> bool:
        mark = wal.state(self.index).mark
        return image.make(self.base, self.log, mark, folder, self.index, trusted=trusted)


def images(kept: Kept) -> list[Row]:
    rows: list[Row] = []
    with kept.places() as places:
        for kind, place in places:
            for size in kept.sizes:
                case = f"{size:,} MB, {kind}"
                if kept.only in case:
                    kept.say(f"{case}: filling it")
                    rows += _measured(kept, case, place, size)
    compare(rows, "seconds", CP, VACUUM)
    return rows


def _measured(kept: Kept, case: str, place: Path, size: int) -> list[Row]:
    counter = itertools.count()
    with _live(place / f"{size}.db", size) as live:
        database = live.app.place

        def fresh() -> Path:
            folder = place / f"copy{next(counter)}"
            folder.mkdir()
            return folder

        def taken(make: Callable[[Path], object]) -> Sample:
            folder = fresh()
            with timed() as values:
                make(folder)
            shutil.rmtree(folder)
            return Sample(values)

        def shares() -> bool:
            folder = fresh()
            try:
                return live.image(folder, trusted=True)
            finally:
                shutil.rmtree(folder)

        def vacuumed() -> Sample:
            folder = fresh()
            (seconds,) = live.app.run("VACUUM INTO ?", str(folder / "copy.db"))
            shutil.rmtree(folder)
            return Sample({"seconds": seconds})

        def cp(folder: Path, how: str) -> None:
            subprocess.run(["cp", f"--reflink={how}", database, f"{database}-wal", folder], check=True)

        ways = {
            OURS: lambda: taken(lambda folder: live.image(folder, trusted=True)),
            PROVED: lambda: taken(lambda folder: live.image(folder, trusted=False)),
            CP: lambda: taken(lambda folder: cp(folder, "never")),
            VACUUM: vacuumed,
        }
        if shares():
            ways[REFLINK] = lambda: taken(lambda folder: cp(folder, "always"))
        return kept.interleaved(case, ways)


@contextlib.contextmanager
def _live(place: Path, size: int) -> Iterator[_Live]:
    with App(place, "synchronous=NORMAL") as app, contextlib.ExitStack() as opened:
        app.fill(size)
        app.run("INSERT INTO events (text) VALUES (hex(randomblob(1900)))", times=FRAMES // 2)
        descriptors = [os.open(f"{place}{ending}", os.O_RDONLY) for ending in ("", "-wal", "-shm")]
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
            os.fsync(descriptor)
        yield _Live(app, *descriptors)
    for left in place.parent.glob(f"{place.name}*"):
        left.unlink()


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """Where blocks are shared the size does not matter; elsewhere it is a copy, and no slower than one."""
    shared = {row.case for row in rows if row.peer == REFLINK}
    return [
        Verdict(f"{row.case}: × {CP}", row.values[f"x {CP}"], 0.1 if row.case in shared else 1.2)
        for row in rows
        if row.peer == OURS and not row.case.startswith("10 MB") and f"x {CP}" in row.values
    ]


FIGURES = (
    Figure(
        "images",
        "An image of a live database",
        f"1,000 MB: at most a tenth of {CP}'s time where files share blocks, else 1.2 × of it",
        (
            Column("seconds", "ms", "{:,.1f}", 1000),
            Column("q1", "from", "{:,.1f}", 1000),
            Column("q3", "to", "{:,.1f}", 1000),
            Column(f"x {CP}", f"× {CP}", "{:.3f}"),
            Column(f"x {VACUUM}", f"× {VACUUM}", "{:.3f}"),
        ),
        images,
        judge,
    ),
)
