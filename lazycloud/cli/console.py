"""The near end of a command that runs on the server: docs/protocols.md has the frames.

Input is read and output written by threads, as files, pipes and terminals let nobody ask whether they would block;
the socket is read all the while, so that a pager which stands still costs nothing but time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import signal
import struct
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import aiohttp

from lazycloud.cli.client import Client, Refused, Unreachable
from lazycloud.errors import LazycloudError

WINDOW = 1 << 20  # bytes that each side takes before it has said anything
PIECE = 1 << 16
HEARTBEAT = 20.0  # seconds between pings
CONNECT_SECONDS = 15.0
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPTS = 3  # after so many the command is left, which ends it


def run_there(
    client: Client, path: str, query: Mapping[str, str], command: str | None, is_terminal: bool
) -> int:
    """Run a command, or a shell for None, until it ends; its exit status as a shell has it.

    Raises what keeps it from running.
    """
    return asyncio.run(_connect(client, path, query, command, is_terminal))


async def _connect(
    client: Client, path: str, query: Mapping[str, str], command: str | None, is_terminal: bool
) -> int:
    place = client.place
    connector = aiohttp.UnixConnector(str(place.socket)) if place.socket else None
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, headers=place.headers, timeout=timeout) as session,
            session.ws_connect(
                place.url.rstrip("/") + path,
                params=query,
                heartbeat=HEARTBEAT,
                max_msg_size=4 * WINDOW,
                compress=0,
            ) as socket,
        ):
            return await Conversation(socket, is_terminal).hold(command)
    except aiohttp.WSServerHandshakeError as problem:
        client.get(path, **query)  # says why, and raises that
        raise Unreachable(f"The server answered {problem.status}, and not as a websocket.") from problem
    except (aiohttp.ClientError, OSError) as problem:
        if isinstance(problem, BrokenPipeError):  # of our own reader
            raise
        raise client.unreachable from problem


class Conversation:
    """One command, from its first frame to its status."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, is_terminal: bool) -> None:
        self._socket = socket
        self._is_terminal = is_terminal
        self._loop = asyncio.get_running_loop()
        self._writes: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._may_read: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._left: asyncio.Future[int] = (
            self._loop.create_future()
        )  # the status of who does not wait for an end
        self._interrupts = 0
        self._stack = ExitStack()
        self._building = ExitStack()
        self._view: Any = None

    async def hold(self, command: str | None) -> int:
        """Until it has ended and its output is written."""
        writing = asyncio.create_task(self._write(), name="write output")
        sending = asyncio.create_task(self._send_input(), name="send input")
        listening = asyncio.create_task(self._listen(command), name="listen")
        try:
            waited: set[asyncio.Future[Any]] = {writing, listening, self._left}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._left.done():
                return self._left.result()
            if listening.done():
                self._writes.put_nowait(None)
            await writing  # raises if nobody reads what we write
            return await listening
        finally:
            for task in (writing, sending, listening):
                task.cancel()
            await asyncio.gather(writing, sending, listening, return_exceptions=True)
            self._building.close()
            self._stack.close()

    async def _listen(self, command: str | None) -> int:
        terminal = {"size": _size(), "kind": os.environ.get("TERM", "dumb")} if self._is_terminal else None
        wish: dict[str, Any] = {"shell": True} if command is None else {"command": command}
        await self._socket.send_json(wish | {"terminal": terminal})
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self._writes.put_nowait((message.data[0], message.data[1:]))
            elif message.type is aiohttp.WSMsgType.TEXT:
                words = message.json()
                if "ended" in words:
                    return _as_shells_do(words["ended"])
                self._heed(words)
        raise LazycloudError("The server went away, and the command with it.")

    def _heed(self, words: dict[str, Any]) -> None:
        if error := words.get("error"):
            raise Refused(502, error["sentence"], error.get("advice") or "")
        if event := words.get("event"):
            self._show(event)
        elif "began" in words:
            self._begin()
        elif "take" in words:
            self._may_read.put(words["take"])

    def _show(self, event: dict[str, Any]) -> None:
        """It is being built."""
        from lazycloud.cli.progress import view

        if self._view is None:
            self._view = self._building.enter_context(view(as_json=False))
        self._view.show(event)

    def _begin(self) -> None:
        """Only now is the terminal the command's: Ctrl-C before ends us."""
        self._building.close()
        if self._is_terminal:
            self._stack.enter_context(_raw_terminal())
            self._loop.add_signal_handler(signal.SIGWINCH, self._tell_size)
            self._tell_size()
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._loop.add_signal_handler(number, self._leave, number)
        else:
            for number in PASSED_ON:
                self._loop.add_signal_handler(number, self._pass_on, number)
        if self._is_terminal or not os.isatty(0):
            self._may_read.put(WINDOW)
            threading.Thread(target=self._read_input, name="read input", daemon=True).start()
        else:
            self._input.put_nowait(b"")

    def _pass_on(self, number: signal.Signals) -> None:
        """To the command. Who presses Ctrl-C again and again does not want to wait for what heeds none."""
        self._interrupts += number is signal.SIGINT
        if self._interrupts >= INTERRUPTS:
            self._leave(number)
        else:
            self._tell(signal=number.name.removeprefix("SIG"))

    def _leave(self, number: signal.Signals) -> None:
        if not self._left.done():
            self._left.set_result(128 + number)

    def _tell_size(self) -> None:
        self._tell(size=_size())

    def _tell(self, **words: Any) -> None:
        telling = self._loop.create_task(self._socket.send_json(words), name="tell")
        telling.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _read_input(self) -> None:
        """In a thread of its own, which may wait for a key when all is over."""
        room = 0
        while True:
            room += self._may_read.get() if room <= 0 else 0
            try:
                data = os.read(0, min(room, PIECE))
            except OSError:
                data = b""
            room -= len(data)
            try:
                self._loop.call_soon_threadsafe(self._input.put_nowait, data)
            except RuntimeError:  # the loop is closed
                return
            if not data:
                return

    async def _send_input(self) -> None:
        while True:
            data = await self._input.get()
            await self._socket.send_bytes(data)
            if not data:
                return

    async def _write(self) -> None:
        """What came, in order; one that is read slowly lets the command wait."""
        handed: queue.SimpleQueue[tuple[int, bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._write_output, args=[handed], name="write output", daemon=True).start()
        while piece := await self._writes.get():
            written = self._loop.create_future()
            handed.put((*piece, written))
            await written
            with contextlib.suppress(ConnectionError):  # the command has ended, and this is the rest
                await self._socket.send_json({"take": len(piece[1])})

    def _write_output(self, handed: queue.SimpleQueue[tuple[int, bytes, asyncio.Future[None]]]) -> None:
        """In a thread of its own, which may wait for a reader when all is over."""
        while True:
            stream, data, written = handed.get()
            problem: OSError | None = None
            try:
                _write_all(stream, data)
            except OSError as failed:
                problem = failed
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(_settle, written, problem)


def _settle(written: asyncio.Future[None], problem: OSError | None) -> None:
    if written.done():
        return
    if problem:
        written.set_exception(problem)
    else:
        written.set_result(None)


def _write_all(stream: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(stream, rest) :]
        except BlockingIOError:  # somebody else who has this terminal or pipe made it so
            os.set_blocking(stream, True)


def _as_shells_do(status: int) -> int:
    return status if status >= 0 else 128 - status


def _size() -> list[int]:
    with contextlib.suppress(OSError):
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)))
        return [rows, columns]
    return [24, 80]


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Each key goes to the command at once, Ctrl-C too; as it was afterwards."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
