"""What `lazycloud up` hands to its newer self. The process stays and its code is replaced (execve), so that
sockets, lock, children and the place in the terminal or under systemd stay too.

The same command line is run again; the state waits in a file in memory, whose descriptor the environment names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import NoReturn

from lazycloud.children import python

HANDOVER = "LAZYCLOUD_HANDOVER"
CHECK = "LAZYCLOUD_CHECK"
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


@dataclass(frozen=True)
class Handover:
    """Numbers of descriptors and of processes. `sockets`: by the address as configured, such as 127.0.0.1:0.

    Newer code reads what older code wrote: a field may be added with a default, none may change its meaning.
    """

    version: str
    attempt: int  # which of this process's upgrades this is
    again: bool  # somebody asked for another one meanwhile
    terminal: bool  # it was started in one
    lock: int
    lifeline: int
    lifeline_end: int
    sockets: Mapping[str, Sequence[int]]
    control: int
    routers: Sequence[int]
    leaving: Sequence[int]
    pulses: Mapping[str, int] = field(default_factory=dict)  # by pid, in digits, of routers
    leaves_in: int = (
        0  # looks within which a router that is told to leave is gone; 0 of code that did not say
    )

    @property
    def _descriptors(self) -> list[int]:
        sockets = [number for numbers in self.sockets.values() for number in numbers]
        return [self.lock, self.lifeline, self.lifeline_end, *sockets, *self.pulses.values()]

    def become_newer(self) -> NoReturn:
        """Within `signals_wait`. Raises OSError, with everything as it was."""
        state = os.memfd_create("lazycloud handover")
        os.write(state, json.dumps(asdict(self)).encode())
        os.lseek(state, 0, os.SEEK_SET)
        given = [state, *self._descriptors]
        try:
            for number in given:
                os.set_inheritable(number, True)
            os.execve(sys.executable, command(), {**os.environ, HANDOVER: str(state)})  # noqa: S606
        finally:
            for number in given:
                os.set_inheritable(number, False)
            os.close(state)

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Handover | None:
        """What an older self left, once; None for a start like any other. SIGNALS are blocked then."""
        number = environ.pop(HANDOVER, "")
        if not number:
            return None
        with os.fdopen(int(number)) as state:
            given = json.load(state)
        handover = cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})
        for descriptor in handover._descriptors:
            os.set_inheritable(descriptor, False)
        return handover


@contextmanager
def signals_wait() -> Iterator[None]:
    """What arrives is handled afterwards: perhaps by newer code, once that can."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def command() -> list[str]:
    """The command line of this process, run by whatever lazycloud is installed now."""
    return [*python(), "lazycloud", *sys.argv[1:]]
