"""A server in this process, and a client that speaks its protocol word by word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from lazycloud.versionbase import keys
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.server import Server
from lazycloud.versionbase.storage import Storage
from tests.waiting import PATIENCE

MESSAGE_PACK, JSON = "versionbase.1.msgpack", "versionbase.1.json"


class Refused(Exception):
    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error["sentence"])
        self.kind = error["kind"]
        self.hint = error["hint"]


class Client:
    def __init__(self, socket: ClientConnection, encoding: str) -> None:
        self.socket = socket
        self._encoding = encoding
        self._last = 0

    async def send(self, **frame: Any) -> None:
        is_json = self._encoding == JSON
        await self.socket.send(json.dumps(frame) if is_json else msgspec.msgpack.encode(frame))

    async def read(self) -> dict[str, Any]:
        data = await asyncio.wait_for(self.socket.recv(), PATIENCE)
        frame: dict[str, Any] = json.loads(data) if isinstance(data, str) else msgspec.msgpack.decode(data)
        return frame

    async def begin(self, do: str, **members: Any) -> int:
        """Send a request; its number."""
        self._last += 1
        await self.send(id=self._last, do=do, **{name.rstrip("_"): value for name, value in members.items()})
        return self._last

    async def result(self, number: int) -> Any:
        """Of a request, of which no other is under way. Raises Refused."""
        frame = await self.read()
        assert frame["id"] == number, frame
        return checked(frame)

    async def ask(self, do: str, **members: Any) -> Any:
        """Raises Refused."""
        return await self.result(await self.begin(do, **members))

    async def list(self, do: str, **members: Any) -> tuple[list[Any], Any]:
        """All parts of a request in one list, and its result. Raises Refused."""
        number = await self.begin(do, **members)
        items: list[Any] = []
        while True:
            frame = await self.read()
            assert frame["id"] == number, frame
            if "part" not in frame:
                return items, checked(frame)
            items += frame["part"]
            await self.send(id=number, more=1)


def checked(frame: dict[str, Any]) -> Any:
    if "error" in frame:
        raise Refused(frame["error"])
    assert set(frame) == {"id", "ok"}
    return frame["ok"]


class Served:
    """A server, and how one comes to it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.engine = server.engine
        self.port = port
        self.owner = server.keys.owner

    def key(self, version: str) -> str:
        return self.server.keys.version(version, self.engine.storage.branch(version).birth)

    @asynccontextmanager
    async def open(self, *encodings: str) -> AsyncIterator[Client]:
        """A connection that has not said hello."""
        offered = [Subprotocol(name) for name in encodings or (MESSAGE_PACK,)]
        url = f"ws://127.0.0.1:{self.port}/"
        async with connect(
            url, subprotocols=offered, compression=None, max_size=None, close_timeout=1
        ) as socket:
            try:
                yield Client(socket, str(socket.subprotocol))
            except BaseException:
                socket.transport.abort()  # in whatever state the test has left it
                raise

    @asynccontextmanager
    async def client(
        self, version: str = "production", key: str | None = None, encoding: str = MESSAGE_PACK, **hello: Any
    ) -> AsyncIterator[Client]:
        """By the owner's key, unless another is given."""
        async with self.open(encoding) as client:
            await client.ask("hello", version=version, key=self.owner if key is None else key, **hello)
            yield client


@asynccontextmanager
async def serving(folder: Path, store: str = "", **options: Any) -> AsyncIterator[Served]:
    engine = Engine(Storage(store or f"sqlite:///{folder / 'store.sqlite'}"))
    engine.open()
    server = Server(engine, keys.made_of("x" * 64), **options)
    try:
        await server.demand_production()
        yield Served(server, await server.open())
    finally:
        await server.close()
        engine.close()
