"""The server, spoken to frame by frame over real sockets, by good clients and by bad ones."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from lazycloud.errors import LazycloudError
from lazycloud.versionbase import connection, server, upkeep
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.protocol import FRAME, GREETING
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.transactions import Transaction
from tests.versionbase.talking import JSON, MESSAGE_PACK, Client, Refused, Served, checked, serving
from tests.waiting import PATIENCE, until

BOTH = pytest.mark.parametrize("encoding", [MESSAGE_PACK, JSON])


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as started:
        yield started


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with served.client() as opened:
        yield opened


async def refused(asked: Any) -> str:
    with pytest.raises(Refused) as caught:
        await asked
    return caught.value.kind


async def fill(client: Client, number: int, size: int = 10, collection: str = "posts") -> None:
    at_once = min(1000, (8 << 20) // size)
    for begin in range(0, number, at_once):
        keys = [f"k{key:06}" for key in range(begin, min(begin + at_once, number))]
        documents = [{"n": int(key[1:]), "text": "x" * size} for key in keys]
        await client.ask("insert", collection=collection, documents=documents, keys=keys)


# Requests


@BOTH
async def test_documents_are_written_and_read(served: Served, encoding: str) -> None:
    async with served.client(encoding=encoding) as client:
        (made,) = await client.ask("insert", collection="posts", documents=[{"a": 1}])
        assert await client.ask(
            "insert", collection="posts", documents=[{"a": 2}, {"a": 3}], keys=["x", "y"]
        ) == ["x", "y"]
        assert await client.ask("get", collection="posts", keys=["x", "none", made]) == [
            {"a": 2},
            None,
            {"a": 1},
        ]
        assert (
            await client.ask("replace", collection="posts", key="x", document={"b": [1.5, None, "é"]}) is None
        )
        assert await client.ask("update", collection="posts", key="x", set={"c": True}, remove=["b"]) == {
            "c": True
        }
        assert await client.ask("delete", collection="posts", keys=["y", "none"]) == 1
        assert await client.ask("count", collection="posts") == 2
        assert await refused(client.ask("insert", collection="posts", documents=[{}], keys=["x"])) == "exists"
        assert (
            await refused(client.ask("replace", collection="posts", key="none", document={})) == "not-found"
        )
        await client.ask("replace", collection="posts", key="none", document={}, create=True)


@BOTH
async def test_bytes_datetimes_and_decimals_are_kept_exactly(served: Served, encoding: str) -> None:
    tagged = {
        "bytes": {"$bytes": "AP8="},
        "at": {"$datetime": "2026-01-31T12:00:00.000001Z"},
        "price": {"$decimal": "1.10"},
        "odd": {"$$bytes": 1},
    }
    async with served.client(encoding=JSON) as writer, served.client(encoding=encoding) as reader:
        await writer.ask("insert", collection="c", documents=[tagged], keys=["k"])
        (found,) = await reader.ask("get", collection="c", keys=["k"])
        if encoding == MESSAGE_PACK:
            assert found["bytes"] == b"\0\xff"
            assert found["at"].isoformat() == "2026-01-31T12:00:00.000001+00:00"
            assert found["price"] == msgspec.msgpack.Ext(1, b"1.10")
            assert found["odd"] == {"$bytes": 1}
            await reader.ask("replace", collection="c", key="k", document=found)
        assert await writer.ask("get", collection="c", keys=["k"]) == [tagged]


@BOTH
async def test_finds_come_in_parts_and_end_with_their_number(served: Served, encoding: str) -> None:
    async with served.client(encoding=encoding) as client:
        await fill(client, 2500)
        items, number = await client.list("find", collection="posts", order="key")
        assert number == 2500
        assert [key for key, _ in items] == [f"k{key:06}" for key in range(2500)]
        items, number = await client.list(
            "find",
            collection="posts",
            filter="doc.n >= least",
            params={"least": 2400},
            map="doc.n",
            order="n desc",
            limit=2,
            skip=1,
        )
        assert items == [["k002498", 2498], ["k002497", 2497]]
        assert await client.ask("count", collection="posts", filter="doc.n < 7") == 7


async def test_a_transaction_sees_its_own_writes_and_others_see_them_after_its_commit(served: Served) -> None:
    async with served.client() as one, served.client() as other:
        number = (await one.ask("begin"))["in"]
        await one.ask("insert", collection="c", documents=[{"a": 1}], keys=["k"], in_=number)
        assert await one.ask("get", collection="c", keys=["k"], in_=number) == [{"a": 1}]
        assert await other.ask("get", collection="c", keys=["k"]) == [None]
        assert await one.ask("commit", in_=number) == {"sequence": 1}
        assert await other.ask("get", collection="c", keys=["k"]) == [{"a": 1}]
        assert await refused(one.ask("get", collection="c", keys=["k"], in_=number)) == "gone"


async def test_of_two_transactions_that_read_what_the_other_writes_one_is_a_conflict(served: Served) -> None:
    async with served.client() as one, served.client() as other:
        await one.ask("insert", collection="c", documents=[{"n": 0}], keys=["k"])
        numbers = [(await each.ask("begin"))["in"] for each in (one, other)]
        for each, number in zip((one, other), numbers, strict=True):
            assert await each.ask("get", collection="c", keys=["k"], in_=number) == [{"n": 0}]
            await each.ask("update", collection="c", key="k", set={"n": 1}, in_=number)
        await one.ask("commit", in_=numbers[0])
        assert await refused(other.ask("commit", in_=numbers[1])) == "conflict"
        assert await refused(other.ask("abort", in_=numbers[1])) == "gone"


async def test_requests_of_a_transaction_are_done_in_their_order_without_waiting(client: Client) -> None:
    number = (await client.ask("begin"))["in"]
    sent = [
        await client.begin("replace", collection="c", key="k", document={"n": 0}, create=True, in_=number)
    ]
    sent += [
        await client.begin("update", collection="c", key="k", set={"n": n}, in_=number) for n in range(1, 50)
    ]
    sent.append(await client.begin("commit", in_=number))
    frames = [await client.read() for _ in sent]
    assert [frame["id"] for frame in frames] == sent
    assert checked(frames[-1]) == {"sequence": 1}
    assert await client.ask("get", collection="c", keys=["k"]) == [{"n": 49}]


async def test_many_small_documents_are_written_beside_the_loop(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    for name in ("insert", "replace", "delete"):
        whole = getattr(Transaction, name)

        def watched(*arguments: Any, whole: Any = whole, **named: Any) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return whole(*arguments, **named)

        monkeypatch.setattr(Transaction, name, watched)
    keys = [f"{number:03}" for number in range(200)]
    many: dict[str, Any] = {"collection": "posts", "documents": [{}] * 200}
    said = [{"collection": "posts", "key": key, "document": {}} for key in keys]
    begun = (await client.ask("begin"))["in"]
    await client.ask("insert", **many, in_=begun)
    await client.ask("insert", **many)
    assert await client.ask("import", documents=said) == 200
    assert await client.ask("delete", collection="posts", keys=keys) == 200
    assert threads and not any(threads)
    await client.ask("insert", collection="posts", documents=[{}])
    assert threads[-1]  # it takes a moment, and another thread would, too


async def test_a_find_streams_on_while_its_transaction_writes(client: Client) -> None:
    await fill(client, 3000)
    number = (await client.ask("begin"))["in"]
    finding = await client.begin("find", collection="posts", in_=number, window=1)
    first = await client.read()
    assert first["id"] == finding
    await client.ask("update", collection="posts", key="k002999", set={"n": -1}, in_=number)
    await client.send(id=finding, more=10)
    found = first["part"]
    while "part" in (frame := await client.read()):
        found += frame["part"]
    assert checked(frame) == 3000
    assert dict(found)["k002999"]["n"] == 2999


async def test_a_commit_waits_for_what_its_transaction_reads(client: Client) -> None:
    await fill(client, 3000)
    number = (await client.ask("begin"))["in"]
    await client.ask("insert", collection="other", documents=[{}], in_=number)
    finding = await client.begin("find", collection="posts", in_=number)
    committing = await client.begin("commit", in_=number)
    frames = [await client.read() for _ in range(5)]
    assert [("part" in frame, frame["id"]) for frame in frames] == [(True, finding)] * 3 + [
        (False, finding),
        (False, committing),
    ]


async def test_an_abort_ends_what_its_transaction_reads(client: Client) -> None:
    await fill(client, 3000)
    number = (await client.ask("begin"))["in"]
    finding = await client.begin("find", collection="posts", in_=number, window=1)
    assert (await client.read())["id"] == finding
    aborting = await client.begin("abort", in_=number)
    frames = {frame["id"]: frame for frame in [await client.read(), await client.read()]}
    assert frames[finding]["error"]["kind"] == "cancelled"
    assert frames[aborting]["ok"] is None


async def test_more_transactions_than_may_be_are_refused(client: Client) -> None:
    numbers = [(await client.ask("begin"))["in"] for _ in range(connection.TRANSACTIONS)]
    assert await refused(client.ask("begin")) == "busy"
    await client.ask("abort", in_=numbers[0])
    await client.ask("begin")


async def test_a_transaction_that_is_left_alone_is_ended(tmp_path: Path) -> None:
    async with serving(tmp_path, idle=0.2) as served, served.client() as client:
        number = (await client.ask("begin"))["in"]
        await until(lambda: not served.engine.pinned())
        assert await refused(client.ask("commit", in_=number)) == "gone"


async def test_a_client_that_is_gone_leaves_no_transaction_and_no_pin(served: Served) -> None:
    async with served.client() as client:
        await fill(client, 2000)
        number = (await client.ask("begin"))["in"]
        await client.ask("delete", collection="posts", keys=["k000001"], in_=number)
        await client.begin("find", collection="posts", in_=number, window=1)
        await client.begin("find", collection="posts", window=1)
        await client.begin("watch")
        await client.read()
        assert served.engine.pinned()
        client.socket.transport.abort()
    await until(lambda: not served.engine.pinned())
    async with served.client() as other:
        assert await other.ask("count", collection="posts") == 2000


async def test_collections_indexes_and_schemas(client: Client) -> None:
    await fill(client, 1000)
    made = await client.ask("create_index", collection="posts", path="n", unique=True)
    assert made == {"name": "n", "path": "n", "unique": True, "state": "ready"}
    assert (await client.ask("explain", collection="posts", filter="doc.n == 7"))["index"] == "n"
    assert await refused(client.ask("insert", collection="posts", documents=[{"n": 7}])) == "exists"
    await client.ask("set_schema", collection="posts", schema={"required": ["n"]})
    assert await refused(client.ask("insert", collection="posts", documents=[{}])) == "invalid"
    assert (
        await refused(client.ask("set_schema", collection="posts", schema={"required": ["z"]})) == "invalid"
    )
    (told,) = await client.ask("collections")
    assert told == {"name": "posts", "documents": 1000, "indexes": [made], "schema": {"required": ["n"]}}
    assert await client.ask("set_schema", collection="posts", schema=None) is None
    assert await client.ask("drop_index", collection="posts", name="n") is True
    assert await client.ask("drop_collection", collection="posts") is True
    assert await client.ask("collections") == []


async def test_an_index_that_cannot_be_unique_is_not_there(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    await client.ask("insert", collection="c", documents=[{"n": 1}, {"n": 1}])
    assert await refused(client.ask("create_index", collection="c", path="n", unique=True)) == "exists"
    assert (await client.ask("collections"))[0]["indexes"] == []
    assert await refused(client.ask("create_index", collection="c", path="n", name="no name")) == "bad-input"
    gc.collect()
    assert caplog.text == ""  # what a client did wrong is told to the client


@pytest.fixture
def slow_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built in so many steps that one can come amid them."""
    for name, number in {"PASS": 30, "BATCH": 3, "RUN": 10}.items():
        monkeypatch.setattr(upkeep, name, number)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Indexes are begun, and built once it is set."""
    opened, build = threading.Event(), upkeep.build

    def waiting(*arguments: Any) -> upkeep.Steps:
        while not opened.is_set():
            yield None
        yield from build(*arguments)

    monkeypatch.setattr(upkeep, "build", waiting)
    return opened


async def states(client: Client) -> list[str]:
    return [index["state"] for one in await client.ask("collections") for index in one["indexes"]]


async def begun_to_build(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while await states(client) != ["building"]:
            pass


async def built(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while await states(client) != ["ready"]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["cancel", "deadline", "gone"])
async def test_an_index_that_is_given_up_is_built_on(
    served: Served, client: Client, way: str, gate: threading.Event
) -> None:
    await fill(client, 1000)
    async with served.client() as other:
        more = {"deadline": 2.0} if way == "deadline" else {}
        number = await other.begin("create_index", collection="posts", path="n", **more)
        await begun_to_build(client)
        if way == "gone":
            other.socket.transport.abort()
        else:
            if way == "cancel":
                await other.send(id=number, do="cancel")
            assert (await refused(other.result(number))) == {"cancel": "cancelled"}.get(way, way)
        assert await states(client) == ["building"]
        gate.set()
        await built(client)
    assert (await client.ask("explain", collection="posts", filter="doc.n == 7"))["index"] == "n"
    items, _ = await client.list("find", collection="posts", filter="doc.n >= 0")
    assert len(items) == 1000


def half_built(folder: Path, documents: list[dict[str, Any]], unique: bool) -> None:
    """A store whose server was stopped amid it, with a fork of that moment."""
    engine = Engine(Storage(f"sqlite:///{folder / 'store.sqlite'}"))
    engine.open()
    engine.change(lambda: engine.storage.begin("production")).result(PATIENCE)
    engine.perform("production", lambda tx: tx.insert("c", documents)).result(PATIENCE)
    building = upkeep.create_index(engine, "production", "c", "n", unique)
    for step in itertools.islice((step for step in building if step is not None), 2):
        step.result(PATIENCE)
    engine.change(lambda: engine.storage.fork("v1", "production")).result(PATIENCE)
    engine.close()


async def test_an_index_is_built_on_after_a_restart_and_in_forks(tmp_path: Path, slow_indexes: None) -> None:
    half_built(tmp_path, [{"n": n} for n in range(100)], unique=True)
    async with serving(tmp_path) as served:
        for version in ("production", "v1"):
            async with served.client(version) as client:
                await built(client)
                assert await refused(client.ask("insert", collection="c", documents=[{"n": 7}])) == "exists"
                items, _ = await client.list("find", collection="c", filter="doc.n >= 0")
                assert len(items) == 100


async def test_a_unique_index_that_cannot_be_built_on_keeps_nothing_out(
    tmp_path: Path, slow_indexes: None
) -> None:
    half_built(tmp_path, [{"n": n % 99} for n in range(100)], unique=True)
    async with serving(tmp_path) as served, served.client() as client:
        async with asyncio.timeout(PATIENCE):
            while await states(client):
                await asyncio.sleep(0.01)
        await client.ask("insert", collection="c", documents=[{"n": 7}])


async def test_an_index_that_is_dropped_amid_it_is_not_built_on(
    served: Served, client: Client, gate: threading.Event
) -> None:
    await fill(client, 1000)
    async with served.client() as other:
        await other.begin("create_index", collection="posts", path="n")
        await begun_to_build(client)
    await client.ask("drop_index", collection="posts", name="n")
    gate.set()
    for _ in range(2):  # a second round begins when the first has ended
        served.server.building.look()
        await until(lambda: not served.server.building._woken.is_set())
        assert (await client.ask("collections"))[0]["indexes"] == []


async def test_snapshots_are_read_compared_and_restored(client: Client) -> None:
    await fill(client, 10)
    taken = await client.ask("snapshot", name="before")
    assert taken["name"] == "before"
    assert await client.ask("snapshots") == [taken]
    await client.ask("delete", collection="posts", keys=["k000003"])
    assert await client.ask("count", collection="posts", at="before") == 10
    assert len(await client.ask("get", collection="posts", keys=["k000003"], at=taken["id"])) == 1
    items, number = await client.list("diff", from_="before")
    assert number == 1
    assert items == [
        {"collection": "posts", "key": "k000003", "old": {"n": 3, "text": "x" * 10}, "new": None}
    ]
    assert await client.ask("restore", snapshot="before") == {"sequence": 3}
    assert await client.ask("count", collection="posts") == 10
    past = (await client.ask("begin", at="before"))["in"]
    assert await refused(client.ask("delete", collection="posts", keys=["k000003"], in_=past)) == "read-only"
    assert await refused(client.ask("get", collection="posts", keys=["a"], at="none")) == "not-found"
    assert await client.ask("drop_snapshot", snapshot="before") is True
    assert await client.ask("snapshots") == []


async def test_the_history_of_a_document_is_told_latest_first(client: Client) -> None:
    await client.ask("insert", collection="c", documents=[{"n": 1}], keys=["k"])
    await client.ask("update", collection="c", key="k", set={"n": 2})
    await client.ask("delete", collection="c", keys=["k"])
    items, number = await client.list("history", collection="c", key="k")
    assert [item["document"] for item in items][:3] == [None, {"n": 2}, {"n": 1}]
    assert number == len(items)


async def test_what_was_exported_is_imported(served: Served) -> None:
    async with served.client() as client:
        await fill(client, 1500)
        await client.ask("create_index", collection="posts", path="n")
        items, number = await client.list("export")
        assert number == 1501
        assert items[0]["indexes"][0]["path"] == "n"
        await client.ask("fork", version="copy", source="")
        assert await client.ask("import", version="copy", documents=items[1:]) == 1500
        again, _ = await client.list("export", version="copy")
        assert again[1:] == items[1:]


@BOTH
async def test_a_watcher_is_told_what_changes_until_it_does_not_want_to(
    served: Served, encoding: str
) -> None:
    async with served.client(encoding=encoding) as watcher, served.client() as writer:
        watching = await watcher.begin("watch", collection="c", filter="doc.n > 1", window=64)
        assert await watcher.read() == {"id": watching, "part": [{"sequence": 0}]}
        await writer.ask("insert", collection="c", documents=[{"n": 1}, {"n": 2}], keys=["a", "b"])
        (change, mark) = await items(watcher, 2)
        assert (change["key"], change["old"], change["new"], change["sequence"]) == ("b", None, {"n": 2}, 1)
        assert mark == {"sequence": 1}
        await writer.ask("insert", collection="other", documents=[{}])
        assert await items(watcher, 1) == [{"sequence": 2}]
        await watcher.send(id=watching, do="cancel")
        assert (await watcher.read())["error"]["kind"] == "cancelled"
        assert await watcher.ask("count", collection="c") == 2


async def items(client: Client, number: int) -> list[Any]:
    """The next ones, in however many parts they come."""
    found: list[Any] = []
    while len(found) < number:
        found += (await client.read())["part"]
    return found


async def test_a_watch_goes_on_from_a_sequence_or_says_that_it_cannot(served: Served) -> None:
    async with served.client() as client:
        for number in range(5):
            await client.ask("insert", collection="c", documents=[{"n": number}], keys=[str(number)])
        watching = await client.begin("watch", since=2, window=64)
        found = await items(client, 4)
        assert [item.get("key") for item in found] == ["2", "3", "4", None]
        await client.send(id=watching, do="cancel")
        assert (await client.read())["error"]["kind"] == "cancelled"
        for _ in served.engine.storage.expire(keep=1):
            pass
        assert await refused(client.ask("watch", since=2)) == "gone"


async def test_status_tells_what_there_is(served: Served, client: Client) -> None:
    await fill(client, 5)
    async with served.client("production", served.key("production")) as other:
        await other.ask("begin")
        told = await other.ask("status")
        assert told == {
            "version": "production",
            "sequence": 1,
            "collections": 1,
            "documents": 5,
            "transactions": 1,
            "connections": 2,
        }
        assert (await client.ask("status")).items() > {"connections": 2, "transactions": 1}.items()


# Versions and keys


async def test_the_owner_makes_versions_and_each_key_opens_its_own_alone(served: Served) -> None:
    async with served.client() as owner:
        await fill(owner, 3)
        await owner.ask("fork", version="abc1234", source="production")
        key = await owner.ask("key", version="abc1234")
        assert [row["name"] for row in await owner.ask("versions")] == ["abc1234", "production"]
        async with served.client("abc1234", key) as preview:
            await preview.ask("delete", collection="posts", keys=["k000000"])
            assert await preview.ask("count", collection="posts") == 2
            assert await refused(preview.ask("versions")) == "denied"
            assert await refused(preview.ask("snapshots", version="production")) == "denied"
            assert await refused(preview.ask("count", collection="posts", at="production")) == "not-found"
            assert await refused(preview.ask("diff", from_="production@x")) == "not-found"
        assert await owner.ask("count", collection="posts") == 3
        assert await owner.ask("count", collection="posts", at="abc1234") == 2
        found, _ = await owner.list("diff", from_="production", to="abc1234")
        assert [item["key"] for item in found] == ["k000000"]
        await owner.ask("swap", version="abc1234", other="production")
        assert await owner.ask("count", collection="posts") == 2
        with pytest.raises(Refused, match="opens no version production"):
            async with served.client("production", key):
                raise AssertionError


async def test_a_version_drops_no_snapshot_of_the_owners_and_has_not_too_many(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazycloud.versionbase.requests.SNAPSHOTS", 2)
    async with served.client() as owner:
        kept = await owner.ask("snapshot", version="production", name="before")
        async with served.client("production", await owner.ask("key", version="production")) as app:
            mine = await app.ask("snapshot")
            assert await app.ask("snapshots") == [kept, mine]
            for wanted in ("before", kept["id"]):
                assert await refused(app.ask("drop_snapshot", snapshot=wanted)) == "denied"
            assert await refused(app.ask("snapshot")) == "bad-input"
            await owner.ask("snapshot")
            assert await app.ask("drop_snapshot", snapshot=mine["id"]) is True
        assert await owner.ask("drop_snapshot", version="production", snapshot="before") is True


async def test_the_owner_measures_collects_and_verifies(served: Served, client: Client) -> None:
    await fill(client, 2000)
    await client.ask("fork", version="copy")
    assert await client.ask("size", version="copy") == 0
    assert await client.ask("size", version="copy", whole=True) > 20_000
    async with served.client("copy") as copy:
        await copy.ask("update", collection="posts", key="k000001", set={"n": 0})
    assert 1000 < await client.ask("size", version="copy") < 20_000
    await client.ask("drop", version="copy")
    parts, removed = await client.list("collect")
    assert sum(parts) == removed
    problems, looked = await client.list("verify")
    assert (problems, looked["entries"] >= 2000) == ([], True)


async def test_a_version_that_is_not_there_is_made_for_the_owner(served: Served) -> None:
    async with served.client() as production:
        await fill(production, 3)
    async with served.client("one") as forked, served.client("two", from_="") as empty:
        assert await forked.ask("count", collection="posts") == 3
        assert await empty.ask("count", collection="posts") == 0
    with pytest.raises(Refused, match="no version none"):
        async with served.client("three", from_="none"):
            raise AssertionError


async def test_a_version_that_was_removed_is_gone_for_who_is_connected_also_if_another_has_its_name(
    served: Served,
) -> None:
    async with served.client() as owner:
        await owner.ask("fork", version="old")
        key = await owner.ask("key", version="old")
        async with served.client("old", key) as preview:
            number = (await preview.ask("begin"))["in"]
            await preview.ask("insert", collection="c", documents=[{}], in_=number)
            await owner.ask("drop", version="old")
            assert await refused(preview.ask("count", collection="c")) == "gone"
            await owner.ask("fork", version="old")
            for asked in (
                preview.ask("count", collection="c"),
                preview.ask("insert", collection="c", documents=[{}]),
                preview.ask("status"),
                preview.ask("commit", in_=number),
                preview.ask("snapshot"),
            ):
                assert await refused(asked) == "gone"
        with pytest.raises(Refused, match="opens no version old"):
            async with served.client("old", key):
                raise AssertionError


@pytest.mark.slow
async def test_wrong_keys_wait_and_right_ones_do_not(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRONG", 4.0)  # till then the right key is let in

    async def wrong() -> str:
        try:
            async with served.client(key="no"):
                return "let in"
        except (Refused, ConnectionClosed) as problem:
            return "told" if isinstance(problem, Refused) else "turned away"

    began = time.monotonic()
    tries = [asyncio.create_task(wrong()) for _ in range(server.WRONG_AT_ONCE + 10)]
    await until(lambda: any(task.done() for task in tries))
    async with served.client() as client:
        await client.ask("status")
    assert time.monotonic() - began < server.WRONG
    outcomes = await asyncio.gather(*tries)
    assert outcomes.count("told") == server.WRONG_AT_ONCE
    assert outcomes.count("turned away") == 10
    assert time.monotonic() - began >= server.WRONG


# The limits


async def test_no_more_parts_are_sent_than_the_window_allows(client: Client) -> None:
    await fill(client, 10_000)
    finding = await client.begin("find", collection="posts", window=2)
    for _ in range(2):
        assert "part" in await client.read()
    assert await client.ask("count", collection="posts") == 10_000  # and no part came before it
    await client.send(id=finding, more=64)
    found = 0
    while "part" in (frame := await client.read()):
        found += len(frame["part"])
    assert (found, checked(frame)) == (8000, 10_000)


async def test_parts_are_small_also_where_documents_are_large(client: Client) -> None:
    await fill(client, 100, size=100_000)
    finding = await client.begin("find", collection="posts", window=64)
    sizes = []
    while "part" in (frame := await client.read()):
        sizes.append(len(frame["part"]))
    assert frame == {"id": finding, "ok": 100}
    assert max(sizes) == 3


async def test_cancel_ends_a_request_and_frees_what_it_held(served: Served, client: Client) -> None:
    await fill(client, 5000)
    finding = await client.begin("find", collection="posts", window=1)
    await client.read()
    assert served.engine.pinned()
    await client.send(id=finding, do="cancel")
    frame = await client.read()
    assert (frame["id"], frame["error"]["kind"]) == (finding, "cancelled")
    assert not served.engine.pinned()
    await client.send(id=finding, do="cancel")  # of what is over: no answer
    await client.send(id=finding, more=1)
    assert await client.ask("count", collection="posts") == 5000


async def test_what_is_cancelled_before_it_has_begun_leaves_nothing(served: Served, client: Client) -> None:
    await fill(client, 5000)
    for _ in range(2 * connection.AT_ONCE):
        number = await client.begin("count", collection="posts", filter='doc.text == "none"')
        await client.send(id=number, do="cancel")
    ended = [await client.read() for _ in range(2 * connection.AT_ONCE)]
    assert {frame["error"]["kind"] for frame in ended} == {"cancelled"}
    assert not served.engine.pinned()
    await client.ask("status")


async def test_what_is_refused_for_too_many_requests_is_not_done(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OPEN", 3)
    for _ in range(3):
        await client.begin("watch", collection="other", window=1)
        await client.read()
    assert await refused(client.ask("insert", collection="c", documents=[{}])) == "busy"
    await client.send(id=2, do="cancel")
    await client.read()
    assert await client.ask("count", collection="c") == 0


@BOTH
async def test_an_answer_that_no_frame_holds_is_refused_and_what_it_is_of_not_done(
    served: Served, encoding: str
) -> None:
    async with served.client() as writer, served.client(encoding=encoding) as client:
        await writer.ask("insert", collection="c", documents=[{"data": b"x" * (14 << 20)}], keys=["k"])
        assert await refused(client.ask("get", collection="c", keys=["k"] * 1000)) == "too-large"
        if encoding == JSON:
            assert await refused(client.ask("update", collection="c", key="k", set={"n": 1})) == "too-large"
            assert await writer.ask("count", collection="c", filter="has(doc.n)") == 0
        else:
            numbers = [await client.begin("update", collection="c", key="k", set={"n": n}) for n in range(8)]
            for number in numbers:
                assert (await client.result(number))["n"] < 8


async def test_large_writes_are_done_in_the_order_of_their_transaction(client: Client) -> None:
    number = (await client.ask("begin"))["in"]
    large = [{"n": n, "text": "x" * 1000} for n in range(2000)]
    sent = [
        await client.begin(
            "insert", collection="c", documents=large, keys=[str(n) for n in range(2000)], in_=number
        ),
        await client.begin("update", collection="c", key="1999", set={"n": -1}, in_=number),
        await client.begin("count", collection="c", in_=number),
        await client.begin("commit", in_=number),
    ]
    frames = [checked(await client.read()) for _ in sent]
    assert frames[2:] == [2000, {"sequence": 1}]
    assert (await client.ask("insert", collection="d", documents=large))[0]
    assert (
        await refused(client.ask("insert", collection="d", documents=[*large, {}], keys=["k"])) == "bad-input"
    )


async def test_what_is_not_done_by_its_deadline_is_given_up(served: Served, client: Client) -> None:
    await fill(client, 5000)
    await client.begin("find", collection="posts", window=1, deadline=1)
    await client.read()
    assert (await client.read())["error"]["kind"] == "deadline"
    await until(lambda: not served.engine.pinned())
    assert (
        await refused(client.ask("count", collection="posts", filter="doc.n > 1", deadline=1e9))
        == "bad-input"
    )


async def test_short_requests_do_not_wait_for_long_ones(served: Served) -> None:
    """However many of those there are, of one connection or of others."""
    async with served.client() as client, AsyncExitStack() as stack:
        await fill(client, 20_000)
        for _ in range(3):
            greedy = await stack.enter_async_context(served.client())
            for _ in range(20):
                await greedy.begin("count", collection="posts", filter='doc.text != "" && doc.n < 0')
        await greedy.begin("create_index", collection="posts", path="text")
        took = []
        for _ in range(20):
            began = time.process_time()  # both sides are here; of what others do on this machine none of it
            await client.ask("get", collection="posts", keys=["k000001"])
            took.append(time.process_time() - began)
        assert sorted(took)[10] < 0.1


async def test_as_many_requests_as_a_client_likes_are_answered(client: Client) -> None:
    numbers = [await client.begin("insert", collection="c", documents=[{"n": n}]) for n in range(500)]
    numbers += [await client.begin("count", collection="c", filter="doc.n < 10") for n in range(200)]
    assert sorted([(await client.read())["id"] for _ in numbers]) == sorted(numbers)
    assert await client.ask("count", collection="c") == 500


async def test_requests_that_wait_for_their_client_do_not_keep_it_from_asking(client: Client) -> None:
    """Neither its `more` nor its `cancel` could be read else."""
    await fill(client, 3000)
    waiting = [await client.begin("find", collection="posts", window=1) for _ in range(connection.AT_ONCE)]
    watching = [await client.begin("watch", window=1) for _ in range(connection.AT_ONCE)]
    for _ in waiting + watching:
        assert "part" in await client.read()
    for number in waiting + watching:
        await client.send(id=number, do="cancel")
    ended = [await client.read() for _ in waiting + watching]
    assert {frame["error"]["kind"] for frame in ended} == {"cancelled"}


async def test_a_client_that_stops_reading_is_closed_and_harms_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, standstill=2.0) as served, served.client() as neighbour:
        (mine,) = served.server._connections
        await fill(neighbour, 300, size=100_000)  # 30 MB
        async with served.client() as lazy:
            lazy.socket.transport.pause_reading()
            for _ in range(20):
                await lazy.begin("find", collection="posts", window=64)
                await lazy.begin("get", collection="posts", keys=[f"k{key:06}" for key in range(100)])
            await until(lambda: len(served.server._connections) == 2)
            (theirs,) = [each for each in served.server._connections if each is not mine]
            began, most = time.monotonic(), 0
            while theirs in served.server._connections:
                most = max(most, theirs.outbox.waiting)
                await neighbour.ask("get", collection="posts", keys=["k000001"])
                assert time.monotonic() - began < PATIENCE
            assert most < 12 << 20  # one `get` of 10 MB, and parts of others
            lazy.socket.transport.resume_reading()
            with pytest.raises(ConnectionClosed):
                while True:
                    await lazy.read()
        assert not served.engine.pinned()


@pytest.mark.slow
async def test_a_thousand_clients_are_served(served: Served) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(served.client()) for _ in range(1000)]
        numbers = [await client.begin("insert", collection="c", documents=[{"n": 1}]) for client in clients]
        for client, number in zip(clients, numbers, strict=True):
            await client.result(number)
        assert await clients[0].ask("count", collection="c") == 1000
        assert (await clients[0].ask("status"))["connections"] == 1000


# What is no client


@pytest.mark.parametrize("offered", [["mqtt"], ["versionbase.2.msgpack"], []])
async def test_a_client_of_another_protocol_is_refused_in_words(served: Served, offered: list[str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"ws://127.0.0.1:{served.port}/", subprotocols=[Subprotocol(name) for name in offered] or None
        ):
            raise AssertionError
    assert caught.value.response.status_code == 400
    assert b"speaks versionbase.1.msgpack" in (caught.value.response.body or b"")


async def test_the_clients_first_choice_is_taken(served: Served) -> None:
    async with served.open("versionbase.9.msgpack", JSON, MESSAGE_PACK) as client:
        assert client.socket.subprotocol == JSON


async def test_a_browser_is_told_what_this_is(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    assert b" 426 " in said
    assert b"speaks websocket" in said


async def closed(client: Client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await client.read()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_who_says_nothing_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, greeting_time=0.2) as served, served.open() as client:
        assert await closed(client) == (1008, "nobody said hello")


async def test_who_asks_before_hello_is_closed(served: Served) -> None:
    async with served.open() as client:
        await client.begin("get", collection="c", keys=["k"])
        assert await closed(client) == (1008, "hello comes first")


async def test_a_stranger_cannot_send_much(served: Served) -> None:
    async with served.open() as client:
        await client.socket.send(bytes(GREETING + 1))
        assert (await closed(client))[0] == 1009


@pytest.mark.parametrize(
    "encoding, sent, code",
    [
        (MESSAGE_PACK, b"\xc1", 1007),
        (MESSAGE_PACK, b"\x82\xa2id\x01", 1007),  # cut off
        (MESSAGE_PACK, b"\x82\xa2id\x01\x01\x02", 1007),  # a member whose name is a number
        (MESSAGE_PACK, b"\x82\xa2id\x01\xa2do\x81\x91\x01\xc0", 1007),  # one whose name is a list, further in
        (MESSAGE_PACK, b"\x82\xa2id\x01\xa2do\xa1x\x00", 1007),  # and something behind it
        (MESSAGE_PACK, b"\xdf\xff\xff\xff\xff", 1007),  # a map that would have four thousand million members
        (MESSAGE_PACK, b"\xc6\xff\xff\xff\xff", 1007),
        (MESSAGE_PACK, b"\x91" * 100_000, 1007),
        (MESSAGE_PACK, "{}", 1007),
        (MESSAGE_PACK, b"", 1007),
        (MESSAGE_PACK, b"\x93\x01\x02\x03", 1002),
        (MESSAGE_PACK, b"\x80", 1002),
        (MESSAGE_PACK, msgspec.msgpack.encode({"id": -1, "do": "status"}), 1002),
        (MESSAGE_PACK, msgspec.msgpack.encode({"id": True, "do": "status"}), 1002),
        (MESSAGE_PACK, msgspec.msgpack.encode({"id": 1}), 1002),
        (MESSAGE_PACK, msgspec.msgpack.encode({"id": 1, "more": "all"}), 1002),
        (JSON, "{", 1007),
        (JSON, "[" * 100_000, 1007),
        (JSON, b"{}", 1007),
        (JSON, '{"id": 1, "do": NaN}', 1007),
        (JSON, "17", 1002),
        (JSON, '{"id": 1.5, "do": "status"}', 1002),
    ],
)
async def test_what_is_no_frame_ends_its_connection_alone(
    served: Served, encoding: str, sent: bytes | str, code: int
) -> None:
    async with served.client() as neighbour:
        async with served.client(encoding=encoding) as client:
            await client.socket.send(sent)
            assert (await closed(client))[0] == code
        await neighbour.ask("status")


async def test_a_number_that_is_in_use_ends_the_connection(client: Client) -> None:
    await client.send(id=7, do="watch")
    await client.read()
    await client.send(id=7, do="status")
    assert (await closed(client))[0] == 1002


async def test_a_frame_that_is_too_large_ends_its_connection(client: Client) -> None:
    await client.socket.send(bytes(FRAME + 1))
    assert (await closed(client))[0] == 1009


async def test_the_largest_document_fits_and_a_larger_one_is_refused_in_words(client: Client) -> None:
    largest = {"data": b"x" * ((16 << 20) - 20)}
    await client.ask("insert", collection="c", documents=[largest], keys=["k"])
    assert await client.ask("get", collection="c", keys=["k"]) == [largest]
    assert (await client.list("find", collection="c"))[0] == [["k", largest]]
    assert await refused(client.ask("get", collection="c", keys=["k", "k"])) == "too-large"
    larger = {"data": b"x" * ((16 << 20) + 20)}
    assert await refused(client.ask("insert", collection="c", documents=[larger])) == "too-large"


@pytest.mark.parametrize(
    "do, members",
    [
        ("gett", {}),
        ("get", {}),
        ("get", {"collection": 3, "keys": []}),
        ("get", {"collection": "c", "keys": "k"}),
        ("get", {"collection": "c", "keys": [1]}),
        ("get", {"collection": "c", "keys": [""]}),
        ("get", {"collection": "no name", "keys": []}),
        ("get", {"collection": "c", "keys": [], "colour": 1}),
        ("find", {"collection": "c", "limit": -1}),
        ("find", {"collection": "c", "filter": "doc.a =="}),
        ("find", {"collection": "c", "window": 65}),
        ("insert", {"collection": "c", "documents": [1]}),
        ("insert", {"collection": "c", "documents": {}}),
        ("commit", {"in": "x"}),
        ("commit", {"in": 2**70}),
        ("update", {"collection": "c", "key": "k", "set": []}),
        ("create_index", {"collection": "c", "path": ".."}),
        ("set_schema", {"collection": "c", "schema": {"type": 7}}),
        ("watch", {"since": -1}),
        ("snapshot", {"name": "a@b"}),
        ("fork", {"version": "a b"}),
        ("import", {"documents": [{"collection": "c"}]}),
        ("hello", {"version": "production"}),
    ],
)
async def test_a_request_that_cannot_be_is_refused_and_the_next_one_is_done(
    served: Served, do: str, members: dict[str, Any]
) -> None:
    async with served.client(encoding=JSON) as client:
        if 2**70 in members.values():
            members = {"in": 2**60}
        with pytest.raises(Refused) as caught:
            await client.ask(do, **members)
        assert caught.value.kind == "bad-input"
        assert await client.ask("count", collection="c") == 0


def handshake(port: int) -> socket.socket:
    """A connection whose frames are made by hand."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    raw.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: versionbase.1.json\r\n\r\n"
    )
    said = b""
    while b"\r\n\r\n" not in said:
        said += raw.recv(4096)
    assert b" 101 " in said
    return raw


def masked(data: bytes, length: int | None = None) -> bytes:
    """A text frame that claims to have a length."""
    claimed = len(data) if length is None else length
    return b"\x81\xff" + claimed.to_bytes(8) + bytes(4) + data


@pytest.mark.parametrize(
    "lie, code",
    [
        (masked(b"{", 2**62), 1009),
        (masked(b"{", 2**63), 1009),
        (b"\x81\xfe\x00\x05" + bytes(4) + b"{}", None),  # five bytes are told, two come, and then nothing
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xf1\x80" + bytes(4), 1002),  # bits that mean nothing
        (b"\x80\x80" + bytes(4), 1002),  # the rest of nothing
        (b"\x89\xff" + (200).to_bytes(8) + bytes(204), 1002),  # a ping that is too long
        (b"\x81\x82" + bytes(4) + b"\xff\xfe", 1007),  # no UTF-8
    ],
)
async def test_frames_that_lie_are_answered_with_a_code(tmp_path: Path, lie: bytes, code: int | None) -> None:
    async with serving(tmp_path, greeting_time=1.0) as served, served.client() as neighbour:
        raw = await asyncio.to_thread(handshake, served.port)
        with raw:
            raw.sendall(lie)
            answer = await asyncio.to_thread(read_all, raw)
        assert answer[:1] == b"\x88", answer
        assert int.from_bytes(answer[2:4]) == (code or 1008)
        await neighbour.ask("status")


def read_all(raw: socket.socket) -> bytes:
    said = b""
    try:
        while data := raw.recv(4096):
            said += data
            if said[:1] == b"\x88" and len(said) >= 4:
                break
    except ConnectionResetError:
        pass
    return said


async def test_the_servers_own_fault_is_told_without_what_was_in_documents(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(served.server, "figures", broken)
    with pytest.raises(Refused) as caught:
        await client.ask("status")
    assert caught.value.kind == "failed"
    assert "secret" not in f"{caught.value}{caplog.text}"
    assert "status failed: RuntimeError at test_server.py" in caplog.text
    await client.ask("versions")


async def test_where_the_store_is_stands_in_the_log_alone(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where = str(served.engine.storage.database)

    def broken(*_: Any) -> None:
        raise LazycloudError(f"{where} failed: it is away. Nothing was changed.", "See to it.")

    monkeypatch.setattr(served.server, "figures", broken)
    with pytest.raises(Refused, match=r"^the store failed: it is away\. Nothing was changed\.$") as caught:
        await client.ask("status")
    assert (caught.value.kind, caught.value.hint) == ("failed", "See to it.")
    assert where in caplog.text


async def test_compression_is_off_unless_it_is_wanted(tmp_path: Path) -> None:
    for wanted in (False, True):
        async with serving(tmp_path, compress=wanted) as served:
            url = f"ws://127.0.0.1:{served.port}/"
            async with connect(url, subprotocols=[Subprotocol(JSON)]) as socket:
                assert bool(socket.protocol.extensions) is wanted
                await socket.send(
                    json.dumps({"id": 0, "do": "hello", "version": "production", "key": served.owner})
                )
                assert "ok" in json.loads(await socket.recv())


async def test_a_server_that_stops_says_so_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        numbers = [await client.begin("insert", collection="c", documents=[{"n": n}]) for n in range(50)]
        await until(lambda: served.server.figures(None)["requests"] == 50)
        await served.server.close()
        done = [checked(await client.read()) for _ in numbers]
        assert len(done) == 50
        assert (await closed(client))[0] == 1012


async def test_what_open_transactions_hold_is_bounded_for_a_version(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HELD", 3000)
    async with served.client() as one, served.client() as other:
        first = (await one.ask("begin"))["in"]
        await one.ask("insert", collection="c", documents=[{"text": "x" * 1000}], **{"in": first})
        second = (await other.ask("begin"))["in"]
        await other.ask("insert", collection="c", documents=[{"text": "x" * 1000}], **{"in": second})
        again = other.ask("insert", collection="c", documents=[{"text": "x" * 1000}], **{"in": second})
        assert await refused(again) == "busy"
        await one.ask("abort", **{"in": first})
        await other.ask("insert", collection="c", documents=[{"text": "y" * 1000}], **{"in": second})
        await other.ask("commit", **{"in": second})
        assert await one.ask("count", collection="c") == 2


async def test_connections_to_a_version_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)
    async with served.client() as first:
        with pytest.raises(Refused, match="connections to this version"):
            async with served.client():
                pass
        assert await first.ask("count", collection="c") == 0
