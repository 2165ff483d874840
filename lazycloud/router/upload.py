"""The body of a request on its way to an upstream; kept, and no more of it read, until there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazycloud.router.bodies import Body, Chunked, Sized, chunk, last_chunk
from lazycloud.router.heads import Fields
from lazycloud.router.settings import Settings

if TYPE_CHECKING:
    from lazycloud.router.upstream import Upstream


class TooLarge(Exception):
    """The body is over the limit."""


class Upload:
    """Decodes what the client sends, and writes it again for the next hop. `limit` in bytes, None for none."""

    __slots__ = ("_body", "_left", "_pending", "_received", "_upstream", "_waited", "sent")

    def __init__(self, fields: Fields, limit: int | None) -> None:
        self._body: Body = Chunked() if fields.chunked else Sized(fields.length or 0)
        self._left = limit
        self._pending: list[bytes] = []
        self._upstream: Upstream | None = None
        self._received = 0
        self._waited = 0.0  # seconds in which it was the client that had to send
        self.sent = False  # whether a byte of it was given to an upstream, and is thus lost for another

    @property
    def done(self) -> bool:
        """Whether the client sent all of it."""
        return self._body.done

    @property
    def rest(self) -> bytes:
        """What came behind it."""
        return self._body.rest

    @property
    def leaves_nothing(self) -> bool:
        """Whether all of it was sent, and a worker can take none of it for a part of the next request.

        aiohttp's C parser makes a request's last trailer a header of the next one on the same connection.
        """
        return self._body.done and not self._body.trailers

    @property
    def blocked(self) -> bool:
        """Whether no more may be read from the client for now."""
        return not self.done and (self._upstream is None or self._upstream.full)

    def receive(self, data: bytes) -> bytes:
        """Pass on what is in `data`; what belongs to the next request is returned.

        Raises BadBody and TooLarge; the exchange cannot go on then.
        """
        self._received += len(data)
        pieces = self._body.feed(data)
        if self._left is not None:
            self._left -= sum(map(len, pieces))
            if self._left < 0:
                raise TooLarge
        if isinstance(self._body, Chunked):
            pieces = [b"".join(map(chunk, pieces))] if pieces else []
            if self._body.done:
                pieces.append(last_chunk(self._body.trailers))
        self._write(pieces)
        return self._body.rest

    def lags(self, settings: Settings, *, invited: bool) -> bool:
        """Whether it comes slower than `upload_rate`, once `head_timeout` is over. To be asked at each sweep.

        `invited`: the client need not wait for a 100 Continue.
        """
        if self.blocked or not (invited or self._received):
            return False
        self._waited += settings.sweep
        return self._waited > settings.head_timeout + self._received / settings.upload_rate

    def begin(self, upstream: Upstream) -> None:
        """There is an upstream now: it gets what was kept."""
        self._upstream = upstream
        pieces, self._pending = self._pending, []
        self._write(pieces)

    def end(self) -> None:
        """The upstream is gone; what comes is kept for another."""
        self._upstream = None

    def _write(self, pieces: list[bytes]) -> None:
        if self._upstream is None:
            self._pending += pieces
        elif pieces and not self._upstream.transport.is_closing():
            self.sent = True
            self._upstream.transport.writelines(pieces)
