"""Steady load: clients that ask all the time, check every byte they get, and keep account of every request."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .stage import Answer, Wire

BIG = 200_000
_numbers = itertools.count(1)  # of all requests of a test run: no two have the same


@dataclass(frozen=True)
class Ask:
    """One request. `kind`: small (a GET), big (a GET of much), echo (a POST), whose answers are known beforehand."""

    number: int
    kind: str
    host: str

    @property
    def idempotent(self) -> bool:
        return self.kind != "echo"

    @property
    def raw(self) -> bytes:
        body = b"%d" % self.number if self.kind == "echo" else b""
        head = f"Host: {self.host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        method = b"POST" if body else b"GET"
        return b"%b /%b/%d HTTP/1.1\r\n%b%b" % (method, self.kind.encode(), self.number, head, body)


def answer_to(kind: str, number: int) -> bytes:
    """The body that a worker has to give."""
    text = b"%d " % number
    return (text * (BIG // len(text) + 1))[:BIG] if kind == "big" else text


@dataclass(frozen=True)
class Outcome:
    """What became of a request: 200; `502 router` (who answered it); `cut` in its answer; `closed` before it."""

    ask: Ask
    what: str
    at: float
    seconds: float


class Load:
    """Clients on one host. Some keep their connection for many requests, the others for one."""

    def __init__(self, port: int, host: str, *, kinds: Iterable[str] = ("small", "echo", "big")) -> None:
        self.outcomes: list[Outcome] = []
        self.sent = 0
        self._port, self._host = port, host
        self._kinds = itertools.cycle(kinds)
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Load {self._host} {self.sent} sent, {dict(self.counts)}>"

    @property
    def counts(self) -> Counter[str]:
        """How many had which outcome."""
        return Counter(outcome.what for outcome in self.outcomes)

    def since(self, number: int) -> Counter[str]:
        """The same, without the first `number`."""
        return Counter(outcome.what for outcome in self.outcomes[number:])

    @asynccontextmanager
    async def going_on(self, clients: int = 6) -> AsyncIterator[Load]:
        """As long as the block runs; every request has its outcome after it."""
        tasks = [
            asyncio.create_task(self._ask_on(20 if each % 2 else 1), name=f"client {each}")
            for each in range(clients)
        ]
        try:
            yield self
        finally:
            self._stopping = True
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(ended), ended
        assert self.sent == len(self.outcomes)

    async def _ask_on(self, requests: int) -> None:
        """Ask again and again, so many times on each connection."""
        while not self._stopping:
            wire = await self._connect()
            for _ in range(requests):
                if self._stopping or not await self._ask(wire):
                    break
            wire.close()

    async def _connect(self) -> Wire:
        """Never refused: somebody listens whatever dies."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        return Wire(reader, writer)

    async def _ask(self, wire: Wire) -> bool:
        """One request; whether the connection can take another."""
        ask = Ask(next(_numbers), next(self._kinds), self._host)
        self.sent += 1
        began = time.monotonic()
        what, keeps = await _outcome(wire, ask)
        self.outcomes.append(Outcome(ask, what, time.monotonic(), time.monotonic() - began))
        await asyncio.sleep(0.002)  # the machine is shared with what is tested
        return keeps


async def _outcome(wire: Wire, ask: Ask) -> tuple[str, bool]:
    head = b""
    try:
        await wire.send(ask.raw)
        head = await wire.head()
        answer = Answer(head)
        await _read_body(wire, answer)
    except (ConnectionError, asyncio.IncompleteReadError):
        return ("cut" if head else "closed"), False
    keeps = answer.field("connection") != "close"
    if answer.status != 200:
        return f"{answer.status} {answer.field('lazycloud-answer')}", keeps
    assert answer.body == answer_to(ask.kind, ask.number), (ask, answer.head, answer.body[:100])
    return "200", keeps


async def _read_body(wire: Wire, answer: Answer) -> None:
    if answer.field("transfer-encoding") == "chunked":
        answer.body = b"".join((await wire.chunks())[0])
    else:
        answer.body = await wire.exactly(int(answer.field("content-length") or 0))
