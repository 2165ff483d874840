"""How it is with the backups of each app: what a server knows of them, and `lazycloud doctor` without one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lazycloud.blobs.store import BACKUPS, StoreFailed, open_store
from lazycloud.data import durable
from lazycloud.findings import Finding, Weight

FILE = "backups.json"  # of the home
FULL_EVERY = 3600.0  # seconds from one that was read as a whole to the next


@dataclass(frozen=True)
class Standing:
    """Of one app. Times in unix time.

    `at` and `id` are of the last backup that is whole, in `store`; `seconds` what it took. `problem` is why there is
    none newer, since `since`, "" for none; `damaged` are pieces that are to be put anew.

    `full_at` and `full_seconds` are of the last that was read as a whole; `sound` are the large databases, by their
    paths in the version's folder, that were whole then. `layered` is the name of the last that has some in layers.
    `begin_anew`: something was wrong since, so that the next is read as a whole.
    """

    at: float = 0.0
    id: str = ""
    store: str = ""
    seconds: float = 0.0
    size: int = 0
    note: str = ""
    problem: str = ""
    advice: str = ""
    since: float = 0.0
    damaged: tuple[str, ...] = ()
    verified: float = 0.0
    full_at: float = 0.0
    full_seconds: float = 0.0
    sound: tuple[str, ...] = ()
    layered: str = ""
    begin_anew: bool = False

    def is_full_due(self, store: str, now: float, share: float) -> bool:
        """Whether the next into a store is to be read as a whole: once an hour, or in `share` times what it takes."""
        pause = max(FULL_EVERY, share * self.full_seconds)
        return self.begin_anew or store != self.store or not 0 <= now - self.full_at < pause


def read(home: Path) -> dict[str, Standing]:
    """By app; nothing where there is none yet, or of another lazycloud."""
    try:
        stored = json.loads((home / FILE).read_text())
        return {name: _standing(facts) for name, facts in stored.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _standing(facts: dict[str, Any]) -> Standing:
    lists: dict[str, Any] = {name: tuple(facts[name]) for name in ("damaged", "sound") if name in facts}
    return Standing(**facts | lists)


def write(home: Path, standing: Mapping[str, Standing]) -> None:
    durable.write(home / FILE, json.dumps({name: asdict(one) for name, one in standing.items()}))


def findings(home: Path, store: str) -> Iterator[Finding]:
    """Whether backups are made into that store, as far as this machine can tell."""
    if not store:
        advice = 'Give it a store on another disk: [data] backup = "file:///…" (docs/backup.md).'
        yield Finding(Weight.LIMITED, "backup", "Production’s data are not backed up.", advice)
        return
    try:
        open_store(store, BACKUPS).exists(f"a.{'0' * 12}/chunks/{'0' * 64}")
    except StoreFailed as problem:
        yield Finding(Weight.BROKEN, "backup", problem.sentence, problem.advice)
        return
    for app, one in sorted(read(home).items()):
        if one.problem:
            sentence = f"{app} is not backed up for {_age(one.since)}: {one.problem}"
            yield Finding(Weight.BROKEN, "backup", sentence, one.advice)
        elif one.store == store:
            said = f" {one.note}" if one.note else ""
            sentence = f"{app}: the last backup is {_age(one.at)} old, {one.size / 1e6:.1f} MB.{said}"
            yield Finding(Weight.LIMITED if one.note else Weight.FINE, "backup", sentence)


def _age(at: float) -> str:
    seconds = max(0.0, time.time() - at)
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
