"""A websocket peer that speaks the protocol as its document has it, and answers what a test says.

It shares nothing with the client: frames are what msgspec and json make of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.waiting import PATIENCE

MSGPACK, JSON = Subprotocol("versionbase.1.msgpack"), Subprotocol("versionbase.1.json")
Frame = dict[str, Any]


class Line:
    """One connection: `frames` are those that came, hello first."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []

    async def send(self, frame: Frame) -> None:
        with suppress(ConnectionClosed):
            if self.socket.subprotocol == JSON:
                await self.socket.send(json.dumps(frame))
            else:
                await self.socket.send(msgspec.msgpack.encode(_extended(frame)))

    async def ok(self, request: Frame, result: Any) -> None:
        await self.send({"id": request["id"], "ok": result})

    async def error(self, request: Frame, kind: str, sentence: str = "No.", hint: str = "") -> None:
        await self.send({"id": request["id"], "error": {"kind": kind, "sentence": sentence, "hint": hint}})

    async def part(self, request: Frame, *items: Any) -> None:
        await self.send({"id": request["id"], "part": list(items)})

    def drop(self) -> None:
        """As a server that dies."""
        self.socket.transport.abort()


class Peer:
    """`answer` is called for each frame but hello, in the order of their coming; it may be changed at any time."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.limits: Frame = {"document": 16 << 20, "frame": 17 << 20, "requests": 64, "transactions": 32}
        self.answer: Callable[[Line, Frame], Awaitable[None]] = _nothing
        self.greet: Callable[[Line, Frame], Awaitable[None]] = self.welcome
        self.subprotocols = [MSGPACK, JSON]
        self.port = 0
        self._came = asyncio.Condition()
        self._server: Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://abc123:key%2F1@127.0.0.1:{self.port}/"

    @property
    def frames(self) -> list[Frame]:
        """All that came, but hellos."""
        return [frame for line in self.lines for frame in line.frames[1:]]

    def asked(self, do: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("do") == do]

    async def open(self) -> None:
        """At the same port as before."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            subprotocols=self.subprotocols,
            max_size=32 << 20,
            compression=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        """As a server that dies: nobody is told."""
        assert self._server is not None
        self._server.close(close_connections=False)
        for line in self.lines:
            line.drop()
        await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()

    async def welcome(self, line: Line, hello: Frame) -> None:
        await line.ok(
            hello,
            {"server": "peer", "version": hello["version"], "sequence": 7, "limits": self.limits},
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Looked at with each frame that comes, and each connection that ends."""
        async with self._came, asyncio.timeout(PATIENCE):
            await self._came.wait_for(holds)

    async def _serve(self, socket: ServerConnection) -> None:
        line = Line(socket)
        self.lines.append(line)
        try:
            async for data in socket:
                await self._take(line, _decoded(data))
        except ConnectionClosed:
            pass
        finally:
            async with self._came:
                self._came.notify_all()

    async def _take(self, line: Line, frame: Frame) -> None:
        line.frames.append(frame)
        answer = self.answer if len(line.frames) > 1 else self.greet
        task = asyncio.create_task(answer(line, frame))  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with self._came:
            self._came.notify_all()


async def _nothing(line: Line, frame: Frame) -> None:
    return


def _extended(value: Any) -> Any:
    """With decimals as the protocol has them in MessagePack; msgspec would make them text."""
    if isinstance(value, dict):
        return {name: _extended(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_extended(member) for member in value]
    return msgspec.msgpack.Ext(1, str(value).encode()) if isinstance(value, Decimal) else value


def _decoded(data: bytes | str) -> Frame:
    if isinstance(data, str):
        told: Frame = json.loads(data)
        return told
    frame: Frame = msgspec.msgpack.decode(data, ext_hook=lambda code, value: Decimal(bytes(value).decode()))
    return frame


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    made = Peer()
    await made.open()
    try:
        yield made
    finally:
        await made.close()
