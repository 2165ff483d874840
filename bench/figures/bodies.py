"""Large bodies, down and up: CPU time per byte, and memory that stays flat."""

from __future__ import annotations

from collections.abc import Sequence

import backend
import measure
from figures import BUSY, NGINX, Column, Figure, Verdict, compare, verdicts
from peer import Running
from run import Row, Run, Sample, cost

CONNECTIONS = 4
_WAYS = {"10 MB down": "down", "10 MB up": "up"}


def bodies(run: Run) -> list[Row]:
    """Bodies of 10 MB on 4 connections; the peak of memory beside what it was before."""

    def take(case: str, running: Running) -> Sample:
        arguments = (running.port, _WAYS[case], backend.LARGE, CONNECTIONS, run.seconds)
        before = measure.rss(running.pid)
        measure.forget_peak(running.pid)
        done, cpu = cost(running, lambda: backend.load("transfer.py", *arguments))
        values = {
            "cpu": cpu / max(done.count, 1),
            "rate": done.count / done.seconds,
            "busy": cpu / done.seconds,
            "before": before,
            "peak": measure.peak(running.pid),
        }
        values["grown"] = values["peak"] - before
        return Sample(values, done.trouble)

    with run.started(backend.pages, run.whole) as running:
        rows = run.interleaved(running, tuple(_WAYS), take)
    compare(rows, "cpu", "nginx")
    return rows


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    return [
        *verdicts(rows, "x nginx", 1.5, "{}: CPU × nginx's"),
        *verdicts(_in_mebibytes(rows), "grown", _FLAT, "{}: MiB that memory grew by"),
    ]


_FLAT = 8.0  # MiB: less than one of the four bodies


def _in_mebibytes(rows: Sequence[Row]) -> list[Row]:
    return [Row(row.case, row.peer, {"grown": row.values["grown"] / 2**20}) for row in rows]


FIGURES = (
    Figure(
        "bodies",
        "Bodies of 10 MB",
        "CPU a byte at most 1.5 × nginx's, memory flat",
        (
            Column("cpu", "CPU µs a MB", "{:.0f}", 1e12),
            Column("rate", "MB/s", "{:,.0f}", 1e-6),
            BUSY,
            NGINX,
            Column("before", "MiB before", "{:.1f}", 2**-20),
            Column("peak", "MiB at most", "{:.1f}", 2**-20),
        ),
        bodies,
        _judge,
    ),
)
