"""A router between a client that sends bytes and a worker that keeps all it gets: what went in, what came out.

Nothing waits for time to pass. A ping is a request of its own, through the router to a worker and back; when some of
them in a row changed nothing, everything that was sent before them has had its effect.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

from .stage import Control, Conversation, Router, Server, get, saying, sized, to_worker
from .strict import Incomplete, Malformed, Message, read_answer, read_request

_QUIET = 3  # pings; one alone may overtake what was sent before it in either process
NEXT = b"GET /next HTTP/1.1\r\nHost: speaker.localhost\r\n\r\n"
TOLD_NEXT = b"HTTP/1.1 200 OK\r\nX-Next: 1\r\nContent-Length: 4\r\n\r\nnext"


@dataclass
class Stream:
    """What came on one connection from the router."""

    raws: list[bytes] = field(default_factory=list)  # whole requests
    requests: list[Message] = field(default_factory=list)  # the same, read
    tail: bytes = b""  # what is not whole
    malformed: str = ""
    open: bool = True


@dataclass(frozen=True)
class Outcome:
    said: bytes  # to the client
    ended: str  # how its connection did: "", "eof", "reset"
    streams: list[Stream]
    order: list[Message]  # what the worker got, on all connections


class Recorder:
    """A worker that reads strictly and answers with the number of the request."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.order: list[Message] = []
        self.news = 0  # rises with every byte, and with every end

    def begin(self) -> None:
        self.streams = [stream for stream in self.streams if stream.open]
        assert not any(stream.tail for stream in self.streams), "a request that was given up goes on"
        for stream in self.streams:
            stream.raws, stream.requests = [], []
        self.order = []

    async def handle(self, talk: Conversation) -> None:
        stream = Stream()
        self.streams.append(stream)
        try:
            while data := await talk.reader.read(1 << 16):
                self.news += len(data)
                stream.tail += data
                await talk.send(self._answers(stream))
        finally:
            stream.open = False
            self.news += 1

    def _answers(self, stream: Stream) -> bytes:
        answers = b""
        while stream.tail and not stream.malformed:
            try:
                request, rest = read_request(stream.tail)
            except Incomplete:
                break
            except Malformed as why:
                stream.malformed = str(why)
                break
            answers += sized(b"", more=b"X-Nth: %d\r\n" % len(self.order))
            stream.raws.append(stream.tail[: len(stream.tail) - len(rest)])
            stream.requests.append(request)
            self.order.append(request)
            stream.tail = rest
        return answers


class Speaker:
    """A worker that says what it is told to; to /next always the same."""

    def __init__(self, ping: Callable[[], Any]) -> None:
        self.says: Sequence[bytes] = ()
        self.closes = False
        self.silent = asyncio.Event()  # it has said all of it, or is not listened to any more
        self.trusted = False  # whether the request after that came on the same connection
        self._ping = ping

    def begin(self, says: Sequence[bytes], *, closes: bool) -> None:
        self.says, self.closes, self.trusted = says, closes, False
        self.silent.clear()

    async def handle(self, talk: Conversation) -> None:
        told = False
        while head := await talk.request():
            if b" /next " in head:
                self.trusted = told
                await talk.send(TOLD_NEXT)
                told = False
                continue
            told = True
            try:
                for piece in self.says:
                    await talk.send(piece)
                    await self._ping()
            finally:
                self.silent.set()
            if self.closes:
                return


class Line(asyncio.Protocol):
    """A client's connection."""

    def __init__(self) -> None:
        self.said, self.ended = b"", ""
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.said += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = "eof"
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = "reset" if exc else "eof"
        self._news.set()

    async def answer(self, method: bytes) -> None:
        """Until a whole one came, or what cannot be one, or the end."""
        async with asyncio.timeout(PATIENCE):
            while not (self.ended or self._is_whole(method)):
                self._news.clear()
                await self._news.wait()

    def _is_whole(self, method: bytes) -> bool:
        try:
            read_answer(self.said, method, False)
        except Incomplete:
            return False
        except Malformed:
            pass
        return True


class Everywhere(dict[str, dict[str, Any]]):
    """Routes that lead every host but its own to one address."""

    address = ""

    def __contains__(self, host: object) -> bool:
        return True

    def __missing__(self, host: str) -> dict[str, Any]:
        return to_worker(self.address, "recorder")


class Trial:
    """All of it, in one loop that a test without one may drive: `run`."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # others have theirs
        self._folder = tempfile.TemporaryDirectory()
        self.control = Control(Path(self._folder.name))
        self.router = Router(self.control)
        self.recorder, self.speaker = Recorder(), Speaker(self.ping)
        self._servers = {
            "recorder": Server(self.recorder.handle),
            "speaker.localhost": Server(self.speaker.handle),
            "ping.localhost": Server(saying(sized())),
        }
        self.run = self._runner.run

    async def start(self) -> None:
        self.control.routes = routes = Everywhere()
        await self.control.start()
        for host, server in self._servers.items():
            await server.start()
            routes[host] = to_worker(server.address, host)
        routes.address = self._servers["recorder"].address
        await self.router.start()
        self._ping = await self.router.connect()

    async def stop(self) -> None:
        await self.router.stop()
        for server in self._servers.values():
            await server.stop()
        await self.control.stop()

    def close(self) -> None:
        self._runner.close()
        self._folder.cleanup()

    async def ping(self) -> None:
        await self._ping.send(get("ping.localhost"))
        await self._ping.answer()

    async def connect(self) -> Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(Line, "127.0.0.1", self.router.port)
        return line

    async def settle(self, line: Line) -> None:
        """Until nothing changes any more."""
        same, before = 0, self._state(line)
        while same < _QUIET:
            await self.ping()
            now = self._state(line)
            same, before = (same + 1 if now == before else 0), now

    def _state(self, line: Line) -> tuple[object, ...]:
        return len(line.said), line.ended, self.recorder.news, len(self.control.said("ask"))

    async def send(self, pieces: Sequence[bytes]) -> Outcome:
        """Send these one after the other on one connection; what it comes to."""
        self.control.heard.clear()
        self.recorder.begin()
        line = await self.connect()
        for piece in pieces:
            line.transport.write(piece)
            await self.ping()
        await self.settle(line)
        said, ended = line.said, line.ended
        line.transport.abort()
        await self.settle(line)
        return Outcome(said, ended, list(self.recorder.streams), list(self.recorder.order))

    async def tell(
        self, method: bytes, minor: int, says: Sequence[bytes], *, closes: bool
    ) -> tuple[bytes, str]:
        """What a client gets when a worker says this to it, and how its connection ended.

        Fails unless the next request, on the same connection if it is still open, gets its own answer.
        """
        self.speaker.begin(says, closes=closes)
        line = await self.connect()
        line.transport.write(
            b"%b /told HTTP/1.%d\r\nHost: speaker.localhost\r\nConnection: keep-alive\r\n\r\n"
            % (method, minor)
        )
        await line.answer(method)
        async with asyncio.timeout(PATIENCE):
            await self.speaker.silent.wait()
        await self.settle(line)
        said, ended = line.said, line.ended
        if ended:
            line = await self.connect()
        line.said = b""
        line.transport.write(NEXT)
        await line.answer(b"GET")
        assert line.said == TOLD_NEXT, "the next request got another answer"
        line.transport.abort()
        return said, ended
