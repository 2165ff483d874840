"""What control still owes an answer: a control that is replaced gives it before it leaves."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler


class Unanswered:
    """The requests whose answer has not begun. A stream that only follows has, and is not waited for."""

    def __init__(self, application: web.Application) -> None:
        self._requests: set[int] = set()
        self._none = asyncio.Event()
        self._none.set()

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._requests.add(id(request))
            self._none.clear()
            try:
                return await handler(request)
            finally:
                self._forget(request)

        application.middlewares.insert(0, count)
        application.on_response_prepare.append(self._begun)

    async def none(self, seconds: float) -> None:
        """Wait until there is none, but no longer than that."""
        try:
            await asyncio.wait_for(self._none.wait(), seconds)
        except TimeoutError:
            return

    async def _begun(self, request: web.Request, response: web.StreamResponse) -> None:
        self._forget(request)

    def _forget(self, request: web.Request) -> None:
        self._requests.discard(id(request))
        if not self._requests:
            self._none.set()
