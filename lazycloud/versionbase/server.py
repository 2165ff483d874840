"""The server of a versionbase: lets clients in who have a key, and looks after what they leave.

One event loop serves all of them. What is short is done as it arrives, what takes a while in turns (`turns`), and
commits in the engine's own thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server as Websockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Subprotocol

from lazycloud import __version__
from lazycloud.errors import LazycloudError, NotFound
from lazycloud.versionbase import protocol
from lazycloud.versionbase.building import Building
from lazycloud.versionbase.connection import AT_ONCE, TRANSACTIONS, Connection
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.intake import Intake, Socket
from lazycloud.versionbase.keys import Keys
from lazycloud.versionbase.outbox import AGAIN, ROOM
from lazycloud.versionbase.problems import Busy, Denied, Exists, Gone
from lazycloud.versionbase.protocol import DENIED, ENCODINGS, FRAME, GREETING, Encoding, Malformed, Request
from lazycloud.versionbase.requests import check_version
from lazycloud.versionbase.storage import Branch
from lazycloud.versionbase.turns import Turns

PRODUCTION = "production"
GREETING_TIME = 10.0  # seconds until a client has said hello
STANDSTILL = 30.0  # seconds for which a client may take nothing of what it is sent
IDLE = 60.0  # seconds for which a transaction may be left alone
CONNECTIONS = 2000  # to one version, which shares the server with others
HELD = 256 << 20  # bytes that the open transactions of one version may have written
WRONG = 1.0  # seconds that a wrong key is answered after
WRONG_AT_ONCE = 20  # wrong keys of one address that wait for that; further ones are turned away at once
STOPPING = 4.0  # seconds for clients to say goodbye
LOOK = 1.0  # seconds between two looks at what clients leave

_END = object()

log = logging.getLogger(__name__)


class Server:
    def __init__(
        self,
        engine: Engine,
        keys: Keys,
        *,
        compress: bool = False,
        greeting_time: float = GREETING_TIME,
        standstill: float = STANDSTILL,
        idle: float = IDLE,
    ) -> None:
        self.engine = engine
        self.keys = keys
        self.idle = idle
        self.turns = Turns()
        self._compress = compress
        self._greeting_time = greeting_time
        self._standstill = standstill
        self._connections: set[Connection] = set()
        self._sockets: set[Socket] = set()
        self.intake = Intake()
        self._wrong: Counter[str] = Counter()  # keys that are being answered, by address
        self._settled: deque[Callable[[], None]] = deque()
        self._is_settling = False
        self._listening: Websockets | None = None
        self._looking: asyncio.Task[None] | None = None
        self._aside = ThreadPoolExecutor(4, "versionbase-aside")
        self.building = Building(engine, self.behind, self.over)
        self._unix: Path | None = None
        self._began = time.monotonic()
        self._requests = 0  # of connections that have ended

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; the port. Raises OSError."""
        await self._listen(host=host, port=port)
        assert self._listening is not None
        found: int = self._listening.sockets[0].getsockname()[1]
        return found

    async def open_unix(self, path: Path) -> None:
        """Listen on a socket that this user alone can use. Raises OSError, also if somebody listens there."""
        _remove_left(path)
        before = os.umask(0o177)
        try:
            await self._listen(unix=True, path=str(path))
        finally:
            os.umask(before)
        self._unix = path

    async def demand_production(self) -> None:
        """Every versionbase has it; it begins empty. Raises LazycloudError."""
        with suppress(Exists):
            await asyncio.wrap_future(self.make(PRODUCTION, ""))

    async def _listen(self, **where: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = await serve(
            self._serve,
            subprotocols=[Subprotocol(name) for name in ENCODINGS],
            select_subprotocol=_select,
            compression="deflate" if self._compress else None,
            process_request=_look_at,
            server_header=None,
            open_timeout=self._greeting_time,
            ping_interval=30,
            ping_timeout=60,
            close_timeout=2,
            max_size=GREETING,
            max_queue=(4, 1),
            write_limit=(ROOM, AGAIN),
            create_connection=Socket,
            logger=_quiet(),
            backlog=1024,
            **where,
        )
        self._looking = asyncio.create_task(self._look_after_clients(), name="look after clients")
        self.building.start()

    async def close(self) -> None:
        """Accept nobody, finish what is being committed, and say goodbye; within some seconds."""
        await self.building.stop()
        if self._looking is not None:
            self._looking.cancel()
        if self._listening is not None:
            self._listening.close(close_connections=False)
            for connection in self._connections:
                connection.begin_nothing()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOPPING / 2):
                    await asyncio.gather(*(connection.answered() for connection in self._connections))
            goodbyes = [connection.say_goodbye() for connection in self._connections]
            with suppress(TimeoutError):
                async with asyncio.timeout(STOPPING / 2):
                    await asyncio.gather(*goodbyes)
            for socket in self._sockets:  # of those who have not said hello, or did not say goodbye
                socket.transport.abort()
            with suppress(TimeoutError):  # of those who have not even asked for a websocket
                async with asyncio.timeout(STOPPING / 8):
                    await self._listening.wait_closed()
        self._aside.shutdown()
        if self._unix is not None:
            self._unix.unlink(missing_ok=True)

    # Clients

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, Socket)
        self._sockets.add(socket)
        try:
            await self._serve_client(await self._greet(socket, ENCODINGS[str(socket.subprotocol)]))
        except ConnectionClosed:
            pass
        except Malformed as problem:
            await socket.close(problem.code, problem.reason)
        finally:
            self._sockets.discard(socket)

    async def _serve_client(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._requests += connection.requests

    async def _greet(self, socket: Socket, encoding: Encoding) -> Connection:
        """Raises Malformed for what is no hello, or none in time."""
        try:
            async with asyncio.timeout(self._greeting_time):
                frame = protocol.identified(encoding.read(await socket.recv()))
        except TimeoutError:
            raise Malformed(DENIED, "nobody said hello") from None
        if frame.get("do") != "hello":
            raise Malformed(DENIED, "hello comes first")
        hello = Request(frame)
        try:
            branch, is_owner = await self._let_in(hello)
        except LazycloudError as problem:
            if isinstance(problem, Denied):
                await self._punish(socket)
            await socket.send(protocol.error(encoding, hello.id, problem), text=encoding.is_text)
            raise Malformed(DENIED, "no key" if isinstance(problem, Denied) else "no version") from None
        if sum(each.version == branch.name for each in self._connections) >= CONNECTIONS:
            busy = Busy(f"There are {CONNECTIONS:,} connections to this version.", "Close some of them.")
            await socket.send(protocol.error(encoding, hello.id, busy), text=encoding.is_text)
            raise Malformed(DENIED, "too many connections")
        socket.protocol.max_message_size = FRAME
        socket.let_in(branch.name, self.intake)
        connection = Connection(self, socket, encoding, branch, is_owner)
        connection.outbox.put(protocol.ok(encoding, hello.id, self._welcome(branch)))
        return connection

    async def _let_in(self, hello: Request) -> tuple[Branch, bool]:
        """Raises Denied, and what `make` raises."""
        name, key = hello.text("version"), hello.text("key")
        if self.keys.is_owner(key):
            try:
                return self.engine.storage.branch(check_version(name)), True
            except NotFound:
                source = hello.text("from", "" if name == PRODUCTION else PRODUCTION)
            with suppress(Exists):  # another was faster
                await asyncio.wrap_future(self.make(name, source))
            return self.engine.storage.branch(name), True
        with suppress(NotFound):
            branch = self.engine.storage.branch(name)
            if self.keys.opens(key, name, branch.birth):
                return branch, False
        raise Denied(f"The key opens no version {name[:80]}.", "It is wrong, or that version was removed.")

    async def _punish(self, socket: ServerConnection) -> None:
        """Whoever tries keys waits. A right one is let in all the same: neighbours may share an address."""
        address = str(socket.remote_address[0]) if socket.remote_address else ""
        if self._wrong[address] >= WRONG_AT_ONCE:
            raise Malformed(DENIED, "too many wrong keys")
        self._wrong[address] += 1
        try:
            await asyncio.sleep(WRONG)
        finally:
            self._wrong[address] -= 1
            if not self._wrong[address]:
                del self._wrong[address]

    def _welcome(self, branch: Branch) -> dict[str, Any]:
        return {
            "server": f"lazycloud {__version__}",
            "version": branch.name,
            "sequence": branch.sequence,
            "limits": {
                "document": 16 << 20,
                "frame": FRAME,
                "requests": AT_ONCE,
                "transactions": TRANSACTIONS,
            },
        }

    async def _look_after_clients(self) -> None:
        """End transactions that were left alone, and connections of clients that take nothing."""
        while True:
            await asyncio.sleep(min(LOOK, self.idle / 4, self._standstill / 4))
            now = time.monotonic()
            for connection in list(self._connections):
                connection.end_idle_transactions(now - self.idle)
                if connection.outbox.standstill(now) > self._standstill:
                    log.error(
                        "A client of %s took nothing for %g s: closed.", connection.version, self._standstill
                    )
                    connection.abandon()
            for socket in list(self._sockets):
                if socket.standstill(now) > self._standstill:
                    log.error(
                        "A client of %s sent nothing more of a frame for %g s, for which others waited: closed.",
                        socket.version,
                        self._standstill,
                    )
                    socket.transport.abort()

    # What connections need

    def demand_memory(self, version: str, size: int) -> None:
        """Raises Busy where the open transactions of a version hold more than one may, with so many bytes more."""
        held = sum(each.held for each in self._connections if each.version == version)
        if held + size > HELD:
            raise Busy(
                f"The open transactions of this version hold {held >> 20} MB; {HELD >> 20} MB may be held.",
                "Commit or abort some.",
            )

    def settle(self, answer: Callable[..., None], *arguments: Any) -> None:
        """Call it on the loop, soon; from any thread. Those of one group of commits wake the loop once."""
        self._settled.append(partial(answer, *arguments))
        if not self._is_settling:
            self._is_settling = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits for an answer
                self._loop.call_soon_threadsafe(self._settle_all)

    async def over(self, step: Future[Any]) -> None:
        """Wait until it is, whatever it came to: that is for somebody else to see."""
        over: asyncio.Future[None] = self._loop.create_future()
        step.add_done_callback(lambda _: self.settle(_wake, over))
        await over

    def _settle_all(self) -> None:
        self._is_settling = False
        while self._settled:
            self._settled.popleft()()

    def behind(self, steps: Iterator[Any]) -> Iterator[Any]:
        """The same, each taken in another thread: they are longer than a turn. Futures are to be waited for."""
        while True:
            step = self._aside.submit(next, steps, _END)
            yield step
            if (item := step.result()) is _END:
                return
            yield item

    def branch(self, version: str, birth: str) -> Branch:
        """Raises Gone if it was removed, also if there is another of its name."""
        with suppress(NotFound):
            found = self.engine.storage.branch(version)
            if found.birth == birth:
                return found
        raise Gone(f"The version {version[:80]} was removed.", "Connect again to have a new one.")

    def make(self, name: str, source: str, snapshot: str = "") -> Future[Branch]:
        """A version that is forked from another; an empty one from "". Raises Exists, NotFound."""
        storage = self.engine.storage
        return self.engine.change(
            lambda: storage.fork(name, source, snapshot) if source else storage.begin(name)
        )

    def figures(self, version: str | None) -> dict[str, Any]:
        """Of those who use a version; of all for None."""
        of = [each for each in self._connections if version in (None, each.version)]
        told = {"transactions": sum(each.transactions for each in of), "connections": len(of)}
        if version is not None:
            return told
        requests = self._requests + sum(each.requests for each in of)
        return {**told, "requests": requests, "seconds": round(time.monotonic() - self._began, 3)}


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _look_at(socket: ServerConnection, request: HttpRequest) -> Response | None:
    """Refuse in words what is no client of ours."""
    if request.path.partition("?")[0] != "/":
        return socket.respond(
            HTTPStatus.NOT_FOUND, "There is nothing at this path; the versionbase is at /.\n"
        )
    if "upgrade" not in request.headers.get("Connection", "").lower():
        return socket.respond(HTTPStatus.UPGRADE_REQUIRED, "This is a versionbase, which speaks websocket.\n")
    offered = [
        name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")
    ]
    if protocol.chosen(offered) is None:
        known = " and ".join(ENCODINGS)
        said = (
            f"This versionbase speaks {known}, and the client offers {', '.join(offered)[:200] or 'none'}.\n"
        )
        return socket.respond(HTTPStatus.BAD_REQUEST, said)
    return None


def _select(_: ServerConnection, offered: Any) -> Subprotocol | None:
    found = protocol.chosen(offered)
    return Subprotocol(found.name) if found else None


def _quiet() -> logging.Logger:
    """What the library says of strangers who are no clients is not worth a line."""
    logger = logging.getLogger("lazycloud.versionbase.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


def _remove_left(path: Path) -> None:
    """A socket that nobody listens on any more. Raises OSError if somebody does, or if it is something else."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(17, "something else is there", str(path))
    with sockets.socket(sockets.AF_UNIX) as tried:
        try:
            tried.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(98, "somebody listens there", str(path))
