"""A commit that changes the lockfile, with its packages in the cache, beside `uv pip sync` and a start by hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from app import FLASK
from checkout import Checkout, served
from figures import Figure, Verdict, compare
from figures.deploys import PARTS, TIMES
from run import Row, Sample
from trials import BY_HAND, OURS, Trials, scratch

VERSIONS = ("packaging==24.2", "packaging==25.0")  # gunicorn needs it: each change is one package's
NEW = "by hand, a new venv"
_BOUND = 1.1


def lockfile(trials: Trials) -> list[Row]:
    """Each round locks another version of one package, in a file that never was before.

    By hand both in the venv that is there, where one package is replaced, and in a new one, as lazycloud leaves
    the environments of other commits alone.
    """
    with scratch() as folder, served(folder, FLASK) as checkout:

        def ours() -> Sample:
            FLASK.lock(checkout.folder, VERSIONS[checkout.number % len(VERSIONS)])
            with (checkout.folder / "requirements.txt").open("a") as file:
                file.write(f"# lock {checkout.number}\n")
            return checkout.deploy()

        ways = {OURS: ours, BY_HAND: lambda: _synced(checkout), NEW: lambda: _afresh(checkout)}
        rows = trials.interleaved(FLASK.name, ways, warm=2)
    compare(rows, "seconds", BY_HAND, NEW)
    return rows


def _synced(checkout: Checkout) -> Sample:
    began = time.perf_counter()
    checkout.installed.sync(checkout.folder, checkout.installed.venv)
    return _added(time.perf_counter() - began, checkout.by_hand())


def _afresh(checkout: Checkout) -> Sample:
    venv = checkout.installed.folder / "another"
    began = time.perf_counter()
    checkout.installed.make_venv(venv)
    checkout.installed.sync(checkout.folder, venv)
    try:
        return _added(time.perf_counter() - began, checkout.by_hand(venv))
    finally:
        shutil.rmtree(venv)


def _added(installing: float, start: Sample) -> Sample:
    return Sample({"seconds": installing + start.values["seconds"], "build": installing}, start.trouble)


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(f"{row.case}: × {other}", row.values[f"x {other}"], _BOUND)
        for row in rows
        if row.peer == OURS
        for other in (BY_HAND, NEW)
    ]


FIGURES = (
    Figure(
        "lockfile",
        "A changed lockfile, its packages in the cache",
        "at most 1.1 × uv pip sync and a start by hand",
        TIMES + PARTS,
        lockfile,
        _judge,
    ),
)
