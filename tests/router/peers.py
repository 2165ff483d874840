"""Servers people run behind a router, each asked what it understands of a stream of requests."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from gunicorn.config import Config as GunicornConfig
from gunicorn.http.parser import RequestParser
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.waiting import PATIENCE

from .strict import Fields, Message, read_request

# Comes after the others: a peer that waits for more, or saw an end elsewhere, gives itself away.
LAST = b"GET /last HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """A request as a server's application gets it. Names are lower case, values stripped."""

    method: bytes
    path: bytes
    query: bytes  # empty when there is none: ASGI does not tell `/?` from `/`
    headers: tuple[tuple[bytes, tuple[bytes, ...]], ...]  # by name; the values of one name in order
    body: bytes


def seen(method: bytes, target: bytes, fields: Fields, body: bytes) -> Seen:
    path, _, query = target.partition(b"?")
    names = sorted({name for name, _ in fields})
    return Seen(
        method, path, query, tuple((n, tuple(v for name, v in fields if name == n)) for n in names), body
    )


class Peer:
    name = ""
    once: frozenset[bytes] = frozenset()  # headers that it refuses to see twice, though they may be
    leaks_trailers = False  # whether it takes the last trailer of a request for a header of the next

    async def start(self) -> None:
        """Before the first `read`."""

    async def stop(self) -> None:
        """After the last one."""

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        """What it sees when these bytes come one after the other, the last of them closing the connection.

        As from the router, the next ones come when the ones before are answered. Any exception: it refuses them.
        """
        raise NotImplementedError

    def sees(self, message: Message) -> Seen:
        """How its application should see that request."""
        return seen(*message.start, message.fields, message.body)


class H11(Peer):
    name = "h11"

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        connection = h11.Connection(h11.SERVER)
        return [found for raw in requests for found in self._feed(connection, raw)]

    def _feed(self, connection: h11.Connection, raw: bytes) -> Iterator[Seen]:
        if connection.our_state is h11.DONE:
            connection.start_next_cycle()
        connection.receive_data(raw)
        while isinstance(event := connection.next_event(), (h11.Request, h11.Data, h11.EndOfMessage)):
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                yield seen(request.method, request.target, tuple(request.headers), body)
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())


class Aiohttp(Peer):
    """`parser`: its C one or its pure one."""

    once = frozenset(
        b"content-location content-range content-type etag max-forwards server user-agent".split()
    )

    def __init__(self, parser: type[HttpRequestParserPy]) -> None:
        self._parser = parser
        self.leaks_trailers = parser is not HttpRequestParserPy
        self.name = f"aiohttp {'pure' if parser is HttpRequestParserPy else 'C'}"

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        loop = asyncio.get_running_loop()
        parser = self._parser(BaseProtocol(loop), loop, 1 << 20, auto_decompress=False)
        return [found for raw in requests for found in self._feed(parser, raw)]

    def _feed(self, parser: HttpRequestParserPy, raw: bytes) -> Iterator[Seen]:
        messages, _, tail = parser.feed_data(raw)
        assert not tail, "aiohttp left something over"
        parser.set_upgraded(False)  # as its server does when the application does not
        for message, payload in messages:
            assert payload.is_eof(), "aiohttp waits for more"
            fields = tuple((name.lower(), value) for name, value in message.raw_headers)
            target = message.path.encode("utf-8", "surrogateescape")
            yield seen(message.method.encode(), target, fields, payload.read_nowait(-1))


class Gunicorn(Peer):
    name = "gunicorn"

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        found = []
        for request in RequestParser(GunicornConfig(), iter(requests), ("127.0.0.1", 1)):
            body = request.body.read()
            headers = ((n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in request.headers)
            found.append(seen(request.method.encode(), request.uri.encode("latin-1"), tuple(headers), body))
        return found


class Uvicorn(Peer):
    """The server itself, on a socket, with one of its two parsers."""

    def __init__(self, protocol: Callable[..., Any]) -> None:
        self._protocol = protocol
        self.name = f"uvicorn {protocol.__name__}"
        self._found: dict[int, list[Seen]] = {}

    async def start(self) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it warns of every upgrade
        config = UvicornConfig(
            self._app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    def sees(self, message: Message) -> Seen:
        trailers = () if self._protocol is H11Protocol else message.trailers  # httptools makes them headers
        return seen(*message.start, message.fields + trailers, message.body)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            assert event["type"] == "http.request"
            body, more = body + event["body"], event["more_body"]
        target = scope["raw_path"] + b"?" + scope["query_string"]
        fields = tuple(
            (name, value.strip(b" \t")) for name, value in scope["headers"]
        )  # llhttp keeps those behind
        found = seen(scope["method"].encode(), target, fields, body)
        self._found.setdefault(scope["client"][1], []).append(found)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        return self._found.pop(await converse(self.port, requests), [])


NODE = """
const lines = (raw) => raw.map((each) => Buffer.from(each, 'latin1').toString('base64'))
const server = require('http').createServer((request, response) => {
  const { socket, method, url, rawHeaders } = request, body = []
  request.on('data', (data) => body.push(data))
  request.on('end', () => {
    console.log(JSON.stringify({ port: socket.remotePort, method, url: lines([url])[0],
      headers: lines(rawHeaders), body: Buffer.concat(body).toString('base64') }))
    response.end()
  })
})
server.on('connection', (socket) => {
  const port = socket.remotePort
  socket.on('close', () => console.log(JSON.stringify({ port, closed: true })))
})
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
"""


class Node(Peer):
    """One process for all streams, which prints what it sees."""

    name = "node"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "node", "-e", NODE, stdout=asyncio.subprocess.PIPE, limit=1 << 22
        )
        self.port = (await self._line())["port"]

    async def stop(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return dict(json.loads(await self._process.stdout.readline()))

    async def read(self, requests: Sequence[bytes]) -> list[Seen]:
        port, found = await converse(self.port, requests), []
        while True:
            line = await self._line()
            if line["port"] != port:
                continue  # of a connection that was given up
            if "closed" in line:
                return found
            raw = [base64.b64decode(each) for each in line["headers"]]
            fields = tuple((n.lower(), v) for n, v in zip(raw[::2], raw[1::2], strict=True))
            body, target = base64.b64decode(line["body"]), base64.b64decode(line["url"])
            found.append(seen(line["method"].encode(), target, fields, body))


async def converse(port: int, requests: Sequence[bytes]) -> int:
    """Send each when the one before is answered, until the other side closes; the port they came from."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ours = int(writer.get_extra_info("sockname")[1])
        try:
            for raw in requests:
                writer.write(raw)
                while (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
                    pass
            await reader.read()
        except (ConnectionResetError, asyncio.IncompleteReadError):
            pass  # it had enough
        writer.close()
    return ours


async def read_all(peers: Sequence[Peer], raws: Sequence[bytes], requests: Sequence[Message]) -> None:
    """Fails unless each peer sees in `raws`, which came on one connection, just these requests."""
    last = read_request(LAST)[0]
    repeated = {name for request in requests for name, _ in request.fields if len(request.values(name)) > 1}
    for peer in peers:
        if peer.once & repeated:
            continue
        closed = peer.leaks_trailers and requests[-1].trailers  # behind those the router sends no more
        said = [*raws] if closed else [*raws, LAST]
        wanted = [*requests] if closed else [*requests, last]
        assert await peer.read(said) == [peer.sees(request) for request in wanted], peer.name


def all_peers() -> list[Peer]:
    """Node's only where there is one."""
    found: list[Peer] = [
        H11(),
        Aiohttp(HttpRequestParser),
        Aiohttp(HttpRequestParserPy),
        Gunicorn(),
        Uvicorn(HttpToolsProtocol),
        Uvicorn(H11Protocol),
    ]
    return found + [Node()] * bool(shutil.which("node"))
