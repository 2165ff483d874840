"""One client's connection, once it has said hello: its requests, its transactions, and what it is answered.

What is short is done at once, as it arrives. What writes is answered when it is on the disk. What takes a while is
read in turns by a task of its own, which ends with its deadline, with `cancel`, or with the connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from lazycloud.errors import LazycloudError
from lazycloud.versionbase import protocol, requests
from lazycloud.versionbase.intake import Socket
from lazycloud.versionbase.outbox import Outbox
from lazycloud.versionbase.problems import Busy, Cancelled, Gone, Late, OverLimit, kind
from lazycloud.versionbase.protocol import GOING, MALFORMED, REPLACED, Encoding, Malformed, Request
from lazycloud.versionbase.storage import Branch
from lazycloud.versionbase.streams import Part, Step, Stream, Window
from lazycloud.versionbase.transactions import Transaction
from lazycloud.versionbase.turns import TURN
from lazycloud.versionbase.watching import Watching

if TYPE_CHECKING:
    from lazycloud.versionbase.server import Server

AT_ONCE = 64  # requests that wait for the server before it reads no more
BYTES_AT_ONCE = 32 << 20  # of their frames
OPEN = 1000  # requests that wait for their client, or for something to happen
TRANSACTIONS = 32
WINDOW = 4  # parts that are sent ahead, unless the client says otherwise
WIDEST = 64
DEADLINE = 60.0  # seconds, unless the client says otherwise
LONGEST = 600.0
READING = {"get", "find", "count", "collections", "watch", "history", "diff", "export", "size", "verify"}
LARGE = 256 << 10  # bytes of a frame that is read in another thread: it takes more than a turn

log = logging.getLogger(__name__)


class Opened:
    """A transaction of a client's."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.used = time.monotonic()
        self.reading: set[Running] = set()  # what streams from it
        self.is_ending = False


class Running:
    """A request under way."""

    def __init__(self, request: Request, window: Window, deadline: float) -> None:
        self.request = request
        self.window = window
        self.deadline = deadline  # seconds
        self.size = request.size  # bytes that are kept for it, about
        self.task: asyncio.Task[None] | None = None  # none: it is being committed, and cannot be given up
        self.problem: LazycloudError | None = None  # why it is given up
        self.timer: asyncio.TimerHandle | None = None
        self.waits_for_us = True

    def give_up(self, problem: LazycloudError) -> None:
        if self.task is not None and self.problem is None:
            self.problem = problem
            self.task.cancel()


class Connection:
    def __init__(
        self, server: Server, socket: Socket, encoding: Encoding, branch: Branch, is_owner: bool
    ) -> None:
        self.server = server
        self.engine = server.engine
        self.encoding = encoding
        self.version = branch.name
        self.birth = branch.birth
        self.is_owner = is_owner
        self.outbox = Outbox(socket, encoding.is_text)
        self.requests = 0
        self._socket = socket
        self._intake = server.intake
        self._transactions: dict[int, Opened] = {}
        self._begun = 0
        self._running: dict[int, Running] = {}
        self._laden = 0  # requests that wait for us
        self._bytes = 0  # of their frames
        self._relieved: asyncio.Future[None] | None = None
        self._is_beginning = False  # a request that nobody else knows of yet
        self._paid: asyncio.Future[None] | None = None
        self._is_leaving = False
        self._is_closed = False

    # Reading

    async def serve(self) -> None:
        """Until the connection ends, whoever ends it."""
        reading = asyncio.create_task(self._read(), name="what a client sends")
        ending = asyncio.create_task(self._socket.wait_closed(), name="the end of a client's connection")
        try:
            await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        except ConnectionClosed:
            pass
        except Malformed as problem:
            await self.close(problem.code, problem.reason)
        finally:
            self._is_closed = True
            self._pay()
            reading.cancel()
            ending.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)
            await self._give_up_all()

    async def close(self, code: int, reason: str) -> None:
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(2):
                await self._socket.close(code, reason)
        self._socket.transport.abort()

    def begin_nothing(self) -> None:
        """What comes from now on is not answered: who sends it may be sure that it was not done."""
        self._is_leaving = True

    async def say_goodbye(self) -> None:
        """Close it, with a word for whether what has no answer by now was not done."""
        await self.close(GOING if self._owes else REPLACED, "the server stops")

    async def answered(self) -> None:
        """Wait until nothing is under way that may change something."""
        while self._owes and not self._is_closed:
            self._paid = asyncio.get_running_loop().create_future()
            await self._paid

    @property
    def _owes(self) -> bool:
        writes = (running.request.do not in READING for running in self._running.values())
        return self._is_beginning or any(writes)

    def _pay(self) -> None:
        if self._paid is not None and not self._paid.done():
            self._paid.set_result(None)

    def abandon(self) -> None:
        self._socket.transport.abort()

    async def _read(self) -> None:
        since = time.perf_counter()
        while True:
            data = await self._socket.recv()
            if self._is_leaving:
                continue
            if self._intake.is_full(self.version):
                await self._room()
            size = len(data)
            self._intake.add(self.version, size)
            try:
                self._socket.is_taken()
                if size > LARGE:
                    frame = await asyncio.to_thread(self.encoding.read, data)
                    if self._is_leaving:
                        continue
                else:
                    frame = self.encoding.read(data)
                await self._take(protocol.identified(frame), size)
            finally:
                self._intake.add(self.version, -size)
            del data, frame
            if self._laden >= AT_ONCE or self._bytes > BYTES_AT_ONCE:
                await self._relief()
            if not self.outbox.has_room:
                await self.outbox.room()
            if time.perf_counter() - since > TURN:
                await asyncio.sleep(0)
                since = time.perf_counter()

    async def _room(self) -> None:
        """Wait until this version, or all of them, have less under way."""
        self._socket.hold("room")
        try:
            await self._intake.room(self.version)
        finally:
            self._socket.go_on("room")

    async def _relief(self) -> None:
        while self._laden >= AT_ONCE or (self._bytes > BYTES_AT_ONCE and self._laden):
            self._relieved = asyncio.get_running_loop().create_future()
            await self._relieved

    async def _take(self, frame: dict[str, Any], size: int) -> None:
        number, do = frame["id"], frame.get("do")
        if do is None and "more" in frame:
            self._more(number, frame["more"])
        elif do == "cancel":
            if running := self._running.get(number):
                running.give_up(Cancelled("The request was cancelled, as its client asked."))
        elif number in self._running:
            raise Malformed(MALFORMED, f"another request with the id {number} is under way")
        elif not isinstance(do, str):
            raise Malformed(MALFORMED, "a request says what to do")
        else:
            await self._begin(Request(frame, size))

    def _more(self, number: int, parts: object) -> None:
        if type(parts) is not int or parts < 1:
            raise Malformed(MALFORMED, "more is a number of parts")
        if running := self._running.get(number):
            running.window.more(parts, WIDEST)

    async def _begin(self, request: Request) -> None:
        """Raises nothing that is not the connection's end."""
        self.requests += 1
        try:
            running = self._admitted(request)
            answer = requests.begin(self, request)
            if isinstance(answer, requests.Aside):
                self._is_beginning = True
                answer = await asyncio.to_thread(answer.work)
            self._answer(running, answer)
        except Exception as problem:
            self._refuse(request, problem)
        finally:
            self._is_beginning = False
            self._pay()

    def _admitted(self, request: Request) -> Running:
        """Raises Busy, BadInput: nothing is begun then of which nobody could be told."""
        if len(self._running) >= OPEN:
            raise Busy(f"There are {OPEN} requests under way over this connection.", "End some, or wait.")
        window = Window(request.whole("window", 1, WIDEST, WINDOW))
        return Running(request, window, request.seconds("deadline", DEADLINE, LONGEST))

    def _answer(self, running: Running, answer: Any) -> None:
        """What a request came to so far. Raises what went wrong with it."""
        if isinstance(answer, requests.Later):
            if answer.future.done():
                self._send(running.request, answer.result)
            else:
                running.size += answer.weight
                self._keep(running)
                shape = (
                    answer.shape
                )  # and not the answer, which has the future: a large result is let go at once
                answer.future.add_done_callback(
                    lambda done: self.server.settle(self._settled, running, requests.Later(done, shape))
                )
        elif isinstance(answer, Stream):
            self._answer_stream(running, answer)
        elif isinstance(answer, Watching):
            self._start(running, self._watch(running, answer), lambda _: None, answer.close)
        elif isinstance(answer, Coroutine):
            self._start(running, answer, lambda result: self._answer(running, result), lambda: None)
        else:
            self._send(running.request, answer)

    def _answer_stream(self, running: Running, stream: Stream) -> None:
        """What is short has its first turn at once, and needs no other."""
        part = Part(self.encoding)
        try:
            step = self._go_on(stream, part)
            if step is Step.DONE:
                self._finish(running, stream, part)
        except BaseException:
            stream.close()
            raise
        if step is Step.DONE:
            stream.close()
            return
        opened = self._transactions.get(running.request.members.get("in", -1))
        if opened is not None:
            opened.reading.add(running)

        def end() -> None:
            if opened is not None:
                opened.reading.discard(running)
            stream.close()

        reading = self._read_on(running, stream, part, step)
        self._start(running, reading, lambda _: self._finish(running, stream, part), end)

    # What takes a while

    def _keep(self, running: Running) -> None:
        self._running[running.request.id] = running
        running.waits_for_us = True
        self._laden += 1
        self._bytes += running.size
        self._intake.add(self.version, running.size)

    def _start(
        self,
        running: Running,
        work: Coroutine[Any, Any, Any],
        then: Callable[[Any], None],
        end: Callable[[], None],
    ) -> None:
        """`then` is told the result; `end` comes before it, or instead, also if the work is never begun."""
        self._keep(running)
        loop = asyncio.get_running_loop()
        running.task = loop.create_task(work, name=f"versionbase {running.request.do}")
        running.task.add_done_callback(lambda task: self._ended(running, task, then, end))
        if running.request.do != "watch":
            told = f"It was not done within {running.deadline:g} s, and was given up."
            late = Late(told, "Ask for less, or allow more.")
            running.timer = loop.call_later(running.deadline, running.give_up, late)

    def _ended(
        self, running: Running, task: asyncio.Task[Any], then: Callable[[Any], None], end: Callable[[], None]
    ) -> None:
        self._forget(running)
        try:
            end()
            if not task.cancelled():
                then(task.result())
            elif running.problem is not None:  # else the connection ends
                raise running.problem
        except Exception as problem:
            self._refuse(running.request, problem)

    def _waits(self, running: Running, for_us: bool) -> None:
        """What waits for its client, or for something to happen, does not keep us from reading."""
        if running.waits_for_us == for_us:
            return
        running.waits_for_us = for_us
        self._laden += 1 if for_us else -1
        size = running.size if for_us else -running.size
        self._bytes += size
        self._intake.add(self.version, size)
        if self._relieved is not None and not self._relieved.done():
            self._relieved.set_result(None)

    def _forget(self, running: Running) -> None:
        del self._running[running.request.id]
        running.task = None
        self._pay()
        if running.timer is not None:
            running.timer.cancel()
        self._waits(running, False)

    def _settled(self, running: Running, answer: requests.Later) -> None:
        """A commit is done, or refused."""
        self._forget(running)
        try:
            self._send(running.request, answer.result)
        except Exception as problem:
            self._refuse(running.request, problem)

    def _go_on(self, stream: Stream, part: Part) -> Step | Future[Any]:
        return stream.go_on(part, time.perf_counter() + TURN)

    async def _read_on(
        self, running: Running, stream: Stream, part: Part, step: Step | Future[Any] = Step.PAUSED
    ) -> None:
        """In turns, to the end; parts are sent when they are full, or when nobody should wait for them any longer."""
        while step is not Step.DONE:
            if isinstance(step, Future):
                await self.server.over(step)
            elif step is Step.FULL or part.is_due:
                await self._send_part(running, part)
            if not self.outbox.has_room:
                await self.outbox.room()
            async with self.server.turns.turn(self):
                step = self._go_on(stream, part) if self.outbox.has_room else Step.PAUSED

    async def _watch(self, running: Running, watching: Watching) -> None:
        """Without an end."""
        part = Part(self.encoding)
        while True:
            stream = Stream(watching.news())
            try:
                await self._read_on(running, stream, part)
            finally:
                stream.close()
            if part:
                await self._send_part(running, part)
            self._waits(running, for_us=False)
            await watching.changed()
            self._waits(running, for_us=True)

    async def _send_part(self, running: Running, part: Part) -> None:
        """The window is open for it; then wait until it is for the next."""
        running.window.take()
        self.outbox.put(self.encoding.frame(running.request.id, "part", part.taken()))
        if not running.window.is_open:
            self._waits(running, for_us=False)
            await running.window.opened()
            self._waits(running, for_us=True)

    def _finish(self, running: Running, stream: Stream, part: Part) -> None:
        if part:
            self.outbox.put(self.encoding.frame(running.request.id, "part", part.taken()))
        self._send(running.request, stream.result)

    def _send(self, request: Request, result: Any) -> None:
        if self._is_closed:
            return
        self.outbox.put(protocol.ok(self.encoding, request.id, result))

    def _refuse(self, request: Request, problem: Exception) -> None:
        if not isinstance(problem, LazycloudError):
            log.error("%s failed: %s", request.do, where(problem))
            problem = LazycloudError("The server could not do it.", "Its log says where it failed.")
        elif kind(problem) in ("failed", "full") and not isinstance(problem, OverLimit):
            log.error("%s failed: %s", request.do, problem.sentence)
            store = str(self.engine.storage.database)  # where that is, is not for clients
            problem.sentence = problem.sentence.replace(store, "the store")
        if not self._is_closed:
            self.outbox.put(protocol.error(self.encoding, request.id, problem))

    async def _give_up_all(self) -> None:
        """The client is gone: so is what it had under way, but for what is being committed."""
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what they leave is cleared away by then
        for number in list(self._transactions):
            self.end_transaction(number)

    # Transactions

    def begin_transaction(self, transaction: Transaction) -> int:
        self._begun += 1
        self._transactions[self._begun] = Opened(transaction)
        return self._begun

    def demand_room(self) -> None:
        """Raises Busy when there are as many transactions as may be."""
        if len(self._transactions) >= TRANSACTIONS:
            raise Busy(
                f"There are {TRANSACTIONS} transactions open over this connection.", "Commit or abort some."
            )

    def opened(self, number: int) -> Opened:
        """A transaction that is used now. Raises Gone."""
        found = self._transactions.get(number)
        if found is None or found.is_ending:
            raise Gone(
                f"There is no transaction {number}: it was ended, or left alone for {self.server.idle:g} s.",
                "Begin it again.",
            )
        found.used = time.monotonic()
        return found

    def forget_transaction(self, number: int) -> Opened:
        """It is somebody else's to close."""
        return self._transactions.pop(number)

    def end_transaction(self, number: int) -> None:
        """Nothing of it is kept; what reads from it is given up."""
        if opened := self._transactions.pop(number, None):
            for running in list(opened.reading):
                running.give_up(Cancelled("Its transaction has ended."))
            self.engine.close_transaction(opened.transaction)

    def end_idle_transactions(self, before: float) -> None:
        """Those that nobody used since then (of `time.monotonic`)."""
        for number, opened in list(self._transactions.items()):
            if opened.used < before and not opened.reading and not opened.is_ending:
                self.end_transaction(number)

    @property
    def held(self) -> int:
        """Bytes that its transactions have written, and that are in memory until they end."""
        return sum(opened.transaction.tree.size for opened in self._transactions.values())

    @property
    def transactions(self) -> int:
        return len(self._transactions)

    # Versions

    def branch(self) -> Branch:
        """Of the version as it is now. Raises Gone if it was removed, also if there is another of its name."""
        return self.server.branch(self.version, self.birth)

    def demand_owner(self, do: str) -> None:
        """Raises Denied."""
        if not self.is_owner:
            raise requests.not_for_versions(do)


def where(problem: BaseException) -> str:
    """What went wrong, and where in the code; not its words, in which there might be something of a document."""
    frames = traceback.extract_tb(problem.__traceback__)[-4:]
    return f"{type(problem).__name__} at " + " < ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames)
    )
