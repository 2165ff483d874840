"""A server with scripted answers on the unix socket of a home: what the command line talks to in these tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from lazycloud.config import Config

HANG_UP = object()  # in a stream: the connection is lost here
HANG = object()  # in a stream: nothing more comes, and the connection stays


class ScriptedServer:
    """Answers by method and path, and keeps what was asked. An unknown path is an error of the API."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.tokens: list[str] = []
        self._answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self._streams: dict[str, list[Sequence[Any]]] = {}
        self._runner: web.AppRunner | None = None
        self.hung = asyncio.Event()

    def answer(self, call: str, body: Any, status: int = 200) -> None:
        method, _, path = call.partition(" ")
        self._answers[method, path] = (status, body)

    def refuse(self, call: str, status: int, sentence: str, advice: str = "", **more: Any) -> None:
        self.answer(call, {"error": {"kind": "x", "sentence": sentence, "advice": advice, **more}}, status)

    def stream(self, path: str, *connections: Sequence[Any]) -> None:
        """Each connection to `path` gets the next of these."""
        self._streams[path] = list(connections)

    def asked(self, call: str) -> list[dict[str, Any]]:
        """The queries or bodies of all calls of this method and path."""
        method, _, path = call.partition(" ")
        return [given for one, at, given in self.calls if (one, at) == (method, path)]

    async def start(self) -> None:
        socket = Config(home=self.home).api_socket
        socket.parent.mkdir(parents=True, exist_ok=True)
        await self._runner_of().setup()
        await web.UnixSite(self._runner_of(), str(socket)).start()

    async def start_tcp(self) -> int:
        await self._runner_of().setup()
        site = web.TCPSite(self._runner_of(), "127.0.0.1", 0)
        await site.start()
        return int(self._runner_of().addresses[0][1])

    async def stop(self) -> None:
        await self._runner_of().cleanup()

    def _runner_of(self) -> web.AppRunner:
        if self._runner is None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._handle)
            self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        return self._runner

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        given = await _given(request)
        self.calls.append((request.method, request.path, given))
        self.tokens.append(request.headers.get("Authorization", ""))
        if request.path in self._streams:
            return await self._play(request, self._streams[request.path].pop(0))
        missing = {"error": {"kind": "not found", "sentence": f"No {request.path}.", "advice": ""}}
        status, body = self._answers.get((request.method, request.path), (404, missing))
        if body is HANG:
            self.hung.set()
            await asyncio.sleep(3600)
        if isinstance(body, str):
            return web.Response(status=status, text=body)
        return web.json_response(body, status=status)

    async def _play(self, request: web.Request, entries: Sequence[Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for entry in entries:
            if entry is HANG_UP:
                assert request.transport is not None
                request.transport.abort()
                return response
            if entry is HANG:
                self.hung.set()
                await asyncio.sleep(3600)
            await response.write(json.dumps(entry).encode() + b"\n")
        await response.write_eof()
        return response


async def _given(request: web.Request) -> dict[str, Any]:
    if request.method == "GET":
        return dict(request.query)
    if request.content_type == "application/x-www-form-urlencoded":
        return dict(await request.post())
    return await request.json()
