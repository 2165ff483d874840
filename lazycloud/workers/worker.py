"""A running process, or container, of a deployment, at an address: what all engines' workers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from lazycloud.processes import LAST_LINES, Identity, Output
from lazycloud.walls.view import View
from lazycloud.workers.preload.start import Venv
from lazycloud.workers.record import HOST, Record
from lazycloud.workers.usage import Usage
from lazycloud.workforce import Limits

__all__ = ["HOST", "Ended", "Launch", "Worker"]


@dataclass(frozen=True)
class Launch:
    """How to start a worker. `command` is a shell string; `environment` is complete but for PORT and HOST.

    `health` is a path that must answer below 400, None for none; `health_host` the Host that it is asked
    for (an app may answer only to its own). Times are seconds. `venv`: the Python environment that it may be
    preloaded from, None for a plain start. `name` tells this worker from all others that the server ever starts.
    `view`: what it may see, None for everything. `listens`: False for a background process: it is given no port.
    `data`: folders whose size `limits.disk` bounds; what is in the first one stays when the worker has ended.
    `image`: a container's, with all that it needs; its own command is run where `command` is "".
    `reaches`: ports of other workers that it may connect to, as of the servers of its data. `port`: the one that
    it is to listen on, 0 for any that is free.
    """

    command: str
    folder: Path
    environment: Mapping[str, str]
    log: Path
    health: str | None = None
    health_interval: float = 10
    health_timeout: float = 5
    ready_timeout: float = 60
    stop_timeout: float = 10
    health_host: str = "localhost"
    venv: Venv | None = None
    name: str = ""
    view: View | None = None
    limits: Limits = field(default_factory=Limits)
    listens: bool = True
    data: tuple[Path, ...] = ()
    image: str = ""
    reaches: tuple[int, ...] = ()
    port: int = 0

    def record(self, identity: Identity, address: str, log_start: int) -> Record:
        """What is to be remembered of a worker that was started like this."""
        return Record(
            pid=identity.pid,
            started=identity.started,
            boot=identity.boot,
            address=address,
            log=str(self.log),
            log_start=log_start,
            health=self.health,
            health_interval=self.health_interval,
            health_timeout=self.health_timeout,
            listens=self.listens,
            health_host=self.health_host,
            ready_timeout=self.ready_timeout,
            stop_timeout=self.stop_timeout,
            limits=asdict(self.limits),
            data=tuple(map(str, self.data)),
        )


@dataclass(frozen=True)
class Ended:
    """`status`: negative for a signal, None if nobody could know. `words` follow a name in a sentence."""

    status: int | None
    words: str


class Worker(Protocol):
    """Made by an engine."""

    @property
    def record(self) -> Record:
        """To be stored after its start, and again after `ready`, which may have chosen another port or address."""

    @property
    def address(self) -> str:
        """Where to dial it, "127.0.0.1:21733" or "[::1]:21733"; sure once `ready` returned."""

    @property
    def is_running(self) -> bool: ...

    @property
    def how_it_ended(self) -> str:
        """To follow its name in a sentence: "was ended by SIGKILL", "ended with exit status 3", "is gone"."""

    @property
    def outgrew(self) -> bool:
        """Whether it was ended for the size of its data, which the next one would be, too."""

    async def ready(self, say: Output | None = None) -> None:
        """Wait until it listens and, if it has a health path, answers. Raises NotReady; it is not stopped then."""

    async def ended(self) -> Ended:
        """Wait until it has ended, by itself or by `stop`."""

    async def stop(self) -> None:
        """End all of it: TERM, then KILL after `stop_timeout`. Idempotent and bounded."""

    def leave(self) -> None:
        """Watch it no more, and let it run on: for the next control to adopt."""

    def usage(self) -> Usage:
        """Memory and cpu of all its processes. May block for milliseconds: call it in a thread."""

    def last_lines(self, count: int = LAST_LINES) -> list[str]:
        """The last lines that it wrote since it was started, oldest first, empty ones left out."""
