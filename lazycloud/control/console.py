"""A command that somebody runs from afar: its input, output and terminal over a websocket.

Each side says how much it can take (`take`), and the other sends no more than that: so both always read the socket,
who is slow makes the other wait, and pings tell who is gone. docs/protocols.md has the frames.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from lazycloud.control.progress import of_deployment
from lazycloud.control.views import error_view
from lazycloud.deployments.deployment import Deployment, Key
from lazycloud.deployments.errands import Errands
from lazycloud.errors import BadInput, LazycloudError
from lazycloud.events import EventLog
from lazycloud.workers.errand import Errand, Terminal

log = logging.getLogger(__name__)

HEARTBEAT = 20.0  # seconds between pings; who answers none for half of that is gone
WISH_SECONDS = 20.0  # for the first frame
WINDOW = 1 << 20  # bytes that each side takes before it has said anything
PIECE = 1 << 16  # bytes of output in one frame
FRAME_MOST = 1 << 18  # bytes of one frame from a client
COMMAND_MOST = 100_000  # bytes; the kernel takes 131,071 in one argument
LAST_OUTPUT = 1.0  # seconds without any, when a command has ended and somebody else holds its output
SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")}
KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")  # what TERM may be: names of terminfo


# What the app's [env] says, else one that has a history and completes, else what every system has.
SHELL = '[ -z "$SHELL" ] || exec "$SHELL"; bash=$(command -v bash) && exec "$bash" --norc; exec sh'


@dataclass(frozen=True)
class Wish:
    """What is to be run, "" for a shell. `terminal`: None for input, output and errors apart."""

    command: str
    terminal: Terminal | None


Begin = Callable[[Wish], AbstractAsyncContextManager[Errand]]


class Console:
    def __init__(self, errands: Errands, events: EventLog) -> None:
        self._errands = errands
        self._events = events

    async def run(self, request: web.Request, deployment: Deployment, who: str) -> web.WebSocketResponse:
        """Run what the first frame wishes, as long as the client is there."""

        def begin(wish: Wish) -> AbstractAsyncContextManager[Errand]:
            # What a client calls it does not count: people read here what was done.
            command, told = (wish.command, "") if wish.command else (shell_line(deployment.key), "a shell")
            return self._errands.begin(deployment, command, wish.terminal, who, told)

        return await self.hold(request, deployment, begin)

    async def hold(self, request: web.Request, deployment: Deployment, begin: Begin) -> web.WebSocketResponse:
        """Run what `begin` makes of the first frame, as long as the client is there."""
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, compress=False, max_msg_size=FRAME_MOST)
        if not socket.can_prepare(request):
            raise BadInput("A command is run over a websocket.", "`lazycloud run` speaks it.")
        await socket.prepare(request)
        line = Line(socket)
        listening = asyncio.create_task(line.listen(), name="the client of a command")
        working = asyncio.create_task(self._answer(line, deployment, begin), name=f"run in {deployment.id}")
        try:
            await asyncio.wait({listening, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)
            await socket.close()
        return socket

    async def _answer(self, line: Line, deployment: Deployment, begin: Begin) -> None:
        try:
            wish = await line.first()
            async with self._telling_of_the_build(line, deployment) as building:
                async with begin(wish) as errand:
                    building.cancel()
                    await line.send(began=deployment.id)
                    status = await attend(line, errand)
                await line.send(ended=status)
        except LazycloudError as problem:
            await line.send(**error_view(problem))
        except ConnectionError:
            raise
        except Exception as bug:
            log.exception("A command in %s met a bug", deployment.id)
            failure = LazycloudError(f"lazycloud failed: {type(bug).__name__}.", "Its log says more.")
            await line.send(**error_view(failure))

    @asynccontextmanager
    async def _telling_of_the_build(
        self, line: Line, deployment: Deployment
    ) -> AsyncIterator[asyncio.Task[None]]:
        """While the block lasts, or until it is cancelled, the client is told of the deploy that it waits for."""

        after = self._events.last

        async def tell() -> None:
            async for recorded in self._events.follow(after, of_deployment(deployment)):
                await line.send(event=recorded.as_dict())

        telling = asyncio.create_task(tell(), name="tell of a build")
        try:
            yield telling
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)


class Line:
    """The client's side of the socket, and what it has sent: nothing here waits for a command."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.errand: Errand | None = None
        self.input: asyncio.Queue[bytes] = asyncio.Queue()  # bounded by what the client may send
        self._socket = socket
        self._may_send, self._may_come = WINDOW, WINDOW
        self._more = asyncio.Event()
        self._wish: asyncio.Future[Wish] = asyncio.get_running_loop().create_future()

    async def first(self) -> Wish:
        """The first frame. Raises BadInput when none comes."""
        try:
            return await asyncio.wait_for(self._wish, WISH_SECONDS)
        except TimeoutError:
            raise BadInput("The first frame, which says what to run, did not come.") from None

    async def listen(self) -> None:
        """Until the client is gone, or sends what cannot be."""
        try:
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    self._take_input(message.data)
                elif message.type is WSMsgType.TEXT:
                    self._take_words(message.data)
        except BadInput as problem:
            await self.send(**error_view(problem))

    async def send(self, **words: Any) -> None:
        await self._socket.send_json(words)

    async def send_output(self, stream: int, data: bytes) -> None:
        self._may_send -= len(data)
        await self._socket.send_bytes(bytes([stream]) + data)

    async def room(self) -> int:
        """Wait until the client takes output; how many bytes."""
        while self._may_send <= 0:
            self._more.clear()
            await self._more.wait()
        return self._may_send

    async def taken(self, count: int) -> None:
        """So many bytes of input have gone on: the client may send as many more."""
        self._may_come += count
        await self.send(take=count)

    def _take_input(self, data: bytes) -> None:
        self._may_come -= len(data)
        if self._may_come < 0:
            raise BadInput("More input came than was to be taken.")
        self.input.put_nowait(data)

    def _take_words(self, text: str) -> None:
        words = _parsed(text)
        if not self._wish.done():
            self._wish.set_result(read_wish(words))
        if (count := words.get("take")) is not None:
            self._may_send = min(self._may_send + _count("take", count), 2 * WINDOW)
            self._more.set()
        if self.errand and (size := words.get("size")) is not None:
            self.errand.resize(*_size(size))
        if self.errand and (name := words.get("signal")) is not None:
            if name not in SIGNALS:
                raise BadInput(f"`signal` is one of {', '.join(SIGNALS)}.")
            self.errand.signal(SIGNALS[name])


async def attend(line: Line, errand: Errand) -> int:
    """Pass everything on in both directions until the command has ended and all of its output is sent; its status."""
    line.errand = errand
    feeding = asyncio.create_task(_feed(line, errand), name="input of a command")
    showing = asyncio.create_task(_show(line, errand), name="output of a command")
    try:
        status = await errand.ended()
        await errand.end()  # what it left in the background holds its output open
        await showing
    finally:
        for task in (feeding, showing):
            task.cancel()
        await asyncio.gather(feeding, showing, return_exceptions=True)
    return status


async def _feed(line: Line, errand: Errand) -> None:
    while data := await line.input.get():
        await errand.write(data)
        await line.taken(len(data))
    errand.close_input()


async def _show(line: Line, errand: Errand) -> None:
    ended = asyncio.create_task(errand.ended(), name="the end of a command")
    try:
        while True:
            stream, data = await _read(errand, min(await line.room(), PIECE), ended)
            if not stream:
                return
            await line.send_output(stream, data)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _read(errand: Errand, most: int, ended: asyncio.Task[int]) -> tuple[int, bytes]:
    """What it writes next; once it has ended, only what comes soon."""
    reading = asyncio.create_task(errand.read(most), name="read output")
    try:
        await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({reading}, timeout=LAST_OUTPUT)
        return reading.result() if reading.done() else (0, b"")
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def shell_line(key: Key) -> str:
    """A shell that says where it is."""
    return f"PS1={shlex.quote(f'{key.app} {key.ref} $ ')}; export PS1; {SHELL}"


def read_wish(words: dict[str, Any]) -> Wish:
    """The first frame. Raises BadInput."""
    command = words.get("command")
    if words.get("shell") is True and command is None:
        command = ""
    elif not isinstance(command, str) or not command.strip() or "\0" in command:
        raise BadInput("Which command? `command` must be a line for a shell; for a shell itself say `shell`.")
    if len(command.encode(errors="replace")) > COMMAND_MOST:
        raise BadInput(
            f"The command is longer than {COMMAND_MOST:,} bytes.", "Put it into a file of the app."
        )
    terminal = words.get("terminal")
    if terminal is None:
        return Wish(command, None)
    if not isinstance(terminal, dict):
        raise BadInput("`terminal` must be an object with `size` and `kind`, or null.")
    kind = terminal.get("kind")
    known = isinstance(kind, str) and KIND.fullmatch(kind)
    return Wish(command, Terminal(*_size(terminal.get("size")), str(kind) if known else "dumb"))


def _parsed(text: str) -> dict[str, Any]:
    try:
        words = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadInput("A frame of text must be JSON.") from problem
    if not isinstance(words, dict):
        raise BadInput("A frame of text must be a JSON object.")
    return words


def _size(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise BadInput("`size` must be [rows, columns].")
    rows, columns = (_count("size", one) for one in value)
    return min(rows, 0xFFFF), min(columns, 0xFFFF)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadInput(f"`{name}` must be a whole number.")
    return value
