"""What is in an app's versionbase, for its page: collections, documents, their history, what differs. Read only.

The app's versionbase is asked as its owner, through the client that apps have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lazycloud.control.documents import change_view, for_table, weight, whole
from lazycloud.control.guard import Route
from lazycloud.control.identity import Role
from lazycloud.control.progress import number_of
from lazycloud.data.versionbase import NAME
from lazycloud.deployments.app import App
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.snapshots import Data, Snapshots, shown
from lazycloud.errors import BadInput, Busy, LazycloudError, NotFound

if TYPE_CHECKING:
    from lazycloud.versionbase.client import Database, Results, VersionbaseError, View

DEADLINE = 5.0  # seconds, for one look
ROWS = 100  # documents of a page, changes of a document, differences of two versions
WEIGHT = 8 << 20  # bytes of documents that are read for one answer, about
FILTER = 2000  # letters; it comes in an address, of which each may take three

Json = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """A version that can be asked, until a time of the loop's clock; `there` is it at the moment that is meant."""

    db: Database
    there: Database | View
    moment: str  # what that is called there
    until: float


@dataclass(frozen=True)
class Some:
    """What was read; whether there is more, and whether that is because the time was up."""

    items: list[Any]
    more: bool = False
    late: bool = False


class DocumentViews:
    ROUTES: tuple[Route, ...] = (
        ("GET", "/api/apps/{app}/versionbase", "collections", Role.VIEWER),
        ("GET", "/api/apps/{app}/versionbase/documents", "find_documents", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/versionbase/document", "open_document", Role.DEVELOPER),
        ("GET", "/api/apps/{app}/versionbase/diff", "compare_documents", Role.DEVELOPER),
    )
    NARROWED: frozenset[str] = frozenset()

    def __init__(self, fleet: Fleet, snapshots: Snapshots) -> None:
        self._fleet = fleet
        self._snapshots = snapshots

    async def collections(self, request: web.Request) -> web.StreamResponse:
        app, data = await self._point(request, "point")
        async with self._opened(app, data) as opened:
            found = await opened.there.collections()
        return web.json_response({**vars(data), "collections": found})

    async def find_documents(self, request: web.Request) -> web.StreamResponse:
        """A page of them, and how they were found."""
        app, data = await self._point(request, "point")
        name, skip = _named(request, "collection"), number_of(request, "skip", 0)
        async with self._opened(app, data) as opened:
            found = opened.there.collection(name).find(
                _filter(request), order=_text(request, "order"), skip=skip, limit=ROWS + 1
            )
            explained = await found.explain()
            some = await _read(found, opened.until)
        documents = [{"key": one.key, "document": for_table().shown(one)} for one in some.items]
        told = {"documents": documents, "skip": skip, "more": some.more, "late": some.late}
        return web.json_response({**vars(data), **told, "explain": explained})

    async def open_document(self, request: web.Request) -> web.StreamResponse:
        """A document whole, and what became of it by each commit that is kept, the latest first."""
        app, data = await self._point(request, "point")
        name, key = _named(request, "collection"), _named(request, "key")
        async with self._opened(app, data) as opened:
            document = await opened.there.collection(name).get(key)
            history = opened.db.collection(name).history(key, limit=ROWS + 1)
            past = await _read(history, opened.until)
        view = None if document is None else whole().shown(document)
        facts = {"key": key, "document": view, "history": _history(past), "more": past.more or past.late}
        return web.json_response({**vars(data), **facts})

    async def compare_documents(self, request: web.Request) -> web.StreamResponse:
        """What became of the documents at one point in those at another."""
        (app, one), (_, other) = await self._point(request, "a"), await self._point(request, "b")
        collection = request.query.get("collection") or None
        async with self._opened(app, one) as before, self._opened(app, other) as after:
            found = before.db.diff(before.moment, after.moment, collection=collection)
            some = await _read(found, before.until)
        differences = [
            {"collection": each.collection, "key": each.key, **change_view(each.old, each.new)}
            for each in some.items
        ]
        told = {"differences": differences, "more": some.more, "late": some.late}
        return web.json_response({"a": vars(one), "b": vars(other), **told})

    async def _point(self, request: web.Request, name: str) -> tuple[App, Data]:
        """The app, and the data that the parameter `name` means: `REF`, or `REF@` and a snapshot."""
        app = self._fleet.app(request.match_info["app"])
        return app, Data(*await self._snapshots.find(app, request.query.get(name, "")))

    @asynccontextmanager
    async def _opened(self, app: App, data: Data) -> AsyncIterator[Opened]:
        """Raises NotFound if there is none: a look makes no version. What is refused there is an error of ours."""
        from lazycloud.versionbase import client  # takes a tenth of a second, and few need it

        read = self._snapshots.read_from(app, data)
        if not app.versions.beside.has(NAME, read.version, read.snapshot):
            raise NotFound(
                f"{shown(data.version)} has no versionbase.",
                "An app whose lazycloud.toml says `versionbase = true` under [data] has one with each version.",
            )
        address = await app.versionbase.address(read.version)  # it may have to be woken first
        moment = app.versionbase.moment(read.version, read.snapshot)
        until = asyncio.get_running_loop().time() + DEADLINE
        try:
            async with asyncio.timeout(DEADLINE + 1), client.connect(address, timeout=DEADLINE) as db:
                yield Opened(db, db.at(moment) if read.snapshot else db, moment, until)
        except client.VersionbaseError as problem:
            raise _said(problem) from problem
        except TimeoutError as problem:
            raise Busy("The versionbase did not answer in time.", "Try again in a moment.") from problem


def _named(request: web.Request, name: str) -> str:
    if value := request.query.get(name, ""):
        return value
    raise BadInput(f"`{name}` is missing.")


def _text(request: web.Request, name: str) -> str | None:
    return request.query.get(name, "").strip() or None


def _filter(request: web.Request) -> str | None:
    text = _text(request, "filter")
    if len(text or "") > FILTER:
        raise BadInput(f"The filter has more than {FILTER} letters.")
    return text


async def _read(found: Results[Any], until: float) -> Some:
    """As many as are told at once, and no more bytes than control should hold; what was read by `until`."""
    items: list[Any] = []
    taken = 0
    async with aclosing(aiter(found)) as each:
        try:
            async with asyncio.timeout_at(until):
                async for one in each:
                    if len(items) == ROWS or taken > WEIGHT:
                        return Some(items, more=True)
                    items.append(one)
                    taken += weight(_documents(one))
        except TimeoutError:
            return Some(items, more=True, late=True)
    return Some(items)


def _documents(one: Any) -> list[Any]:
    """Those in a document, a past one, or a difference."""
    return (
        [one] if isinstance(one, dict) else [getattr(one, name, None) for name in ("document", "old", "new")]
    )


def _history(past: Some) -> list[Json]:
    """Each change of a document, as what it made of the one before.

    Of the earliest that was read that is known only if there is none before it.
    """
    documents = [one.document for one in past.items]
    changes = list(zip(past.items, [*documents[1:], None], strict=False))[: len(documents) - past.more]
    return [
        {"sequence": one.sequence, "at": one.at.isoformat(), **change_view(old, one.document)}
        for one, old in changes
        if old is not None or one.document is not None  # the last says that there was none before
    ]


def _said(problem: VersionbaseError) -> LazycloudError:
    """What a versionbase refused, as HTTP has it."""
    match problem.kind:
        case "not-found" | "gone":
            return NotFound(problem.sentence, problem.hint)
        case "busy" | "connection-lost" | "deadline":
            return Busy(problem.sentence, problem.hint)
        case "bad-input" | "invalid" | "too-large":
            return BadInput(problem.sentence, problem.hint)
    return LazycloudError(problem.sentence, problem.hint)
