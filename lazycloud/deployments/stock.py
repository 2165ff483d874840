"""What the home holds that can be made again, with sizes, and with who has a claim on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lazycloud.config import Config
from lazycloud.deployments import inventory
from lazycloud.deployments.claims import Claims, claims, running
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.footprint import Footprint, Pause, in_haste, measure, part
from lazycloud.deployments.inventory import Found
from lazycloud.deployments.retention import Item, Kind, Name, Shared, Turn
from lazycloud.store import Store

AGE = 3600.0  # seconds for which a size counts: nothing should change in what is complete, but workers can write
CACHE_AGE = 300.0  # the same for package caches, which grow with each install
CACHES_PART = 0.5  # of the limit: caches that take more go before anything else, not after


@dataclass(frozen=True)
class Stock:
    """`used`: bytes of all items, each file once; `claims` by app."""

    items: Mapping[Name, Item]
    found: Mapping[Name, Found]
    shared: tuple[Shared, ...]
    claims: Mapping[str, Claims]

    @property
    def used(self) -> int:
        return sum(item.own for item in self.items.values()) + sum(group.bytes for group in self.shared)

    def shared_by(self, name: Name) -> int:
        """Bytes of an item that others hold too."""
        return sum(group.bytes for group in self.shared if name in group.holders)

    def commits(self, name: Name) -> list[str]:
        """The full ids of the commits that a release is of."""
        known = self.claims[name.app].commits.get(name.key) if name.kind is Kind.RELEASE else None
        return sorted(known or filter(None, [self.found[name].commit]))


class Stocktaking:
    """Goes through the folders of a home. Sizes are kept: what is complete is measured once in a while."""

    def __init__(self, config: Config, fleet: Fleet, state: Store) -> None:
        self._config = config
        self._fleet = fleet
        self._store = state
        self._known: dict[tuple[Path, ...], tuple[float, float, Footprint]] = {}

    def most(self, pause: Pause) -> int:
        """Bytes that all of it takes at the most: files that are shared count for each. Blocks."""
        return sum(footprint.bytes for footprint in self._measure(self._everything(), pause).values())

    async def take(self, limit: int, pause: Pause = in_haste) -> Stock:
        """All of it; `limit` is that of the disk, in bytes."""
        found = {one.name: one for one in await asyncio.to_thread(self._everything)}
        there = {one.places for one in found.values()}
        self._known = {places: known for places, known in self._known.items() if places in there}
        own, shared = await asyncio.to_thread(self._parted, list(found.values()), pause)
        theirs = {}
        for app in list(self._fleet.apps.values()):
            asked = {one.commit for one in found.values() if one.name.app == app.name and one.commit}
            theirs[app.name] = await claims(app, self._fleet, self._store, self._config.disk.keep, asked)
        items = {name: self._item(one, own[name], theirs.get(name.app), limit) for name, one in found.items()}
        items = {name: item for name, item in items.items() if item.turn is not Turn.NEVER}
        return Stock(_used_with(items), found, tuple(shared), theirs)

    def forget(self, found: Found) -> None:
        self._known.pop(found.places, None)

    def _everything(self) -> list[Found]:
        found = inventory.caches(self._config.cache_folder)
        for app in list(self._fleet.apps):
            folder = self._config.app_folder(app)
            found += [
                *inventory.made(app, folder), *inventory.build_home(app, folder), *inventory.logs(app, folder)
            ]  # fmt: skip
        return found

    def _parted(self, found: Iterable[Found], pause: Pause) -> tuple[dict[Name, int], list[Shared]]:
        return part(self._measure(found, pause))

    def _measure(self, found: Iterable[Found], pause: Pause) -> dict[Name, Footprint]:
        return {one.name: self._footprint(one, pause) for one in found}

    def _footprint(self, found: Found, pause: Pause) -> Footprint:
        if found.name.kind is Kind.LOG:
            return Footprint.joined([measure(place) for place in found.places])
        age = CACHE_AGE if found.name.kind is Kind.CACHE else AGE
        used, at, footprint = self._known.get(found.places, (0.0, -AGE, None))
        if footprint is None or used != found.used or time.monotonic() - at > age:
            footprint = Footprint.joined([measure(place, pause) for place in found.places])
            self._known[found.places] = (found.used, time.monotonic(), footprint)
        return footprint

    def _item(self, found: Found, own: int, claimed: Claims | None, limit: int) -> Item:
        name = found.name
        item = Item(name, own, found.used, found.cost, found.needs)
        if name.kind is Kind.CACHE:
            return replace(item, turn=Turn.FIRST if own > CACHES_PART * limit else Turn.LAST)
        if claimed is None:
            return replace(item, keep="its app is not served")
        if name.kind is Kind.LOG:
            return replace(item, turn=Turn.FIRST if found.commit in claimed.lost else Turn.NEVER)
        if claimed.unknown:
            return replace(item, keep=claimed.unknown)
        if name.kind is not Kind.RELEASE:
            return item
        why = [*claimed.why.get(name.key, ()), *filter(None, [running(self._fleet, name.app).get(name.key)])]
        commits = claimed.commits.get(name.key) or {found.commit}
        turn = Turn.FIRST if commits <= claimed.lost else Turn.USUAL
        used = max(found.used, claimed.used.get(name.key, 0.0))
        return replace(item, used=used, keep=", ".join(why), turn=turn)


def _used_with(items: dict[Name, Item]) -> dict[Name, Item]:
    """What a release needs was used when the release was."""
    latest: dict[Name, float] = {}
    for item in items.values():
        for needed in item.needs:
            latest[needed] = max(latest.get(needed, 0.0), item.used)
    return {name: replace(item, used=max(item.used, latest.get(name, 0.0))) for name, item in items.items()}
