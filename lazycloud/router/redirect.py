"""What answers on port 80 when the server speaks https: where to go instead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from lazycloud.router import troubles
from lazycloud.router.heads import END, BadHead, RequestHead, parse_request
from lazycloud.router.pages import Trouble, new_request_id

if TYPE_CHECKING:
    from lazycloud.router.plane import Plane


class Redirect(asyncio.Protocol):
    """One connection: its first request is sent to the same host and path at `https_port`, then it is closed.

    308 keeps the method and the body, which the client sends again there; here nothing of it is looked at.
    """

    def __init__(self, plane: Plane, open_ones: set[Redirect]) -> None:
        self._plane = plane
        self._open_ones = open_ones
        self._head = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open_ones.add(self)
        self._abort_after(self._plane.settings.head_timeout)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        start = max(0, len(self._head) - len(END))
        self._head += data
        end = self._head.find(END, start)
        if (len(self._head) if end < 0 else end) > self._plane.settings.head_max:
            self._end(self._page(troubles.LONG_HEAD))
        elif end >= 0:
            self._end(self._answer(bytes(self._head[: end + len(END)])))

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._open_ones.discard(self)

    def _answer(self, raw: bytes) -> bytes:
        try:
            head = parse_request(raw)
        except BadHead as error:
            return self._page(troubles.malformed(str(error), error.status))
        return self._elsewhere(head) if head.host else self._page(troubles.malformed("it has no Host"), head)

    def _elsewhere(self, head: RequestHead) -> bytes:
        port = self._plane.settings.https_port
        path = head.target if head.target.startswith(b"/") else b"/"
        return b"\r\n".join(
            (
                b"HTTP/1.1 308 Permanent Redirect",
                b"Location: https://%b%b%b"
                % (head.host.encode(), b"" if port == 443 else b":%d" % port, path),
                b"Content-Length: 0",
                b"Lazycloud-Answer: router",
                b"Connection: close\r\n\r\n",
            )
        )

    def _page(self, trouble: Trouble, head: RequestHead | None = None) -> bytes:
        return self._plane.pages.render(
            trouble,
            head.fields.find(b"accept") if head else b"",
            new_request_id(),
            head_only=head is not None and head.method == b"HEAD",
            connection=b"Connection: close",
        )

    def _end(self, answer: bytes) -> None:
        """Answer, and read on a while: a reset for what the client still sends would lose it the answer."""
        self._answered = True
        self._head.clear()
        self._transport.write(answer)
        self._transport.write_eof()
        self._deadline.cancel()
        self._abort_after(self._plane.settings.linger)

    def _abort_after(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
