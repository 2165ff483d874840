"""Where the disk went, and what a prune did, as JSON: docs/protocols.md lists the fields."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from lazycloud.config import Config
from lazycloud.deployments import inventory
from lazycloud.deployments.app import App
from lazycloud.deployments.disk import Disk, Pruned
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.footprint import measure
from lazycloud.deployments.retention import Item, Kind, Name
from lazycloud.deployments.stock import Stock

Json = dict[str, Any]
ORDER = list(Kind)


class Storage:
    def __init__(self, config: Config, fleet: Fleet, disk: Disk) -> None:
        self._config = config
        self._fleet = fleet
        self._disk = disk

    async def disk(self) -> Json:
        """All that is in the home, by app; what stays and why, and what could go."""
        pruned = await self._disk.prune("", everything=True, with_caches=True, dry=True)
        stock, space = pruned.stock, self._disk.space()
        parts = _parts(pruned)
        apps = [await self._app(app, pruned, parts) for app in self._fleet.apps.values()]
        beside = await asyncio.to_thread(self._beside)
        return {
            "home": str(self._config.home),
            "total": space.total,
            "free": space.free,
            "limit": space.limit,
            "reserve": space.reserve,
            "used": stock.used,
            "can_go": sum(one.frees for one in pruned.gone if one.item.name.kind is not Kind.CACHE),
            "apps": apps,
            "caches": [
                {"name": name.key, "bytes": parts["", Kind.CACHE, name.key]["bytes"]}
                for name in stock.items
                if name.kind is Kind.CACHE and not name.app
            ],
            "other": beside,
        }

    async def pruned(self, pruned: Pruned) -> Json:
        return {
            "removed": [
                await self._item(pruned.stock, going.item) | {"frees": going.frees} for going in pruned.gone
            ],
            "freed": pruned.freed,
            "missing": pruned.decision.missing,
            "skipped": len(pruned.decision.goes) - len(pruned.gone),
            "why": pruned.why,
            "space": vars(self._disk.space()),
            "used": pruned.stock.used,
        }

    async def _app(self, app: App, pruned: Pruned, parts: dict[tuple[str, Kind, str], Json]) -> Json:
        stock, stays = pruned.stock, pruned.decision.stays
        mine = [item for item in stock.items.values() if item.name.app == app.name]
        listed = [item for item in mine if item.name.kind not in (Kind.LOG, Kind.CACHE)]
        listed.sort(key=lambda item: (ORDER.index(item.name.kind), item.name not in stays, -item.used))
        rest = await asyncio.to_thread(_sizes, inventory.rest(self._config.app_folder(app.name)))
        return {
            "name": app.name,
            "parts": [
                *(part for (owner, kind, key), part in parts.items() if owner == app.name and not key),
                *rest,
            ],
            "items": [await self._item(stock, item) | {"keep": stays.get(item.name, "")} for item in listed],
        }

    async def _item(self, stock: Stock, item: Item) -> Json:
        name = item.name
        commits = stock.commits(name) if name.kind in (Kind.RELEASE, Kind.LOG) else []
        app = self._fleet.apps.get(name.app)
        named = [await app.named(commit) for commit in commits[:20]] if app else []
        return {
            "app": name.app,
            "kind": name.kind.value,
            "key": name.key,
            "commits": [{"id": one.id, "short": one.short, "subject": one.subject} for one in named],
            "bytes": item.own,
            "shared": stock.shared_by(name),
            "used": item.used or None,
            "cost": item.cost,
            "lost": bool(app) and bool(commits) and set(commits) <= stock.claims[name.app].lost,
        }

    def _beside(self) -> list[Json]:
        return _sizes(inventory.beside(self._config.home, self._config.cache_folder, self._fleet.apps))


def _parts(pruned: Pruned) -> dict[tuple[str, Kind, str], Json]:
    """By app and kind (and key, of caches that all share), each file counted once, where it comes first."""
    counts: Counter[tuple[str, Kind, str]] = Counter()
    sizes: dict[tuple[str, Kind, str], int] = defaultdict(int)
    can_go: dict[tuple[str, Kind, str], int] = defaultdict(int)
    for name, item in pruned.stock.items.items():
        counts[_part(name)] += 1
        sizes[_part(name)] += item.own
    for group in pruned.stock.shared:
        sizes[_part(min(group.holders, key=_place))] += group.bytes
    for going in pruned.gone:
        can_go[_part(going.item.name)] += going.frees
    return {
        part: {
            "what": f"{part[1].value}s",
            "count": counts[part],
            "bytes": sizes[part],
            "can_go": can_go[part],
        }
        for part in sorted(counts, key=lambda part: (part[0], ORDER.index(part[1]), part[2]))
        if part[1] is not Kind.LOG
    }


def _part(name: Name) -> tuple[str, Kind, str]:
    return (name.app, name.kind, name.key if name.kind is Kind.CACHE and not name.app else "")


def _place(name: Name) -> tuple[int, str, str]:
    return (ORDER.index(name.kind), name.app, name.key)


def _sizes(places: Iterable[inventory.Beside]) -> list[Json]:
    """What is told only. Blocks."""
    rows = []
    for one in places:
        size = sum(measure(place).bytes for place in one.places)
        if size:
            rows.append({"what": one.what, "count": one.count, "bytes": size, "can_go": 0})
    return rows
