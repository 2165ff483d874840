"""What it takes to read and write documents, and how much is written for them."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import Column, Figure, Verdict, compare
from lazycloud.versionbase.uuid7 import uuid7
from run import Row, Sample
from stores import (
    AUTHORS,
    BATCH,
    CHANCE,
    KINDS,
    POSTGRES,
    SCORES,
    SERVED,
    SQLITE,
    Jsonbs,
    Ours,
    Served,
    Sqlite,
    Store,
    entries,
)
from trials import OURS, Take, Trials

GETS, INSERTS, FOUND = 2000, 100, 200  # of one sample
GET, INSERT, SCAN, FIND = "get", "insert", "filtered scan", "find by an index"
MANY, SPREAD = f"insert {BATCH:,} at once", f"insert {BATCH:,} with random keys"
BOUNDS = {GET: 1.0, INSERT: 2.0, MANY: 3.0, SPREAD: 4.0, SCAN: 5.0, FIND: 2.0}  # times SQLite's


@dataclass
class Documents(Trials):
    """With `documents` in one collection; `sizes` of what is forked; `versions` of one store.

    `url` is of a Postgres, if there is one to compare with.
    """

    documents: int = 1_000_000
    sizes: Sequence[int] = field(default_factory=list)
    versions: int = 1000
    url: str = ""
    folder: Path | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(
            prefix="bench-", dir=self.folder, ignore_cleanup_errors=True
        ) as name:
            yield Path(name)

    @contextlib.contextmanager
    def filled(self, count: int, indexed: bool = True, served: bool = False) -> Iterator[Mapping[str, Store]]:
        """Each with so many documents."""
        with self.place() as folder, contextlib.ExitStack() as stack:
            stores: dict[str, Store] = {}
            if served:
                stores[SERVED] = stack.enter_context(contextlib.closing(Served(folder / "served.db")))
            else:
                stores[OURS] = stack.enter_context(contextlib.closing(Ours(folder / "versionbase.db")))
                stores[SQLITE] = stack.enter_context(contextlib.closing(Sqlite(folder / "tables.db")))
            if self.url:
                stores[POSTGRES] = stack.enter_context(contextlib.closing(Jsonbs(self.url)))
            for first in range(0, count, 5 * BATCH):
                self.say(f"{first:,} documents are there")
                some = entries(first, min(5 * BATCH, count - first))
                for store in stores.values():
                    store.insert(some)
            for name, store in stores.items() if indexed else ():
                self.say(f"index of {name}")
                store.index()
            yield stores


def documents(trials: Documents) -> list[Row]:
    """Seconds for each: document that is got or inserted, document looked at, document found."""
    rows = _measured(trials, trials.documents)
    compare(rows, "seconds", SQLITE, *([POSTGRES] if trials.url else []))
    return rows


def served(trials: Documents) -> list[Row]:
    """The same of a server, as an app asks it, with a tenth of the documents."""
    rows = _measured(trials, trials.documents // 10, served=True)
    compare(rows, "seconds", *([POSTGRES] if trials.url else []))
    return rows


def _measured(trials: Documents, there: int, served: bool = False) -> list[Row]:
    rows: list[Row] = []
    with trials.filled(there, served=served) as stores:
        cases: dict[str, Callable[[Store], Sample]] = {
            GET: lambda store: _gets(store, there),
            INSERT: lambda store: _inserts(store, 1, INSERTS),
            MANY: lambda store: _inserts(store, BATCH, 5),
            SPREAD: lambda store: _inserts(store, BATCH, 5, spread=True),
            SCAN: lambda store: _scan(store, there),
            FIND: _finds,
        }
        for case, take in cases.items():
            if trials.only in case:
                rows += trials.interleaved(case, _each(stores, take))
    return rows


def written(trials: Documents) -> list[Row]:
    """Bytes written to the log for a commit of one document, with a key that is anywhere among the others."""
    rows: list[Row] = []
    for case, indexed in {"no index": False, "one index": True}.items():
        if trials.only in case:
            with trials.filled(trials.documents // 10, indexed) as stores:
                rows += trials.interleaved(case, _each(stores, _written))
    compare(rows, "bytes", SQLITE, *([POSTGRES] if trials.url else []))
    return rows


def _each(stores: Mapping[str, Store], take: Callable[[Store], Sample]) -> Mapping[str, Take]:
    return {name: lambda store=store: take(store) for name, store in stores.items()}


def _timed(work: Callable[[], object], count: int) -> Sample:
    began = time.perf_counter()
    work()
    return Sample({"seconds": (time.perf_counter() - began) / count})


def _gets(store: Store, there: int) -> Sample:
    keys = [f"{CHANCE.randrange(there):012}" for _ in range(GETS)]
    return _timed(lambda: [store.get(key) for key in keys], GETS)


def _inserts(store: Store, at_once: int, times: int, spread: bool = False) -> Sample:
    groups = [_new(at_once, spread) for _ in range(times)]
    return _timed(lambda: [store.insert(group) for group in groups], at_once * times)


def _new(count: int, spread: bool = False) -> list[tuple[str, dict[str, object]]]:
    """Documents with keys that are not there: behind all others, as a versionbase makes them, or anywhere."""
    documents = [document for _, document in entries(CHANCE.randrange(10**9), count)]
    return [(f"{CHANCE.randrange(10**12):012} new" if spread else f"9{uuid7()}", each) for each in documents]


def _scan(store: Store, there: int) -> Sample:
    kind = f"kind {CHANCE.randrange(KINDS)}"
    return _timed(lambda: store.scan(kind, SCORES - 10), there)


def _finds(store: Store) -> Sample:
    authors = [f"author {CHANCE.randrange(AUTHORS)}" for _ in range(FOUND)]
    found = 0

    def work() -> None:
        nonlocal found
        found = sum(len(store.by(author)) for author in authors)

    took = _timed(work, 1)
    return Sample({"seconds": took.values["seconds"] / max(found, 1)})


def _written(store: Store) -> Sample:
    groups = [_new(1, spread=True) for _ in range(INSERTS)]
    before, began = store.logged(), time.perf_counter()
    for group in groups:
        store.insert(group)
        store.logged()
    took = time.perf_counter() - began
    return Sample({"seconds": took, "bytes": (store.logged() - before) / INSERTS})


def _judged(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(f"{row.case}: × {SQLITE}", row.values[f"x {SQLITE}"], BOUNDS[row.case])
        for row in rows
        if row.peer == OURS
    ]


_RATIOS = (Column(f"x {SQLITE}", f"× {SQLITE}", "{:.2f}"), Column(f"x {POSTGRES}", f"× {POSTGRES}", "{:.2f}"))

FIGURES = (
    Figure(
        "documents",
        "To read and write documents",
        f"in comparison with {SQLITE}",
        (Column("seconds", "µs a document", "{:,.1f}", 1e6), *_RATIOS),
        documents,
        _judged,
    ),
    Figure(
        "served",
        "By a socket",
        "as an app has it",
        (Column("seconds", "µs a document", "{:,.1f}", 1e6), _RATIOS[1]),
        served,
        lambda rows: [],
    ),
    Figure(
        "written",
        "What a commit of one document writes",
        "at most 12 KB to the log, and 16 with an index",
        (Column("bytes", "KB to the log", "{:,.1f}", 1e-3), *_RATIOS),
        written,
        lambda rows: [
            Verdict(f"{row.case}: KB", row.values["bytes"] / 1000, 12 if row.case == "no index" else 16)
            for row in rows
            if row.peer == OURS
        ],
    ),
)
