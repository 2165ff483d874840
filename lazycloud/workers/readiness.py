"""Waits until a worker is ready: its own process listens where it was told to, and answers if asked to.

A connection that is accepted would prove nothing, somebody else's process may have the port; so /proc is
asked who listens. Nothing connects to the app but its health check.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Protocol
from urllib.parse import quote

from lazycloud.errors import StepFailed
from lazycloud.processes import LAST_LINES, Output, ending_in_words, members
from lazycloud.workers.listeners import Listener, descendants, listeners, owned_by
from lazycloud.workers.logs import last_lines
from lazycloud.workers.record import HOST, Record

# Seconds between two looks at the worker's port. A look takes some 0.05 ms, 0.2 ms with its turn of the event loop:
# a twentieth of a core at the longest pause, and more than that only for the first quarter of a second.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.005
PAUSES = 50  # that many pauses have passed at least before one grows: who waited a while can wait 2 % longer
SLOW_AFTER, SLOW_PAUSE = 30.0, 0.05  # seconds: who is not ready by then has a long start
HEALTH_FIRST_PAUSE, HEALTH_GROWTH = 0.005, 1.5
ELSEWHERE_PAUSE = 0.25  # seconds between looks at everything that the worker listens on: dearer than one port
ELSEWHERE_PATIENCE = 10.0  # seconds: some apps open a metrics or debugger port first, then load for a while
STRANGER_PATIENCE = 1.0  # seconds: a look through /proc may miss the owner of a socket while it forks
HEALTH_PAUSE = 0.5  # seconds, the longest between two health checks
HEALTH_PATIENCE = 5.0  # seconds for one answer
HEALTH_LEAST = (
    1.0  # seconds for the last one, though the deadline passes: else one that answers is said not to
)


class Why(Enum):
    EXITED = "exited"
    ELSEWHERE = "listens elsewhere"
    SILENT = "silent"
    UNHEALTHY = "unhealthy"
    PORT_TAKEN = "port taken"


class NotReady(StepFailed):
    """A worker that did not become ready, told apart by `why`. Its process may still run."""

    def __init__(self, why: Why, sentence: str, advice: str = "", last: Sequence[str] = ()) -> None:
        super().__init__(sentence, advice, last)
        self.why = why


class Ends(Protocol):
    """What ends, as `processes.Ending` does."""

    def look(self) -> bool: ...

    async def wait(self) -> int | None: ...


class Readiness:
    """One wait for one worker. `say` takes lines for whoever watches the deploy, `how` puts a status into words."""

    longest_pause = LONGEST_PAUSE
    host_given = HOST

    def __init__(
        self, record: Record, ending: Ends, say: Output, how: Callable[[int | None], str] | None = None
    ) -> None:
        self._record = record
        self._ending = ending
        self._say = say
        self._how = how or _in_words
        self._now = asyncio.get_running_loop().time
        self._deadline = self._now() + record.ready_timeout
        self._stranger_since: float | None = None
        self._elsewhere: list[Listener] = []
        self._elsewhere_since: float | None = None
        self._elsewhere_look = 0.0

    async def wait(self) -> str:
        """Where to dial the worker, "127.0.0.1:21733" or "[::1]:21733". Raises NotReady."""
        began = self._now()
        while (address := await self._look()) is None:
            passed = self._now() - began
            if self._now() >= self._deadline:
                raise self._silent()
            longest = self.longest_pause if passed < SLOW_AFTER else SLOW_PAUSE
            await asyncio.sleep(max(SHORTEST_PAUSE, min(passed / PAUSES, longest)))
        if self._record.health:
            await self._wait_healthy(address)
        return address

    async def _look(self) -> str | None:
        await self._demand_alive()
        at_port = listeners(self._record.port)
        if at_port:
            own = self._own_sockets(at_port)
            for one in at_port:
                if one.inode in own and one.dial:
                    return one.dial
            self._judge_strangers([one for one in at_port if one.inode not in own])
        if self._now() >= self._elsewhere_look:
            self._elsewhere_look = self._now() + ELSEWHERE_PAUSE
            self._judge_elsewhere(listeners())
        return None

    def _own_sockets(self, wanted: Sequence[Listener]) -> set[int]:
        """Of the worker and its descendants, as some runners give each child a session; then of its session."""
        inodes, pid = {one.inode for one in wanted}, self._record.pid
        own: set[int] = set()
        for pids in ([pid], descendants(pid), members(pid)):  # cheapest first
            own |= owned_by(pids)
            if own & inodes:
                break
        return own

    def _judge_strangers(self, strangers: Sequence[Listener]) -> None:
        if not strangers:
            self._stranger_since = None
            return
        self._stranger_since = self._stranger_since or self._now()
        if self._now() - self._stranger_since >= STRANGER_PATIENCE:
            raise self._port_taken()

    def _judge_elsewhere(self, found: Sequence[Listener]) -> None:
        """Said early, as nobody should wait a minute for an app that has long been up on port 5000."""
        own = owned_by(members(self._record.pid))
        self._elsewhere = [one for one in found if one.inode in own]
        self._be_patient_elsewhere()

    def _be_patient_elsewhere(self) -> None:
        if not self._elsewhere:
            self._elsewhere_since = None
            return
        self._elsewhere_since = self._elsewhere_since or self._now()
        if self._now() - self._elsewhere_since >= ELSEWHERE_PATIENCE:
            raise self._silent()

    async def _wait_healthy(self, address: str) -> None:
        pause, before = HEALTH_FIRST_PAUSE, ""
        while trouble := await self._ask_health(address):
            await self._demand_alive()
            if trouble != before:
                self._say(f"{self._record.health} {trouble}\n")
            if self._now() >= self._deadline:
                raise self._unhealthy(trouble)
            before = trouble
            await self._pause(pause)
            pause = min(pause * HEALTH_GROWTH, HEALTH_PAUSE)

    async def _ask_health(self, address: str) -> str:
        patience = max(HEALTH_LEAST, min(HEALTH_PATIENCE, self._deadline - self._now()))
        return await ask_health(replace(self._record, address=address), patience)

    async def _pause(self, seconds: float) -> None:
        """As long as that, or until the process ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(seconds, self._deadline - self._now()))):
                await self._ending.wait()

    async def _demand_alive(self) -> None:
        if not self._ending.look():
            return
        status = await self._ending.wait()
        # With status 0 it is no clash of ports: the app went to the background, and it is its own daemon there.
        if status and self._strangers():
            raise self._port_taken()
        raise self._exited(status)

    def _strangers(self) -> bool:
        """Whether a process that is not the worker's listens on its port."""
        own = owned_by(members(self._record.pid))
        return any(one.inode not in own for one in listeners(self._record.port))

    def _exited(self, status: int | None) -> NotReady:
        how = self._how(status)
        advice = {
            0: "Its command must stay in the foreground, and not start something in the background and end.",
            -9: "Nobody here sent that; perhaps the machine ran out of memory.",
        }.get(status if status is not None else 1, "")
        if how.startswith("was ended because"):
            advice = "Let it use less, or raise the limits of the server ([workers] in docs/settings.md)."
        return NotReady(Why.EXITED, f"The app {how} before it was ready.", advice, self._last_lines())

    def _silent(self) -> NotReady:
        port, last = self._record.port, self._last_lines()
        if not self._elsewhere:
            seconds = self._record.ready_timeout
            return NotReady(
                Why.SILENT,
                f"The app did not listen on the port it was given in PORT ({port}) within {seconds:g} s.",
                "Let it listen on $PORT; if it needs longer to start, raise `ready_timeout` in lazycloud.toml.",
                last,
            )
        places = " and ".join(str(one) for one in self._elsewhere)
        if any(one.port == port for one in self._elsewhere):
            sentence = (
                f"The app listens on {places}, not on the host it was given in HOST ({self.host_given})."
            )
            return NotReady(Why.ELSEWHERE, sentence, "Let it listen on $HOST.", last)
        sentence = f"The app listens on {places}, not on the port it was given in PORT ({port})."
        return NotReady(Why.ELSEWHERE, sentence, "Let it listen on $PORT.", last)

    def _unhealthy(self, trouble: str) -> NotReady:
        path, seconds = self._record.health, self._record.ready_timeout
        return NotReady(
            Why.UNHEALTHY,
            f"The app listens, but its health path {path} {trouble}, until {seconds:g} s had passed.",
            "Let that path answer below 400 once the app can serve, or change `health` in lazycloud.toml.",
            self._last_lines(),
        )

    def _port_taken(self) -> NotReady:
        return NotReady(
            Why.PORT_TAKEN,
            f"Port {self._record.port} was taken by another process before the app could listen on it.",
            "Try again; another port will be chosen.",
            self._last_lines(),
        )

    def _last_lines(self) -> list[str]:
        return last_lines(self._record.log_path, LAST_LINES, self._record.log_start)


async def ask_health(record: Record, patience: float) -> str:
    """What is wrong with the answer of its health path, in words that follow the path; "" if nothing is."""
    try:
        async with asyncio.timeout(patience):
            status = await _get_status(record.address, record.health_host, record.health or "/")
    except TimeoutError:
        return f"did not answer within {patience:g} s"
    except OSError as problem:
        return f"did not answer ({problem.strerror or problem})"
    except ValueError:
        return "did not answer with HTTP"
    return "" if status < 400 else f"answered {status}"


def _in_words(status: int | None) -> str:
    return "is gone" if status is None else ending_in_words(status)


async def _get_status(address: str, host: str, path: str) -> int:
    """The status of one GET. Raises OSError for no connection, ValueError for what is not HTTP."""
    place, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(place.strip("[]"), int(port))
    try:
        target = quote(path, safe="%/:=&?~+!$,;'@()*")  # nothing in a path can end the line
        head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lazycloud-health\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        version, status, *_ = (await reader.readline()).decode("latin-1").split(maxsplit=2) or ("", "")
        if not version.startswith("HTTP/"):
            raise ValueError(version)
        return int(status)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
