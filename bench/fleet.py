"""`python bench/fleet.py`: many commits of one app, one after the other, and the start of a server that knows more.

The memory of control and of the routers is to stay flat; the start is to take less than two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from lazycloud import store
from lazycloud.store import Store
from peer import Running
from server import git, up

APP = """
import http.server, os
NAME = "{name}"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(NAME)))
        self.end_headers()
        self.wfile.write(NAME.encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
PARTS = ("control", "router")
START_TARGET = 2.0  # seconds, of a processor that others use, too
GROWTH_TARGET = 50_000  # bytes for each commit, of control: what its allocator keeps goes up and down by 8 MB
READY = "Ctrl-C stops everything"


@dataclass(frozen=True)
class Sample:
    """After so many commits: bytes that are each part's alone (USS), routers together, and how many workers live."""

    commits: int
    control: int
    router: int
    workers: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=500, help="that are deployed")
    parser.add_argument("--live", type=int, default=40, help="at a time, the setting [workers] max")
    parser.add_argument(
        "--known", type=int, default=10_000, help="commits and deployments that the last start knows"
    )
    parser.add_argument("--starts", type=int, default=5, help="of which the median is shown")
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="lazycloud-fleet-") as place:
        folder = Path(place)
        source = _repository(folder)
        home = folder / "home"
        home.mkdir()
        (home / "config.toml").write_text(f"[workers]\nmax = {given.live}\nreserve = 0\n")
        with up(folder, source) as running:
            samples = list(_deploy(running, source, given.commits, given.live))
        console.print(_table(samples))
        growth = _growth(samples)
        releases = len(list((home / "apps").glob("*/releases/*/")))
        console.print(f"control grew by {growth:,.0f} bytes for each commit of the second half")
        for known in (given.commits, given.known):
            if known > given.commits:
                _know(home, source, known)
            starts = [_start(folder, source) for _ in range(given.starts)]
            took, spent = (statistics.median(each) for each in zip(*starts, strict=True))
            console.print(
                f"start with {known:,} known commits and {releases} releases: {took:.2f} s,"
                f" of the processor {spent:.2f} s"
            )
    return 0 if growth < GROWTH_TARGET and spent < START_TARGET else 1


def _repository(folder: Path) -> Path:
    source = folder / "shop"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    (source / "Procfile").write_text("web: python3 app.py\n")
    _commit(source, "first")
    return source


def _commit(source: Path, name: str) -> str:
    (source / "app.py").write_text(APP.replace("{name}", name))
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", name)
    return git(source, "rev-parse", "HEAD").strip()


def _deploy(running: Running, source: Path, commits: int, live: int) -> Iterator[Sample]:
    """Each is asked until it answers as itself; after every 25th, a sample."""
    began = time.monotonic()
    for number in range(1, commits + 1):
        name = f"commit-{number}"
        commit = _commit(source, name)
        answer = _get(running.port, f"{commit}.localhost:{running.port}")
        if answer != name:
            raise SystemExit(f"{name} ({commit}) answered {answer[:500]!r}")
        if number % 25 == 0:
            sample = _sample(running, number, time.monotonic() - began)
            if sample.workers > live + 1:
                raise SystemExit(f"{sample.workers} workers live, of {live} at most")
            print(sample, file=sys.stderr, flush=True)
            yield sample


def _get(port: int, host: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()


def _sample(running: Running, commits: int, seconds: float) -> Sample:
    sizes = dict.fromkeys(PARTS, 0)
    for child in psutil.Process(running.process.pid).children():
        line = " ".join(child.cmdline())
        for part in PARTS:
            if f"lazycloud.{part}" in line:
                sizes[part] += child.memory_full_info().uss
    return Sample(commits, sizes["control"], sizes["router"], _workers(running), seconds)


def _workers(running: Running) -> int:
    """How many apps run: what else the server has started has other command lines."""
    found = 0
    for one in psutil.Process(running.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += one.cmdline() == ["python3", "app.py"]
    return found


def _growth(samples: list[Sample]) -> float:
    """Bytes of control for each commit, over the second half: by then all that is made once has been made."""
    half = [one for one in samples if one.commits >= samples[-1].commits / 2]
    slope, _ = statistics.linear_regression([one.commits for one in half], [one.control for one in half])
    return slope


def _know(home: Path, source: Path, count: int) -> None:
    """So many commits in the repository, and a row for a deployment of each, as old ones leave it."""
    commands = ["reset refs/heads/many\nfrom refs/heads/main^0\n\n"]
    for number in range(count):
        name = f"known {number}"
        commands.append(
            f"commit refs/heads/many\ncommitter Ada <ada@example.com> {1_700_000_000 + number} +0000\n"
            f"data {len(name)}\n{name}\n"
            f"M 100644 inline number\ndata {len(str(number))}\n{number}\n\n"
        )
    words = ["git", "fast-import", "--quiet"]
    subprocess.run(words, cwd=source, input="".join(commands), text=True, check=True)
    commits = git(source, "rev-list", f"-{count}", "many").split()
    state = Store(f"sqlite:///{home / 'state.sqlite'}")
    state.open()
    like = next(row for row in state.rows(store.deployments) if row["version"] == row["commit"])
    asleep = {**like, "worker": None, "state": "stopped"}
    with state.engine.begin() as connection:
        for commit in commits:
            named = {"commit": commit, "version": commit, "id": like["id"].replace(like["commit"], commit)}
            connection.execute(store.put(store.deployments, **asleep | named))
    state.close()


def _start(folder: Path, source: Path) -> tuple[float, float]:
    """Seconds until `lazycloud up` says that it serves, and those of the processor that it and control took."""
    words = [sys.executable, "-m", "lazycloud", "up", str(source), "--home", str(folder / "home")]
    began = time.monotonic()
    with subprocess.Popen(
        [*words, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if READY in line:
                took = time.monotonic() - began
                spent = _spent(process.pid)
                break
        else:
            raise SystemExit("the server did not start")
        process.terminate()
        process.stdout.read()
    return took, spent


def _spent(server: int) -> float:
    """Not the routers: they start beside control, on other cores."""
    parent = psutil.Process(server)
    control = [one for one in parent.children() if "lazycloud.control" in " ".join(one.cmdline())]
    return sum(one.cpu_times().user + one.cpu_times().system for one in (parent, *control))


def _table(samples: list[Sample]) -> Table:
    table = Table("commits", "control", "routers", "workers", "seconds")
    for one in samples:
        sizes = [f"{size / 1e6:.1f} MB" for size in (one.control, one.router)]
        table.add_row(str(one.commits), *sizes, str(one.workers), f"{one.seconds:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
