"""What a server of a versionbase is sent that cannot be: a clear answer, and no harm to connection or neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.versionbase.served import Served, verified
from tests.versionbase.wire import BROKEN, Refused, Wire, connected, opened
from tests.waiting import PATIENCE

SOON = 2.0  # seconds of the server's processor for which a neighbour waits, whatever others do


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(f"sqlite:///{tmp_path_factory.mktemp('bad-input')}/store.sqlite") as running:
        yield running


@pytest.fixture
async def wire(served: Served) -> AsyncIterator[Wire]:
    """Of the owner; the server goes on for its neighbour whatever the test does."""
    async with connected(served.address, "production", served.owner) as neighbour:
        await neighbour.ask(
            "replace", collection="notes", key="a", document={"n": 1, "s": "text"}, create=True
        )
        async with connected(served.address, "production", served.owner) as mine:
            yield mine
        assert await neighbour.ask("get", collection="notes", keys=["a"]) == [{"n": 1, "s": "text"}]


async def refused(wire: Wire, kind: str, do: str, **more: Any) -> str:
    """By this word, and the connection goes on; the sentence."""
    with pytest.raises(Refused) as caught:
        await wire.ask(do, **more)
    assert caught.value.kind == kind, caught.value
    assert (await wire.ask("get", collection="notes", keys=["a"]))[0]["n"] == 1
    return str(caught.value.sentence)


@contextlib.asynccontextmanager
async def answered_meanwhile(served: Served) -> AsyncIterator[None]:
    """A neighbour is answered all the time. What others do on this machine is not counted."""
    slowest, is_over = 0.0, False

    def spent() -> float:
        return sum(psutil.Process(served.pid).cpu_times()[:2])

    async def ask() -> None:
        nonlocal slowest
        async with connected(served.address, "production", served.owner) as neighbour:
            while not is_over:
                since = spent()
                await neighbour.ask("get", collection="notes", keys=["a"])
                slowest = max(slowest, spent() - since)
                await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        is_over = True
        await asking
    assert slowest < SOON


# Expressions

EXPRESSIONS = {
    "an operator that is none": ("doc.n === 1", "1:"),
    "an operator of another language": ("doc.n $gt 1", "1:"),
    "a function that is none": ("nope(doc.n)", "nope"),
    "an end that is missing": ("doc.n + ", "1:"),
    "a name that is not given": ("doc.n == wanted", "wanted"),
    "too deep": ("(" * 1500 + "1" + ")" * 1500 + " == 1", ""),
    "too deep a member": ("doc" + ".a" * 1500 + " == 1", ""),
    "too deep a list": ("[" * 1500 + "]" * 1500 + " == doc.n", ""),
    "too long": (" || ".join(["doc.n == 1"] * 1000), ""),
    "a text without an end": ("doc.s == 'abc", "1:"),
    "no text at all": (" \0 ", ""),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
async def test_an_expression_that_cannot_be_is_said_in_words(wire: Wire, name: str) -> None:
    text, part = EXPRESSIONS[name]
    assert part in await refused(wire, "bad-input", "find", collection="notes", filter=text)
    assert part in await refused(wire, "bad-input", "find", collection="notes", map=text)
    assert part in await refused(wire, "bad-input", "watch", collection="notes", filter=text)
    assert len(await refused(wire, "bad-input", "count", collection="notes", filter=text)) < 1000


async def test_an_expression_that_costs_too_much_is_given_up(wire: Wire, served: Served) -> None:
    await wire.ask("replace", collection="costly", key="a", document={"l": [*range(5000)]}, create=True)
    loops = "doc.l.exists(a, doc.l.exists(b, doc.l.exists(c, a + b + c == -1)))"
    async with answered_meanwhile(served):
        await refused(wire, "bad-input", "find", collection="costly", filter=loops)
        await refused(wire, "bad-input", "find", collection="costly", map=loops)


async def test_many_costly_documents_take_no_neighbour_s_time(wire: Wire, served: Served) -> None:
    """Each is as costly as it may be; all of them end with the deadline."""
    await wire.ask("insert", collection="slow", documents=[{"l": [*range(300)]} for _ in range(300)])
    loop = "doc.l.all(a, doc.l.all(b, a + b >= 0))"
    async with answered_meanwhile(served):
        since = time.monotonic()
        with contextlib.suppress(Refused):
            await wire.ask("find", collection="slow", filter=loop, deadline=2)
        assert time.monotonic() - since < 20  # of some minutes


async def test_a_pattern_that_would_take_for_ever_does_not(wire: Wire, served: Served) -> None:
    await wire.ask("replace", collection="texts", key="a", document={"s": "a" * 40 + "!"}, create=True)
    async with answered_meanwhile(served):
        with contextlib.suppress(Refused):
            await asyncio.wait_for(
                wire.ask("find", collection="texts", filter="doc.s.matches('^(a+)+$')"), PATIENCE
            )


# Documents, keys, names


async def test_a_document_that_cannot_be_is_refused(wire: Wire) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    for document, kind in (({"a": deep}, "bad-input"), ({"a": "x" * ((16 << 20) + 1)}, "too-large")):
        assert await refused(wire, kind, "insert", collection="notes", documents=[document])
        assert await refused(wire, kind, "replace", collection="notes", key="a", document=document)
        assert await refused(wire, kind, "update", collection="notes", key="a", set=document)
    await refused(wire, "bad-input", "insert", collection="notes", documents=[{"a": float("nan")}])
    await refused(wire, "bad-input", "insert", collection="notes", documents=["text"])
    await refused(wire, "bad-input", "insert", collection="notes", documents={})


async def test_what_is_sent_together_is_refused_together(wire: Wire) -> None:
    documents = [{"n": 5}, {"n": float("inf")}]
    await refused(wire, "bad-input", "insert", collection="notes", documents=documents, keys=["x", "y"])
    await refused(wire, "exists", "insert", collection="notes", documents=[{}, {}], keys=["x", "a"])
    assert await wire.ask("get", collection="notes", keys=["x", "y"]) == [None, None]


@pytest.mark.parametrize(
    "more",
    [
        {"keys": [""]},
        {"keys": ["x" * 600]},
        {"keys": ["a\0b"]},
        {"keys": [1]},
        {"keys": "a"},
        {"keys": None},
        {"collection": "../notes"},
        {"collection": ""},
        {"collection": "x" * 100},
        {"collection": 5},
        {"collection": "notes\0"},
        {"nonsense": 1},
    ],
)
async def test_a_key_or_a_name_that_cannot_be_is_refused(wire: Wire, more: dict[str, Any]) -> None:
    await refused(wire, "bad-input", "get", **{"collection": "notes", "keys": ["a"], **more})


async def test_much_is_not_read_at_once(wire: Wire, served: Served) -> None:
    """A frame's limit is looked at before a thousand large documents are."""
    await wire.ask("replace", collection="large", key="a", document={"s": "x" * (8 << 20)}, create=True)
    before = served.memory
    async with answered_meanwhile(served):
        await refused(wire, "too-large", "get", collection="large", keys=["a"] * 1000)
    assert served.memory - before < 150 << 20


async def test_a_transaction_ends_as_it_is_to(wire: Wire) -> None:
    await refused(wire, "gone", "get", collection="notes", keys=["a"], **{"in": 99})
    await refused(wire, "bad-input", "commit", **{"in": "1"})
    begun = (await wire.ask("begin"))["in"]
    await wire.ask("insert", collection="notes", documents=[{"n": 7}], keys=["within"], **{"in": begun})
    await refused(
        wire, "exists", "insert", collection="notes", documents=[{}], keys=["within"], **{"in": begun}
    )
    await wire.ask("abort", **{"in": begun})
    await refused(wire, "gone", "commit", **{"in": begun})
    reading = (await wire.ask("begin", write=False))["in"]
    await refused(wire, "read-only", "insert", collection="notes", documents=[{}], **{"in": reading})
    assert await wire.ask("get", collection="notes", keys=["within"]) == [None]
    for _ in range(40):
        with contextlib.suppress(Refused):
            await wire.ask("begin")
    assert "transactions" in await refused(wire, "busy", "begin")


# Who may what


async def test_a_wrong_key_opens_nothing(served: Served, wire: Wire) -> None:
    await wire.ask("fork", version="abc", source="production")
    await wire.ask("fork", version="def", source="production")
    mine = await wire.ask("key", version="abc")
    wrong = [("production", mine), ("def", mine), ("abc", mine[:-1]), ("abc", ""), ("abc", mine + "x")]
    wrong += [("abc", "é" * 40), ("not there", mine), ("abc\0", mine), ("", mine), ("production", "owner")]
    for answer in await asyncio.gather(*(denied(served, version, key) for version, key in wrong)):
        assert mine not in answer
    assert mine not in served.log.read_text() and served.owner not in served.log.read_text()


async def denied(served: Served, version: str, key: str) -> str:
    """What is said then."""
    with pytest.raises(Refused) as caught:
        async with connected(served.address, version, key):
            pass
    assert caught.value.kind == "denied"
    return str(caught.value)


async def test_a_version_s_key_reaches_no_other(served: Served, wire: Wire) -> None:
    """By none of all requests."""
    await wire.ask("fork", version="mine", source="production")
    await wire.ask("insert", collection="notes", documents=[{"n": "secret"}], keys=["secret"])
    snapshot = (await wire.ask("snapshot", name="theirs"))["id"]
    key = await wire.ask("key", version="mine")
    async with connected(served.address, "mine", key) as mine:
        for at in (
            "production",
            "production@theirs",
            f"production@{snapshot}",
            "theirs",
            snapshot,
            "@",
            "mine@theirs",
        ):
            for do, more in (
                ("get", {"collection": "notes", "keys": ["secret"], "at": at}),
                ("find", {"collection": "notes", "at": at}),
                ("count", {"collection": "notes", "at": at}),
                ("collections", {"at": at}),
                ("explain", {"collection": "notes", "at": at}),
                ("begin", {"at": at}),
                ("diff", {"from": at}),
                ("diff", {"from": "", "to": at}),
                ("export", {"at": at}),
                ("restore", {"snapshot": at}),
            ):
                with pytest.raises(Refused) as caught:
                    assert (do, await mine.ask(do, **more)) == (do, "refused")
                assert caught.value.kind in ("not-found", "denied", "gone", "bad-input"), (
                    do,
                    at,
                    caught.value,
                )
                assert "secret" not in str(caught.value)
        for do, more in (
            ("versions", {}),
            ("fork", {"version": "other"}),
            ("drop", {"version": "production"}),
            ("swap", {"version": "mine", "other": "production"}),
            ("key", {"version": "production"}),
            ("key", {"version": "mine"}),
            ("size", {"version": "production"}),
            ("collect", {}),
            ("verify", {}),
            ("snapshot", {"version": "production"}),
            ("snapshots", {"version": "production"}),
            ("drop_snapshot", {"version": "production", "snapshot": snapshot}),
            ("restore", {"version": "production", "snapshot": snapshot}),
            ("export", {"version": "production"}),
            ("import", {"version": "production", "documents": []}),
        ):
            with pytest.raises(Refused) as caught:
                assert (do, await mine.ask(do, **more)) == (do, "refused")
            assert caught.value.kind == "denied", (do, caught.value)
        assert await mine.ask("get", collection="notes", keys=["secret"]) == [None]
        assert await mine.ask("snapshots") == []
        assert (await mine.ask("status"))["version"] == "mine"
    assert [one["id"] for one in await wire.ask("snapshots")].count(snapshot) == 1


async def test_a_version_that_is_gone_is_gone_for_its_clients(served: Served, wire: Wire) -> None:
    """Also when there is another of its name, with another key."""
    await wire.ask("fork", version="gone", source="production")
    key = await wire.ask("key", version="gone")
    async with connected(served.address, "gone", key) as client:
        within = (await client.ask("begin"))["in"]
        await client.ask("insert", collection="notes", documents=[{}], keys=["late"], **{"in": within})
        watching = asyncio.create_task(watch_all(client))
        await client.ask("status")
        await wire.ask("drop", version="gone")
        assert await asyncio.wait_for(watching, PATIENCE) == "gone"
        await wire.ask("fork", version="gone", source="production")
        for do, more in (
            ("get", {"collection": "notes", "keys": ["a"]}),
            ("insert", {"collection": "notes", "documents": [{}]}),
            ("find", {"collection": "notes"}),
            ("commit", {"in": within}),
            ("begin", {}),
            ("watch", {}),
            ("history", {"collection": "notes", "key": "a"}),
            ("create_index", {"collection": "notes", "path": "n"}),
            ("snapshot", {}),
            ("collections", {}),
            ("status", {}),
        ):
            with pytest.raises(Refused) as caught:
                await client.ask(do, **more)
            assert caught.value.kind == "gone", (do, caught.value)
    with pytest.raises(Refused, match="denied"):
        async with connected(served.address, "gone", key):
            pass
    async with connected(served.address, "gone", served.owner) as other:
        assert await other.ask("get", collection="notes", keys=["late"]) == [None]


async def watch_all(client: Wire) -> str:
    """By which word it ended."""
    try:
        async for _ in client.watch():
            pass
    except Refused as problem:
        return str(problem.kind)
    return ""


# Frames


def header(length: int, opcode: int = 2, final: bool = True) -> bytes:
    """Of a masked frame that says it is so long."""
    first = bytes([(0x80 if final else 0) | opcode])
    if length < 126:
        return first + bytes([0x80 | length]) + b"\0\0\0\0"
    if length < 1 << 16:
        return first + b"\xfe" + struct.pack(">H", length) + b"\0\0\0\0"
    return first + b"\xff" + struct.pack(">Q", length) + b"\0\0\0\0"


RAW = {
    "longer than memory": (header((1 << 63) - 1), 1009),
    "longer than a frame may be": (header(18 << 20), 1009),
    "a length with its highest bit": (b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", 1009),
    "not masked": (b"\x82\x05hello", 1002),
    "an operation that is none": (header(0, 11), 1002),
    "a piece of nothing": (header(3, 0) + b"abc", 1002),
}

FRAMES: dict[str, tuple[bytes | str, int]] = {
    "a map that says it has a billion members": (b"\xdf\x40\x00\x00\x00\xa2id\x01", 1007),
    "bytes that say they are a gigabyte": (b"\x82\xa2id\x01\xa2do\xc6\x40\x00\x00\x00abc", 1007),
    "a list that says it has a billion": (b"\x83\xa2id\x01\xa2do\xa3get\xa4keys\xdd\x40\x00\x00\x00", 1007),
    "very deep": (b"\x91" * 100_000, 1007),
    "nothing": (b"", 1007),
    "half of a frame": (msgspec.msgpack.encode({"id": 1, "do": "status"})[:-3], 1007),
    "more than a frame": (msgspec.msgpack.encode({"id": 1, "do": "status"}) + b"\xc0", 1007),
    "no map": (msgspec.msgpack.encode([1, 2]), 1002),
    "no id": (msgspec.msgpack.encode({"do": "status"}), 1002),
    "an id that is a text": (msgspec.msgpack.encode({"id": "1", "do": "status"}), 1002),
    "an id below nothing": (msgspec.msgpack.encode({"id": -1, "do": "status"}), 1002),
    "nothing to do": (msgspec.msgpack.encode({"id": 1}), 1002),
    "a text": ('{"id": 1, "do": "status"}', 1007),
}


@pytest.mark.parametrize("name", RAW)
async def test_a_frame_that_lies_about_its_length_ends_its_connection_alone(
    served: Served, wire: Wire, name: str
) -> None:
    before = served.memory
    data, code = RAW[name]
    async with connected(served.address, "production", served.owner) as liar:
        liar.socket.transport.write(data)
        await asyncio.wait_for(liar.socket.wait_closed(), PATIENCE)
        assert liar.socket.close_code == code
    assert served.memory - before < 30 << 20


@pytest.mark.parametrize("name", FRAMES)
async def test_what_is_no_frame_ends_its_connection_alone(served: Served, wire: Wire, name: str) -> None:
    before = served.memory
    data, code = FRAMES[name]
    async with connected(served.address, "production", served.owner) as liar:
        await liar.send(data)
        await asyncio.wait_for(liar.socket.wait_closed(), PATIENCE)
        assert liar.socket.close_code == code
        assert liar.socket.close_reason
    assert served.memory - before < 30 << 20


async def test_who_does_not_say_hello_first_is_not_answered(served: Served, wire: Wire) -> None:
    for data in (msgspec.msgpack.encode({"id": 1, "do": "status"}), b"\xc1", header(1 << 40)):
        stranger = await opened(served.address)
        await stranger.send(data)
        await asyncio.wait_for(stranger.socket.wait_closed(), PATIENCE)
        assert stranger.socket.close_code in (1002, 1007, 1008)
        await stranger.close()


async def test_a_request_that_is_none_is_refused(wire: Wire) -> None:
    assert "frobnicate" in await refused(wire, "bad-input", "frobnicate")
    await refused(wire, "bad-input", "hello", version="production", key="x")
    await refused(wire, "bad-input", "find", collection="notes", limit=-1)
    await refused(wire, "bad-input", "find", collection="notes", window=0)
    await refused(wire, "bad-input", "find", collection="notes", order="n sideways")


# Clients that do as they like


async def test_a_client_that_takes_nothing_costs_little(served: Served, wire: Wire) -> None:
    """What it asked for is made as it is taken."""
    for number in range(40):
        documents = [{"s": "x" * 10_000, "n": number} for _ in range(100)]
        await wire.ask("insert", collection="many", documents=documents)
    before = served.memory
    lazy = await opened(served.address, max_queue=1)
    try:
        await lazy.ask("hello", version="production", key=served.owner)
        lazy.socket.transport.pause_reading()
        async with answered_meanwhile(served):
            for number in range(60):
                with contextlib.suppress(*BROKEN):
                    frame = {"id": 1000 + number, "do": "find", "collection": "many", "window": 64}
                    await asyncio.wait_for(lazy.send(frame), 1)
            await asyncio.sleep(1)
        assert served.memory - before < 100 << 20
    finally:
        lazy.socket.transport.abort()


async def test_what_is_cancelled_at_once_is_answered_and_let_go(served: Served, wire: Wire) -> None:
    """As often as is liked: the connection goes on."""
    if not await wire.ask("count", collection="many"):
        await wire.ask("insert", collection="many", documents=[{"s": "x" * 10_000}] * 1000)
    for number in range(200):
        await wire.send({"id": 5000 + number, "do": "find", "collection": "many", "filter": "doc.s == 'y'"})
        await wire.send({"id": 5000 + number, "do": "cancel"})
    assert (await wire.ask("status"))["version"] == "production"
    assert await wire.ask("count", collection="notes", filter="doc.n == 1") == 1
    assert "cancelled" in [await cancelled(wire) for _ in range(20)]  # some may be done before


async def cancelled(wire: Wire) -> str:
    """What becomes of a request that is cancelled at once."""
    asking = asyncio.create_task(wire.ask("find", collection="many", filter="doc.s == 'y'"))
    await asyncio.sleep(0)
    await wire.send({"id": max(wire._answers), "do": "cancel"})
    try:
        await asking
    except Refused as refused:
        return refused.kind
    return "done"


async def test_who_is_answered_busy_has_changed_nothing(served: Served) -> None:
    async with connected(served.address, "production", served.owner) as wire:
        for number in range(1005):
            await wire.send({"id": 10_000 + number, "do": "watch", "collection": "notes"})
        try:
            await wire.ask("insert", collection="notes", documents=[{}], keys=["while busy"])
        except Refused as problem:
            assert problem.kind == "busy"
            async with connected(served.address, "production", served.owner) as other:
                assert await other.ask("get", collection="notes", keys=["while busy"]) == [None]


# The disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "small", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_is_said_and_nothing_is_lost(disk: Path) -> None:
    """Reads go on; so do writes when there is room again."""
    with Served(f"sqlite:///{disk}/store.sqlite") as served:
        async with connected(served.address, "production", served.owner) as wire:
            acknowledged = [await write(wire)]
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            with pytest.raises(Refused) as caught:
                for _ in range(2000):
                    acknowledged.append(await write(wire))
            assert caught.value.kind == "full", caught.value
            assert "full" in caught.value.sentence
            within = (await wire.ask("begin"))["in"]
            await wire.ask("insert", collection="notes", documents=[{"s": "x" * 50_000}], **{"in": within})
            with pytest.raises(Refused) as caught:
                await wire.ask("commit", **{"in": within})
            assert caught.value.kind == "full"
            assert await wire.ask("count", collection="notes") == len(acknowledged)
            assert all(await wire.ask("get", collection="notes", keys=acknowledged))
            filler.unlink()
            acknowledged += [await write(wire) for _ in range(20)]
            assert await wire.ask("count", collection="notes") == len(acknowledged)
        served.kill()
        served.start()
        async with connected(served.address, "production", served.owner) as wire:
            assert all(await wire.ask("get", collection="notes", keys=acknowledged))
            assert await wire.ask("count", collection="notes") == len(acknowledged)
        served.stop()
        verified(served.store)


async def write(wire: Wire) -> str:
    (key,) = await wire.ask("insert", collection="notes", documents=[{"s": os.urandom(10_000).hex()}])
    return str(key)
