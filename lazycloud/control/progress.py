"""Following what happens: the websocket of a landing page and of the control page, and JSON Lines for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from lazycloud.control.identity import Role
from lazycloud.control.resolver import Found
from lazycloud.control.views import Views, without_output
from lazycloud.deployments.deployment import Deployment
from lazycloud.errors import BadInput
from lazycloud.events import (
    Event,
    EventLog,
    MigrationRehearsed,
    Output,
    Promoted,
    PromoteFailed,
    Recorded,
    StateChanged,
    StepFinished,
    StepStarted,
)
from lazycloud.states import DEPLOYING, State

HEARTBEAT = 20.0  # seconds between pings: proxies between us and the browser cut what is silent for a minute
LOOK = 3.0  # seconds between looks at whether who follows still may
UNDER_WAY = DEPLOYING | {State.RESTARTING}
WATCHED = (StateChanged, StepStarted, StepFinished, Output)

Wanted = Callable[[Event], bool]
Shown = Callable[[dict[str, Any]], dict[str, Any]]


class Progress:
    def __init__(self, events: EventLog, views: Views) -> None:
        self._events = events
        self._views = views

    async def websocket(
        self, request: web.Request, found: Found, stranger: bool, may: Callable[[], bool]
    ) -> web.WebSocketResponse:
        """A landing page follows its deployment: a snapshot unless it says what it has, then facts.

        A stranger is told how it goes, and nothing of what the app wrote. It ends when the visitor `may` no longer.
        """
        after = number_of(request, "after", -1)
        first: list[dict[str, Any]] = []
        if not 0 <= after <= self._events.last:
            snapshot = await self._views.progress(
                found.app, found.commit, found.deployment, found.place.label
            )
            first.append({"kind": "snapshot", **(without_output(snapshot) if stranger else snapshot)})
            after = snapshot["number"]
        wanted = of_deployment(found.deployment, stranger)
        return await self._send(request, first, after, wanted, without_output if stranger else dict, may)

    async def everything(self, request: web.Request, app: str, role: Role) -> web.WebSocketResponse:
        """The control page follows all but output, of one app or all, as far as the role may know it."""
        after = number_of(request, "after", self._events.last)
        return await self._send(request, [], after, _told(app, role), _shown(role))

    async def lines(
        self, request: web.Request, facts: AsyncGenerator[dict[str, Any], None]
    ) -> web.StreamResponse:
        """JSON Lines, until they end or the reader goes."""
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the reader has what it wanted, and left
            async for line in _kept_alive(facts):
                await response.write(line)
            await response.write_eof()
        return response

    async def deploy(self, deployment: Deployment, after: int) -> AsyncGenerator[dict[str, Any], None]:
        """The facts of a deploy up to its end; for one that has ended, its state last."""
        if deployment.state not in UNDER_WAY:
            yield self._state(deployment)
            return
        async for recorded in self._events.follow(after, of_deployment(deployment)):
            yield recorded.as_dict()
            event = recorded.event
            if isinstance(event, StateChanged) and State(event.after) not in UNDER_WAY:
                return

    async def promote(self, app: str, after: int) -> AsyncGenerator[dict[str, Any], None]:
        """The facts of a promote: its rehearsal's, what that changed, its worker's, and how it ended."""

        def wanted(event: Event) -> bool:
            if event.app != app:
                return False
            if isinstance(event, Promoted | PromoteFailed | MigrationRehearsed):
                return True
            return isinstance(event, WATCHED) and (
                any(part in event.deployment for part in (".production", ".rehearsal-", ".migration-"))
            )

        async for recorded in self._events.follow(after, wanted):
            yield recorded.as_dict()
            if isinstance(recorded.event, Promoted | PromoteFailed):
                return

    async def facts(
        self, app: str, role: Role, after: int, follow: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """All facts but output, of one app or of all, as far as the role may know; up to now, or on and on."""
        until, wanted, shown = self._events.last, _told(app, role), _shown(role)
        if not follow and after >= until:
            return
        async for recorded in self._events.follow(after, lambda event: True):
            if wanted(recorded.event):
                yield shown(recorded.as_dict())
            if not follow and recorded.number >= until:
                return

    async def _send(
        self,
        request: web.Request,
        first: list[dict[str, Any]],
        after: int,
        wanted: Wanted,
        shown: Shown,
        may: Callable[[], bool] = lambda: True,
    ) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, compress=False)
        await socket.prepare(request)
        for message in first:
            await socket.send_json(message)
        sending = asyncio.create_task(self._send_facts(socket, after, wanted, shown), name="progress")
        reading = asyncio.create_task(_until_closed(socket), name="progress, the reader's side")
        looking = asyncio.create_task(_while(may), name="progress, who may see it")
        tasks = (sending, reading, looking)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()
        return socket

    async def _send_facts(
        self, socket: web.WebSocketResponse, after: int, wanted: Wanted, shown: Shown
    ) -> None:
        async for recorded in self._events.follow(after, wanted):
            await socket.send_json(shown(recorded.as_dict()))

    def _state(self, deployment: Deployment) -> dict[str, Any]:
        failure = deployment.failure
        event = StateChanged(
            app=deployment.key.app,
            deployment=deployment.id,
            attempt=deployment.attempt,
            before=deployment.state.value,
            after=deployment.state.value,
            reason="as it is",
            commit=deployment.key.commit,
            version=deployment.key.version,
            failure=vars(failure) if failure else None,
        )
        return Recorded(self._events.last, deployment.ready_at, event).as_dict()


async def _kept_alive(facts: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[bytes]:
    """Lines of JSON; an empty one when there was nothing to say for a while, so that nobody gives up on us."""
    following = asyncio.ensure_future(anext(facts, None))
    try:
        while True:
            await asyncio.wait({following}, timeout=HEARTBEAT)
            if not following.done():
                yield b"\n"
                continue
            fact = following.result()
            if fact is None:
                return
            yield json.dumps(fact, ensure_ascii=False).encode() + b"\n"
            following = asyncio.ensure_future(anext(facts, None))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await facts.aclose()


def of_deployment(deployment: Deployment, without: bool = False) -> Wanted:
    """Facts that its landing page follows; `without` its output."""
    kinds = (StateChanged, StepStarted, StepFinished) if without else WATCHED
    return lambda event: event.deployment == deployment.id and isinstance(event, kinds)


def _told(app: str, role: Role) -> Wanted:
    def wanted(event: Event) -> bool:
        known = role is Role.OWNER or not event.private
        return known and not isinstance(event, Output) and (not app or event.app == app)

    return wanted


def _shown(role: Role) -> Shown:
    return dict if role >= Role.DEVELOPER else without_output


async def _while(may: Callable[[], bool]) -> None:
    while may():  # noqa: ASYNC110 - accounts, tokens and links end in many ways, some by the clock
        await asyncio.sleep(LOOK)


async def _until_closed(socket: web.WebSocketResponse) -> None:
    """A page has nothing to say; reading is how its leaving is noticed."""
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return


def number_of(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise BadInput(f"`{name}` must be a number, not “{text[:40]}”.")
    return int(text)
