"""What versions of documents take: forks and snapshots at any size, differences, and a thousand versions at once."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from figures import Column, Figure, Verdict
from figures.documents import Documents
from lazycloud.versionbase import catalogue, past, values
from lazycloud.versionbase.storage import Storage, Wish
from run import Row, Sample
from stores import CHANCE, MAIN, POSTS, Ours, entries, environment
from trials import OURS

FORKS, CHANGED = 50, 100
FORK, SNAPSHOT, FLOOR = "fork", "snapshot", "a row in SQLite"

# It opens a store, and says how long that took and how much memory it has then; and after a request of each version.
_OPENED = """
import sys, time
from pathlib import Path
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import Storage
def memory():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
before, began = memory(), time.perf_counter()
engine = Engine(Storage(sys.argv[1]))
engine.open()
took, opened = time.perf_counter() - began, memory()
for version in sys.argv[2].split():
    transaction = engine.transaction(version, write=False)
    assert transaction.get("posts", ["000000000001"])
    engine.close_transaction(transaction)
print(took, opened - before, memory() - before)
engine.close()
"""


def forks(trials: Documents) -> list[Row]:
    """Seconds of one, at the median of many."""
    rows: list[Row] = []
    for size in trials.sizes:
        case = f"{size:,} documents"
        if trials.only not in case:
            continue
        with _store(trials, size) as ours:
            storage = ours.engine.storage

            def fork(storage: Storage = storage) -> object:
                return storage.fork(secrets.token_hex(20), MAIN)

            def snapshot(storage: Storage = storage) -> object:
                return storage.snapshot(MAIN, secrets.token_hex(10))

            ways = {
                FORK: lambda ours=ours, fork=fork: _often(ours, fork),
                SNAPSHOT: lambda ours=ours, snapshot=snapshot: _often(ours, snapshot),
                FLOOR: lambda storage=storage: _floor(storage),
            }
            rows += trials.interleaved(case, ways)
    return rows


def _often(ours: Ours, what: Callable[[], object]) -> Sample:
    took = []
    for _ in range(FORKS):
        began = time.perf_counter()
        ours.engine.change(what).result()
        took.append(time.perf_counter() - began)
    return Sample({"seconds": sorted(took)[FORKS // 2]})


def _floor(storage: Storage) -> Sample:
    """What the disk takes for a commit of SQLite's."""
    took = []
    with storage.database._engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS floor (a)")
        for _ in range(FORKS):
            began = time.perf_counter()
            connection.exec_driver_sql("INSERT INTO floor VALUES (1)")
            connection.commit()
            took.append(time.perf_counter() - began)
    return Sample({"seconds": sorted(took)[FORKS // 2]})


def differences(trials: Documents) -> list[Row]:
    """Seconds to find the documents that differ between two snapshots: as they come, and again."""
    case = f"{CHANGED} of {trials.documents:,} documents"
    with _store(trials, trials.documents) as ours:

        def changed() -> None:
            keys = [f"{number:012}" for number in CHANCE.sample(range(trials.documents), CHANGED)]
            ours.engine.perform(
                MAIN, lambda transaction: [transaction.update(POSTS, key, {"score": -1}) for key in keys]
            ).result()

        def diff(forgetting: bool) -> Sample:
            ours.engine.storage.fork(version := secrets.token_hex(20), MAIN)
            changed()
            if forgetting:
                ours.engine.storage._cache.clear()
                ours.engine.storage._cached = 0
            with ours.engine.pinning(version) as one, ours.engine.pinning(MAIN) as other:
                began, began_work = time.perf_counter(), time.thread_time()
                found = list(past.differences(ours.engine, one, other, POSTS))
                took, work = time.perf_counter() - began, time.thread_time() - began_work
            assert 0 < len(found) <= CHANGED
            return Sample({"seconds": took, "work": work})

        return trials.interleaved(
            case, {OURS: lambda: diff(False), f"{OURS}, none of it in memory": lambda: diff(True)}
        )


def versions(trials: Documents) -> list[Row]:
    """Of a process that opens the store: seconds, and bytes of memory; and after a look at each version."""
    with trials.place() as folder:
        names: dict[str, list[str]] = {}
        for case, count in {"1 version": 1, f"{trials.versions:,} versions": trials.versions}.items():
            with contextlib.closing(Ours(folder / f"{count}.db")) as ours:
                _fill(ours, 10_000)
                names[case] = [MAIN, *(secrets.token_hex(20) for _ in range(count - 1))]
                for name in names[case][1:]:
                    ours.engine.storage.fork(name, MAIN)
                    some = [(f"new {name}", {"version": name})]
                    ours.engine.perform(
                        name, lambda tx, some=some: tx.insert(POSTS, [some[0][1]], [some[0][0]])
                    ).result()

        def opened(case: str) -> Sample:
            place = folder / f"{len(names[case])}.db"
            command = [sys.executable, "-c", _OPENED, f"sqlite:///{place}", " ".join(names[case])]
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
            took, memory, used = map(float, said.stdout.split())
            return Sample({"seconds": took, "memory": memory, "used": used})

        return trials.interleaved("", {case: lambda case=case: opened(case) for case in names})


@contextlib.contextmanager
def _store(trials: Documents, size: int) -> Iterator[Ours]:
    with trials.place() as folder, contextlib.closing(Ours(folder / "versionbase.db")) as ours:
        trials.say(f"{size:,} documents are made")
        _fill(ours, size)
        yield ours


def _fill(ours: Ours, size: int) -> None:
    """Small documents, many at once; the collection by a document as others are."""
    ours.insert(entries(0, 1))
    data = values.encode({"score": 1, "title": "small"})
    for first in range(1, size, 100_000):
        branch = ours.engine.storage.branch(MAIN)
        numbers = range(first, min(first + 100_000, size))
        changes = [(catalogue.document_key(POSTS, f"{number:012}"), data) for number in numbers]
        ours.engine.storage.commit([Wish(MAIN, branch.root, changes, lambda root: True)])


FIGURES = (
    Figure(
        "forks",
        "To fork a version, and to keep a snapshot",
        "under a millisecond, or what the disk takes for a row, at any size",
        (Column("seconds", "µs", "{:,.0f}", 1e6),),
        forks,
        lambda rows: [
            Verdict(f"{row.case}: ms of a {row.peer}", row.values["seconds"] * 1000, 1)
            for row in rows
            if row.peer != FLOOR
        ],
    ),
    Figure(
        "differences",
        "To find what differs",
        "at most 20 ms for 100 changes in a million",
        (
            Column("seconds", "ms", "{:,.1f}", 1e3),
            Column("work", "ms of the processor", "{:,.1f}", 1e3),
        ),
        differences,
        lambda rows: [Verdict(f"{row.peer}: ms", row.values["seconds"] * 1000, 20) for row in rows],
    ),
    Figure(
        "versions",
        "To have many versions",
        "a thousand take as long to open as one",
        (
            Column("seconds", "ms to open", "{:,.1f}", 1e3),
            Column("memory", "MB then", "{:,.1f}", 1e-6),
            Column("used", "MB after a look at each", "{:,.1f}", 1e-6),
        ),
        versions,
        lambda rows: [
            Verdict(
                f"{many.peer}: × the time of one", many.values["seconds"] / rows[0].values["seconds"], 1.5
            )
            for many in rows[1:]
        ],
    ),
)
