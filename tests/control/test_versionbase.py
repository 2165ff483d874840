"""The page's questions about documents, put to a versionbase that is served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lazycloud.control import versionbase as views
from lazycloud.control.guard import problem_answer
from lazycloud.control.versionbase import DocumentViews
from lazycloud.data.versionbase import Versionbase
from lazycloud.errors import LazycloudError
from lazycloud.versionbase.client import Database, connect
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.keys import Keys
from lazycloud.versionbase.server import Server
from lazycloud.versionbase.storage import Storage

MADE = datetime(2026, 1, 31, 12, tzinfo=UTC)
Ask = Callable[..., Any]


@dataclass
class Base:
    """An app's versionbase, as control reaches it."""

    url: str
    asked: list[str] = field(default_factory=list)

    async def address(self, version: str) -> str:
        self.asked.append(version)
        return self.url.replace("VERSION", version)

    def moment(self, version: str, snapshot: str | None) -> str:
        return Versionbase(Path()).moment(version, snapshot)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Base]:
    engine = Engine(Storage(f"sqlite:///{folder}/store.sqlite"))
    engine.open()
    server = Server(engine, Keys(b"a secret of more than 32 characters"))
    try:
        port = await server.open()
        yield Base(f"ws://VERSION:{server.keys.owner}@127.0.0.1:{port}/")
        await server.close()
    finally:
        engine.close()


@asynccontextmanager
async def asking(base: Base, *, has: bool = True) -> AsyncIterator[Ask]:
    """`ask(what, status=200, **query)`: the JSON of an answer of that status; None: any but one of a fault."""

    async def find(app: Any, text: str) -> tuple[str, str | None]:
        version, _, snapshot = text.partition("@")
        return version or "production", snapshot or None

    beside = SimpleNamespace(has=lambda name, *_: name == ("versionbase" if has else "redis"))
    app = SimpleNamespace(name="shop", versionbase=base, versions=SimpleNamespace(beside=beside))
    fleet: Any = SimpleNamespace(app=lambda name: app)
    snapshots: Any = SimpleNamespace(find=find, read_from=lambda app, data: data)

    @web.middleware
    async def in_words(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)
        except LazycloudError as problem:
            return problem_answer(problem)

    application = web.Application(middlewares=[in_words])
    documents = DocumentViews(fleet, snapshots)
    for method, path, name, _ in DocumentViews.ROUTES:
        application.router.add_route(method, path, getattr(documents, name))
    async with TestClient(TestServer(application)) as client:

        async def ask(what: str = "", status: int | None = 200, **query: Any) -> Any:
            params = {name: str(value) for name, value in query.items()}
            answer = await client.get(f"/api/apps/shop/versionbase{what}", params=params)
            found = await answer.json()
            assert answer.status == status if status else answer.status < 500, found
            return found

        yield ask


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[Base]:
    async with served(tmp_path) as base, opened(base, source=""):
        yield base


@pytest.fixture
async def ask(base: Base) -> AsyncIterator[Ask]:
    async with asking(base) as ask:
        yield ask


def opened(base: Base, version: str = "production", **more: Any) -> Database:
    return connect(base.url.replace("VERSION", version), **more)


async def fill(base: Base, number: int, **more: Any) -> None:
    """Documents `k000`, `k001`, …"""
    documents = [{"n": n, **more} for n in range(number)]
    async with opened(base) as db:
        await db.collection("notes").insert_many(documents, [f"k{n:03}" for n in range(number)])


def keys(found: Any) -> list[str]:
    return [one["key"] for one in found["documents"]]


async def test_collections_are_told_with_their_indexes_and_schemas(base: Base, ask: Ask) -> None:
    await fill(base, 3)
    schema = {"type": "object", "required": ["n"]}
    async with opened(base) as db:
        await db.collection("notes").create_index("n", unique=True)
        await db.collection("notes").set_schema(schema)
    found = await ask(point="production")
    assert (found["version"], found["snapshot"]) == ("production", None)
    (notes,) = found["collections"]
    assert (notes["name"], notes["documents"], notes["schema"]) == ("notes", 3, schema)
    assert [index["unique"] for index in notes["indexes"]] == [True]


async def test_documents_are_found_a_page_at_a_time(base: Base, ask: Ask) -> None:
    await fill(base, 250, made=MADE, price=Decimal("1.10"), photo=b"\x89PNG")
    first = await ask("/documents", collection="notes")
    assert keys(first) == [f"k{n:03}" for n in range(100)]
    assert (first["more"], first["late"], first["skip"]) == (True, False, 0)
    assert first["documents"][0]["document"] == {
        "object": [
            ["n", 0],
            ["made", {"datetime": "2026-01-31T12:00:00Z"}],
            ["price", {"decimal": "1.10"}],
            ["photo", {"bytes": 4, "begin": "89504e47"}],
        ]
    }
    last = await ask("/documents", collection="notes", skip=200)
    assert (keys(last)[0], len(keys(last)), last["more"]) == ("k200", 50, False)


async def test_a_filter_and_an_order_are_heeded_and_explained(base: Base, ask: Ask) -> None:
    await fill(base, 50)
    query = {"collection": "notes", "filter": "doc.n >= 47", "order": "n desc"}
    found = await ask("/documents", **query)
    assert keys(found) == ["k049", "k048", "k047"]
    assert found["explain"]["scan"] == "collection"
    async with opened(base) as db:
        await db.collection("notes").create_index("n")
    assert (await ask("/documents", **query))["explain"]["scan"] == "index"


async def test_a_filter_that_is_none_is_refused_in_words(base: Base, ask: Ask) -> None:
    await fill(base, 1)
    found = await ask("/documents", 422, collection="notes", filter="doc.n >")
    assert found["error"]["sentence"]
    long = await ask("/documents", 422, collection="notes", filter="true ||" * 300 + "true")
    assert "2000" in long["error"]["sentence"]
    assert "`collection` is missing" in (await ask("/documents", 422))["error"]["sentence"]


@pytest.mark.parametrize(
    "query",
    [
        {"collection": "notes", "skip": 10**30},
        {"collection": "notes", "order": "n sideways"},
        {"collection": "no/such\0name"},
        {"collection": "x" * 3000},
        {"collection": "notes", "filter": "doc.n.exists(a, a.exists(b, true))" + " && true" * 200},
        {"collection": "notes", "filter": "(" * 500 + "1" + ")" * 500},
        {"collection": "notes", "filter": "missing_parameter == 1"},
    ],
)
async def test_what_cannot_be_asked_is_refused_and_breaks_nothing(base: Base, ask: Ask, query: Any) -> None:
    await fill(base, 1)
    found = await ask("/documents", None, **query)
    assert found.get("documents") == [] or found["error"]["sentence"]
    assert keys(await ask("/documents", collection="notes")) == ["k000"]


async def test_a_document_is_told_with_its_history(base: Base, ask: Ask) -> None:
    async with opened(base) as db:
        notes = db.collection("notes")
        await notes.insert({"text": "one", "by": {"name": "Ada"}}, "k")
        await notes.insert({"text": "another"}, "other")
        await notes.update("k", {"text": "two"})
        await notes.delete("k")
        await notes.insert({"text": "three"}, "k")
    found = await ask("/document", collection="notes", key="k")
    assert found["document"] == {"object": [["text", "three"]]}
    assert [one["change"] for one in found["history"]] == ["added", "removed", "changed", "added"]
    assert found["history"][2]["members"] == [{"path": ["text"], "old": "one", "new": "two"}]
    assert found["history"][0]["sequence"] > found["history"][1]["sequence"]
    assert not found["more"]
    missing = await ask("/document", collection="notes", key="nothing")
    assert (missing["document"], missing["history"]) == (None, [])


async def test_of_a_long_history_the_latest_is_told(base: Base, ask: Ask) -> None:
    async with opened(base) as db:
        await db.collection("notes").insert({"n": 0}, "k")
        for n in range(1, 120):
            await db.collection("notes").update("k", {"n": n})
    found = await ask("/document", collection="notes", key="k")
    assert found["more"]
    assert {one["change"] for one in found["history"]} == {"changed"}
    assert found["history"][0]["members"] == [{"path": ["n"], "old": 118, "new": 119}]


async def test_the_past_is_read_at_a_snapshot(base: Base, ask: Ask) -> None:
    await fill(base, 2)
    async with opened(base) as db:
        await db.snapshot("before")
        await db.collection("notes").update("k000", {"n": 7})
        await db.collection("notes").delete("k001")
        await db.collection("later").insert({})
    point = "production@before"
    assert [one["name"] for one in (await ask(point=point))["collections"]] == ["notes"]
    assert keys(await ask("/documents", point=point, collection="notes")) == ["k000", "k001"]
    then = await ask("/document", point=point, collection="notes", key="k000")
    assert then["document"] == {"object": [["n", 0]]}
    found = await ask("/diff", a=point, b="production", collection="notes")
    assert [(one["key"], one["change"]) for one in found["differences"]] == [
        ("k000", "changed"),
        ("k001", "removed"),
    ]
    assert len((await ask("/diff", a=point, b="production"))["differences"]) == 3


async def test_two_versions_are_compared_either_way(base: Base, ask: Ask) -> None:
    await fill(base, 300)
    async with opened(base, "feature") as db:
        await db.collection("notes").update("k007", {"n": "seven"})
    found = await ask("/diff", a="production", b="feature")
    (only,) = found["differences"]
    assert only["members"] == [{"path": ["n"], "old": 7, "new": "seven"}]
    assert (found["a"]["version"], found["b"]["version"], found["more"]) == ("production", "feature", False)
    back = await ask("/diff", a="feature", b="production")
    assert back["differences"][0]["members"] == [{"path": ["n"], "old": "seven", "new": 7}]


async def test_large_documents_are_few_at_a_time_and_cut(base: Base, ask: Ask) -> None:
    async with opened(base) as db:
        for n in range(6):
            await db.collection("notes").insert({"text": "x" * (3 << 20)}, str(n))
    found = await ask("/documents", collection="notes")
    assert keys(found) == ["0", "1", "2"]
    assert found["more"]
    assert found["documents"][0]["document"]["object"][0][1]["letters"] == 3 << 20
    whole = await ask("/document", collection="notes", key="0")
    assert len(whole["document"]["object"][0][1]["text"]) == 20_000


async def test_when_the_time_is_up_what_was_found_is_told(
    base: Base, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(base, 20)
    monkeypatch.setattr(views, "DEADLINE", 0.0)
    found = await views._read(Forever(), 0.0)
    assert (found.items, found.more, found.late) == ([], True, True)


class Forever:
    """What is never found."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        import asyncio

        await asyncio.Event().wait()
        yield None


async def test_a_look_makes_no_version(base: Base) -> None:
    async with asking(base, has=False) as ask:
        found = await ask(status=404, point="feature")
        assert "feature has no versionbase" in found["error"]["sentence"]
        assert base.asked == []


async def test_a_versionbase_that_is_not_there_is_told_in_words(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(views, "DEADLINE", 0.5)
    async with served(tmp_path) as gone:
        pass
    async with asking(gone) as ask:
        found = await ask(status=503)
        assert found["error"]["sentence"]


async def test_a_snapshot_that_is_gone_is_not_found(base: Base, ask: Ask) -> None:
    await ask(status=404, point="production@gone")
    await ask("/documents", 404, point="production@gone", collection="notes")
