"""Webhooks: a forge says that something moved, and the mirror is fetched at once.

A secret for each app proves who says it. What was said before is not heard twice, and strangers cost little: the body
is read only where a proof is shown, a limited number at a time, and within a deadline.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from typing import Any

from aiohttp import web

from lazycloud import store
from lazycloud.config import Config
from lazycloud.control import forges
from lazycloud.control.attempts import Attempts
from lazycloud.control.clients import Clients, neighbourhood
from lazycloud.control.forges import Delivery, Kind
from lazycloud.control.pulls import Pulls
from lazycloud.deployments.app import App
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.production import Production
from lazycloud.errors import BadInput, Busy, Conflict, NotFound, TooLarge, Unauthorised
from lazycloud.events import EventLog, WebhookMade, WebhookReceived
from lazycloud.store import Store

BODY_MOST = (
    5 << 20
)  # bytes; forges say no more than some MB, and whoever pushes that much is fetched in time anyway
BODIES_MOST = 16  # that are read at a time
BODY_SECONDS = 10.0  # forges give up then
WRONG, WRONG_SECONDS = 30, 600.0  # proofs of one client that do not hold
RIGHT, RIGHT_SECONDS = 120, 60.0  # of one app
REMEMBERED = 2000  # deliveries of an app, by what their forge calls them and by what they say

log = logging.getLogger(__name__)


class Webhooks:
    """Secrets are made of the server's `key`, so that none is on the disk."""

    def __init__(
        self,
        config: Config,
        key: bytes,
        fleet: Fleet,
        production: Production,
        state: Store,
        events: EventLog,
        pulls: Pulls,
        clients: Clients,
    ) -> None:
        self._config = config
        self._key = hmac.digest(key, b"webhook", "sha256")
        self._fleet = fleet
        self._production = production
        self._events = events
        self._pulls = pulls
        self._clients = clients
        self._generations = {row["app"]: row["generation"] for row in state.rows(store.webhooks)}
        self._seen: dict[str, OrderedDict[str, None]] = {}
        for row in sorted(state.rows(store.deliveries), key=lambda row: float(row["at"])):
            self._seen.setdefault(row["app"], OrderedDict())[row["key"]] = None
        self._wrong = Attempts(WRONG, WRONG_SECONDS)
        self._right = Attempts(RIGHT, RIGHT_SECONDS)
        self._reading = 0

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Forges log in by their secret."""
        router.add_post("/hooks/{app}", self.take)

    async def make(self, app: App, rotate: bool, who: str) -> dict[str, Any]:
        """What a forge is to be told: `url`, `secret`; the same as before, unless `rotate`."""
        if rotate or app.name not in self._generations:
            generation = secrets.token_hex(8)
            row = {"app": app.name, "generation": generation, "made": time.time(), "who": who}
            fact = WebhookMade(app=app.name, who=who)
            await self._events.commit(fact, store.put(store.webhooks, **row))
            self._generations[app.name] = generation
        url = f"{self._config.addresses.control()}hooks/{app.name}"
        return {"url": url, "secret": self._secret(app.name), "is_remote": app.repository.is_remote}

    async def take(self, request: web.Request) -> web.Response:
        """`POST /hooks/<app>`. Raises NotFound, Unauthorised, TooLarge, TooOften, Busy, BadInput, Conflict."""
        name, client = request.match_info["app"], neighbourhood(self._clients.address(request))
        self._wrong.spend(client)
        if name not in self._generations or name not in self._fleet.apps:
            raise NotFound("No webhook leads here.", "`lazycloud webhook APP` makes one.")
        if not forges.has_proof(request.headers):
            raise Unauthorised(
                "This webhook shows no secret.", "Give the forge the one of `lazycloud webhook`."
            )
        body = await self._body(request)
        if not forges.is_proven(request.headers, body, self._secret(name)):
            raise Unauthorised("This webhook was made with another secret.", "`lazycloud webhook` prints it.")
        self._wrong.give_back(client)
        self._right.spend(name)
        delivery = forges.read(request.headers, body)
        if delivery.kind is Kind.PING:
            return _said(200, "pong", f"lazycloud hears {delivery.forge}.")
        return await self._once(self._fleet.app(name), delivery, _keys(request, delivery, body))

    async def _once(self, app: App, delivery: Delivery, keys: list[str]) -> web.Response:
        """Act on it, unless that was done before."""
        seen = self._seen.setdefault(app.name, OrderedDict())
        if any(key in seen for key in keys):
            raise Conflict("This delivery was heard before.")
        seen.update(dict.fromkeys(keys))
        try:
            answer = await self._act(app, delivery)
            self._remember(app, delivery, keys, seen)
        except BaseException:
            for key in keys:
                seen.pop(key, None)
            raise
        return answer

    async def _act(self, app: App, delivery: Delivery) -> web.Response:
        if delivery.kind is Kind.OTHER:
            return _said(202, "ignored", f"“{delivery.name}” means nothing here.")
        if not app.repository.is_remote:
            return _said(
                200, "nothing", f"{app.name} is served from a folder, whose commits are seen at once."
            )
        if delivery.pull is not None and (delivery.pull.is_fork or delivery.pull.is_closed):
            return _said(202, *await self._pulls.hear(app, delivery.pull))
        self._production.fetch_soon(app)
        return _said(202, "fetch", f"{app.name} is fetched.")

    def _remember(self, app: App, delivery: Delivery, keys: list[str], seen: OrderedDict[str, None]) -> None:
        """In the transaction of the fact that says it."""
        now = time.time()
        changes = [store.put(store.deliveries, app=app.name, key=key, at=now) for key in keys]
        while len(seen) > REMEMBERED:
            changes.append(store.remove(store.deliveries, app=app.name, key=seen.popitem(last=False)[0]))
        fact = WebhookReceived(app=app.name, forge=delivery.forge, what=delivery.name)
        self._events.append(fact, *changes)

    async def _body(self, request: web.Request) -> bytes:
        if (request.content_length or 0) > BODY_MOST:
            raise _too_large()
        if self._reading >= BODIES_MOST:
            raise Busy("Too many webhooks come at a time.")
        self._reading += 1
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > BODY_MOST:
                        raise _too_large()
        except TimeoutError:
            raise BadInput(f"The body did not come within {BODY_SECONDS:.0f} s.") from None
        finally:
            self._reading -= 1
        return bytes(body)

    def _secret(self, app: str) -> str:
        made = hmac.digest(self._key, f"{app}|{self._generations[app]}".encode(), "sha256")
        return base64.urlsafe_b64encode(made).decode().rstrip("=")


def _keys(request: web.Request, delivery: Delivery, body: bytes) -> list[str]:
    """What it is known by: the forge's name for it, and, as no proof covers that, what it says."""
    named = [f"id {hashlib.sha256(delivery.id.encode(errors='replace')).hexdigest()}"] if delivery.id else []
    if forges.is_signed(request.headers) or not named:
        named.append(f"body {hashlib.sha256(body).hexdigest()}")
    return named


def _said(status: int, action: str, sentence: str) -> web.Response:
    return web.json_response({"action": action, "sentence": sentence}, status=status)


def _too_large() -> TooLarge:
    return TooLarge(f"A webhook has at most {BODY_MOST >> 20} MiB.", "What was pushed is fetched by and by.")
