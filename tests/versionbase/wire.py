"""The protocol of versionbase, spoken plainly: frames are sent as they are given, wrong ones too."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.typing import Subprotocol

from tests.waiting import PATIENCE

BROKEN = (ConnectionClosed, InvalidMessage, ConnectionError, EOFError, TimeoutError)


class Refused(Exception):
    """The server's answer, by its word."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['kind']}: {error['sentence']} {error.get('hint', '')}")
        self.kind, self.sentence = error["kind"], error["sentence"]


class Wire:
    """One connection; any number of requests at once."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._listening = asyncio.create_task(self._listen())
        self.welcome: dict[str, Any] = {}

    async def ask(self, do: str, **more: Any) -> Any:
        """The result; of what answers in parts, all of them in a list. Raises Refused, or one of BROKEN."""
        parts, result = await self.parts(do, **more)
        return parts if do in PARTED else result

    async def parts(self, do: str, **more: Any) -> tuple[list[Any], Any]:
        """What came in parts, and the result."""
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue()
        parts: list[Any] = []
        try:
            await self.send({"id": number, "do": do, **more})
            while True:
                answer = await asyncio.wait_for(answers.get(), PATIENCE)
                if "part" not in answer:
                    break
                parts += answer["part"]
                await self.send({"id": number, "more": 1})
        finally:
            del self._answers[number]
        if "error" in answer and answer["error"]["kind"] == "failed":
            raise ConnectionError(answer["error"]["sentence"])  # what has become of it is not known
        if "error" in answer:
            raise Refused(answer["error"])
        if "ok" not in answer:
            raise ConnectionError("closed")
        return parts, answer["ok"]

    async def watch(self, **more: Any) -> AsyncIterator[dict[str, Any]]:
        """What `watch` tells, one after the other, without an end."""
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue()
        try:
            await self.send({"id": number, "do": "watch", **more})
            while True:
                answer = await asyncio.wait_for(answers.get(), PATIENCE)
                if "error" in answer:
                    raise Refused(answer["error"])
                for event in answer["part"]:
                    yield event
                await self.send({"id": number, "more": 1})
        finally:
            del self._answers[number]

    async def send(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, (bytes, str)) else msgspec.msgpack.encode(frame))

    async def close(self) -> None:
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        await self.socket.close()

    async def _listen(self) -> None:
        try:
            async for frame in self.socket:
                answer = msgspec.msgpack.decode(frame)
                if answer["id"] in self._answers:
                    self._answers[answer["id"]].put_nowait(answer)
        except ConnectionClosed:
            pass
        finally:
            for answers in self._answers.values():
                answers.put_nowait({})


PARTED = ("find", "diff", "history", "export")


async def opened(address: str, **more: Any) -> Wire:
    """`address` is HOST:PORT. Nothing is said yet."""
    protocols = [Subprotocol("versionbase.1.msgpack")]
    options = {
        "subprotocols": protocols,
        "open_timeout": PATIENCE,
        "max_size": 32 << 20,
        "proxy": None,
        **more,
    }
    return Wire(await connect(f"ws://{address}/", **options))


@contextlib.asynccontextmanager
async def connected(address: str, version: str, key: str, **more: Any) -> AsyncIterator[Wire]:
    """Having said hello."""
    wire = await opened(address)
    try:
        wire.welcome = await wire.ask("hello", version=version, key=key, client="tests", **more)
        yield wire
    finally:
        await wire.close()
