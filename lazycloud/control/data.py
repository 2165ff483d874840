"""The API of data: versions as a tree, snapshots, forks, what differs, what goes in and out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from lazycloud import store
from lazycloud.config import Config
from lazycloud.control.auth import Auth
from lazycloud.control.bodies import flag_of, json_body, text_of
from lazycloud.control.contents import Contents
from lazycloud.control.datashell import DataShell
from lazycloud.control.guard import Route
from lazycloud.control.identity import Role
from lazycloud.control.progress import number_of
from lazycloud.data.names import PASSING, PRODUCTION
from lazycloud.deployments.app import App
from lazycloud.deployments.changes import Changes, Replaced
from lazycloud.deployments.expiry import Holding
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.keeper import Keeper
from lazycloud.deployments.schemas import Schemas
from lazycloud.deployments.snapshots import Data, Row, Snapshots, shown
from lazycloud.errors import BadInput, NotFound
from lazycloud.store import Store

ROWS_MOST = 200  # of each table, that are told

Json = dict[str, Any]


class VersionData:
    ROUTES: tuple[Route, ...] = (
        ("GET", "/api/apps/{app}/data", "tree", Role.VIEWER),
        ("POST", "/api/apps/{app}/data/snapshot", "snapshot_data", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/forget", "forget_snapshot", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/fork", "fork_data", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/restore", "restore_data", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/reset", "reset_data", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/rm", "remove_data", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/data/diff", "compare_data", Role.VIEWER),
        ("GET", "/api/apps/{app}/data/moved", "moved_schema", Role.VIEWER),
        ("GET", "/api/apps/{app}/data/export", "export_data", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/import", "import_data", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/data/shell", "open_shell", Role.DEVELOPER),
        ("POST", "/api/apps/{app}/data/prune", "prune_data", Role.OWNER),
    )
    NARROWED: frozenset[str] = frozenset()

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        auth: Auth,
        snapshots: Snapshots,
        changes: Changes,
        keeper: Keeper,
        contents: Contents,
        shell: DataShell,
        schemas: Schemas,
        state: Store,
    ) -> None:
        self._schemas = schemas
        self._upkeep = config.data
        self._fleet = fleet
        self._auth = auth
        self._snapshots = snapshots
        self._changes = changes
        self._keeper = keeper
        self._contents = contents
        self._shell = shell
        self._store = state

    async def tree(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        rows = {row["name"]: row for row in self._store.rows(store.versions, app=app.name)}
        names = {*rows, *(name for name in app.versions.all() if app.versions.exists(name))}
        names = {name for name in names if not name.startswith(PASSING)}
        pinned = {row["commit"] for row in self._store.rows(store.pins, app=app.name)}
        taken, own = self._snapshots.of(app), (await app.versions.usage()).own
        views = [await self._version(app, name, rows.get(name), pinned, taken, own) for name in names]
        views.sort(key=lambda view: (not view["production"], view["forked"], view["name"]))
        return web.json_response({"versions": views, "keep": self._upkeep.keep, "limit": self._upkeep.limit})

    async def snapshot_data(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        version = await self._snapshots.version(app, text_of(body, "ref"))
        name, who = text_of(body, "name"), self._auth.identity(request).name
        row = await self._snapshots.take(app, version, "asked", who, name)
        return web.json_response(snapshot_view(row) | {"version": version}, status=201)

    async def forget_snapshot(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        version, snapshot = await self._snapshots.find(app, text_of(body, "point"))
        if snapshot is None:
            raise BadInput("Which snapshot? `point` names none.", "Give REF@NAME.")
        self._demand_owner_of(request, app, version)
        await self._snapshots.forget(
            app, version, snapshot, f"{self._auth.identity(request).name} removed it"
        )
        return web.json_response({"version": version, "snapshot": snapshot})

    async def fork_data(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        data = Data(*await self._snapshots.find(app, text_of(body, "from")))
        to = (await app.wanted(text_of(body, "to"))).id if text_of(body, "to") != PRODUCTION else PRODUCTION
        origin = await self._changes.fork(app, data, to, self._auth.identity(request).name)
        view = {"version": to, "source": origin.version, "snapshot": origin.snapshot}
        return web.json_response(view, status=201)

    async def restore_data(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        data = Data(*await self._snapshots.find(app, text_of(body, "point")))
        to = data.version
        if "to" in body:
            to = await self._snapshots.version(app, text_of(body, "to"))
        self._demand_owner_of(request, app, to)
        if flag_of(body, "dry_run"):
            self._changes.demand_restorable(app, data, to)
            lost = await self._contents.difference(app, Data(to), data)
            return web.json_response({"version": to, "snapshot": data.snapshot, "lost": lost})
        replaced = await self._changes.restore(app, data, to, self._auth.identity(request).name)
        return web.json_response(replaced_view(replaced) | {"snapshot": data.snapshot})

    async def reset_data(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        version = await self._preview(app, text_of(await json_body(request), "ref"))
        was_live = self._changes.is_live(app, version)
        await self._changes.reset(app, version, self._auth.identity(request).name)
        return web.json_response({"version": version, "live": was_live})

    async def remove_data(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        version = await self._preview(app, text_of(await json_body(request), "ref"))
        who = self._auth.identity(request).name
        await self._changes.remove(app, version, f"{who} removed them")
        return web.json_response({"version": version})

    async def compare_data(self, request: web.Request) -> web.StreamResponse:
        """Rows themselves are for who may see the data."""
        app, query = self._app(request), request.query
        rows = min(number_of(request, "rows", 0), ROWS_MOST)
        if rows:
            self._auth.identity(request).demand(Role.DEVELOPER, app.name)
        one, other = [Data(*await self._snapshots.find(app, query.get(name, ""))) for name in ("a", "b")]
        found = await self._contents.difference(app, one, other, query.get("table", ""), rows)
        return web.json_response({"a": vars(one), "b": vars(other), **found})

    async def moved_schema(self, request: web.Request) -> web.StreamResponse:
        """How production's schema has moved since a commit was production; what the present one runs on."""
        app = self._app(request)
        commit = await app.wanted(request.query.get("ref") or app.production)
        moved = await self._schemas.moved(app, commit.id)
        changes, snapshot = (moved.changes, moved.snapshot) if moved else ([], None)
        return web.json_response({"commit": commit.id, "changes": changes, "snapshot": snapshot})

    async def export_data(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        data = Data(*await self._snapshots.find(app, request.query.get("point", "")))
        self._demand_owner_of(request, app, data.version)
        kind, who = request.query.get("format", "sqlite"), self._auth.identity(request).name
        return await self._contents.export(request, app, data, kind, who)

    async def import_data(self, request: web.Request) -> web.StreamResponse:
        app = self._app(request)
        version = await self._preview(app, request.query.get("ref", ""))
        self._demand_owner_of(request, app, version)
        kind, who = request.query.get("format", ""), self._auth.identity(request).name
        replaced, imported = await self._contents.take_in(request, app, version, kind, who)
        told = {"format": imported.kind, "warnings": list(imported.warnings)}
        return web.json_response(replaced_view(replaced) | told)

    async def open_shell(self, request: web.Request) -> web.StreamResponse:
        """Of a snapshot, or where `copy` is 1, on a copy that nobody else has; else on the data, made if need be."""
        app, point = self._app(request), request.query.get("point", "")
        on_copy = "@" in point or request.query.get("copy") == "1"
        if on_copy:
            data = Data(*await self._snapshots.find(app, point))
        else:
            data = Data(await self._snapshots.version(app, point))
            self._demand_owner_of(request, app, data.version)
        deployment = self._fleet.production(app)
        if data.version != PRODUCTION:
            deployment = self._fleet.get(app, data.version)
        if deployment is None:
            raise NotFound(f"{app.name} has no production yet.", "Commit something, then promote it.")
        origin = self._snapshots.read_from(app, data) if on_copy else data
        who = self._auth.identity(request).name
        return await self._shell.open(request, app, deployment, origin, on_copy, who)

    async def prune_data(self, request: web.Request) -> web.StreamResponse:
        app, body = self._app(request), await json_body(request)
        pruned = await self._keeper.prune(app, dry=flag_of(body, "dry_run") is True)
        return web.json_response(
            {
                "removed": [_holding(one.holding) | {"why": one.why} for one in pruned.gone],
                "kept": [_holding(one) | {"why": one.keep} for one in pruned.holdings if one.keep],
                "freed": pruned.freed,
                "missing": pruned.verdict.missing,
                "skipped": pruned.skipped,
                "keep": self._upkeep.keep,
                "limit": self._upkeep.limit,
            }
        )

    async def _preview(self, app: App, ref: str) -> str:
        if not ref:
            raise BadInput("Whose data? `ref` is missing.", "Give a commit id, branch or tag.")
        return await self._snapshots.version(app, ref)

    async def _version(
        self, app: App, name: str, row: Row | None, pinned: set[str], taken: list[Row], own: Mapping[str, int]
    ) -> Json:
        is_production = name == PRODUCTION
        commit_id = app.production if is_production else name
        commit = await app.named(commit_id) if commit_id else None
        live = self._changes.is_live(app, name)
        known = row or {"source": "", "snapshot": "", "forked": 0.0, "used": 0.0, "pending": False}
        return {
            "name": name,
            "label": shown(name),
            "commit": commit_id,
            "subject": commit.subject if commit else "",
            "source": known["source"],
            "snapshot": known["snapshot"],
            "forked": known["forked"],
            "used": time.time() if live else known["used"] or known["forked"],
            "bytes": await app.versions.size(name),
            "own": own.get(name, 0),
            "pending": known["pending"] and not app.versions.exists(name),
            "documents": app.versions.beside.has("versionbase", name),
            "live": live,
            "pinned": commit_id in pinned,
            "production": is_production,
            "snapshots": [snapshot_view(each) for each in taken if each["version"] == name],
        }

    def _demand_owner_of(self, request: web.Request, app: App, version: str) -> None:
        """What is done to production's data concerns everybody."""
        if version == PRODUCTION:
            self._auth.identity(request).demand(Role.OWNER, app.name)

    def _app(self, request: web.Request) -> App:
        return self._fleet.app(request.match_info["app"])


def snapshot_view(row: Row) -> Json:
    return {name: row[name] for name in ("id", "name", "why", "at", "who", "size", "note")}


def replaced_view(replaced: Replaced) -> Json:
    return vars(replaced).copy()


def _holding(holding: Holding) -> Json:
    return {
        "version": holding.version,
        "label": shown(holding.version),
        "bytes": holding.bytes,
        "used": holding.used,
    }
