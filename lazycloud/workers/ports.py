"""Numbers for workers to listen on that are nobody else's."""

from __future__ import annotations

import errno
import random
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from lazycloud.errors import Busy

RANGE = range(20000, 30000)  # below Linux' usual ephemeral ports, above what people type
RESTING = 1000  # a number is not given again at once: a router may not know yet that its worker is gone
FEW = 20  # ports that are tried before all are shuffled
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Ports:
    """Gives out numbers in random order. A number is taken until it is given back."""

    def __init__(self, candidates: Iterable[int] | None = None) -> None:
        self._candidates = list(_outside_ephemeral() if candidates is None else candidates)
        self._taken: set[int] = set()
        self._resting: deque[int] = deque(maxlen=min(RESTING, len(self._candidates) // 2))

    def __repr__(self) -> str:
        return f"<Ports {len(self._taken)} of {len(self._candidates)} taken>"

    def take(self) -> int:
        """A number on which nobody listens on loopback or everywhere. Raises Busy if there is none."""
        for port in self._shuffled():
            if port not in self._taken and port not in self._resting and is_free(port):
                self._taken.add(port)
                return port
        raise Busy(
            f"None of the {len(self._candidates)} ports for workers is free.",
            "Stop some deployments, and try again.",
            retry_after=30,
        )

    def _shuffled(self) -> Iterator[int]:
        """A few at random first: to shuffle all ten thousand takes 4 ms."""
        yield from random.sample(self._candidates, min(FEW, len(self._candidates)))
        yield from random.sample(self._candidates, len(self._candidates))

    def hold(self, port: int) -> None:
        """Count a number as taken: its worker runs already."""
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        if port in self._taken:
            self._taken.remove(port)
            self._resting.append(port)


def is_free(port: int) -> bool:
    """Whether a worker could listen there, on either loopback address and on all addresses."""
    return all(
        _can_bind(family, host, port)
        for family, host in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
            (socket.AF_INET, "0.0.0.0"),  # noqa: S104 - bound for a moment, never listened on
        )
    )


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    """Bound without SO_REUSEADDR, so that connections which linger count as use. No such family: free."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, port))
    except OSError as problem:
        return problem.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True


def _outside_ephemeral() -> list[int]:
    """The kernel gives ephemeral ports to any outgoing connection, between our look and the worker's bind."""
    low, high = map(int, EPHEMERAL.read_text().split())
    # A machine whose ephemeral range covers ours leaves no choice; readiness finds out who really listens.
    return [port for port in RANGE if not low <= port <= high] or list(RANGE)
