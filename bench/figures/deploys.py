"""From `git commit` to the first 200, beside the start of the same app by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from app import APPS, FLASK, App
from checkout import served
from figures import Column, Figure, Verdict, compare
from run import Row
from trials import BY_HAND, OURS, PLAIN, Take, Trials, scratch

PRELOADED, PLAINLY = 0.5, 1.15  # × by hand, at most
WOKEN = 0.4
OWN = 0.030  # seconds that a plain start may cost beyond that
WARMED = "lazycloud, on_commit start"
WITHOUT = "lazycloud, plain"
OPEN = "lazycloud, no walls"
NO_WALLS = 'isolation = "none"\n'
ON_COMMIT = 'on_commit = "start"\n'

TIMES = (
    Column("seconds", "ms", "{:.0f}", 1e3),
    Column("q1", "from", "{:.0f}", 1e3),
    Column("q3", "to", "{:.0f}", 1e3),
    Column(f"x {BY_HAND}", f"× {BY_HAND}", "{:.2f}"),
)
PARTS = (
    Column("git", "git, hook ms", "{:.0f}", 1e3),
    Column("build", "source … data ms", "{:.0f}", 1e3),
    Column("start", "start, ready ms", "{:.0f}", 1e3),
)


def deploys(trials: Trials) -> list[Row]:
    """Each app with its lockfile unchanged, preloaded where lazycloud does so for it, plain, and warmed."""
    return [
        row for app in APPS if trials.only in app.name and not app.lacks() for row in _deploys(trials, app)
    ]


def _deploys(trials: Trials, app: App) -> list[Row]:
    with (
        scratch() as folder,
        scratch() as another,
        served(folder, app) as checkout,
        served(another, app, config=NO_WALLS) as unwalled,
    ):
        ways: dict[str, Take] = {OURS: checkout.deploy}
        if trials.preloads and app.is_preloaded:
            ways[WITHOUT] = partial(checkout.deploy, PLAIN)
        ways[OPEN] = unwalled.deploy
        ways[WARMED] = partial(checkout.deploy, ON_COMMIT)
        if app.is_preloaded:
            trials.until_preloaded(app.name, checkout.deploy)
            trials.until_preloaded(app.name, unwalled.deploy)
        rows = trials.interleaved(app.name, ways | {BY_HAND: checkout.by_hand}, warm=2)
    compare(rows, "seconds", BY_HAND)
    return [_told(row, app) for row in rows] if trials.preloads else [_unpreloaded(row) for row in rows]


def wake(trials: Trials) -> list[Row]:
    """A commit that was built, started and stopped is asked for again."""
    with scratch() as folder, served(folder, FLASK) as checkout:
        checkout.deploy()
        trials.until_preloaded(FLASK.name, checkout.deploy)
        ways = {OURS: checkout.wake, BY_HAND: checkout.by_hand}
        rows = trials.interleaved(FLASK.name, ways, warm=2)
    compare(rows, "seconds", BY_HAND)
    return rows


def _told(row: Row, app: App) -> Row:
    if row.peer in (OURS, OPEN, WARMED) and app.is_preloaded and not row.values["preloaded"]:
        row.trouble = row.trouble or "its starts were plain ones"
    return row


def _unpreloaded(row: Row) -> Row:
    return Row(row.case, WITHOUT if row.peer == OURS else row.peer, row.values, row.trouble)


def judge(rows: Sequence[Row]) -> list[Verdict]:
    """A Python app of ours is preloaded; others, and plain starts, have 30 ms of ours besides."""
    preloading = {app.name for app in APPS if app.is_preloaded}
    by_hand = {row.case: row.values["seconds"] for row in rows if row.peer == BY_HAND}
    found = []
    for row in rows:
        if row.peer not in (OURS, WITHOUT):
            continue
        preloaded = row.peer == OURS and row.case in preloading
        bound = PRELOADED if preloaded else PLAINLY + OWN / by_hand[row.case]
        way = "preloaded" if preloaded else "plain (1.15 × + 30 ms)"
        found.append(Verdict(f"{row.case}, {way}: × by hand", row.values[f"x {BY_HAND}"], bound))
    return found


FIGURES = (
    Figure(
        "deploys",
        "From git commit to the first 200",
        "at most 0.5 × a start by hand where it is preloaded, 1.15 × + 30 ms where not",
        TIMES + PARTS,
        deploys,
        judge,
    ),
    Figure(
        "wake",
        "A commit that is built but stopped",
        f"at most {WOKEN} × a start by hand",
        TIMES + PARTS[1:],
        wake,
        lambda rows: [
            Verdict(f"{row.case}: × by hand", row.values[f"x {BY_HAND}"], WOKEN)
            for row in rows
            if row.peer == OURS
        ],
    ),
)
