"""The client of versionbase, for Python 3.11 and newer: asyncio, or plain code.

    async with connect() as db:                          # VERSIONBASE_URL says where, which version, and by which key
        posts = db.collection("posts")
        key = await posts.insert({"title": "hello", "at": datetime.now(UTC)})
        async for post in posts.find(filter="doc.at > since", params={"since": yesterday}, order="at desc"):
            print(post.key, post["title"])

    with connect_sync() as db:                           # the same without `await`, for any thread, also after a fork
        db.collection("posts").insert({"title": "hello"})

This file stands alone: it needs the package `websockets` (15 or newer), and is faster with `msgspec`. It may be
copied into an app: `lazycloud versionbase client python --to .`. What it speaks is in docs/versionbase-protocol.md
of lazycloud.

One connection serves all tasks, and requests do not wait for each other's answers. A connection that is lost is made
again. What only reads is then asked again; of a write that was on its way nobody knows whether it was done, and
`ConnectionLost` is raised.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import concurrent.futures
import contextlib
import itertools
import json
import math
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, NoReturn, Self, TypeVar
from urllib.parse import unquote, urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.protocol import State
from websockets.typing import Subprotocol

try:
    import msgspec
except ImportError:  # frames are JSON then
    msgspec = None  # type: ignore[assignment]

__all__ = [
    "BadInput",
    "Busy",
    "Cancelled",
    "Change",
    "Collection",
    "Conflict",
    "ConnectionLost",
    "Database",
    "Denied",
    "Difference",
    "Document",
    "Exists",
    "Failed",
    "Full",
    "Gone",
    "Invalid",
    "NotConfigured",
    "NotFound",
    "Past",
    "ReadOnly",
    "Snapshot",
    "SyncCollection",
    "SyncDatabase",
    "SyncTransaction",
    "TimedOut",
    "TooLarge",
    "Transaction",
    "VersionbaseError",
    "connect",
    "connect_sync",
]

T = TypeVar("T")

CLIENT = "python/0.1.0"
FRAME = 17 << 20  # bytes of one frame, at most
DEPTH = 100  # of lists and objects in each other
REQUESTS = 64  # under way on one connection, unless the server says otherwise
STREAMS = 256  # open on one connection, beside them: most of the time these wait for who reads them
TRANSACTIONS = 32  # open on one connection
WINDOW = 4  # parts of a stream that the server may send ahead
TIMEOUT = 60.0  # seconds, for a request
CONNECTING = 10.0  # seconds, to connect; and of any one try to
LONGEST = 600.0  # seconds that the server gives any request; what is read bit by bit may take that long
GRACE = 1.0  # seconds more until the client gives up by itself: the server's word on a late request is the better one
REPLACED = 1012  # closes a connection on which all that was begun has been answered
TRIES = 5  # connections that one read may lose
FOREVER = 1e7  # seconds
ASLEEP = 2.0  # seconds, the longest pause between two tries to connect
PORTION = 1 << 20  # bytes of one request of a load, about


# What goes wrong.


class VersionbaseError(Exception):
    """The base of all. `kind` is the protocol's word, `sentence` what happened, `hint` what to do (may be empty)."""

    kind = "error"

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.sentence} {self.hint}".rstrip()


class BadInput(VersionbaseError):
    """A document, an expression or a name that cannot be."""

    kind = "bad-input"


class Invalid(BadInput):
    """A document that the schema of its collection refuses."""

    kind = "invalid"


class TooLarge(BadInput):
    """A document or a frame beyond its limit."""

    kind = "too-large"


class NotFound(VersionbaseError):
    """No such key, snapshot, index, version."""

    kind = "not-found"


class Gone(NotFound):
    """A version, a snapshot or a sequence that is there no more."""

    kind = "gone"


class Exists(VersionbaseError):
    """A key that is there already, or a value that a unique index has."""

    kind = "exists"


class Conflict(VersionbaseError):
    """What a transaction read has changed since: nothing was done, and it may be tried again (`db.run` does)."""

    kind = "conflict"


class Denied(VersionbaseError):
    """A wrong key, or one that may not do this."""

    kind = "denied"


class TimedOut(VersionbaseError, TimeoutError):
    """Not done by its deadline. Nothing changed, unless `unknown`: the server did not say that it gave up."""

    kind = "deadline"
    unknown = False


class Cancelled(VersionbaseError):
    """Given up, at the client's wish."""

    kind = "cancelled"


class Busy(VersionbaseError):
    """More at once than may be."""

    kind = "busy"


class Full(VersionbaseError):
    """The server's disk takes no more."""

    kind = "full"


class ReadOnly(VersionbaseError):
    """A write where one may only read: in the past, or in a transaction that was begun with write=False."""

    kind = "read-only"


class Failed(VersionbaseError):
    """The server's own fault; its log says more."""

    kind = "failed"


class NotConfigured(VersionbaseError):
    """Nobody said where the server is."""

    kind = "not-configured"


class ConnectionLost(VersionbaseError, ConnectionError):
    """There is no connection. `unknown`: the request was on its way, and nobody knows whether it was done."""

    kind = "connection-lost"

    def __init__(self, sentence: str, hint: str = "", unknown: bool = False) -> None:
        super().__init__(sentence, hint)
        self.unknown = unknown


KINDS: dict[str, type[VersionbaseError]] = {
    known.kind: known
    for known in (
        BadInput, Invalid, TooLarge, NotFound, Gone, Exists, Conflict, Denied, TimedOut, Cancelled, Busy, Full,
        ReadOnly, Failed,
    )
}  # fmt: skip


def _problem(error: Mapping[str, Any]) -> VersionbaseError:
    """The exception for an answer's `error`; one of a kind that is not known yet keeps its word."""
    kind = str(error.get("kind", "failed"))
    problem = KINDS.get(kind, VersionbaseError)(str(error.get("sentence", "")), str(error.get("hint") or ""))
    problem.kind = kind
    return problem


# What comes and goes.


class Document(dict[str, Any]):
    """A document as it was read: a dict, and its key."""

    __slots__ = ("key",)

    def __init__(self, members: Mapping[str, Any], key: str) -> None:
        super().__init__(members)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (dict(self), self.key)

    def __repr__(self) -> str:
        return f"Document({super().__repr__()}, key={self.key!r})"


@dataclass(frozen=True, slots=True)
class Change:
    """A document before and after a commit, None where there is none. Changes of one commit have one sequence."""

    sequence: int
    at: datetime
    collection: str
    key: str
    old: Document | None
    new: Document | None


@dataclass(frozen=True, slots=True)
class Past:
    """A document as a commit left it; None: the commit removed it."""

    sequence: int
    at: datetime
    document: Document | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A document that is not the same in two states, None where there is none."""

    collection: str
    key: str
    old: Document | None
    new: Document | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A version as it was after the commit `sequence`, at that time."""

    id: int | str
    name: str | None
    sequence: int
    at: datetime

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        return cls(told["id"], told.get("name") or None, told["sequence"], _time(told["at"]))


def _time(told: Any) -> datetime:
    """A server tells it in seconds since 1970."""
    return told if isinstance(told, datetime) else datetime.fromtimestamp(told, UTC)


def _document(value: Any, key: str) -> Any:
    """What was read at a key: None and mapped values that are no objects stay what they are."""
    return Document(value, key) if type(value) is dict else value


def _change(told: Mapping[str, Any]) -> Change:
    key = told["key"]
    return Change(
        told["sequence"], _time(told["at"]), told["collection"], key,
        _document(told["old"], key), _document(told["new"], key),
    )  # fmt: skip


def _difference(told: Mapping[str, Any]) -> Difference:
    key = told["key"]
    return Difference(told["collection"], key, _document(told["old"], key), _document(told["new"], key))


# Values on their way. Whatever would not come back as it was is refused here, with the path to it.


class _Unfit(Exception):
    """What is wrong with a value; each level on the way up puts its own step before `path`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[str] = []

    def problem(self) -> BadInput:
        path = "".join(reversed(self.path)).removeprefix(".")
        return BadInput(f"`{path}` {self}." if path else f"The value {self}.")


_PLAIN = frozenset((str, bool, type(None), bytes))


def _wired(value: Any, other: Callable[[Any], Any], escape: bool, depth: int = DEPTH) -> Any:
    """The value of dicts, lists and what a codec takes; `other` says how bytes, datetimes and decimals travel."""
    kind = value.__class__
    if kind in _PLAIN:
        return other(value) if escape and kind is bytes else value
    if kind is dict or isinstance(value, Mapping):
        return _wired_object(value, other, escape, depth)
    if kind is list or isinstance(value, list | tuple):
        return _wired_list(value, other, escape, depth)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise _Unfit(f"is {value}, and integers go from -2**63 to 2**64-1; a Decimal has any size")
        return value if kind is int else int(value) if kind is not bool else value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unfit(f"is {value}, and only finite numbers can be kept")
        return value if kind is float else float(value)
    if isinstance(value, str):
        return str.__str__(value)
    return other(value)


def _wired_object(value: Mapping[Any, Any], other: Callable[[Any], Any], escape: bool, depth: int) -> Any:
    if not depth:
        raise _Unfit(f"is deeper than {DEPTH} lists and objects in each other")
    made = {}
    name = None
    try:
        for name, member in value.items():
            if name.__class__ is not str:
                if not isinstance(name, str):
                    raise _Unfit(f"has a name that is a {type(name).__name__}, and names are strings")
                name = str.__str__(name)
            made[name] = (
                member
                if member.__class__ in _PLAIN and not escape
                else _wired(member, other, escape, depth - 1)
            )
    except _Unfit as unfit:
        if isinstance(name, str):
            unfit.path.append(f".{name}")
        raise
    if escape and len(made) == 1 and name is not None and name.startswith("$"):
        return {f"${name}": made[name]}
    return made


def _wired_list(value: Sequence[Any], other: Callable[[Any], Any], escape: bool, depth: int) -> list[Any]:
    if not depth:
        raise _Unfit(f"is deeper than {DEPTH} lists and objects in each other")
    made: list[Any] = []
    try:
        for member in value:
            made.append(_wired(member, other, escape, depth - 1))
    except _Unfit as unfit:
        unfit.path.append(f"[{len(made)}]")
        raise
    return made


def _moment(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise _Unfit("is a datetime without a zone; say datetime.now(UTC), or value.replace(tzinfo=UTC)")
    return value.astimezone(UTC)


def _digits(value: Decimal) -> str:
    if not value.is_finite():
        raise _Unfit(f"is {value}, and only finite numbers can be kept")
    return str(value)


def _unfit(value: object) -> _Unfit:
    return _Unfit(
        f"is a {type(value).__name__}, and documents hold None, bool, int, float, str, bytes, datetime, "
        "Decimal, list and dict"
    )


class _Codec:
    """Frames to and from what is sent."""

    subprotocol: str

    def __init__(self, other: Callable[[Any], Any], escape: bool) -> None:
        self._other = other
        self._escape = escape

    def pack(self, frame: Mapping[str, Any]) -> bytes | str:
        """Raises BadInput for what cannot be kept."""
        try:
            return self.encode(_wired(frame, self._other, self._escape, DEPTH + 8))
        except _Unfit as unfit:
            raise unfit.problem() from None
        except UnicodeEncodeError:
            raise BadInput("A text has half a surrogate pair in it, which is no character.") from None

    def encode(self, frame: Any) -> bytes | str:
        raise NotImplementedError

    def decode(self, data: bytes | str) -> Any:
        raise NotImplementedError


class _MessagePack(_Codec):
    subprotocol = "versionbase.1.msgpack"

    def __init__(self) -> None:
        super().__init__(self._extended, escape=False)
        self.encode = msgspec.msgpack.Encoder().encode  # type: ignore[method-assign, assignment]
        self.decode = msgspec.msgpack.Decoder(ext_hook=self._met).decode  # type: ignore[method-assign, assignment]

    @staticmethod
    def _extended(value: Any) -> Any:
        if isinstance(value, datetime):
            return _moment(value)  # the timestamp extension
        if isinstance(value, Decimal):
            return msgspec.msgpack.Ext(1, _digits(value).encode())
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise _unfit(value)

    @staticmethod
    def _met(code: int, data: memoryview) -> Decimal:
        if code != 1:
            raise ValueError(f"extension {code}, which this client does not know")
        return Decimal(bytes(data).decode())


class _Json(_Codec):
    subprotocol = "versionbase.1.json"

    def __init__(self) -> None:
        super().__init__(self._tagged, escape=True)
        self._encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self.decode = json.JSONDecoder(object_hook=self._met).decode  # type: ignore[method-assign, assignment]

    def encode(self, frame: Any) -> str:
        text = self._encoder.encode(frame)
        text.encode()  # a lone surrogate is found here, before it is on its way
        return text

    @staticmethod
    def _tagged(value: Any) -> Any:
        if isinstance(value, datetime):
            text = _moment(value).isoformat(timespec="microseconds")
            return {"$datetime": text.removesuffix("+00:00") + "Z"}
        if isinstance(value, Decimal):
            return {"$decimal": _digits(value)}
        if isinstance(value, bytes | bytearray | memoryview):
            return {"$bytes": base64.b64encode(value).decode()}
        raise _unfit(value)

    @staticmethod
    def _met(found: dict[str, Any]) -> Any:
        if len(found) != 1:
            return found
        (name, value) = next(iter(found.items()))
        if not name.startswith("$"):
            return found
        match name:
            case "$bytes":
                return base64.b64decode(value)
            case "$datetime":
                return datetime.fromisoformat(value).astimezone(UTC)
            case "$decimal":
                return Decimal(value)
        return {name[1:]: value}


# One connection, with what is under way on it.


class _Stream:
    """The parts of one answer, at most `window` of them waiting here: the server sends more as they are taken."""

    def __init__(self, wire: _Wire, number: int, window: int) -> None:
        self._wire = wire
        self._number = number
        self._window = window
        self._parts: deque[list[Any]] = deque()
        self._taken = 0
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self.result: Any = None

    async def next(self, until: float | None) -> list[Any] | None:
        """The next part, None after the last. Raises what the server says; TimedOut by `until` (loop's time)."""
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._waiting = self._wire.loop.create_future()
            try:
                async with _by(until and until + GRACE):
                    await self._waiting
            finally:
                self._waiting = None
        part = self._parts.popleft()
        self._taken += 1
        if self._taken * 2 >= self._window and not self._ended:
            taken, self._taken = self._taken, 0
            await self._wire.tell({"id": self._number, "more": taken})
        return part

    def part(self, items: list[Any]) -> bool:
        """Whether it was asked for; the last one comes without being asked for."""
        if len(self._parts) > self._window:
            return False
        self._parts.append(items)
        self._wake()
        return True

    def end(self, result: Any = None, failure: BaseException | None = None) -> None:
        if not self._ended:
            self._ended, self.result, self._failure = True, result, failure
            self._wake()

    def close(self) -> None:
        """Give up what has not come yet."""
        self._parts.clear()
        self._wire.leave(self._number, cancel=not self._ended)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class _Wire:
    """An open websocket that said hello. Never opened again: whoever comes after it was lost takes another."""

    def __init__(self, socket: ClientConnection, codec: _Codec) -> None:
        self.loop = asyncio.get_running_loop()
        self.hello: dict[str, Any] = {}
        self._socket = socket
        self._codec = codec
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any] | _Stream] = {}
        self._frame = FRAME
        self._lost: ConnectionLost | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Semaphore(STREAMS)
        self._allow(REQUESTS, TRANSACTIONS)

    def _allow(self, requests: int, transactions: int) -> None:
        self._plain = asyncio.Semaphore(max(1, requests))
        self.transactions = asyncio.Semaphore(max(1, transactions))

    @classmethod
    async def open(cls, place: _Place, hello: Mapping[str, Any], seconds: float) -> _Wire:
        """Raises ConnectionLost where there is no server, Denied and others as the server says."""
        wire = None
        try:
            async with asyncio.timeout(seconds):
                socket = await open_websocket(
                    place.address, subprotocols=[Subprotocol(codec.subprotocol) for codec in place.codecs],
                    compression=None, max_size=FRAME + 4096, proxy=None, open_timeout=None, close_timeout=2,
                    user_agent_header=CLIENT,
                )  # fmt: skip
                wire = cls(socket, place.codec(socket.subprotocol))
                _process.know(wire)
                wire._read()
                wire._welcome(await wire.request("hello", hello, wire.loop.time() + seconds, number=0))
                return wire
        except BaseException as failure:
            if wire is not None:
                wire._drop()
            problem = place.problem(failure)
            if problem is failure:
                raise
            raise problem from failure

    def _welcome(self, told: dict[str, Any]) -> None:
        self.hello = told
        limits = told.get("limits") or {}
        self._frame = min(FRAME, limits.get("frame", FRAME))
        self._allow(limits.get("requests", REQUESTS), limits.get("transactions", TRANSACTIONS))

    @property
    def descriptor(self) -> int:
        number: int = self._socket.transport.get_extra_info("socket").fileno()
        return number

    @property
    def is_open(self) -> bool:
        return self._lost is None and self._socket.state is State.OPEN

    async def request(
        self, do: str, fields: Mapping[str, Any], until: float, number: int | None = None
    ) -> Any:
        """The answer. Raises ConnectionLost, which says whether the request may have been done."""
        async with _by(until + GRACE), self._plain:
            number = next(self._numbers) if number is None else number
            data = self._packed({"id": number, "do": do, "deadline": self._left(until), **fields})
            answer = self._pending[number] = self.loop.create_future()
            try:
                await self._send(data)
                return await answer
            finally:
                self.leave(number, cancel=not answer.done() or answer.cancelled())
                if answer.done() and not answer.cancelled():
                    answer.exception()  # it was seen, whatever else was raised

    async def stream(
        self, do: str, fields: Mapping[str, Any], until: float | None, window: int = WINDOW
    ) -> _Stream:
        """To be closed by who asked."""
        async with _by(until):
            await self._flows.acquire()
        number = next(self._numbers)
        stream = self._pending[number] = _Stream(self, number, window)
        try:
            deadline = {} if until is None else {"deadline": self._left(until)}
            data = self._packed({"id": number, "do": do, **deadline, **fields})
            async with _by(until):
                await self._send(data)
        except BaseException:
            stream.close()
            raise
        return stream

    def _left(self, until: float) -> float:
        left = until - self.loop.time()
        if left <= 0:
            raise TimedOut("There was no time left to ask the server; nothing changed.")
        return round(min(left, LONGEST), 3) or 0.001

    def _packed(self, frame: Mapping[str, Any]) -> bytes | str:
        """Raises BadInput, and TooLarge for what the server would not take."""
        data = self._codec.pack(frame)
        if len(data) > self._frame or (type(data) is str and len(data.encode()) > self._frame):
            raise TooLarge(
                f"The request takes {len(data) / 2**20:.1f} MiB, and {self._frame / 2**20:.0f} MiB are the most.",
                "Send fewer documents at a time, and keep large files elsewhere.",
            )
        return data

    async def _send(self, data: bytes | str) -> None:
        if not self.is_open:
            raise ConnectionLost("The connection to versionbase is closed; the request was not sent.")
        try:
            await self._socket.send(data)
        except ConnectionClosed as closed:
            raise self._unknown(closed) from closed

    async def tell(self, frame: Mapping[str, Any]) -> None:
        """A frame that has no answer, and no hurry if the connection is gone."""
        if self.is_open:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(self._codec.encode(frame))

    def leave(self, number: int, cancel: bool) -> None:
        """Nobody waits for this request any more. What may have reached the server is cancelled there."""
        known = self._pending.pop(number, None)
        if isinstance(known, _Stream):
            self._flows.release()
        if cancel and known is not None and self.is_open:
            self.errand(self.tell({"id": number, "do": "cancel"}))

    def abort(self, transaction: int) -> None:
        """Without waiting for the answer: what comes after it is read after it."""
        self.errand(self.tell({"id": next(self._numbers), "do": "abort", "in": transaction}))

    def errand(self, what: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(what)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _read(self) -> None:
        self._reader = self.loop.create_task(self._reading(), name="versionbase: answers")

    async def _reading(self) -> None:
        """Hand out answers until the connection ends, for whatever reason."""
        cause: BaseException | None = None
        try:
            while self._take(self._codec.decode(await self._socket.recv())):
                pass
            cause = ValueError("the server sent more than it was asked for")
        except Exception as failure:  # also what cannot be decoded: this connection is of no use then
            cause = failure
        finally:
            self._end(cause)
            self._socket.transport.abort() if self._socket.state is State.OPEN else None

    def _take(self, frame: Any) -> bool:
        known = self._pending.get(frame["id"])
        if known is None:
            return True  # the rest of what was cancelled
        if "part" in frame:
            return isinstance(known, _Stream) and known.part(frame["part"])
        failure = _problem(frame["error"]) if "error" in frame else None
        if isinstance(known, _Stream):
            known.end(frame.get("ok"), failure)
        elif not known.done():
            known.set_result(frame["ok"]) if failure is None else known.set_exception(failure)
        return True

    def _end(self, cause: BaseException | None) -> None:
        self._lost = self._unknown(cause)
        for known in list(self._pending.values()):
            failure = self._unknown(cause)
            if isinstance(known, _Stream):
                known.end(failure=failure)
            elif not known.done():
                known.set_exception(failure)

    def _unknown(self, cause: BaseException | None) -> ConnectionLost:
        if isinstance(cause, ConnectionClosed) and cause.rcvd is not None and cause.rcvd.code == REPLACED:
            lost = ConnectionLost("The server of versionbase is being replaced; the request was not begun.")
        else:
            lost = ConnectionLost(
                f"The connection to versionbase was lost{_because(cause)}; "
                "whether the request was done is not known.",
                "Read what is there, or make the write one that may be done twice (give its key).",
                unknown=True,
            )
        lost.__cause__ = cause
        return lost

    def abandon(self) -> None:
        """At the end of the process: without a word to those who wait."""
        self._socket.transport.close()

    def _drop(self) -> None:
        self._reader.cancel()
        self._socket.transport.abort()

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.gather(self._reader, return_exceptions=True)


class _by:  # noqa: N801  reads as a word: `async with _by(until)`
    """What is in it ends by then, the loop's time, or is TimedOut."""

    def __init__(self, until: float | None) -> None:
        self._timeout = asyncio.timeout_at(until)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError as late:
            problem = TimedOut(
                "The server did not answer in time; whether the request was done is not known."
            )
            problem.unknown = True
            raise problem from late


def _because(cause: BaseException | None) -> str:
    if isinstance(cause, ConnectionClosed) and cause.rcvd is not None and cause.rcvd.reason:
        return f" (“{cause.rcvd.reason}”)"
    return f" ({cause})" if isinstance(cause, ValueError) else ""


# Where the server is.


@dataclass(frozen=True)
class _Place:
    """Who is asked, and for which version by which key."""

    address: str
    version: str
    key: str
    source: str | None
    codecs: tuple[_Codec, ...]

    @classmethod
    def of(cls, url: str | None, version: str | None, source: str | None, plain_json: bool) -> _Place:
        """Raises NotConfigured without any URL, BadInput for one that cannot be."""
        url = url or os.environ.get("VERSIONBASE_URL") or ""
        if not url:
            raise NotConfigured(
                "There is no versionbase to connect to: VERSIONBASE_URL is not set, and no url was given.",
                "Under lazycloud, say `versionbase = true` under [data] in lazycloud.toml. Elsewhere run "
                "`lazycloud versionbase serve`, which prints the URL to set.",
            )
        try:
            parts = urlsplit(url)
            named, key, host = parts.username, parts.password, parts.hostname
            port = f":{parts.port}" if parts.port else ""
        except ValueError as wrong:
            raise BadInput(f"The URL of versionbase is none: {wrong}.", _LIKE) from None
        if parts.scheme not in ("ws", "wss") or not host:
            raise BadInput(
                "The URL of versionbase is none that begins with ws:// or wss:// and has a host.", _LIKE
            )
        if key is None:
            raise BadInput(f"The URL of versionbase at {host}{port} has no key.", _LIKE)
        shown = f"[{host}]" if ":" in host else host
        wanted = version or unquote(named or "") or os.environ.get("COMMIT_ID") or "production"
        codecs = (_MessagePack(), _Json()) if msgspec is not None and not plain_json else (_Json(),)
        return cls(f"{parts.scheme}://{shown}{port}/", wanted, unquote(key), source, codecs)

    def codec(self, subprotocol: str | None) -> _Codec:
        """The one that the server took. Raises BadInput if it took none."""
        for codec in self.codecs:
            if codec.subprotocol == subprotocol:
                return codec
        raise BadInput(f"What answers at {self.address} is no versionbase.", "Is the port right?")

    def hello(self) -> dict[str, Any]:
        said = {"version": self.version, "key": self.key, "client": CLIENT}
        return said if self.source is None else said | {"from": self.source}

    def problem(self, failure: BaseException) -> BaseException:
        """Why there is no connection, in words. What is not of the connection stays what it is."""
        if isinstance(failure, VersionbaseError):
            return failure
        if isinstance(failure, InvalidStatus):
            response = failure.response
            said = (response.body or b"").decode(errors="replace").strip()[:200]
            why = f"({response.status_code}): {said or response.reason_phrase}"
            sentence = f"The server at {self.address} refused the connection {why}"
            if response.status_code < 500:
                return BadInput(f"{sentence.rstrip('.')}.", "Is it a versionbase, and as new as this client?")
            return ConnectionLost(f"{sentence.rstrip('.')}.")
        if isinstance(failure, OSError | TimeoutError | InvalidHandshake | EOFError | ConnectionClosed):
            why = str(failure) or "it did not answer in time"
            return ConnectionLost(
                f"There is no versionbase at {self.address}: {why}.", "Is the server running?"
            )
        return failure


_LIKE = "It looks like ws://VERSION:KEY@HOST:PORT/, with % codes for what is not a letter or a digit."


class _Link:
    """A place, and the connection to it that is open now, if any: made when it is needed, by one for all who wait."""

    def __init__(self, place: _Place) -> None:
        self.streams = 0
        self._place = place
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[_Wire] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failures = 0
        self._failure: ConnectionLost | None = None  # the latest

    async def wire(self, until: float) -> _Wire:
        """An open connection; tries again and again until then (the loop's time), and raises ConnectionLost."""
        if self._loop is not asyncio.get_running_loop():
            self._move()
        wire = self._wire
        while wire is None or not wire.is_open:
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(
                    self._open(), name="versionbase: connect"
                )
                self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            wire = await self._opened(self._opening, until)
        return wire

    def _move(self) -> None:
        """Into the running loop, if the one before is over: `asyncio.run` was called once more. Raises BadInput."""
        if self._loop is not None and not self._loop.is_closed():
            raise BadInput(
                "This connection to versionbase belongs to another event loop.",
                "connect() in each of them, or use connect_sync() from several threads.",
            )
        self._loop, self._wire, self._opening = asyncio.get_running_loop(), None, None

    async def _opened(self, opening: asyncio.Task[_Wire], until: float) -> _Wire | None:
        loop = asyncio.get_running_loop()
        done, _ = await asyncio.wait((opening,), timeout=max(0, until - loop.time()))
        if not done:
            raise self._failure or self._place.problem(TimeoutError())
        if opening.cancelled():
            raise ConnectionLost("The connection to versionbase was closed.")
        failure = opening.exception()
        if isinstance(failure, ConnectionLost) and loop.time() < until:
            return None
        if failure is not None:
            raise failure
        return opening.result()

    async def _open(self) -> _Wire:
        try:
            if self._failures:
                await asyncio.sleep(_pause(self._failures))
            self._wire = await _Wire.open(self._place, self._place.hello(), CONNECTING)
            self._failures, self._failure = 0, None
            return self._wire
        except ConnectionLost as failure:
            self._failures, self._failure = self._failures + 1, failure
            raise
        finally:
            self._opening = None

    @property
    def has_room(self) -> bool:
        """For one more stream."""
        return self.streams < STREAMS

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._wire is not None:
            await self._wire.close()


# Who asks: a version as it is now, a transaction, or a view of the past.


def _said(**fields: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def _reference(snapshot: Snapshot | str | int) -> str | int:
    return snapshot.id if isinstance(snapshot, Snapshot) else snapshot


class _Session:
    """Asks on behalf of collections. `timeout` is in seconds, None for what the session does otherwise."""

    async def _ask(
        self, do: str, fields: Mapping[str, Any], timeout: float | None, again: bool = False
    ) -> Any:
        """The answer; `again`: only reads, so that it is asked again if the connection is lost."""
        raise NotImplementedError

    def _flow(
        self, do: str, fields: Mapping[str, Any], timeout: float | None
    ) -> AsyncGenerator[list[Any], None]:
        """The answer's parts."""
        raise NotImplementedError

    _repeats = True  # what was read in part may be read again from its beginning

    async def collections(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """`name`, `documents`, `indexes` and `schema` of each."""
        told: list[dict[str, Any]] = await self._ask("collections", {}, timeout, again=True)
        return told


class Results(Generic[T]):
    """What is read bit by bit: `async for item in results`, or all at once. Each iteration asks anew.

    If the connection is lost amid an iteration, ConnectionLost is raised, as the rest would be of another moment.
    """

    def __init__(
        self,
        session: _Session,
        do: str,
        fields: Mapping[str, Any],
        made: Callable[[Any], T],
        timeout: float | None,
    ) -> None:
        self._session = session
        self._do = do
        self._fields = fields
        self._made = made
        self._timeout = timeout

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        async with contextlib.aclosing(self._parts()) as parts:
            async for part in parts:
                for item in part:
                    yield item

    async def _parts(self) -> AsyncGenerator[list[T], None]:
        async with contextlib.aclosing(self._session._flow(self._do, self._fields, self._timeout)) as parts:
            async for part in parts:
                yield [self._made(item) for item in part]

    async def to_list(self) -> list[T]:
        """All of them, in memory."""
        for tries in itertools.count(1):
            try:
                return [item async for item in self]
            except ConnectionLost as lost:
                if not self._session._repeats or not lost.unknown or tries == TRIES:
                    raise
        raise AssertionError

    async def first(self) -> T | None:
        """The first one, None if there is none."""
        async with contextlib.aclosing(self._parts()) as parts:
            async for part in parts:
                if part:
                    return part[0]
        return None


class Find(Results[Any]):
    """Documents, or what `map` makes of them."""

    async def first(self) -> Any:
        """The first one, None if there is none."""
        found = await self._but(limit=1).to_list()
        return found[0] if found else None

    async def explain(self) -> dict[str, Any]:
        """How they are found: `scan` ("index", "key" or "collection"), `index`, `sorted`, `estimate`…"""
        told: dict[str, Any] = await self._session._ask("explain", self._fields, self._timeout, again=True)
        return told

    def _but(self, **fields: Any) -> Find:
        return Find(self._session, self._do, {**self._fields, **fields}, self._made, self._timeout)


class Reader:
    """A collection that is read: the reading half of all."""

    def __init__(self, session: _Session, name: str) -> None:
        self.name = name
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def get(self, key: str, *, timeout: float | None = None) -> Document | None:
        """The document, None if there is none."""
        (found,) = await self.get_many([key], timeout=timeout)
        return found

    async def get_many(self, keys: Iterable[str], *, timeout: float | None = None) -> list[Document | None]:
        """In the order of the keys, None where there is none."""
        keys = list(keys)
        found = await self._ask("get", timeout, again=True, keys=keys)
        return [_document(value, key) for key, value in zip(keys, found, strict=True)]

    def find(
        self,
        filter: str | None = None,  # noqa: A002  the protocol's word
        *,
        params: Mapping[str, Any] | None = None,
        map: str | None = None,  # noqa: A002
        order: str | None = None,
        limit: int | None = None,
        skip: int | None = None,
        timeout: float | None = None,
    ) -> Find:
        """Those for which the expression `filter` holds; `params` are variables in it. `order`: "at desc, name"."""
        fields = _said(
            collection=self.name, filter=filter, params=params, map=map, order=order, limit=limit, skip=skip
        )
        return Find(self._session, "find", fields, lambda pair: _document(pair[1], pair[0]), timeout)

    async def count(
        self,
        filter: str | None = None,  # noqa: A002
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> int:
        counted: int = await self._ask("count", timeout, again=True, filter=filter, params=params)
        return counted

    def _ask(self, do: str, timeout: float | None, *, again: bool = False, **fields: Any) -> Awaitable[Any]:
        return self._session._ask(do, _said(collection=self.name, **fields), timeout, again)


def _read_only(*_: Any, **__: Any) -> NoReturn:
    raise ReadOnly(
        "The past is read-only: nothing is written at a snapshot.",
        "Write to what there is now, `db.collection(…)`; `db.restore(…)` makes the past what there is now.",
    )


class PastReader(Reader):
    """A collection of a view of the past. What would write raises ReadOnly."""

    insert = insert_many = replace = update = delete = delete_many = drop = _read_only
    create_index = drop_index = set_schema = _read_only


class Writer(Reader):
    """A collection that is read and written: in a transaction, and the better half of others."""

    async def insert(
        self, document: Mapping[str, Any], key: str | None = None, *, timeout: float | None = None
    ) -> str:
        """Its key: a UUID, later than those before it, if none is given. Raises Exists for one that is there."""
        keys = await self.insert_many([document], None if key is None else [key], timeout=timeout)
        return keys[0]

    async def insert_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        keys: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> list[str]:
        """Their keys. All or none of them is there afterwards."""
        documents = list(documents)
        if isinstance(documents, list) and any(isinstance(document, str) for document in documents[:1]):
            raise BadInput("insert_many takes a list of documents; insert takes one.")
        given = None if keys is None else list(keys)
        made: list[str] = await self._ask("insert", timeout, documents=documents, keys=given)
        return made

    async def replace(
        self, key: str, document: Mapping[str, Any], *, create: bool = False, timeout: float | None = None
    ) -> None:
        """Raises NotFound if there is none at this key, unless `create`."""
        await self._ask("replace", timeout, key=key, document=document, create=create)

    async def update(
        self,
        key: str,
        fields: Mapping[str, Any] | None = None,
        remove: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> Document:
        """The document with these members set and those removed. Raises NotFound if there is none."""
        if isinstance(remove, str):
            raise BadInput("`remove` is a list of names, not one name.")
        changed = await self._ask("update", timeout, key=key, set=fields or {}, remove=list(remove))
        return Document(changed, key)

    async def delete(self, key: str, *, timeout: float | None = None) -> bool:
        """Whether it was there."""
        return bool(await self.delete_many([key], timeout=timeout))

    async def delete_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """How many were there."""
        deleted: int = await self._ask("delete", timeout, keys=list(keys))
        return deleted


class Collection(Writer):
    """A collection of a version. It begins with its first document."""

    _session: Database

    async def create_index(
        self, path: str, *, unique: bool = False, name: str | None = None, timeout: float | None = LONGEST
    ) -> dict[str, Any]:
        """`name`, `path`, `unique`, `state` of it, when it is built. `path`: names with dots between them."""
        made: dict[str, Any] = await self._ask(
            "create_index", timeout, path=path, unique=unique or None, name=name
        )
        return made

    async def drop_index(self, name: str, *, timeout: float | None = None) -> bool:
        """Whether it was there."""
        dropped: bool = await self._ask("drop_index", timeout, name=name)
        return dropped

    async def indexes(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """`name`, `path`, `unique` and `state` of each."""
        return list((await self._described(timeout)).get("indexes", ()))

    async def schema(self, *, timeout: float | None = None) -> dict[str, Any] | None:
        """The JSON Schema that documents must fit."""
        return (await self._described(timeout)).get("schema")

    async def set_schema(
        self,
        schema: Mapping[str, Any] | None,
        *,
        check: bool = True,
        strict: bool = True,
        timeout: float | None = LONGEST,
    ) -> None:
        """From now on each document fits it. With `check` those that are there must, too, or Invalid is raised.

        With `strict`, a word that would be ignored and looks like a slip of a keyword is BadInput.
        """
        fields = {"collection": self.name, "schema": schema, "check": check}
        if not strict:
            fields["strict"] = False
        await self._session._ask("set_schema", fields, timeout)

    async def drop(self, *, timeout: float | None = None) -> bool:
        """Remove it with all in it; whether it was there."""
        dropped: bool = await self._ask("drop_collection", timeout)
        return dropped

    def history(self, key: str, *, limit: int | None = None, timeout: float | None = None) -> Results[Past]:
        """What was at this key, the latest first, as far back as the server keeps commits."""
        return Results(
            self._session,
            "history",
            _said(collection=self.name, key=key, limit=limit),
            lambda told: Past(told["sequence"], _time(told["at"]), _document(told["document"], key)),
            timeout,
        )

    def watch(
        self,
        *,
        since: int | None = None,
        filter: str | None = None,  # noqa: A002
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """As `Database.watch`, of this collection."""
        return self._session.watch(self.name, since=since, filter=filter, params=params, timeout=timeout)

    async def _described(self, timeout: float | None) -> dict[str, Any]:
        for told in await self._session.collections(timeout=timeout):
            if told["name"] == self.name:
                return told
        return {}


class Watch:
    """Changes from now, or from after `since`, on: `async for change in watch`. It goes on after a lost connection.

    `sequence`: all changes up to that commit have come.
    """

    def __init__(
        self, database: Database, fields: Mapping[str, Any], since: int | None, timeout: float | None
    ) -> None:
        self.sequence = since
        self._database = database
        self._fields = fields
        self._timeout = timeout
        self._commit = -1  # of which some changes have come
        self._came = 0  # how many of them

    async def __aiter__(self) -> AsyncGenerator[Change, None]:
        async with contextlib.aclosing(self._parts()) as parts:
            async for part in parts:
                for change in part:
                    yield change

    async def _parts(self) -> AsyncGenerator[list[Change], None]:
        if self.sequence is None:  # now is when this was asked, not when the server came to it
            self.sequence = await self._database.sequence()
        lost = 0
        while True:
            self._skip = self._came
            try:
                flow = self._database._flow(
                    "watch", {**self._fields, "since": self.sequence}, self._timeout, True
                )
                async with contextlib.aclosing(flow) as parts:
                    async for part in parts:
                        lost = 0
                        if changes := [change for told in part if (change := self._told(told)) is not None]:
                            yield changes
            except ConnectionLost as failure:
                if not failure.unknown:
                    raise
            lost += 1
            await asyncio.sleep(_pause(lost))

    def _told(self, told: Mapping[str, Any]) -> Change | None:
        """The change, unless it came before the connection was lost; a sequence alone says that all up to it came."""
        sequence = told["sequence"]
        if "key" not in told:
            self.sequence, self._commit, self._came = sequence, sequence, 0
            return None
        if sequence != self._commit:
            self.sequence, self._commit, self._came, self._skip = sequence - 1, sequence, 0, 0
        if self._skip:
            self._skip -= 1
            return None
        self._came += 1
        return _change(told)


def _pause(failures: int) -> float:
    """Seconds until the next try, other ones for each client."""
    return min(ASLEEP, 0.01 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311


class View(_Session):
    """A version as it was at a snapshot."""

    def __init__(self, database: Database, snapshot: Snapshot | str | int) -> None:
        self._database = database
        self._at = _reference(snapshot)

    def collection(self, name: str) -> PastReader:
        return PastReader(self, name)

    def export(
        self, collection: str | None = None, *, timeout: float | None = None
    ) -> Results[dict[str, Any]]:
        """As `Database.export`."""
        return Results(self, "export", _said(collection=collection), lambda told: told, timeout)

    async def _ask(
        self, do: str, fields: Mapping[str, Any], timeout: float | None, again: bool = False
    ) -> Any:
        return await self._database._ask(do, {**fields, "at": self._at}, timeout, again)

    def _flow(
        self, do: str, fields: Mapping[str, Any], timeout: float | None
    ) -> AsyncGenerator[list[Any], None]:
        return self._database._flow(do, {**fields, "at": self._at}, timeout)


class Transaction(_Session):
    """Reads of one moment, and writes that are done all or none, if nothing that was read has changed by then."""

    _repeats = False

    def __init__(self, database: Database, wire: _Wire, told: Mapping[str, Any], timeout: float) -> None:
        self.sequence: int = told["sequence"]
        self._database = database
        self._wire = wire
        self._number = told["in"]
        self._timeout = timeout
        self._over = False

    def collection(self, name: str) -> Writer:
        return Writer(self, name)

    async def _ask(
        self, do: str, fields: Mapping[str, Any], timeout: float | None, again: bool = False
    ) -> Any:
        self._check()
        until = asyncio.get_running_loop().time() + (timeout or self._timeout)
        try:
            return await self._wire.request(do, {**fields, "in": self._number}, until)
        except ConnectionLost as lost:
            if do == "commit" and lost.unknown:
                raise
            raise _lost_transaction() from lost

    async def _flow(
        self, do: str, fields: Mapping[str, Any], timeout: float | None
    ) -> AsyncGenerator[list[Any], None]:
        self._check()
        until = asyncio.get_running_loop().time() + (timeout or LONGEST)
        try:
            flow = _streamed(self._wire, do, {**fields, "in": self._number}, until)
            async with contextlib.aclosing(flow) as parts:
                async for part in parts:
                    yield part
        except ConnectionLost as lost:
            raise _lost_transaction() from lost

    def _check(self) -> None:
        if self._over:
            raise BadInput("This transaction is over.", "Begin another one.")

    async def _commit(self) -> None:
        try:
            await self._ask("commit", {}, None)
        finally:
            self._release()

    def _abort(self) -> None:
        if not self._over:
            self._wire.abort(self._number)
            self._release()

    def _release(self) -> None:
        self._over = True
        self._wire.transactions.release()


def _refused(
    failure: Conflict | ConnectionLost | TimedOut, before: VersionbaseError | None
) -> VersionbaseError:
    """Why a transaction that may be done again was not done. Raises what does not allow it.

    Of one that had no time left it is what refused the one before.
    """
    if not isinstance(failure, Conflict) and failure.unknown:
        raise failure
    if isinstance(failure, TimedOut):
        raise before or failure
    return failure


def _lost_transaction() -> ConnectionLost:
    return ConnectionLost(
        "The connection to versionbase was lost, and this transaction with it: nothing of it was done.",
        "Do it again, or let `db.run` do that.",
    )


async def _streamed(
    wire: _Wire, do: str, fields: Mapping[str, Any], until: float | None
) -> AsyncGenerator[list[Any], None]:
    """The parts of a stream on this connection. It is given up with the generator."""
    stream = await wire.stream(do, fields, until)
    try:
        while (part := await stream.next(until)) is not None:
            yield part
    finally:
        stream.close()


class Database(_Session):
    """A version, as it is now. `async with connect() as db`, or `db = await connect()`, to be closed."""

    def __init__(self, place: _Place, timeout: float | None) -> None:
        self.version = place.version
        self.owner = Owner(self)
        self._place = place
        self._timeout = timeout or TIMEOUT
        self._connecting = timeout or CONNECTING
        self._link = _Link(place)
        self._others: list[_Link] = []  # for streams that the first one has no room for
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<versionbase {self.version} at {self._place.address}>"

    async def __aenter__(self) -> Self:
        return await self._open_or_close()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open_or_close().__await__()

    async def open(self, *, timeout: float | None = None) -> Self:
        """Connect now, and not at the first request. Raises ConnectionLost, Denied.

        It tries again until `timeout`, in seconds, is over: what `connect` was told, else 10.
        """
        await self._wire(asyncio.get_running_loop().time() + (timeout or self._connecting))
        return self

    async def _open_or_close(self) -> Self:
        """Of what did not come about nothing is left."""
        try:
            return await self.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._closed = True
        links, self._others = [self._link, *self._others], []
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    # Documents

    def collection(self, name: str) -> Collection:
        """It need not be there yet."""
        return Collection(self, name)

    def at(self, snapshot: Snapshot | str | int) -> View:
        """The past, to read: a snapshot, or its name or id; for the owner also VERSION, VERSION@NAME."""
        return View(self, snapshot)

    @asynccontextmanager
    async def transaction(
        self, *, at: Snapshot | str | int | None = None, write: bool = True, timeout: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Committed at the end of the block, given up if that raises. Raises Conflict; `run` tries again instead."""
        transaction = await self._begin(at, write, timeout or self._timeout)
        try:
            yield transaction
            if write:
                await transaction._commit()
        finally:
            transaction._abort()

    async def run(
        self, callback: Callable[[Transaction], Awaitable[T]], *, timeout: float | None = None
    ) -> T:
        """What the callback returns for a transaction that was committed. It is called again after a conflict."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (timeout or self._timeout)
        refused: VersionbaseError | None = None
        for tries in itertools.count(1):
            try:
                async with self.transaction(timeout=max(0.001, until - loop.time())) as transaction:
                    return await callback(transaction)
            except (Conflict, ConnectionLost, TimedOut) as failure:
                refused = _refused(failure, refused)
                if loop.time() >= until:
                    raise refused from None
            await asyncio.sleep(_pause(tries))
        raise AssertionError

    async def _begin(self, at: Snapshot | str | int | None, write: bool, timeout: float) -> Transaction:
        until = asyncio.get_running_loop().time() + timeout
        fields = _said(write=write, at=None if at is None else _reference(at))
        for tries in itertools.count(1):
            wire = await self._wire(until)
            async with _by(until):
                await wire.transactions.acquire()
            try:
                told = await wire.request("begin", fields, until)
                return Transaction(self, wire, told, timeout)
            except ConnectionLost:
                wire.transactions.release()
                if tries == TRIES:
                    raise
            except BaseException:
                wire.transactions.release()
                raise
        raise AssertionError

    def watch(
        self,
        collection: str | None = None,
        *,
        since: int | None = None,
        filter: str | None = None,  # noqa: A002
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """What changes from now on, or from after the commit `since` on: Gone if that is too long ago.

        `timeout`: seconds that it may be without a connection; None for as long as it takes.
        """
        return Watch(self, _said(collection=collection, filter=filter, params=params), since, timeout)

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """`version`, `sequence`, `collections`, `documents`, `transactions`, `connections`."""
        told: dict[str, Any] = await self._ask("status", {}, timeout, again=True)
        return told

    async def sequence(self, *, timeout: float | None = None) -> int:
        """The number of the latest commit."""
        number: int = (await self.status(timeout=timeout))["sequence"]
        return number

    def export(
        self, collection: str | None = None, *, timeout: float | None = None
    ) -> Results[dict[str, Any]]:
        """All documents as `collection`, `key`, `document`; before those its `indexes` and `schema`."""
        return Results(self, "export", _said(collection=collection), lambda told: told, timeout)

    # Snapshots

    async def snapshot(self, name: str | None = None, *, timeout: float | None = None) -> Snapshot:
        """Keep what is there now; it costs the same for any size."""
        return Snapshot.of(await self._ask("snapshot", _said(name=name), timeout))

    async def snapshots(self, *, timeout: float | None = None) -> list[Snapshot]:
        return [Snapshot.of(told) for told in await self._ask("snapshots", {}, timeout, again=True)]

    async def drop_snapshot(self, snapshot: Snapshot | str | int, *, timeout: float | None = None) -> bool:
        """Whether it was there."""
        dropped: bool = await self._ask("drop_snapshot", {"snapshot": _reference(snapshot)}, timeout)
        return dropped

    async def restore(self, snapshot: Snapshot | str | int, *, timeout: float | None = None) -> int:
        """Let the version be as it was then. The sequence of the commit that does so."""
        told = await self._ask("restore", {"snapshot": _reference(snapshot)}, timeout)
        number: int = told["sequence"]
        return number

    def diff(
        self,
        old: Snapshot | str | int,
        new: Snapshot | str | int | None = None,
        *,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> Results[Difference]:
        """What is not the same in two snapshots, or in one and now."""
        fields = {"from": _reference(old)} | _said(
            to=None if new is None else _reference(new), collection=collection
        )
        return Results(self, "diff", fields, _difference, timeout)

    # Connections

    async def _wire(self, until: float) -> _Wire:
        if self._closed:
            raise _closed()
        return await self._link.wire(until)

    async def _ask(
        self, do: str, fields: Mapping[str, Any], timeout: float | None, again: bool = False
    ) -> Any:
        until = asyncio.get_running_loop().time() + (timeout or self._timeout)
        for tries in itertools.count(1):
            wire = await self._wire(until)
            try:
                return await wire.request(do, fields, until)
            except ConnectionLost as lost:
                if tries == TRIES or (lost.unknown and not again):
                    raise
        raise AssertionError

    async def _flow(
        self, do: str, fields: Mapping[str, Any], timeout: float | None, endless: bool = False
    ) -> AsyncGenerator[list[Any], None]:
        """Asked again if the connection is lost before the first part has come."""
        until = asyncio.get_running_loop().time() + (timeout or (FOREVER if endless else LONGEST))
        for tries in itertools.count(1):
            came = False
            link = self._roomy()
            link.streams += 1
            wire = None
            try:
                wire = await link.wire(until)
                flow = _streamed(wire, do, fields, None if endless else until)
                async with contextlib.aclosing(flow) as parts:
                    async for part in parts:
                        came = True
                        yield part
                return
            except ConnectionLost as lost:
                if came:
                    raise _interrupted() from lost
                if tries == TRIES or wire is None:
                    raise
            finally:
                link.streams -= 1
                self._spare(link)

    def _roomy(self) -> _Link:
        """A link with room for a stream."""
        if self._closed:
            raise _closed()
        for link in (self._link, *self._others):
            if link.has_room:
                return link
        self._others.append(_Link(self._place))
        return self._others[-1]

    def _spare(self, link: _Link) -> None:
        """Another one than the first is closed when it has no more streams."""
        if not link.streams and link in self._others:
            self._others.remove(link)
            closing = asyncio.get_running_loop().create_task(link.close(), name="versionbase: close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _closed() -> ConnectionLost:
    return ConnectionLost("This connection to versionbase was closed by its program.")


def _interrupted() -> ConnectionLost:
    return ConnectionLost(
        "The connection to versionbase was lost amid these results.",
        "Read them again from the beginning; to_list() does so by itself.",
        unknown=True,
    )


class Owner:
    """What only the key of the server's owner may: versions. `db.owner`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """`name`, `source`, `sequence`, `made`, `changed` of each."""
        told = await self._ask("versions", timeout, True)
        return [
            {**version, "made": _time(version["made"]), "changed": _time(version["changed"])}
            for version in told
        ]

    async def fork(
        self,
        version: str,
        source: str | None = None,
        snapshot: Snapshot | str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Make a version from another one, as it is or as it was; it copies nothing, whatever the size."""
        at = None if snapshot is None else _reference(snapshot)
        return await self._ask("fork", timeout, version=version, source=source, snapshot=at)

    async def drop(self, version: str, *, timeout: float | None = None) -> Any:
        """Remove a version with all in it."""
        return await self._ask("drop", timeout, version=version)

    async def swap(self, version: str, other: str, *, timeout: float | None = None) -> Any:
        """Let each of two versions have what the other one has."""
        return await self._ask("swap", timeout, version=version, other=other)

    async def key(self, version: str, *, timeout: float | None = None) -> str:
        """The key that opens this version, and no other."""
        key: str = await self._ask("key", timeout, True, version=version)
        return key

    async def size(
        self,
        version: str,
        snapshot: Snapshot | str | int | None = None,
        *,
        whole: bool = False,
        timeout: float | None = None,
    ) -> int:
        """About how many bytes only this version, or this snapshot of it, has; `whole`: also what others share."""
        at = None if snapshot is None else _reference(snapshot)
        more = {"whole": True} if whole else {}
        size: int = await self._ask("size", timeout, True, version=version, snapshot=at, **more)
        return size

    async def limit(self, size: int, *, timeout: float | None = None) -> None:
        """Let each version have so many bytes of its own from now on, until the server stops; 0 is no limit."""
        await self._ask("limit", timeout, bytes=size)

    async def collect(self, *, timeout: float | None = None) -> Any:
        """Remove what nothing needs any more; how many nodes that were."""
        return await self._last("collect", {}, timeout, [])

    async def verify(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Read all there is: `nodes`, `entries`, and `problems`, the first thousand sentences."""
        problems: list[Any] = []
        told = await self._last("verify", {}, timeout, problems)
        return {**told, "problems": [found.get("problem") for found in problems]}

    async def snapshot(
        self, version: str, name: str | None = None, *, timeout: float | None = None
    ) -> Snapshot:
        return Snapshot.of(await self._ask("snapshot", timeout, version=version, name=name))

    async def snapshots(self, version: str, *, timeout: float | None = None) -> list[Snapshot]:
        return [Snapshot.of(told) for told in await self._ask("snapshots", timeout, True, version=version)]

    async def drop_snapshot(
        self, version: str, snapshot: Snapshot | str | int, *, timeout: float | None = None
    ) -> bool:
        """Whether it was there."""
        dropped: bool = await self._ask(
            "drop_snapshot", timeout, version=version, snapshot=_reference(snapshot)
        )
        return dropped

    async def restore(
        self, version: str, snapshot: Snapshot | str | int, *, timeout: float | None = None
    ) -> int:
        """The sequence of the commit that does so."""
        told = await self._ask("restore", timeout, version=version, snapshot=_reference(snapshot))
        number: int = told["sequence"]
        return number

    def export(
        self,
        version: str,
        collection: str | None = None,
        at: Snapshot | str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Results[dict[str, Any]]:
        """As `Database.export`, of any version."""
        fields = _said(version=version, collection=collection, at=None if at is None else _reference(at))
        return Results(self._database, "export", fields, lambda told: told, timeout)

    async def load(
        self,
        version: str,
        exported: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        timeout: float | None = None,
    ) -> int:
        """Put there what `export` gave, by the mebibyte: how many items. What came before a failure stays."""
        portions = self._portions()
        async for item in _either(exported):
            if portion := portions.add(item):
                await self._load(version, portion, timeout)
        if portions.items:
            await self._load(version, portions.items, timeout)
        return portions.count

    def _portions(self) -> _Portions:
        return _Portions(self._database._place.codecs[0])

    async def _load(self, version: str, portion: list[Any], timeout: float | None) -> None:
        await self._ask("import", timeout, version=version, documents=portion)

    def _ask(self, do: str, timeout: float | None, again: bool = False, **fields: Any) -> Awaitable[Any]:
        return self._database._ask(do, _said(**fields), timeout, again)

    async def _last(self, do: str, fields: Mapping[str, Any], timeout: float | None, items: list[Any]) -> Any:
        """What comes after all parts; the first thousand items of these are left in `items`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (timeout or LONGEST)
        wire = await self._database._wire(until)
        stream = await wire.stream(do, fields, until)
        try:
            while (part := await stream.next(until)) is not None:
                items += part[: 1000 - len(items)]
            return stream.result
        finally:
            stream.close()


class _Portions:
    """Items, by about as many as make a mebibyte."""

    def __init__(self, codec: _Codec) -> None:
        self.count = 0
        self.items: list[Any] = []
        self._codec = codec
        self._size = 0

    def add(self, item: Mapping[str, Any]) -> list[Any]:
        """Those before it if they are enough for one request."""
        size = len(self._codec.pack(item))
        full, items = self._size + size > PORTION, self.items
        self.items, self._size = ([item], size) if full else (items, self._size + size)
        if not full:
            items.append(item)
        self.count += 1
        return items if full else []


async def _either(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def connect(
    url: str | None = None,
    version: str | None = None,
    *,
    source: str | None = None,
    timeout: float | None = None,
    plain_json: bool = False,
) -> Database:
    """The version that VERSIONBASE_URL or `url` names; `async with connect() as db`.

    A URL with the owner's key opens `version`, else the one that it names, else COMMIT_ID, else production. If that
    is not there yet it is forked from `source`: production, or nothing for "". `timeout`: seconds for connecting
    (10 if it is not said), and for each request that says none (60). Raises NotConfigured without any URL.
    """
    return Database(_Place.of(url, version, source, plain_json), timeout)


# The same without await: a thread of the process has the loop, and whoever asks waits for it.


class _Background:
    """The loop of this process, in a thread of its own from the first use to the end."""

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.wires: weakref.WeakSet[_Wire] = weakref.WeakSet()
        self._thread = threading.Thread(target=self._serve, name="versionbase", daemon=True)
        self._thread.start()

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            what.close()
            raise BadInput("Plain code cannot wait in the thread that does the work.")
        future = asyncio.run_coroutine_threadsafe(what, self.loop)
        try:
            return future.result()
        finally:
            future.cancel()  # of a wait that was interrupted, by Ctrl-C say

    def soon(self, what: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(what, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2)

    def forget_sockets(self) -> None:
        """In a fork: its parent's connections are none of its business, and must end when the parent ends them."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for wire in list(self.wires):
            with contextlib.suppress(OSError):
                os.dup2(nowhere, wire.descriptor, inheritable=False)
        os.close(nowhere)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):  # at the process's end: whoever waits ends with it, unheard
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        for wire in list(self.wires):
            wire.abandon()


class _Process:
    """What there is once in each process. A fork begins anew, and leaves alone what its parent had."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forks = 0
        self._background: _Background | None = None
        self._inherited: list[_Background] = []  # never collected: it would close what the parent uses
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self._stop)

    def background(self) -> _Background:
        if self._background is None:
            with self.lock:
                if self._background is None:
                    self._background = _Background()
        return self._background

    def know(self, wire: _Wire) -> None:
        if self._background is not None and self._background.loop is wire.loop:
            self._background.wires.add(wire)

    def _forked(self) -> None:
        self.lock = threading.Lock()
        self.forks += 1
        if self._background is not None:
            self._background.forget_sockets()
            self._inherited.append(self._background)
            self._background = None

    def _stop(self) -> None:
        if self._background is not None:
            self._background.stop()


_process = _Process()


class _SyncSession:
    """Waits on behalf of collections."""

    def _now(self) -> Any:
        """The session of the loop, as it is in this process."""
        raise NotImplementedError

    def collections(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """`name`, `documents`, `indexes` and `schema` of each."""
        told: list[dict[str, Any]] = _wait(self._now().collections(timeout=timeout))
        return told


def _wait(what: Coroutine[Any, Any, T]) -> T:
    return _process.background().wait(what)


async def _next(parts: AsyncGenerator[list[T], None]) -> list[T] | None:
    return await anext(parts, None)


def _each(parts: AsyncGenerator[list[T], None]) -> Iterator[T]:
    """Item by item, waiting once for each part."""
    background = _process.background()
    try:
        while (part := background.wait(_next(parts))) is not None:
            yield from part
    finally:
        background.soon(parts.aclose())


class SyncResults(Generic[T]):
    """As `Results`, without await."""

    def __init__(self, results: Results[T]) -> None:
        self._results = results

    def __iter__(self) -> Iterator[T]:
        return _each(self._results._parts())

    def to_list(self) -> list[T]:
        """All of them, in memory."""
        return _wait(self._results.to_list())

    def first(self) -> T | None:
        """The first one, None if there is none."""
        return _wait(self._results.first())


class SyncFind(SyncResults[Any]):
    """Documents, or what `map` makes of them."""

    _results: Find

    def explain(self) -> dict[str, Any]:
        """As `Find.explain`."""
        return _wait(self._results.explain())


class SyncReader:
    """As `Reader`, without await."""

    def __init__(self, session: _SyncSession, name: str) -> None:
        self.name = name
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _it(self) -> Any:
        return self._session._now().collection(self.name)

    def get(self, key: str, *, timeout: float | None = None) -> Document | None:
        """As `Reader.get`."""
        found: Document | None = _wait(self._it().get(key, timeout=timeout))
        return found

    def get_many(self, keys: Iterable[str], *, timeout: float | None = None) -> list[Document | None]:
        """As `Reader.get_many`."""
        found: list[Document | None] = _wait(self._it().get_many(list(keys), timeout=timeout))
        return found

    def find(
        self,
        filter: str | None = None,  # noqa: A002
        *,
        params: Mapping[str, Any] | None = None,
        map: str | None = None,  # noqa: A002
        order: str | None = None,
        limit: int | None = None,
        skip: int | None = None,
        timeout: float | None = None,
    ) -> SyncFind:
        """As `Reader.find`."""
        return SyncFind(
            self._it().find(
                filter, params=params, map=map, order=order, limit=limit, skip=skip, timeout=timeout
            )
        )

    def count(
        self,
        filter: str | None = None,  # noqa: A002
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> int:
        """As `Reader.count`."""
        counted: int = _wait(self._it().count(filter, params=params, timeout=timeout))
        return counted


class SyncPastReader(SyncReader):
    """As `PastReader`, without await."""

    insert = insert_many = replace = update = delete = delete_many = drop = _read_only
    create_index = drop_index = set_schema = _read_only


class SyncWriter(SyncReader):
    """As `Writer`, without await."""

    def insert(
        self, document: Mapping[str, Any], key: str | None = None, *, timeout: float | None = None
    ) -> str:
        """As `Writer.insert`."""
        made: str = _wait(self._it().insert(document, key, timeout=timeout))
        return made

    def insert_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        keys: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> list[str]:
        """As `Writer.insert_many`."""
        given = None if keys is None else list(keys)
        made: list[str] = _wait(self._it().insert_many(list(documents), given, timeout=timeout))
        return made

    def replace(
        self, key: str, document: Mapping[str, Any], *, create: bool = False, timeout: float | None = None
    ) -> None:
        """As `Writer.replace`."""
        _wait(self._it().replace(key, document, create=create, timeout=timeout))

    def update(
        self,
        key: str,
        fields: Mapping[str, Any] | None = None,
        remove: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> Document:
        """As `Writer.update`."""
        changed: Document = _wait(self._it().update(key, fields, remove, timeout=timeout))
        return changed

    def delete(self, key: str, *, timeout: float | None = None) -> bool:
        """As `Writer.delete`."""
        deleted: bool = _wait(self._it().delete(key, timeout=timeout))
        return deleted

    def delete_many(self, keys: Iterable[str], *, timeout: float | None = None) -> int:
        """As `Writer.delete_many`."""
        deleted: int = _wait(self._it().delete_many(list(keys), timeout=timeout))
        return deleted


class SyncCollection(SyncWriter):
    """As `Collection`, without await."""

    _session: SyncDatabase

    def create_index(
        self, path: str, *, unique: bool = False, name: str | None = None, timeout: float | None = LONGEST
    ) -> dict[str, Any]:
        """As `Collection.create_index`."""
        made: dict[str, Any] = _wait(self._it().create_index(path, unique=unique, name=name, timeout=timeout))
        return made

    def drop_index(self, name: str, *, timeout: float | None = None) -> bool:
        """As `Collection.drop_index`."""
        dropped: bool = _wait(self._it().drop_index(name, timeout=timeout))
        return dropped

    def indexes(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """As `Collection.indexes`."""
        told: list[dict[str, Any]] = _wait(self._it().indexes(timeout=timeout))
        return told

    def schema(self, *, timeout: float | None = None) -> dict[str, Any] | None:
        """As `Collection.schema`."""
        told: dict[str, Any] | None = _wait(self._it().schema(timeout=timeout))
        return told

    def set_schema(
        self,
        schema: Mapping[str, Any] | None,
        *,
        check: bool = True,
        strict: bool = True,
        timeout: float | None = LONGEST,
    ) -> None:
        """As `Collection.set_schema`."""
        _wait(self._it().set_schema(schema, check=check, strict=strict, timeout=timeout))

    def drop(self, *, timeout: float | None = None) -> bool:
        """As `Collection.drop`."""
        dropped: bool = _wait(self._it().drop(timeout=timeout))
        return dropped

    def history(
        self, key: str, *, limit: int | None = None, timeout: float | None = None
    ) -> SyncResults[Past]:
        """As `Collection.history`."""
        return SyncResults(self._it().history(key, limit=limit, timeout=timeout))

    def watch(
        self,
        *,
        since: int | None = None,
        filter: str | None = None,  # noqa: A002
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> SyncWatch:
        """As `Collection.watch`."""
        return self._session.watch(self.name, since=since, filter=filter, params=params, timeout=timeout)


class SyncWatch:
    """As `Watch`, without await. `close()`, from any thread, ends it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._closed = threading.Event()
        self._asking: concurrent.futures.Future[Any] | None = None

    @property
    def sequence(self) -> int | None:
        return self._watch.sequence

    def __iter__(self) -> Iterator[Change]:
        loop = _process.background().loop
        parts = self._watch._parts()
        try:
            while not self._closed.is_set():
                asking = self._asking = asyncio.run_coroutine_threadsafe(_next(parts), loop)
                if self._closed.is_set():
                    asking.cancel()
                yield from asking.result() or ()
        except concurrent.futures.CancelledError:
            if not self._closed.is_set():
                raise
        finally:
            if self._asking is not None:
                self._asking.cancel()
            _process.background().soon(parts.aclose())

    def close(self) -> None:
        self._closed.set()
        if self._asking is not None:
            self._asking.cancel()


class SyncView(_SyncSession):
    """As `View`, without await."""

    def __init__(self, database: SyncDatabase, snapshot: Snapshot | str | int) -> None:
        self._database = database
        self._at = snapshot

    def collection(self, name: str) -> SyncPastReader:
        return SyncPastReader(self, name)

    def export(
        self, collection: str | None = None, *, timeout: float | None = None
    ) -> SyncResults[dict[str, Any]]:
        """As `Database.export`."""
        return SyncResults(self._now().export(collection, timeout=timeout))

    def _now(self) -> View:
        return self._database._now().at(self._at)


class SyncTransaction(_SyncSession):
    """As `Transaction`, without await."""

    def __init__(self, transaction: Transaction) -> None:
        self.sequence = transaction.sequence
        self._transaction = transaction
        self._forks = _process.forks

    def collection(self, name: str) -> SyncWriter:
        return SyncWriter(self, name)

    def _now(self) -> Transaction:
        if self._forks != _process.forks:
            raise BadInput(
                "This transaction is of the process that this one was forked from.", "Begin another one."
            )
        return self._transaction


class SyncDatabase(_SyncSession):
    """As `Database`, without await: for any thread, and after a fork too. `with connect_sync() as db`."""

    def __init__(self, place: _Place, timeout: float | None) -> None:
        self.version = place.version
        self.owner = SyncOwner(self)
        self._place = place
        self._timeout = timeout
        self._database = Database(place, timeout)
        self._forks = _process.forks

    def __repr__(self) -> str:
        return repr(self._database)

    def __enter__(self) -> Self:
        _wait(self._now()._open_or_close())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, *, timeout: float | None = None) -> Self:
        """As `Database.open`."""
        _wait(self._now().open(timeout=timeout))
        return self

    def close(self) -> None:
        _wait(self._now().close())

    def collection(self, name: str) -> SyncCollection:
        """It need not be there yet."""
        return SyncCollection(self, name)

    def at(self, snapshot: Snapshot | str | int) -> SyncView:
        """As `Database.at`."""
        return SyncView(self, snapshot)

    @contextmanager
    def transaction(
        self, *, at: Snapshot | str | int | None = None, write: bool = True, timeout: float | None = None
    ) -> Iterator[SyncTransaction]:
        """As `Database.transaction`."""
        transaction = _wait(self._now()._begin(at, write, timeout or self._timeout or TIMEOUT))
        try:
            yield SyncTransaction(transaction)
            if write:
                _wait(transaction._commit())
        finally:
            _process.background().loop.call_soon_threadsafe(transaction._abort)

    def run(self, callback: Callable[[SyncTransaction], T], *, timeout: float | None = None) -> T:
        """As `Database.run`."""
        until = time.monotonic() + (timeout or self._timeout or TIMEOUT)
        refused: VersionbaseError | None = None
        for tries in itertools.count(1):
            try:
                with self.transaction(timeout=max(0.001, until - time.monotonic())) as transaction:
                    return callback(transaction)
            except (Conflict, ConnectionLost, TimedOut) as failure:
                refused = _refused(failure, refused)
                if time.monotonic() >= until:
                    raise refused from None
            time.sleep(_pause(tries))
        raise AssertionError

    def watch(
        self,
        collection: str | None = None,
        *,
        since: int | None = None,
        filter: str | None = None,  # noqa: A002
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> SyncWatch:
        """As `Database.watch`."""
        return SyncWatch(
            self._now().watch(collection, since=since, filter=filter, params=params, timeout=timeout)
        )

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """As `Database.status`."""
        return _wait(self._now().status(timeout=timeout))

    def sequence(self, *, timeout: float | None = None) -> int:
        """The number of the latest commit."""
        return _wait(self._now().sequence(timeout=timeout))

    def export(
        self, collection: str | None = None, *, timeout: float | None = None
    ) -> SyncResults[dict[str, Any]]:
        """As `Database.export`."""
        return SyncResults(self._now().export(collection, timeout=timeout))

    def snapshot(self, name: str | None = None, *, timeout: float | None = None) -> Snapshot:
        """As `Database.snapshot`."""
        return _wait(self._now().snapshot(name, timeout=timeout))

    def snapshots(self, *, timeout: float | None = None) -> list[Snapshot]:
        return _wait(self._now().snapshots(timeout=timeout))

    def drop_snapshot(self, snapshot: Snapshot | str | int, *, timeout: float | None = None) -> bool:
        """Whether it was there."""
        return _wait(self._now().drop_snapshot(snapshot, timeout=timeout))

    def restore(self, snapshot: Snapshot | str | int, *, timeout: float | None = None) -> int:
        """As `Database.restore`."""
        return _wait(self._now().restore(snapshot, timeout=timeout))

    def diff(
        self,
        old: Snapshot | str | int,
        new: Snapshot | str | int | None = None,
        *,
        collection: str | None = None,
        timeout: float | None = None,
    ) -> SyncResults[Difference]:
        """As `Database.diff`."""
        return SyncResults(self._now().diff(old, new, collection=collection, timeout=timeout))

    def _now(self) -> Database:
        """Another one after a fork, whose connections are its own."""
        if self._forks != _process.forks:
            with _process.lock:
                if self._forks != _process.forks:
                    self._database, self._forks = Database(self._place, self._timeout), _process.forks
        return self._database


class SyncOwner:
    """As `Owner`, without await."""

    def __init__(self, database: SyncDatabase) -> None:
        self._database = database

    def _it(self) -> Owner:
        return self._database._now().owner

    def versions(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """As `Owner.versions`."""
        return _wait(self._it().versions(timeout=timeout))

    def fork(
        self,
        version: str,
        source: str | None = None,
        snapshot: Snapshot | str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """As `Owner.fork`."""
        return _wait(self._it().fork(version, source, snapshot, timeout=timeout))

    def drop(self, version: str, *, timeout: float | None = None) -> Any:
        """As `Owner.drop`."""
        return _wait(self._it().drop(version, timeout=timeout))

    def swap(self, version: str, other: str, *, timeout: float | None = None) -> Any:
        """As `Owner.swap`."""
        return _wait(self._it().swap(version, other, timeout=timeout))

    def key(self, version: str, *, timeout: float | None = None) -> str:
        """As `Owner.key`."""
        return _wait(self._it().key(version, timeout=timeout))

    def size(
        self,
        version: str,
        snapshot: Snapshot | str | int | None = None,
        *,
        whole: bool = False,
        timeout: float | None = None,
    ) -> int:
        """As `Owner.size`."""
        return _wait(self._it().size(version, snapshot, whole=whole, timeout=timeout))

    def limit(self, size: int, *, timeout: float | None = None) -> None:
        """As `Owner.limit`."""
        _wait(self._it().limit(size, timeout=timeout))

    def collect(self, *, timeout: float | None = None) -> Any:
        """As `Owner.collect`."""
        return _wait(self._it().collect(timeout=timeout))

    def verify(self, *, timeout: float | None = None) -> dict[str, Any]:
        """As `Owner.verify`."""
        return _wait(self._it().verify(timeout=timeout))

    def snapshot(self, version: str, name: str | None = None, *, timeout: float | None = None) -> Snapshot:
        return _wait(self._it().snapshot(version, name, timeout=timeout))

    def snapshots(self, version: str, *, timeout: float | None = None) -> list[Snapshot]:
        return _wait(self._it().snapshots(version, timeout=timeout))

    def drop_snapshot(
        self, version: str, snapshot: Snapshot | str | int, *, timeout: float | None = None
    ) -> bool:
        """Whether it was there."""
        return _wait(self._it().drop_snapshot(version, snapshot, timeout=timeout))

    def restore(self, version: str, snapshot: Snapshot | str | int, *, timeout: float | None = None) -> int:
        """As `Owner.restore`."""
        return _wait(self._it().restore(version, snapshot, timeout=timeout))

    def export(
        self,
        version: str,
        collection: str | None = None,
        at: Snapshot | str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> SyncResults[dict[str, Any]]:
        """As `Owner.export`."""
        return SyncResults(self._it().export(version, collection, at, timeout=timeout))

    def load(
        self, version: str, exported: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> int:
        """As `Owner.load`."""
        portions = self._it()._portions()
        for item in exported:
            if portion := portions.add(item):
                _wait(self._it()._load(version, portion, timeout))
        if portions.items:
            _wait(self._it()._load(version, portions.items, timeout))
        return portions.count


def connect_sync(
    url: str | None = None,
    version: str | None = None,
    *,
    source: str | None = None,
    timeout: float | None = None,
    plain_json: bool = False,
) -> SyncDatabase:
    """As `connect`, without await; `with connect_sync() as db`, or once for all threads at the module's top."""
    return SyncDatabase(_Place.of(url, version, source, plain_json), timeout)
