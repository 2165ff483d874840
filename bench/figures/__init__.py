"""The figures: what each measures, and what it has to be. One module per family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from run import Row


@dataclass(frozen=True, slots=True)
class Column:
    """A value of a row: its key, its heading, and how it is written (`scale` times the value)."""

    key: str
    heading: str
    form: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: what it says, what was measured, and the bound."""

    sentence: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """A benchmark that can be asked for by name."""

    name: str
    title: str
    target: str
    columns: tuple[Column, ...]
    measure: Callable[[Any], list[Row]]  # of the Run, or the Trials, that its command makes
    judge: Callable[[Sequence[Row]], list[Verdict]]


COST = Column("cpu", "CPU µs a request", "{:.1f}", 1e6)
RATE = Column("rate", "requests/s", "{:,.0f}")
BUSY = Column("busy", "core busy", "{:.0%}")
NGINX = Column("x nginx", "× nginx", "{:.2f}")
CADDY = Column("x caddy", "× caddy", "{:.2f}")


def compare(rows: Sequence[Row], key: str, *others: str) -> None:
    """Give each row `x <other>`: its value of `key` as a multiple of the other's in the same case."""
    for other in others:
        base = {row.case: row.values[key] for row in rows if row.peer == other}
        for row in rows:
            if base.get(row.case):
                row.values[f"x {other}"] = row.values[key] / base[row.case]


def verdicts(
    rows: Sequence[Row], key: str, bound: float, sentence: str, at_least: bool = False
) -> list[Verdict]:
    """One for each case of lazycloud that has that value; `sentence` has a place for the case."""
    return [
        Verdict(sentence.format(row.case), row.values[key], bound, at_least)
        for row in rows
        if row.peer == "lazycloud" and key in row.values
    ]
