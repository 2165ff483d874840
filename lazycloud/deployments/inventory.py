"""What lies in the home that can be made again: releases, environments and builds by their markers, and caches.

What has no marker is being made, or removed, and is not ours to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud.build.marker import TRASH
from lazycloud.build.stages import MARKER, RELEASE_MARKER, SOURCE_MARKER
from lazycloud.data.names import is_version
from lazycloud.data.versions import SNAPSHOTS
from lazycloud.deployments.retention import Kind, Name

FOLDERS = {Kind.RELEASE: "releases", Kind.ENVIRONMENT: "environments", Kind.BUILD: "builds"}
MARKERS = {Kind.RELEASE: RELEASE_MARKER, Kind.ENVIRONMENT: MARKER, Kind.BUILD: MARKER}
# Seconds to make one again, where its marker does not say: one that was made before markers did.
GUESSED = {Kind.RELEASE: 2.0, Kind.ENVIRONMENT: 30.0, Kind.BUILD: 30.0}
CACHES = ("uv", "npm")  # what else lies beside them is small, or in use by workers that run
BUILD_HOME = (
    "build-home"  # of each app: HOME of its builds, where package managers keep what has no other place
)
LOGS = (".deploy.log", ".worker.log")
DATA = "data"
_WORDS = {"mirror.git": "repository", "modules": "repository", "logs": "logs"}


@dataclass(frozen=True)
class Found:
    """`places`: the folder, or the files; `used`: unix time; `cost`: seconds; `commit`: the one it was made for."""

    name: Name
    places: tuple[Path, ...]
    used: float = 0.0
    cost: float = 0.0
    needs: frozenset[Name] = frozenset()
    commit: str = ""


@dataclass(frozen=True)
class Beside:
    """What lies there beside all that, in words."""

    what: str
    places: tuple[Path, ...]
    count: int | None = None


def made(app: str, folder: Path) -> list[Found]:
    """All in an app's folder that is complete. Blocks."""
    found = [*_made(app, folder, Kind.ENVIRONMENT), *_made(app, folder, Kind.BUILD)]
    there = frozenset(one.name for one in found)
    return [*(_release(one, there) for one in _made(app, folder, Kind.RELEASE)), *found]


def logs(app: str, folder: Path) -> list[Found]:
    """Of each deployment that ever was, its log files."""
    by_id: dict[str, list[Path]] = {}
    for path in _entries(folder / "logs"):
        for ending in LOGS:
            if path.name.endswith(ending):
                by_id.setdefault(path.name.removesuffix(ending), []).append(path)
    return [
        Found(Name(app, Kind.LOG, key), tuple(sorted(paths)), commit=(*key.split("."), "")[1])
        for key, paths in by_id.items()
    ]


def caches(cache: Path) -> list[Found]:
    """What package managers keep for all apps."""
    return [Found(Name("", Kind.CACHE, name), (cache / name,)) for name in CACHES if (cache / name).is_dir()]


def build_home(app: str, folder: Path) -> list[Found]:
    """What an app's builds keep for the next."""
    place = folder / BUILD_HOME
    return [Found(Name(app, Kind.CACHE, BUILD_HOME), (place,))] if place.is_dir() else []


def rest(folder: Path) -> list[Beside]:
    """What else an app's folder holds: told, and never touched."""
    known = {*FOLDERS.values(), BUILD_HOME, DATA}
    by_word: dict[str, list[Path]] = {}
    for place in _entries(folder):
        if place.name not in known:
            by_word.setdefault(_WORDS.get(place.name, "other"), []).append(place)
    return [*_data(folder / DATA), *(Beside(word, tuple(by_word[word])) for word in sorted(by_word))]


def _data(folder: Path) -> Iterator[Beside]:
    places = _entries(folder)
    snapshots = tuple(place for place in places if place.name.endswith(SNAPSHOTS))
    versions = tuple(place for place in places if place not in snapshots)
    yield Beside("data", versions, sum(is_version(place.name) for place in versions))
    yield Beside("snapshots", snapshots, sum(len(_entries(place)) for place in snapshots))


def beside(home: Path, cache: Path, apps: Iterable[str]) -> list[Beside]:
    """What else the home holds: told, and never touched."""
    served = set(apps)
    found = [Beside("state and events", tuple(home.glob("state.sqlite*")))]
    found += [
        Beside(f"app {place.name}, which is not served", (place,))
        for place in _entries(home / "apps")
        if place.name not in served
    ]
    found += [
        Beside(f"cache/{place.name}", (place,)) for place in _entries(cache) if place.name not in CACHES
    ]
    known = ("apps", cache.name)
    found += [
        Beside(place.name, (place,))
        for place in _entries(home)
        if place.name not in known and not place.name.startswith("state.sqlite") and place.is_dir()
    ]
    return found


def last_use(folder: Path, kind: Kind) -> float | None:
    """When it was made or last taken by a deploy; None if it is not there, or not whole."""
    try:
        return (folder / MARKERS[kind]).stat().st_mtime
    except OSError:
        return None


def _made(app: str, folder: Path, kind: Kind) -> Iterator[Found]:
    for place in _entries(folder / FOLDERS[kind]):
        used = last_use(place, kind)
        if place.name.startswith(TRASH) or used is None:
            continue
        facts = _facts(place / MARKERS[kind])
        cost = _seconds(facts, GUESSED[kind])
        commit = str(facts.get("commit") or "")
        yield Found(Name(app, kind, place.name), (place,), used, cost, commit=commit)


def _release(found: Found, there: frozenset[Name]) -> Found:
    """A release with what its files took as well, and with what it needs."""
    (place,), app = found.places, found.name.app
    facts = _facts(place / RELEASE_MARKER)
    needs = {Name(app, Kind.BUILD, str(facts["build"]))} if facts.get("build") else set()
    if isinstance(keys := facts.get("environments"), list):
        needs |= {Name(app, Kind.ENVIRONMENT, str(key)) for key in keys}
    else:  # one that an older lazycloud made: it may need any of them
        needs |= {name for name in there if name.kind is Kind.ENVIRONMENT}
    cost = found.cost + _seconds(_facts(place / SOURCE_MARKER), 0.0)
    return Found(found.name, found.places, found.used, cost, frozenset(needs), found.commit)


def _facts(marker: Path) -> dict[str, Any]:
    try:
        facts = json.loads(marker.read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _seconds(facts: dict[str, Any], guessed: float) -> float:
    seconds = facts.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else guessed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
