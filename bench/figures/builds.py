"""A commit that is in use, while others are built: a whole `lazycloud up` on all cores.

The load comes before everything else, as if from another machine: else its own delays would be counted.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import backend
import measure
from figures import Column, Figure, Verdict, verdicts
from peer import HERE, CannotRun, Running
from run import Row, Run, Sample, median
from server import git, up

OTHERS = 8
CONNECTIONS = 16
SHARES = (0.1, 0.5)  # of what the server can carry
_WORST = 2.0
_PATIENCE = 120.0


@dataclass(slots=True)
class Served:
    """A server with a repository; `hot` is the commit in use, `others` are not built yet."""

    running: Running
    hot: str
    others: list[str]

    def get(self, commit: str) -> None:
        """A request that waits until the commit is ready."""
        connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"Host": self.host(commit)})
            status = connection.getresponse().status
            if status != 200:
                raise CannotRun(f"The commit {commit} answered {status}: {self.running.output.read_text()}")

    def host(self, commit: str) -> str:
        return f"{commit[:12]}.localhost:{self.running.port}"

    @property
    def building(self) -> int:
        """How many builds use the processor just now."""
        return sum(_is_build(pid) for pid in measure.tree(self.running.pid))


def builds(run: Run) -> list[Row]:
    """p99 of the hot commit at a tenth and at half of what it can carry: quiet, and while eight others are built."""
    rows: list[Row] = []
    for case, flags in (("by default", ()), ("all at once", ("--builds", str(OTHERS)))):
        if run.only in case:
            with _served(run, flags) as served:
                served.get(served.hot)
                capacity = statistics.median(
                    _load(run, served, 0).count / run.seconds for _ in range(run.rounds)
                )
                for share in SHARES:
                    rows += _rows(run, served, case, round(capacity * share, -2))
    return rows


def _rows(run: Run, served: Served, case: str, rate: float) -> list[Row]:
    quiet, busy = [], []
    for number in range(run.rounds):
        run.say(f"{case}, {rate:,.0f}/s, round {number + 1} of {run.rounds}")
        quiet.append(_sample(_load(run, served, rate)))
        others, served.others = served.others[:OTHERS], served.others[OTHERS:]
        with _under_way(served, others):
            busy.append(_sample(_load(run, served, rate)))
    rows = [
        Row(f"{rate:,.0f}/s, quiet", "lazycloud", *median(quiet)),
        Row(f"{rate:,.0f}/s, {OTHERS} builds {case}", "lazycloud", *median(busy)),
    ]
    rows[1].values["x quiet"] = rows[1].values["p99"] / rows[0].values["p99"]
    return rows


def _load(run: Run, served: Served, rate: float) -> backend.Done:
    options = ("--host", served.host(served.hot), "--connections", CONNECTIONS)
    return backend.load(
        "paced.py",
        served.running.port,
        *options,
        "--seconds",
        run.seconds,
        "--rate",
        rate,
        cores=run.all_cores,
        first=True,
    )


def _sample(done: backend.Done) -> Sample:
    return Sample({"p50": done.times[0], "p99": done.times[1], "slowest": done.times[2]}, done.trouble)


@contextlib.contextmanager
def _under_way(served: Served, commits: Sequence[str]) -> Iterator[None]:
    """The block runs while those commits are being built; afterwards all are ready."""
    visitors = [threading.Thread(target=served.get, args=(commit,)) for commit in commits]
    for visitor in visitors:
        visitor.start()
    _until(lambda: served.building >= 2, "a second build")
    yield
    if not served.building:
        raise CannotRun("The builds ended before the load did: give more --seconds.")
    for visitor in visitors:
        visitor.join()
    _until(lambda: not served.building, "the end of the builds")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise CannotRun(f"There was not {what} within {_PATIENCE:g} s.")
        time.sleep(0.02)


def _is_build(pid: int) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return len(words) > 1 and words[1] == b"build.py"
    return False


@contextlib.contextmanager
def _served(run: Run, flags: Sequence[str]) -> Iterator[Served]:
    """A server in a scratch home, ended as Ctrl-C does."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        commits = _repository(folder / "shop", 1 + OTHERS * run.rounds * len(SHARES), run.seconds)
        with up(folder, folder / "shop", flags, run.all_cores) as running:
            yield Served(running, commits[0], commits[1:])


def _repository(folder: Path, count: int, seconds: float) -> list[str]:
    """An app with so many commits, oldest first; each but the first has a build of so many CPU seconds."""
    shutil.copytree(HERE / "load/app", folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-q", "-b", "main")
    for number in range(count):
        (folder / "work").write_text(f"{seconds if number else 0} for commit {number}\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"commit {number}")
    # production is the first: nothing else is built before it is asked for
    commits = git(folder, "rev-list", "--reverse", "HEAD").split()
    git(folder, "update-ref", "refs/heads/main", commits[0])
    git(folder, "update-ref", "refs/heads/next", commits[-1])
    return commits


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    return verdicts(rows, "x quiet", _WORST, "{}: p99 × quiet's")


FIGURES = (
    Figure(
        "builds",
        "A hot commit while eight others are built",
        "p99 at most 2 × that of a quiet server",
        (
            Column("p50", "p50 ms", "{:.2f}", 1e3),
            Column("p99", "p99 ms", "{:.2f}", 1e3),
            Column("slowest", "slowest ms", "{:.1f}", 1e3),
            Column("x quiet", "p99 × quiet", "{:.2f}"),
        ),
        builds,
        _judge,
    ),
)
