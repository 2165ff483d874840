"""A day's worth of connections of every kind in a short while: afterwards nothing of them is left.

A longer run: LAZYCLOUD_TEST_CONNECTIONS=1000000 pytest tests/router/test_endurance.py
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE, until

from .stage import Router, get, to_worker

CONNECTIONS = int(os.environ.get("LAZYCLOUD_TEST_CONNECTIONS", "30000"))
WARM = 4000  # connections, after which pools, caches and the allocator have what they keep
THREADS = 4
GROWTH = 4_000_000  # bytes: less than 140 for each connection

WORKER = """
import asyncio, re, uvloop

HELLO = b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello"
BIG = b"HTTP/1.1 200 OK\\r\\nContent-Length: 300000\\r\\n\\r\\n" + b"x" * 300000
SWITCHED = b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n"
LENGTH = re.compile(rb"(?i)content-length: (\\d+)")

class Worker(asyncio.Protocol):
    def __init__(self):
        self.unread, self.upgraded = b"", False
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        if self.upgraded:
            self.transport.write(data)
            return
        self.unread += data
        while (end := self.unread.find(b"\\r\\n\\r\\n") + 4) > 3:
            head = self.unread[:end]
            length = LENGTH.search(head)
            end += int(length[1]) if length else 0
            if len(self.unread) < end:
                return
            self.unread = self.unread[end:]
            self.upgraded = b"\\r\\nUpgrade: " in head
            self.transport.write(SWITCHED if self.upgraded else BIG if b" /big " in head else HELLO)

async def main():
    server = await asyncio.get_running_loop().create_server(Worker, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""

ASK = get()
LAST = get(Connection="close")
UPGRADE = get(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
POST = b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000
HELLO = b"\r\n\r\nhello"


def read_until(own: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        if not (more := own.recv(65536)):
            raise ConnectionError(data)
        data += more
    return data


def one_request(own: socket.socket) -> None:
    own.sendall(LAST)
    assert read_until(own, HELLO).startswith(b"HTTP/1.1 200 ")
    assert own.recv(10) == b""


def kept_alive(own: socket.socket) -> None:
    for _ in range(5):
        own.sendall(ASK)
        read_until(own, HELLO)


def sent_ahead(own: socket.socket) -> None:
    own.sendall(ASK * 2 + LAST)
    data = b""
    while more := own.recv(65536):
        data += more
    assert data.count(HELLO) == 3


def websocket(own: socket.socket) -> None:
    own.sendall(UPGRADE)
    assert b" 101 " in read_until(own, b"\r\n\r\n")
    own.sendall(b"words")
    read_until(own, b"words")


def reset(own: socket.socket) -> None:
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def gone_at_once(own: socket.socket) -> None:
    own.sendall(ASK)
    reset(own)


def gone_in_the_head(own: socket.socket) -> None:
    own.sendall(ASK[:20])


def gone_in_the_upload(own: socket.socket) -> None:
    own.sendall(POST)
    reset(own)


def gone_in_the_answer(own: socket.socket) -> None:
    own.sendall(get(path="/big"))
    own.recv(1000)


def half_closed(own: socket.socket) -> None:
    """Whether it is still answered is not the question here."""
    own.sendall(ASK)
    own.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while own.recv(65536):
            pass


def held_and_gone(own: socket.socket) -> None:
    own.sendall(get("cold.localhost"))
    reset(own)


def malformed(own: socket.socket) -> None:
    own.sendall(b"GET / HTTP/1.1\r\nHost : app.localhost\r\n\r\n")
    assert own.recv(65536).startswith(b"HTTP/1.1 400 ")


def silent(own: socket.socket) -> None:
    """Comes and goes."""


KINDS: list[Callable[[socket.socket], None]] = [
    *([one_request] * 8),
    kept_alive,
    sent_ahead,
    websocket,
    gone_at_once,
    gone_in_the_head,
    gone_in_the_upload,
    gone_in_the_answer,
    half_closed,
    held_and_gone,
    malformed,
    silent,
]


def visit(port: int, count: int, part: int) -> None:
    """So many connections, one after the other, from addresses enough for each to find a port."""
    for number, kind in zip(range(count), itertools.cycle(KINDS), strict=False):
        with socket.socket() as own:
            own.settimeout(PATIENCE)
            own.bind((f"127.0.{part + 1}.{number % 200 + 1}", 0))
            own.connect(("127.0.0.1", port))
            kind(own)


async def visits(router: Router, count: int) -> None:
    await asyncio.gather(
        *(asyncio.to_thread(visit, router.port, count // THREADS, part) for part in range(THREADS))
    )


class WatchedRouter(Router):
    module = "tests.router.watched"

    async def census(self) -> dict[str, int]:
        """What lives in it, and its descriptors."""
        file = Path(f"{self.control.link_path}.census")
        file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        await until(file.exists)
        descriptors = len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
        return {**json.loads(file.read_text()), "descriptors": descriptors}


@asynccontextmanager
async def worker_process() -> AsyncIterator[str]:
    """The address of a worker that is as quick as can be."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


async def at_rest(router: WatchedRouter, control: Any) -> dict[str, int]:
    """What lives in it when nobody is connected any more, and every closed connection's transport is gone."""
    await until(lambda: not any(control.activity("d1")[now] for now in ("open", "sockets")))
    async with asyncio.timeout(PATIENCE):
        while (census := await router.census()).keys() & {"Client", "Upstream", "TCPTransport"}:
            await asyncio.sleep(0.1)
    return census


@pytest.mark.slow
@pytest.mark.timeout(120 + CONNECTIONS // 300)
async def test_after_a_days_worth_of_connections_everything_is_as_it_was(control) -> None:
    router = WatchedRouter(control)
    await router.start(pool_idle=2, keep_alive=2, head_timeout=2, linger=2)  # who visits pauses for less
    try:
        async with worker_process() as address:
            control.routes["app.localhost"] = to_worker(address)
            await visits(router, WARM)
            before, memory = await at_rest(router, control), router.rss()
            await visits(router, CONNECTIONS)
            after = await at_rest(router, control)
            grown = router.rss() - memory
            assert after == before
            assert grown < GROWTH, f"{grown / 1e6:.1f} MB"
            assert control.activity("d1")["requests"] > CONNECTIONS * 0.7
            asked, left = len(control.said("ask")), len(control.said("leave"))
            assert asked > left > CONNECTIONS // len(KINDS) * 0.9
    finally:
        await router.stop()
