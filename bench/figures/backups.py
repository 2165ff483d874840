"""What a backup of a large database costs: the first, one that reads all, and one more after a commit."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Column, Figure, Verdict, compare
from kept import App, Kept
from lazycloud.blobs.keys import SigningKey
from lazycloud.data.archive import SMALL
from lazycloud.data.backup.jobs import run_job
from lazycloud.data.versions import Versions
from run import Row, Sample
from trials import OURS

FIRST, FIRST_LAYERS, FULL = "the first, which is full", "the first in layers", "a full one"
LEAST = 100  # MB from which on the target holds
DATABASE = "database.sqlite"


class Production:
    """A version that is held, in a loop of its own as control has, and a store beside it."""

    def __init__(self, home: Path) -> None:
        self.versions = Versions(home / "data")
        self.place = home / "data" / "production" / DATABASE
        self._home = home
        self._layered = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Production:
        (self._home / "store").mkdir()
        SigningKey.of(self._home / "key")
        self._thread.start()
        self._do(self.versions.fork("production", None))
        self._do(self.versions.lines.hold("production"))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self.versions.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def back_up(self, full: bool) -> Sample:
        with _counted() as values:
            facts = self._do(self._back_up(full))
        assert facts["full"] == full or self.place.stat().st_size < SMALL
        values["put"] = facts["put_bytes"] / 1e6
        return Sample(values)

    async def _back_up(self, full: bool) -> dict[str, Any]:
        """As control does."""
        from lazycloud.deployments.backups import written

        async with self.versions.layered("production", (DATABASE,), both=full) as (place, layers):
            facts = await run_job(
                "make", f"file://{self._home}/store", self._home / "key", app="bench", at=time.time(),
                roots={"data": str(place)}, note="", facts={}, again=(), examine=SMALL, full=full,
                known=self._layered, layers=written(layers),
            )  # fmt: skip
        self._layered = self._layered if facts["full"] else facts["name"]
        return facts

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def _counted() -> Iterator[dict[str, float]]:
    """Of this process, and of those that it ended to wait for: seconds, of a processor too, and MB by any call."""
    values: dict[str, float] = {}
    began, io, times = time.perf_counter(), _io(), os.times()
    yield values
    values["seconds"] = time.perf_counter() - began
    values["cpu"] = sum(os.times()[:4]) - sum(times[:4])
    for name, key in (("read", "rchar"), ("written", "wchar")):
        values[name] = (_io()[key] - io[key]) / 1e6


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(count) for name, count in (line.split(": ") for line in lines)}


def backups(kept: Kept) -> list[Row]:
    rows: list[Row] = []
    with kept.places() as places:
        kind, place = next(places)  # on the others there is no room for a store
        for size in kept.sizes:
            case = f"{size:,} MB, {kind}"
            if kept.only in case:
                kept.say(f"{case}: filling it")
                rows += _measured(kept, case, place / f"{size}", size)
    compare(rows, "seconds", FULL)
    for row in rows:
        row.values["moved"] = row.values["read"] + row.values["written"]
    return rows


def _measured(kept: Kept, case: str, home: Path, size: int) -> list[Row]:
    home.mkdir()
    with Production(home) as production, App(production.place, "synchronous=NORMAL") as app:
        app.fill(size)

        def taken(full: bool) -> Sample:
            app.run("INSERT INTO events (text) VALUES (hex(randomblob(1900)))")
            return production.back_up(full)

        once = {FIRST: lambda: taken(full=True), FIRST_LAYERS: lambda: taken(full=False)}
        rows = kept.interleaved(case, once, warm=0, rounds=1)
        return rows + kept.interleaved(
            case, {OURS: lambda: taken(full=False), FULL: lambda: taken(full=True)}, warm=0
        )


def judge(rows: Sequence[Row]) -> list[Verdict]:
    full = {row.case: row.values["moved"] for row in rows if row.peer == FULL}
    return [
        Verdict(f"{row.case}: × read and written by {FULL}", row.values["moved"] / full[row.case], 0.05)
        for row in rows
        if row.peer == OURS and int(row.case.partition(" ")[0].replace(",", "")) >= LEAST
    ]


FIGURES = (
    Figure(
        "backups",
        "A backup after one more commit",
        f"from {LEAST} MB on, at most a twentieth of what a full one reads and writes",
        (
            Column("seconds", "s", "{:,.2f}"),
            Column("cpu", "CPU s", "{:,.2f}"),
            Column("read", "MB read", "{:,.1f}"),
            Column("written", "MB written", "{:,.1f}"),
            Column("put", "MB put", "{:,.3f}"),
            Column(f"x {FULL}", f"× {FULL}", "{:.3f}"),
        ),
        backups,
        judge,
    ),
)
