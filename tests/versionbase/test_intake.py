"""How much of what clients send is in memory at once: who sends more waits, and nobody for another version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lazycloud.versionbase import intake
from lazycloud.versionbase.intake import FRAMES, Intake
from tests.versionbase import served
from tests.versionbase.talking import MESSAGE_PACK, Client, Served, serving
from tests.waiting import PATIENCE, until

PART = 100_000  # bytes
LARGE = 8_000_000  # bytes: of a frame that does not come in one piece


class Sender:
    """Sends an insert in parts, whose last one it keeps until it is told."""

    def __init__(self, client: Client, size: int = LARGE) -> None:
        self.client = client
        self.end = asyncio.Event()
        self.is_at_end = False
        documents = [{"text": "x" * size}]
        self._frame = msgspec.msgpack.encode(
            {"id": 99, "do": "insert", "collection": "c", "documents": documents}
        )
        self.task = asyncio.create_task(client.socket.send(self._parts()))

    async def _parts(self) -> AsyncIterator[bytes]:
        last = len(self._frame) - 1
        for begin in range(0, last, PART):
            yield self._frame[begin : min(begin + PART, last)]
        self.is_at_end = True
        await self.end.wait()
        yield self._frame[last:]

    async def close(self) -> None:
        self.client.socket.transport.abort()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def insert(client: Client, size: int = LARGE) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await client.ask("insert", collection="c", documents=[{"text": "x" * size}])


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each version one large frame may arrive at a time."""
    monkeypatch.setattr(intake, "FRAMES", 1)


async def waits(base: Served) -> None:
    await until(lambda: len(base.server.intake._waiting) == 1)


async def test_large_frames_of_a_version_arrive_one_after_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as base:
        async with base.client("a") as slow, base.client("a") as next_, base.client() as other:
            sender = Sender(slow)
            await until(lambda: sender.is_at_end)
            inserting = asyncio.create_task(insert(next_))
            await waits(base)
            assert await insert(other)  # of another version
            async with base.client("a") as quick:
                assert await insert(quick, 1000)
            assert not inserting.done()
            sender.end.set()
            assert (await slow.read())["ok"]
            assert await inserting
        taken = base.server.intake
        await until(lambda: not taken._under_way)
        assert (taken._all, taken._senders, list(taken._waiting), dict(taken._large)) == (0, set(), [], {})


async def test_who_sends_no_more_of_a_frame_is_cut_off_when_others_wait_for_it(tmp_path: Path) -> None:
    async with serving(tmp_path, standstill=0.5) as base, base.client("a") as slow, base.client("a") as next_:
        sender = Sender(slow)
        await until(lambda: sender.is_at_end)
        assert await insert(next_)
        with pytest.raises(ConnectionClosed):
            await slow.read()
        await sender.close()


async def test_a_connection_that_ends_lets_the_next_one_send(tmp_path: Path) -> None:
    async with serving(tmp_path) as base, base.client("a") as slow, base.client("a") as next_:
        sender = Sender(slow)
        await until(lambda: sender.is_at_end)
        inserting = asyncio.create_task(insert(next_))
        await waits(base)
        await sender.close()
        assert await inserting


async def test_many_that_send_large_frames_all_have_their_turn(tmp_path: Path) -> None:
    async with serving(tmp_path) as base, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(base.client("a")) for _ in range(5)]
        answers = await asyncio.gather(*(several(client, 5, 2_000_000) for client in clients))
        assert [len(one) for one in answers] == [5] * 5
        assert not base.server.intake._senders


async def test_requests_under_way_are_bounded_for_each_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "UNDER_WAY", 10 * PART)
    async with serving(tmp_path) as base, contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(base.client())
        clients = [await stack.enter_async_context(base.client("a")) for _ in range(5)]
        with nothing_committed(base):
            asked = [asyncio.create_task(several(client, 10, PART)) for client in clients]
            await until(lambda: base.server.intake.is_full("a"))
            for _ in range(20):
                assert await other.ask("get", collection="c", keys=["a"]) == [None]
            assert 10 * PART < base.server.intake._under_way["a"] < 20 * PART
        assert [len(one) for one in await asyncio.gather(*asked)] == [10] * 5
        await until(lambda: not base.server.intake._under_way)


@contextlib.contextmanager
def nothing_committed(base: Served) -> Iterator[None]:
    with base.engine.storage._changing:
        yield


async def several(client: Client, count: int, size: int) -> list[Any]:
    """Inserts that are sent without waiting for answers."""
    sending = asyncio.create_task(_send(client, count, size))
    async with asyncio.timeout(PATIENCE):
        answers = [(await client.read())["ok"] for _ in range(count)]
        await sending
    return answers


async def _send(client: Client, count: int, size: int) -> None:
    for _ in range(count):
        await client.begin("insert", collection="c", documents=[{"text": "x" * size}])


def test_where_all_have_too_much_those_wait_that_have_more_than_others() -> None:
    taken = Intake()
    for number in range(10):
        taken.add(f"small {number}", 1 << 20)
    for number in range(5):
        taken.add(f"large {number}", intake.UNDER_WAY)
    assert all(taken.is_full(f"large {number}") for number in range(5))
    assert not any(taken.is_full(f"small {number}") for number in range(10)) and not taken.is_full("none")
    taken.add("large 0", -intake.UNDER_WAY)
    taken.add("large 1", -intake.UNDER_WAY)
    assert not taken.is_full("large 2")


async def test_frames_that_are_never_whole_take_little_memory(tmp_path: Path) -> None:
    with served.Served(f"sqlite:///{tmp_path / 'store.sqlite'}") as base:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(greeted(base)) for _ in range(21)]
            await insert(clients[0], 1000)
            before = base.memory
            senders = [Sender(client, 16_000_000) for client in clients[1:]]
            await until(lambda: sum(sender.is_at_end for sender in senders) == FRAMES)
            await insert(clients[0], 1000)
            assert base.memory - before < 160 << 20  # of more than 320 MB
            assert sum(sender.is_at_end for sender in senders) == FRAMES
            for sender in senders:
                await sender.close()


@contextlib.asynccontextmanager
async def greeted(base: served.Served) -> AsyncIterator[Client]:
    url, spoken = f"ws://{base.address}/", [Subprotocol(MESSAGE_PACK)]
    async with connect(url, subprotocols=spoken, compression=None, max_size=None, close_timeout=1) as socket:
        client = Client(socket, MESSAGE_PACK)
        await client.ask("hello", version="production", key=base.owner)
        yield client
