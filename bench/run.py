"""One run: which proxies, how long, on which cores; and the order in which they take turns."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import backend
import measure
from peer import Peer, Running

Values = Mapping[str, float]
Back = Callable[[Path, int], tuple[Running, list[str]]]


@dataclass(slots=True)
class Row:
    """Medians of one case and one proxy."""

    case: str
    peer: str
    values: dict[str, float]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    values: Values
    trouble: str = ""


@dataclass
class Run:
    """The proxy has the first core to itself, load and back end share the last."""

    peers: Sequence[Peer]
    seconds: float = 2.0
    rounds: int = 3
    only: str = ""  # cases that contain this
    say: Callable[[str], object] = print
    own: Sequence[int] = field(default_factory=lambda: sorted(os.sched_getaffinity(0)))

    def __post_init__(self) -> None:
        self.cores = (self.own[0], self.own[-1])
        os.sched_setaffinity(0, {self.cores[1]})  # whatever this process starts, but for the proxies

    @property
    def all_cores(self) -> str:
        """All that we may use, for what is measured as a whole."""
        return ",".join(str(core) for core in self.own)

    @property
    def whole(self) -> list[Peer]:
        """The proxies that carry all there is."""
        return [peer for peer in self.peers if not peer.kept_only]

    @contextlib.contextmanager
    def started(self, back: Back, peers: Sequence[Peer]) -> Iterator[dict[str, Running]]:
        """All of `peers` before one back end, by name, until the block ends."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
            behind, addresses = back(_folder(name, "backend"), self.cores[1])
            stack.callback(behind.stop)
            running = {}
            for number, peer in enumerate(peers):
                running[peer.name] = peer.start(_folder(name, str(number)), addresses, self.cores[0])
                stack.callback(running[peer.name].stop)
            for each in running.values():
                each.wait()
            yield running

    def interleaved(
        self,
        running: Mapping[str, Running],
        cases: Sequence[str],
        take: Callable[[str, Running], Sample],
        warm: Callable[[str, Running], object] | None = None,
        rounds: int | None = None,
    ) -> list[Row]:
        """Each case of each proxy once a round, A B C A B C, so that drift meets all alike; medians."""
        taken: dict[tuple[str, str], list[Sample]] = {}
        for case in (case for case in cases if self.only in case):
            for each in running.values():
                (warm or take)(case, each)
            for number in range(rounds or self.rounds):
                self.say(f"{case}, round {number + 1} of {rounds or self.rounds}")
                for name, each in running.items():
                    taken.setdefault((case, name), []).append(take(case, each))
        return [Row(case, name, *median(samples)) for (case, name), samples in taken.items()]


def cost(running: Running, work: Callable[[], backend.Done]) -> tuple[backend.Done, float]:
    """Do the work; what it did, and the proxy's CPU time meanwhile in seconds."""
    before = measure.cpu(running.pid)
    done = work()
    return done, (measure.cpu(running.pid) - before) / 1e9


def per_request(running: Running, work: Callable[[], backend.Done]) -> Sample:
    """The sample of a figure that is about cost per request."""
    done, cpu = cost(running, work)
    values = {
        "cpu": cpu / max(done.count, 1),
        "rate": done.count / done.seconds,
        "busy": cpu / done.seconds,
    }
    return Sample(values, done.trouble)


def median(samples: Sequence[Sample]) -> tuple[dict[str, float], str]:
    """Of each value; and the first trouble there was."""
    names = samples[0].values
    values = {name: statistics.median(each.values[name] for each in samples) for name in names}
    return values, next((each.trouble for each in samples if each.trouble), "")


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder
