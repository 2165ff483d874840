"""The access log: a JSON object a line for every request, noted on the loop, written by a thread."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _json_string
from pathlib import Path
from typing import NamedTuple

STANDARD_OUTPUT = "-"

_EVERY = 0.1  # seconds between two writes; long ones would be felt by the requests that are served meanwhile
_HELD_MAX = 16 * 1024 * 1024  # bytes of lines that wait for the disk: a second of the busiest router
_LINE_COST = 1024  # bytes of memory of a line without what the client wrote
# Bytes written at a time: what a pipe takes whole when several routers write to it (PIPE_BUF of linux/limits.h).
# Small for the loop's sake, too: it gets the interpreter back at each write, after a dozen lines.
_PIECE_MAX = 4096
_COMPLAIN_EVERY = 600.0  # seconds between two words on standard error about lines that cannot be written
_CLOSE_WAIT = 3.0  # seconds for the last lines; a disk that hangs must not hold up the end

# Bytes of JSON, that is after escaping. Together a line stays under _PIECE_MAX.
_TARGET_MAX, _AGENT_MAX, _REFERER_MAX = 2048, 384, 384
_HOST_MAX, _ID_MAX, _CLIENT_MAX, _METHOD_MAX = 258, 132, 64, 40

_TICKET = re.compile(
    rb"([?&]ticket=)[^&]*"
)  # of a link of ours, to log in or to see a preview: as good as a password while it is valid

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """One request. What the client wrote is as it wrote it: it is escaped, and cut, when the line is made.

    A named tuple, since one is made for every request. Times are seconds.
    """

    began: float  # unix time at which its head was there
    seconds: float  # from then to the end of the answer, or of the websocket
    client: bytes  # the address of the client
    status: int  # 499: the client left before the answer ended; 101: a websocket
    by: str  # who made the answer: worker, control, router
    why: str = ""  # for an answer of the router, a short kind of the reason; for 499 "client_left"
    method: bytes = b""
    target: bytes = b""
    host: bytes | str = b""
    minor: int | None = 1  # of HTTP/1.x; None: it was no such request
    request_id: bytes = b""
    received: int = 0  # bytes from the client, head and body
    sent: int = 0  # bytes to the client, head and body
    first_byte: float | None = None  # seconds from `began` to the upstream's first byte
    deployment: str | None = None
    upstream: str | None = None  # the address of the worker
    agent: bytes = b""
    referer: bytes = b""
    tls: str = ""  # the version, such as TLSv1.3; empty: none


_FORM = (
    '{"time":"%s","request_id":%s,"client":%s,"host":%s,"method":%s,"target":%s,"proto":%s,"status":%d,'
    '"sent":%d,"received":%d,"seconds":%.6f,"first_byte":%s,"deployment":%s,"upstream":%s,"by":"%s","why":%s,'
    '"user_agent":%s,"referer":%s,"tls":%s}'
)


def as_json(line: Line) -> str:
    """The line as it is written, without its end. Pure ASCII.

    By hand, since the general way costs as much as relaying the request does.
    """
    return _FORM % (
        _moment(line.began),
        _quoted(line.request_id, _ID_MAX),
        _quoted(line.client, _CLIENT_MAX),
        _quoted(line.host, _HOST_MAX),
        _quoted(line.method, _METHOD_MAX),
        _quoted(_TICKET.sub(b"\\1...", line.target) if line.by != "worker" else line.target, _TARGET_MAX),
        "null" if line.minor is None else '"HTTP/1.1"' if line.minor else '"HTTP/1.0"',
        line.status,
        line.sent,
        line.received,
        line.seconds,
        "null" if line.first_byte is None else f"{line.first_byte:.6f}",
        _or_null(line.deployment),
        _or_null(line.upstream),
        line.by,
        _or_null(line.why),
        _quoted(line.agent, _AGENT_MAX),
        _quoted(_TICKET.sub(b"\\1...", line.referer), _REFERER_MAX),
        _or_null(line.tls),
    )


def _moment(unix: float) -> str:
    return f"{_second(int(unix))}.{int(unix % 1 * 1000):03}Z"


@lru_cache(maxsize=4)
def _second(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _or_null(said: str | None) -> str:
    return _json_string(said) if said else "null"


def _quoted(said: bytes | str, limit: int) -> str:
    """As a JSON string of at most `limit` bytes; “…” where it was cut. Bytes are latin-1, which has them all."""
    if not said:
        return '""'
    short = said[:limit]
    text = short if isinstance(short, str) else short.decode("latin-1")
    quoted = _json_string(text)
    if len(said) > limit or len(quoted) > limit:
        while len(quoted) > limit - len("\\u2026"):
            text = text[: len(text) * 7 // 8]
            quoted = _json_string(text)
        quoted = _json_string(text + "…")
    return quoted


class AccessLog:
    """Appends to a file that several routers may share, or to standard output.

    Lines wait in memory for the disk; what does not fit, or cannot be written, is dropped, and how many were is a
    line of its own. A file that was moved away is made anew. Nothing is written before `start`.

    What both threads touch is a deque, which needs no lock, and numbers that only one of them writes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: deque[Line] = deque()
        self._noted = 0  # bytes of memory, ever; written by the loop
        self._taken = 0  # of them, those that left; written by the thread
        self._dropped = 0  # lines, ever; written by the loop
        self._lost = 0  # lines, ever, that could not be written; written by the thread, as all that follows
        self._told = 0  # of both, those in a line of their own
        self._file: int | None = None
        self._torn = False  # the file ends within a line of ours
        self._complained_at = -_COMPLAIN_EVERY  # monotonic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)

    def __repr__(self) -> str:
        return f"<AccessLog {self.path}: {len(self._lines)} wait, {self._dropped + self._lost} are lost>"

    def note(self, line: Line) -> None:
        """Keep the line for the writer. Never waits, never raises; to be called on the loop only."""
        cost = _cost(line)
        if self._noted - self._taken + cost > _HELD_MAX:
            self._dropped += 1
        else:
            self._noted += cost
            self._lines.append(line)

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, for a bounded time. Idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _CLOSE_WAIT)

    # In the thread

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(_EVERY)
            try:
                self._flush()
            except Exception:  # one line's bug must not switch off the log
                log.exception("the access log failed; going on")

    def _flush(self) -> None:
        """Write all that waits. A file that cannot be opened, or written, costs lines."""
        try:
            self._look_at_file()
        except OSError as problem:
            self._complain(problem)
        for piece in self._pieces():
            self._lost += len(piece) - self._append(piece)
        lost = self._dropped + self._lost
        if lost > self._told and self._append([_dropped_line(lost - self._told)]):
            self._told = lost

    def _look_at_file(self) -> None:
        """Open it: the first time, and when another file, or none, has its name."""
        if self.path == STANDARD_OUTPUT:
            self._file = sys.__stdout__.fileno() if sys.__stdout__ else None
            return
        if self._file is not None:
            if _is_named(self._file, self.path):
                return
            os.close(self._file)
            self._file = None
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._torn = False

    def _pieces(self) -> Iterator[list[str]]:
        """What waits, as lines that are written together."""
        piece: list[str] = []
        size = 0
        while self._lines:
            line = self._lines.popleft()
            text = as_json(line)
            self._taken += _cost(line)
            if size + len(text) >= _PIECE_MAX:
                yield piece
                piece, size = [], 0
            piece.append(text)
            size += len(text) + 1
        if piece:
            yield piece

    def _append(self, texts: list[str]) -> int:
        """Write lines, and say how many of them are in the file now."""
        if self._file is None:
            return 0
        data = ("\n" * self._torn + "".join(f"{text}\n" for text in texts)).encode("ascii")
        written, mended = 0, self._torn
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as problem:
            self._complain(problem)
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        return data[:written].count(b"\n") - (mended and written > 0)

    def _complain(self, problem: OSError) -> None:
        if time.monotonic() - self._complained_at > _COMPLAIN_EVERY:
            self._complained_at = time.monotonic()
            log.warning("the access log %s loses lines: %s", self.path, problem.strerror)


def _cost(line: Line) -> int:
    return _LINE_COST + len(line.target) + len(line.agent) + len(line.referer)


def _dropped_line(count: int) -> str:
    return f'{{"time":"{_moment(time.time())}","dropped":{count}}}'


def _is_named(file: int, path: str) -> bool:
    try:
        named = Path(path).stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(file)
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
