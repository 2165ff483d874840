"""Connections that do nothing: what each costs in memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence

import backend
import measure
from figures import Column, Figure, Verdict, verdicts
from peer import HERE, CannotRun, Running
from run import Row, Run, Sample

CONNECTIONS = 10_000
WEBSOCKETS = 2_000
_KIBIBYTES = 12.0
_OURS = 2000  # descriptors left for what is neither


def idle(run: Run) -> list[Row]:
    """Memory of each proxy, freshly started, without and with its idle connections."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _OURS
    kept, sockets = min(CONNECTIONS, files), min(WEBSOCKETS, files // 2)
    rows = []
    with run.started(backend.pages, run.whole) as running:
        rows += _grown(run, running, f"{kept:,} connections", kept, "http")
    with run.started(backend.echo, run.whole) as running:
        rows += _grown(run, running, f"{sockets:,} websockets", sockets, "websocket")
    return rows


def _grown(run: Run, running: dict[str, Running], case: str, count: int, kind: str) -> list[Row]:
    def take(_: str, each: Running) -> Sample:
        return _held(each, count, kind)

    def warm(_: str, each: Running) -> None:
        _held(each, 100, kind)

    return run.interleaved(running, (case,), take, warm, rounds=1)


def _held(running: Running, count: int, kind: str) -> Sample:
    before = measure.pss(running.pid)
    command = [sys.executable, str(HERE / "load/idle.py"), str(running.port), str(count), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise CannotRun(f"{running.name} did not keep {count} connections.")
        after = measure.pss(running.pid)
        closed = json.loads(holder.communicate()[0])["closed"]
    values = {"before": before, "after": after, "each": (after - before) / count}
    return Sample(values, f"{closed} were closed" if closed else "")


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    sized = [Row(row.case, row.peer, {"each": row.values["each"] / 1024}) for row in rows]
    return verdicts(sized, "each", _KIBIBYTES, "{}: KiB each")


FIGURES = (
    Figure(
        "idle",
        "Idle connections",
        "at most 12 KiB of memory each",
        (
            Column("before", "MiB before", "{:.1f}", 2**-20),
            Column("after", "MiB with them", "{:.1f}", 2**-20),
            Column("each", "KiB each", "{:.2f}", 2**-10),
        ),
        idle,
        _judge,
    ),
)
