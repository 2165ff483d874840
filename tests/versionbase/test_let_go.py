"""Whatever clients begin and leave, a server lets go of it: no root is kept, and nobody is told."""

from __future__ import annotations

import gc
from pathlib import Path

from lazycloud.versionbase.transactions import Transaction
from tests.versionbase.talking import Client, Served, serving
from tests.waiting import until


async def let_go(served: Served) -> None:
    """Of all that was read, and of all who watched."""
    await until(lambda: not served.engine.pinned() and not served.engine._listeners)


async def make(client: Client) -> None:
    documents = [{"n": number, "s": "x" * 1000} for number in range(3000)]
    await client.ask("insert", collection="many", documents=documents)


async def test_of_what_is_cancelled_before_it_has_begun(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        await make(client)
        for number in range(500, 700):
            await client.send(id=number, do="find", collection="many", filter="doc.s == 'y'")
            await client.send(id=number, do="cancel")
        words = [(await client.read()).get("error", {}).get("kind", "done") for _ in range(200)]
        assert set(words) <= {"cancelled", "done"}
        assert "cancelled" in words
        await let_go(served)
        assert await client.ask("count", collection="many") == 3000


async def test_of_what_a_client_leaves_when_it_goes(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with served.client() as client:
            await make(client)
        for _ in range(20):
            async with served.client() as client:
                await client.begin("watch", collection="many")
                await client.begin("find", collection="many", filter="doc.s == 'y'")
                await client.begin("find", collection="many", window=1)
                await client.begin("export", window=1)
                await client.begin("begin")
                await client.begin("diff", from_="production", window=1)
                await client.begin("history", collection="many", key="x")
                client.socket.transport.abort()
        await let_go(served)


async def test_of_what_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        await make(client)
        for do, members in (
            ("find", {"collection": 5}),
            ("find", {"collection": "many", "filter": "doc.("}),
            ("find", {"collection": "many", "limit": -1}),
            ("count", {"collection": "../x"}),
            ("explain", {"collection": "many", "map": "("}),
            ("export", {"collection": 5}),
            ("export", {"collection": "many", "at": 5}),
            ("watch", {"collection": "../x"}),
            ("watch", {"filter": "("}),
            ("watch", {"since": 99999}),
            ("diff", {"from": "nowhere"}),
            ("diff", {"from": "production", "to": "nowhere"}),
            ("diff", {"from": "production", "collection": "../x"}),
            ("begin", {"at": "nowhere"}),
            ("begin", {"write": 5}),
            ("history", {"collection": "many", "key": ""}),
            ("insert", {"collection": "many", "documents": [{}], "keys": [""]}),
            ("size", {"version": "nowhere"}),
            ("find", {"collection": "many", "window": 1000}),
            ("find", {"collection": "many", "deadline": -1}),
        ):
            number = await client.begin(do, **members)
            answer = await client.read()
            assert answer["id"] == number
            assert "error" in answer, (do, members, answer)
            assert answer["error"]["kind"] != "failed", (do, members, answer)
        await let_go(served)


async def test_of_each_write_at_once(tmp_path: Path) -> None:
    """And not when cycles are looked for: many large documents would be held until then."""
    async with serving(tmp_path) as served, served.client() as client:
        await client.ask("insert", collection="notes", documents=[{}], keys=["a"])
        gc.collect()
        gc.disable()
        try:
            for number in range(20):
                await client.ask("update", collection="notes", key="a", set={"n": number})
                within = (await client.ask("begin"))["in"]
                await client.ask("update", collection="notes", key="a", set={"n": -1}, in_=within)
                await client.ask("commit", in_=within)
            kept = [one for one in gc.get_objects() if isinstance(one, Transaction)]
        finally:
            gc.enable()
        assert len(kept) <= 4
