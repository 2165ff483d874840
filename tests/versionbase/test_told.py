"""Who watches a version is told of whatever changes it, by whom and how ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.versionbase.served import Served
from tests.versionbase.wire import Wire, connected
from tests.waiting import PATIENCE


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Wire]:
    """Of a production with one note, a snapshot of when it was another, and a fork that has one more."""
    with Served(f"sqlite:///{tmp_path}/store.sqlite") as served:
        async with connected(served.address, "production", served.owner) as wire:
            await wire.ask("insert", collection="notes", keys=["a"], documents=[{"n": 0}])
            await wire.ask("snapshot", name="before")
            await wire.ask("update", collection="notes", key="a", set={"n": 1})
            await wire.ask("fork", version="abc", source="production")
            async with connected(served.address, "abc", served.owner) as abc:
                await abc.ask("insert", collection="notes", keys=["b"], documents=[{"n": 2}])
            yield wire


async def within(wire: Wire) -> None:
    begun = (await wire.ask("begin"))["in"]
    await wire.ask("update", collection="notes", key="a", set={"n": 5}, **{"in": begun})
    await wire.ask("insert", collection="notes", keys=["b"], documents=[{"n": 2}], **{"in": begun})
    await wire.ask("commit", **{"in": begun})


async def imported(wire: Wire) -> None:
    document = {"collection": "notes", "key": "b", "document": {"n": 2}}
    await wire.ask("import", documents=[document])


CHANGES: dict[str, tuple[Callable[[Wire], Awaitable[Any]], list[tuple[str, Any, Any]]]] = {
    "a transaction": (within, [("a", {"n": 1}, {"n": 5}), ("b", None, {"n": 2})]),
    "a restoration": (lambda wire: wire.ask("restore", snapshot="before"), [("a", {"n": 1}, {"n": 0})]),
    "a swap": (lambda wire: wire.ask("swap", version="production", other="abc"), [("b", None, {"n": 2})]),
    "an import": (imported, [("b", None, {"n": 2})]),
    "a removal": (lambda wire: wire.ask("delete", collection="notes", keys=["a"]), [("a", {"n": 1}, None)]),
    "a collection that goes": (
        lambda wire: wire.ask("drop_collection", collection="notes"),
        [("a", {"n": 1}, None)],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_of_what_changes_it(owner: Wire, name: str) -> None:
    change, wanted = CHANGES[name]
    watching = owner.watch(collection="notes")
    started = await asyncio.wait_for(anext(watching), PATIENCE)
    assert "key" not in started  # up to date
    await change(owner)
    told = [await asyncio.wait_for(anext(watching), PATIENCE) for _ in wanted]
    assert [(one["key"], one["old"], one["new"]) for one in told] == wanted
    end = await asyncio.wait_for(anext(watching), PATIENCE)
    assert end == {"sequence": told[-1]["sequence"]}
    assert {one["sequence"] for one in told} == {started["sequence"] + 1}
    await watching.aclose()
