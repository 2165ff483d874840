"""Lines 11 and 12 of http.md: websockets, and nothing else, become tunnels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
import websockets
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from tests.waiting import PATIENCE, until

from .stage import Conversation, Router, fields, saying, sized, to_worker

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: app.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture
async def echo(control) -> AsyncIterator[list[ServerConnection]]:
    """A websocket worker that echoes; its connections."""
    connections: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        connections.append(connection)
        async for message in connection:
            await connection.send(message)

    def pick(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("chat.v2") if "chat.v2" in offered else None

    async with serve_websocket(handle, "127.0.0.1", 0, select_subprotocol=pick, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        control.routes["app.localhost"] = to_worker(f"127.0.0.1:{port}")
        yield connections


def open_websocket(router: Router, **options: object) -> connect:
    scheme = "wss" if router.trust else "ws"
    url = f"{scheme}://app.localhost:{router.port}/ws?x=%2F"
    return connect(url, host="127.0.0.1", ssl=router.trust, max_size=None, proxy=None, **options)


async def test_a_websocket_keeps_its_subprotocol_and_has_no_message_limit(router, echo) -> None:
    async with open_websocket(router, subprotocols=["chat.v1", "chat.v2"]) as socket:
        assert socket.subprotocol == "chat.v2"
        await socket.send("hello")
        assert await socket.recv() == "hello"
        big = b"x" * 20_000_000
        await socket.send(big)
        assert await socket.recv() == big
    assert echo[0].request.path == "/ws?x=%2F"


async def test_the_clients_close_reaches_the_worker(router, echo) -> None:
    async with open_websocket(router) as socket:
        await socket.close(4001, "bye")
    await until(lambda: echo[0].close_code)
    assert (echo[0].close_code, echo[0].close_reason) == (4001, "bye")


async def test_the_workers_close_reaches_the_client(router, echo) -> None:
    async with open_websocket(router) as socket:
        await until(lambda: echo)
        await echo[0].close(4002, "done")
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4002, "done")


async def test_a_tunnel_dies_on_both_sides_when_one_side_dies(router, echo) -> None:
    socket = await open_websocket(router)
    await until(lambda: echo)
    socket.transport.abort()
    await until(lambda: echo[0].close_code is not None)
    socket = await open_websocket(router)
    await until(lambda: len(echo) == 2)
    echo[1].transport.abort()
    await asyncio.wait_for(socket.wait_closed(), PATIENCE)


async def test_no_timeout_fires_on_a_tunnel(start, echo) -> None:
    router = await start(
        idle_timeout=0.1, answer_timeout=0.1, head_timeout=0.1, keep_alive=0.1, linger=0.1, pool_idle=0.1
    )
    async with await opened_in_time(router) as socket:
        deadline = asyncio.get_running_loop().time() + 0.6
        await until(lambda: asyncio.get_running_loop().time() > deadline)
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def opened_in_time(router: Router) -> ClientConnection:
    """Until it is a tunnel, deadlines count; and we may be slow."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OSError, websockets.InvalidHandshake):
                return await open_websocket(router)


async def test_open_sockets_and_their_bytes_are_activity(router, control, echo) -> None:
    async with open_websocket(router, compression=None) as socket:
        await until(lambda: control.activity("d1").get("sockets") == 1)
        quiet = control.activity("d1")
        assert quiet["open"] == 0
        await socket.send("x" * 1000)
        await until(lambda: control.activity("d1")["received"] >= quiet["received"] + 1000)
        assert control.activity("d1")["last"] > 0
    await until(lambda: control.activity("d1")["sockets"] == 0)


async def test_bytes_next_to_the_101_are_not_lost_in_either_direction(router, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SWITCHED + b"from the worker")
        assert await talk.exactly(15) == b"from the client"
        await talk.send(b"!")
        await talk.rest()

    await serve(handle)
    wire = await router.connect()
    await wire.send(UPGRADE + b"from the client")
    assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
    assert await wire.exactly(16) == b"from the worker!"


async def test_a_non_101_answer_to_a_websocket_is_relayed_and_the_connection_closed(router, serve) -> None:
    worker = await serve(saying(sized(b"no", status="403 Forbidden")))
    wire = await router.connect()
    await wire.send(UPGRADE)
    answer = await wire.answer()
    assert (answer.status, answer.body, answer.field("connection")) == (403, b"no", "close")
    assert await wire.rest() == b""
    assert fields(worker.last, "upgrade") == ["websocket"]
    assert fields(worker.last, "connection") == ["Upgrade"]


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
        b"Upgrade: websocket\r\n",
    ],
)
async def test_only_a_websocket_is_an_upgrade_and_the_rest_are_plain_requests(
    router, serve, lines: bytes
) -> None:
    worker = await serve(saying(sized()))
    wire = await router.connect()
    for _ in range(2):
        await wire.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n" + lines + b"\r\n")
        assert (await wire.answer()).status == 200
    assert fields(worker.last, "upgrade") == fields(worker.last, "http2-settings") == []


async def test_an_upgrade_with_a_body_is_not_smuggled_into_a_tunnel(router, serve) -> None:
    worker = await serve(saying(sized()))
    raw = UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello")
    wire = await router.connect()
    await wire.send(raw)
    assert (await wire.answer()).status == 200
    assert fields(worker.last, "upgrade") == []


async def test_a_websocket_to_a_cold_app_is_held_and_then_opened(router, control, echo) -> None:
    route = control.routes.pop("app.localhost")
    opening = asyncio.ensure_future(open_websocket(router).__aenter__())
    ask = await control.wait_for("ask")
    assert ask["intent"] == "wait"
    control.answer(ask, route)
    socket = await opening
    await socket.send("hello")
    assert await socket.recv() == "hello"
    await socket.close()


async def test_a_slow_side_slows_the_other_down(router, serve) -> None:
    sent = 0

    async def handle(talk: Conversation) -> None:
        nonlocal sent
        await talk.request()
        await talk.send(SWITCHED)
        for _ in range(1000):
            await talk.send(b"x" * 100_000)
            sent += 1

    await serve(handle)
    wire = await router.connect(takes=64 * 1024)
    await wire.send(UPGRADE)
    await wire.head()
    seen, same = -1, 0
    while same < 40:
        await asyncio.sleep(0.005)
        same = same + 1 if seen == sent else 0
        seen = sent
    assert sent < 500  # 50 MB: the kernel keeps 42 at most, between the worker and the router most of it
    assert len(await wire.exactly(100_000_000)) == 100_000_000
