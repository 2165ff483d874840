"""How a message's body is cut out of a stream of bytes. Pure: bytes in, payload out.

A decoder is fed what arrives; it returns the payload pieces found, and when `done` keeps in `rest` what
belongs to the next message. Pieces are never joined or copied without need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lazycloud.router.heads import BadHead, check_trailers

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_SIZE_LINE_MAX = 1024  # a size has 15 digits; the rest would be extensions, which nobody uses
_TRAILERS_MAX = 16 * 1024  # checksums and gRPC-like statuses fit many times over

LAST_CHUNK = b"0\r\n\r\n"


class BadBody(Exception):
    """A body that is not framed as its head said. The text says what is wrong."""


class Body:
    """What all decoders have. `trailers` are raw header lines without line ends."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Sequence[bytes] = ()

    def feed(self, data: bytes) -> list[bytes]:
        """Payload pieces in `data`, in order. Raises BadBody. Not to be called once `done`."""
        raise NotImplementedError

    def ends_at_eof(self) -> bool:
        """Whether the end of the connection is the end of this body, rather than a cut."""
        return False


class Sized(Body):
    """A body of `size` bytes, more than none."""

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def feed(self, data: bytes) -> list[bytes]:
        self._left -= len(data)
        if self._left > 0:
            return [data]
        self.done = True
        if self._left == 0:
            return [data]
        self.rest = data[self._left :]
        return [data[: self._left]]


class UntilClose(Body):
    """A worker's answer without a length: it ends with its connection."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[bytes]:
        return [data]

    def ends_at_eof(self) -> bool:
        return True


class Chunked(Body):
    """The chunked coding, strictly: sizes are hex, lines end in CR LF, extensions are dropped."""

    __slots__ = ("_buffer", "_left", "_step")

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._left = 0
        self._step = self._size

    def feed(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        self._buffer = self._buffer + data if self._buffer else data
        at = 0
        while not self.done and (after := self._step(at, pieces)) is not None:
            at = after
        rest = self._buffer[at:]
        self._buffer = b""
        if self.done:
            self.rest = rest
        else:
            self._buffer = rest
        return pieces

    def _size(self, at: int, pieces: list[bytes]) -> int | None:
        end = self._line(at, _SIZE_LINE_MAX)
        if end is None:
            return None
        found = _SIZE.fullmatch(self._buffer, at, end)
        if found is None:
            raise BadBody("a chunk's size is not a hexadecimal number")
        self._left = int(found[1], 16)
        self._step = self._payload if self._left else self._last
        return end + 2

    def _payload(self, at: int, pieces: list[bytes]) -> int | None:
        piece = self._buffer[at : at + self._left]
        if not piece:
            return None
        pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._step = self._gap
        return at + len(piece)

    def _gap(self, at: int, pieces: list[bytes]) -> int | None:
        gap = self._buffer[at : at + 2]
        if not b"\r\n".startswith(gap):
            raise BadBody("a chunk is longer than its size says")
        if len(gap) < 2:
            return None
        self._step = self._size
        return at + 2

    def _last(self, at: int, pieces: list[bytes]) -> int | None:
        if self._buffer.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = self._buffer.find(b"\r\n\r\n", at)
        if end < 0:
            if len(self._buffer) - at > _TRAILERS_MAX:
                raise BadBody("the trailers are too long")
            return None
        self.trailers = self._checked(self._buffer[at:end].split(b"\r\n"))
        self.done = True
        return end + 4

    def _checked(self, lines: list[bytes]) -> list[bytes]:
        try:
            return check_trailers(lines)
        except BadHead as error:
            raise BadBody(f"its trailers: {error}") from error

    def _line(self, at: int, limit: int) -> int | None:
        """Where the line that begins at `at` ends; None when it has not ended yet."""
        end = self._buffer.find(b"\r\n", at, at + limit)
        if end < 0 and (len(self._buffer) - at >= limit or b"\n" in self._buffer[at:]):
            raise BadBody("a chunk's size does not end with CR LF")
        return None if end < 0 else end


def chunk(payload: bytes) -> bytes:
    """`payload` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last_chunk(trailers: Sequence[bytes]) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n"
