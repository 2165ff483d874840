"""`aiohttp_proxy.py PORT BACKEND`: a reverse proxy as one writes it with aiohttp, on uvloop."""

from __future__ import annotations

import asyncio
import sys
import uuid

import aiohttp
import uvloop
from aiohttp import web

HOP = frozenset(("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host"))
session = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    """One request to the back end, its answer streamed back."""
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
    headers |= {
        "Host": request.host,
        "X-Forwarded-For": request.remote or "",
        "X-Forwarded-Proto": request.scheme,
        "X-Forwarded-Host": request.host,
        "X-Request-Id": uuid.uuid4().hex,
    }
    body = request.content.iter_chunked(65536) if request.can_read_body else None
    url = f"http://{sys.argv[2]}{request.raw_path}"
    async with request.app[session].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
        response = web.StreamResponse(status=answer.status)
        response.headers.extend(kept)
        await response.prepare(request)
        async for part in answer.content.iter_any():
            await response.write(part)
        await response.write_eof()
        return response


async def tunnel(request: web.Request) -> web.StreamResponse:
    """A websocket, message by message."""
    front = web.WebSocketResponse(max_msg_size=0)
    await front.prepare(request)
    url = f"ws://{sys.argv[2]}{request.raw_path}"
    async with request.app[session].ws_connect(url, max_msg_size=0) as back:
        await asyncio.wait(
            [asyncio.create_task(pump(front, back)), asyncio.create_task(pump(back, front))],
            return_when=asyncio.FIRST_COMPLETED,
        )
    return front


async def pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type == aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type == aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)


async def handle(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await tunnel(request)
    return await relay(request)


async def main() -> None:
    app = web.Application(client_max_size=2**40)
    connector = aiohttp.TCPConnector(limit=0)
    app[session] = aiohttp.ClientSession(connector=connector, auto_decompress=False)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=600)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
