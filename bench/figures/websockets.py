"""Websockets through a proxy: how many messages are echoed, and how long one takes."""

from __future__ import annotations

from collections.abc import Sequence

import backend
from figures import BUSY, NGINX, Column, Figure, Verdict, compare, verdicts
from peer import Running
from run import Row, Run, Sample, per_request

CONNECTIONS = 32
_FLAT_OUT = "as fast as echoed"
_LEAST = 0.7  # of nginx's messages a second


def websockets(run: Run) -> list[Row]:
    """Messages of 64 bytes over 32 websockets, one in flight on each; then at half of nginx's rate."""

    def flat_out(_: str, running: Running) -> Sample:
        return per_request(running, lambda: _messages(running.port, run.seconds, 0))

    with run.started(backend.echo, run.whole) as running:
        rows = run.interleaved(running, (_FLAT_OUT,), flat_out)
        if not rows:
            return rows
        for row in rows:
            row.values["capacity"] = 1 / row.values["cpu"]
        compare(rows, "capacity", "nginx")
        half = _half(rows)

        def paced(_: str, running: Running) -> Sample:
            done = _messages(running.port, run.seconds, half)
            return Sample({"p50": done.times[0], "p99": done.times[1]}, done.trouble)

        return rows + run.interleaved(running, (f"{half:,.0f} a second",), paced)


def _half(rows: Sequence[Row]) -> float:
    """Half of what nginx carries, or without it of what the first one does."""
    rates = {row.peer: row.values["rate"] for row in rows}
    return round(rates.get("nginx", rows[0].values["rate"]) / 2, -2)


def _messages(port: int, seconds: float, rate: float) -> backend.Done:
    options = ("--websocket", "--connections", CONNECTIONS, "--seconds", seconds, "--rate", rate)
    return backend.load("paced.py", port, *options)


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    return verdicts(rows, "x nginx", _LEAST, "{}: messages a CPU second × nginx's", at_least=True)


FIGURES = (
    Figure(
        "websockets",
        "Websocket echo",
        "at least 0.7 × nginx's messages a CPU second; latency beside nginx's at half of its rate",
        (
            Column("cpu", "CPU µs each", "{:.1f}", 1e6),
            Column("rate", "messages/s", "{:,.0f}"),
            BUSY,
            Column("capacity", "per CPU s", "{:,.0f}"),
            NGINX,
            Column("p50", "p50 µs", "{:,.0f}", 1e6),
            Column("p99", "p99 µs", "{:,.0f}", 1e6),
        ),
        websockets,
        _judge,
    ),
)
