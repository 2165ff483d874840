"""Who has a claim on what lies on the disk: production and its past, branches, pins, and what runs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lazycloud import store
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import LazycloudError
from lazycloud.states import PASSING
from lazycloud.store import Store

HISTORY = 1000  # promotions that are looked through for the last so many commits


@dataclass(frozen=True)
class Claims:
    """Of one app, by the key of a release: `why` it stays, the `commits` that it is of, when it was `used`.

    `lost`: those of the commits asked about that the repository no longer has. `unknown`: why nobody can tell
    what may be made again; then all stays.
    """

    why: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    used: dict[str, float] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    unknown: str = ""


async def claims(app: App, fleet: Fleet, state: Store, keep: int, asked: Iterable[str]) -> Claims:
    """`asked`: further commits that may be lost. Git is asked, and nobody waits for it."""
    found = Claims()
    by_commit: dict[str, set[str]] = defaultdict(set)
    for row in await asyncio.to_thread(state.deployed, app.name):
        key, commit = row["release"], row["commit"]
        found.commits[key].add(commit)
        found.used[key] = max(found.used.get(key, 0.0), row["changed"])
        by_commit[commit].add(key)
    for one in fleet.known():
        if one.key.app == app.name and one.release:
            found.commits[one.release].add(one.key.commit)
            by_commit[one.key.commit].add(one.release)
    reasons = await asyncio.to_thread(_reasons, app, state, keep)
    try:
        reasons += [
            (ref.commit, f"newest of {ref.name}") for ref in await app.repository.refs() if ref.kind != "tag"
        ]
        ids = {*by_commit, *asked}
        lost = frozenset(ids - await app.repository.existing(ids))
    except LazycloudError as problem:
        return Claims(
            found.why, found.commits, found.used, unknown=f"its repository is away: {problem.sentence}"
        )
    for commit, reason in reasons:
        for key in by_commit.get(commit, ()):
            if reason not in found.why[key]:
                found.why[key].append(reason)
    return Claims(found.why, found.commits, found.used, lost)


def in_use(fleet: Fleet) -> dict[Path, str]:
    """The folders of releases and environments that are worked with now, and why they stay.

    Without waiting for anything: what is not in it may be renamed away before the event loop goes on.
    """
    taken = {place: "runs" for one in fleet.known() for uses in one.errands.values() for place in uses}
    return taken | {place: _doing(one) for one in fleet.known() if is_busy(one) for place in one.uses}


def is_held(fleet: Fleet, app: str, release: Path) -> bool:
    """Whether anybody works with a release's folder now, or runs in it; a deploy that is about to is not meant."""
    runs = (one.release for one in fleet.known() if one.key.app == app and one.workers)
    return release in in_use(fleet) or release.name in runs


def running(fleet: Fleet, app: str) -> dict[str, str]:
    """The keys of an app's releases that run or are being deployed, and which."""
    return {one.release: _doing(one) for one in fleet.known() if one.key.app == app and is_busy(one)}


def is_busy(deployment: Deployment) -> bool:
    """Whether it works with what was built, or will."""
    return bool(deployment.workers) or deployment.state in PASSING


def _doing(deployment: Deployment) -> str:
    return "is being deployed" if deployment.is_deploying else "runs"


def _reasons(app: App, state: Store, keep: int) -> list[tuple[str, str]]:
    """Commit and why, as the store knows it; the present production first."""
    past = dict.fromkeys(row["commit"] for row in state.history(app.name, HISTORY))
    past.pop(app.production, None)
    pinned = [row["commit"] for row in state.rows(store.pins, app=app.name)]
    return [
        (app.production, "production"),
        *((commit, "was production") for commit in list(past)[:keep]),
        *((commit, "pinned") for commit in pinned),
    ]
