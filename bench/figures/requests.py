"""Small requests: kept connections, new connections, and many live commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import backend
from figures import BUSY, CADDY, COST, NGINX, RATE, Column, Figure, Verdict, compare, verdicts
from peer import HERE, Running
from run import Row, Run, Sample, per_request

CONNECTIONS = (1, 32, 256)
COMMITS = {
    "1 live": ("1", "commit"),
    "100 live": ("100", "commit"),
    "10,000 live": ("10000", "commit"),
    "on 100 addresses": ("10000", "spread"),
}
_NOISE = 1.1  # two medians of one thing differ by so much on a shared machine


def keepalive(run: Run) -> list[Row]:
    """The same small GET again and again, and one whose heads never repeat, over kept connections."""
    cases = {f"{kind}, {n} conn.": (kind, n) for kind in ("same", "fresh") for n in CONNECTIONS}

    def take(case: str, running: Running) -> Sample:
        kind, connections = cases[case]
        return per_request(running, lambda: _page(running.port, connections, run.seconds, kind))

    def warm(case: str, running: Running) -> None:
        kind, connections = cases[case]
        _page(running.port, connections, 1, kind)

    with run.started(backend.pages, run.peers) as running:
        rows = run.interleaved(running, tuple(cases), take, warm)
    compare(rows, "cpu", "nginx", "caddy")
    return rows


def _page(port: int, connections: int, seconds: float, kind: str) -> backend.Done:
    if kind == "fresh":
        return backend.wrk(port, connections, seconds, "-s", str(HERE / "load/fresh.lua"))
    return backend.wrk(port, connections, seconds, "-H", backend.COOKIE)


def connections(run: Run) -> list[Row]:
    """A new connection for each request."""

    def take(case: str, running: Running) -> Sample:
        work = ("-H", backend.COOKIE, "-H", "Connection: close")
        return per_request(running, lambda: backend.wrk(running.port, 32, run.seconds, *work))

    with run.started(backend.pages, run.whole) as running:
        rows = run.interleaved(running, ("new connection",), take)
    compare(rows, "cpu", "nginx", "caddy")
    return rows


def commits(run: Run) -> list[Row]:
    """Requests to one of N hosts after another, each a deployment of its own.

    Each case has a process of its own, since a router that has known many hosts is no longer one that knows few.
    """
    chosen = [peer for peer in run.peers if peer.name.startswith("lazycloud") or peer.name == "nginx"]
    wanted = [case for case in COMMITS if run.only in case]
    pairs = {f"{case}, {peer.name}": (case, peer) for case in wanted for peer in chosen}

    def hosts(running: Running, seconds: float) -> backend.Done:
        case, _ = pairs[running.name]
        script = ("-s", str(HERE / "load/hosts.lua"))
        return backend.wrk(running.port, 32, seconds, *script, arguments=COMMITS[case])

    def take(_: str, running: Running) -> Sample:
        return per_request(running, lambda: hosts(running, run.seconds))

    def warm(_: str, running: Running) -> None:
        hosts(running, 4)  # each host is asked for at least once

    named = [replace(peer, name=name) for name, (_, peer) in pairs.items()]
    with run.started(lambda folder, core: backend.pages(folder, core, addresses=100), named) as running:
        taken = run.interleaved(running, (", ".join(wanted),), take, warm)
    rows = [Row(pairs[row.peer][0], pairs[row.peer][1].name, row.values, row.trouble) for row in taken]
    _against_one(rows)
    return rows


def _against_one(rows: Sequence[Row]) -> None:
    alone = {row.peer: row.values["cpu"] for row in rows if row.case == "1 live"}
    for row in rows:
        if row.peer in alone and row.case != "1 live":
            row.values["x one"] = row.values["cpu"] / alone[row.peer]


def _judge_keepalive(rows: Sequence[Row]) -> list[Verdict]:
    return verdicts(rows, "x nginx", 1.3, "{}: CPU × nginx's") + verdicts(
        rows, "x caddy", 1 / 3, "{}: CPU × Caddy's"
    )


def _judge_commits(rows: Sequence[Row]) -> list[Verdict]:
    of_table = [row for row in rows if row.case.endswith("live")]  # more addresses are more sockets, too
    return verdicts(of_table, "x one", _NOISE, "{}: CPU × that with one")


FIGURES = (
    Figure(
        "keepalive",
        "Small GET over kept connections",
        "CPU a request at most 1.3 × nginx's and 1/3 of Caddy's",
        (COST, RATE, BUSY, NGINX, CADDY),
        keepalive,
        _judge_keepalive,
    ),
    Figure(
        "connections",
        "A new connection for each request",
        "CPU a request at most 2 × nginx's",
        (COST, RATE, BUSY, NGINX, CADDY),
        connections,
        lambda rows: verdicts(rows, "x nginx", 2.0, "{}: CPU × nginx's"),
    ),
    Figure(
        "commits",
        "Many live commits",
        f"CPU a request does not grow with their number (by more than {_NOISE - 1:.0%}, the noise of a run)",
        (COST, RATE, BUSY, Column("x one", "× one commit", "{:.2f}")),
        commits,
        _judge_commits,
    ),
)
