"""A real router process between raw sockets: a control that says what a test wants, workers scripted byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE, until

AGES = 5 * PATIENCE  # what takes so long is seen to: a test that wants a deadline to pass sets it
KEY, TOKEN, GRANT = b"k" * 32, "correct horse", "l0"


class Wire:
    """One connection, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def some(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(1 << 20)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def chunks(self) -> tuple[list[bytes], bytes]:
        """A chunked body's chunks and its trailers."""
        found = []
        async with asyncio.timeout(PATIENCE):
            while size := int(await self.reader.readline(), 16):
                found.append(await self.reader.readexactly(size))
                assert await self.reader.readexactly(2) == b"\r\n"
            trailers = b""
            while (line := await self.reader.readline()) != b"\r\n":
                trailers += line
        return found, trailers

    async def answer(self, method: str = "GET") -> Answer:
        head = await self.head()
        answer = Answer(head)
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.field("transfer-encoding") == "chunked":
            chunks, answer.trailers = await self.chunks()
            answer.body = b"".join(chunks)
        elif (length := answer.field("content-length")) is not None:
            answer.body = await self.exactly(int(length))
        else:
            answer.body = await self.rest()
        return answer

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


class Answer:
    def __init__(self, head: bytes) -> None:
        self.head, self.body, self.trailers = head, b"", b""
        self.status = int(head.split(b" ", 2)[1])

    def field(self, name: str) -> str | None:
        values = self.fields(name)
        return values[0] if values else None

    def fields(self, name: str) -> list[str]:
        return fields(self.head, name)


def fields(head: bytes, name: str) -> list[str]:
    """The values of a header in a raw head."""
    found = re.findall(rb"(?im)^%b:[ \t]*(.*?)\r$" % re.escape(name.encode()), head)
    return [value.decode("latin-1") for value in found]


class Server:
    """A worker: `handle` speaks on each connection; `heads` are the heads it read with `request`."""

    def __init__(self, handle: Callable[[Conversation], Awaitable[None]]) -> None:
        self._handle = handle
        self.heads: list[bytes] = []
        self.connections: list[Conversation] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, path: Path | None = None, host: str = "127.0.0.1") -> None:
        if path is None:
            self._server = await asyncio.start_server(self._connected, host, 0, limit=1 << 20, backlog=1024)
            port = self._server.sockets[0].getsockname()[1]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        else:
            self._server = await asyncio.start_unix_server(self._connected, path, limit=1 << 20)

    def takes(self, size: int) -> None:
        """Bytes that the kernel keeps for it on each connection to come; if not said, it may be 32 MB."""
        for listening in self._server.sockets:
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    async def stop(self) -> None:
        self._server.close()
        for each in self.connections:
            each.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(reader, writer, self)
        self.connections.append(conversation)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError
        ):
            await self._handle(conversation)
        with contextlib.suppress(Exception):
            writer.close()

    @property
    def last(self) -> bytes:
        return self.heads[-1]


class Conversation(Wire):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        super().__init__(reader, writer)
        self.server = server

    async def request(self) -> bytes:
        """The next request's head; waits as long as it takes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.heads.append(head)
        return head


def saying(*answers: bytes) -> Callable[[Conversation], Awaitable[None]]:
    """A worker that reads heads and says these bytes in turn, the last one for ever."""

    async def handle(talk: Conversation) -> None:
        left = list(answers)
        while True:
            head = await talk.request()
            for length in fields(head, "content-length"):
                await talk.reader.readexactly(int(length))
            if fields(head, "transfer-encoding"):
                await talk.chunks()
            await talk.send(left.pop(0) if len(left) > 1 else left[0])

    return handle


def sized(body: bytes = b"hello", *, status: str = "200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), more, body)


class Control:
    """Control as the router sees it: a link that answers from `routes` or by hand, and an HTTP socket."""

    def __init__(self, folder: Path) -> None:
        self.link_path, self.http_path = folder / "link.sock", folder / "control.sock"
        self.routes: dict[str, dict[str, Any]] = {}
        self.keep: bool | float = True  # what is said of the routes
        self.apps: dict[str, str] = {}
        self.access: dict[str, Any] = {
            "grants": {"": [GRANT]},
            "tokens": {},
        }  # hosts of no app have one grant
        self.heard: list[dict[str, Any]] = []
        self.http = Server(saying(sized(b"control", more=b"Lazycloud-Answer: control\r\n")))
        self._links: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.link_path)
        await self.http.start(self.http_path)

    async def stop(self) -> None:
        self._server.close()
        for writer in self._links:
            writer.transport.abort()
        self._links.clear()
        await self.http.stop()
        for path in (self.link_path, self.http_path):
            path.unlink(missing_ok=True)

    def say(self, message: dict[str, Any]) -> None:
        self._links[-1].write(json.dumps(message).encode() + b"\n")

    def answer(self, ask: dict[str, Any], route: dict[str, Any], keep: bool | float | None = None) -> None:
        self.say({"answer": ask["ask"], "route": route, "keep": self.keep if keep is None else keep})

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if kind in message]

    async def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        return (await until(lambda: self.said(kind)[count - 1 :], kind))[0]

    def activity(self, deployment: str) -> dict[str, Any]:
        news = [
            each["activity"][deployment] for each in self.said("activity") if deployment in each["activity"]
        ]
        return news[-1] if news else {}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.append(writer)
        self.say({"apps": self.apps, "domain": "localhost"})
        self.say({"access": self.access})
        async for line in reader:
            message = json.loads(line)
            self.heard.append(message)
            if "ask" in message and message["host"] in self.routes:
                self.answer(message, self.routes[message["host"]])


class Router:
    """The process, started with a socket on port 0."""

    module = "lazycloud.router"

    def __init__(self, control: Control, trust: ssl.SSLContext | None = None) -> None:
        self.control = control
        self.trust = trust  # of clients that speak TLS

    async def start(
        self,
        *,
        redirect: bool = False,
        descriptors: int | None = None,
        inherited: Sequence[int] = (),
        **settings: Any,
    ) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = listener.getsockname()[1]
        ours, self.lifeline = os.pipe()
        os.set_inheritable(ours, True)
        given = {
            "listen_fds": [listener.fileno()],
            "redirect_fds": [listener.fileno()] if redirect else [],
            "control": str(self.control.http_path),
            "link": str(self.control.link_path),
            "lifeline": ours,
            "preview_key": KEY.hex(),
            "sweep": 0.05,
            "report": 0.05,
            **dict.fromkeys(
                ("head_timeout", "connect_timeout", "link_wait", "pool_idle", "drain_timeout"), AGES
            ),
            **settings,
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            "--settings",
            json.dumps(given),
            pass_fds=(listener.fileno(), ours, *inherited),
            preexec_fn=partial(limit_descriptors, descriptors) if descriptors else None,
        )
        listener.close()
        os.close(ours)

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.close(self.lifeline)
        return await self.process.wait()

    async def connect(self, takes: int = 0) -> Wire:
        """`takes`: bytes that our kernel keeps for us; if not given, it may be 32 MB."""
        own, name = socket.socket(), "app.localhost" if self.trust else None
        own.setblocking(False)
        if takes:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self.port))
            reader, writer = await asyncio.open_connection(
                sock=own, limit=1 << 20, ssl=self.trust, server_hostname=name
            )
        return Wire(reader, writer)

    async def ask(self, raw: bytes, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        wire = await self.connect()
        await wire.send(raw)
        answer = await wire.answer(method)
        wire.close()
        return answer

    async def get(self, host: str = "app.localhost", path: str = "/", **headers: str) -> Answer:
        return await self.ask(get(host, path, **headers))

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


def limit_descriptors(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, most))


def get(host: str = "app.localhost", path: str = "/", **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def to_worker(address: str, deployment: str = "d1", **route: Any) -> dict[str, Any]:
    return to_workers([address], deployment, **route)


def to_workers(addresses: Sequence[str], deployment: str = "d1", **route: Any) -> dict[str, Any]:
    return {"to": "worker", "deployment": deployment, "addresses": list(addresses), **route}
