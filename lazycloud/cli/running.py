"""What runs, as a table that fits its terminal: for `ps`, and for `ps --watch`, which goes on."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lazycloud.cli.client import Unreachable
from lazycloud.cli.terminal import STATE_STYLES, age, console, dot, plain, show_json_line, size, table

GAP = 2  # between two columns
AROUND = 4  # lines that are no rows: two of the heading, that of the table, that of what is left out
LOOK_SECONDS = 0.25  # between two looks at the size of the terminal

Entry = dict[str, Any]
Fetch = Callable[[], list[Entry]]


@dataclass(frozen=True)
class Column:
    """`worth`: those of the least are left out first where the terminal is narrow."""

    heading: str
    worth: int
    cell: Callable[[Entry], Text | str]


def _name(entry: Entry) -> Text:
    return plain(entry["app"], "green" if entry["production"] else "")


def _what(entry: Entry) -> Text:
    state, production = entry.get("state", "ready"), entry["production"]
    words = ["production"] if production else ["kept warm"] if entry["version"] == "production" else []
    words += ["pinned"] if entry.get("pinned") else []
    words += [state] if state != "ready" else []
    style = STATE_STYLES.get(state, "dim") if production or state == "failed" else "dim"
    return plain(", ".join(words), style)


def _workers(entry: Entry) -> str:
    """“2 web, 1 clock”; nothing where there is one."""
    kinds = [process["name"].rpartition(".")[0] for process in entry.get("processes") or ()]
    if len(kinds) < 2:
        return ""
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _idle(entry: Entry) -> str:
    idle = entry.get("idle")
    return age(entry["last"]) if idle is None else short(idle)


def _restarts(entry: Entry) -> Text:
    count = entry.get("restarts") or 0
    return plain(count, "yellow" if count else "dim")


def _last_end(entry: Entry) -> Text:
    if failure := entry.get("failure"):
        return plain(failure, "red")
    end = entry.get("last_end")
    if not end:
        return plain("")
    name = f"{end['process']} " if _workers(entry) and end.get("process") else ""
    how = f"{name}{end['how']}, {age(end['at'])}"
    return plain(how, "dim" if end.get("expected") else "yellow")


def _errors(entry: Entry) -> Text:
    return plain(entry["errors"], "red" if entry["errors"] else "dim")


COLUMNS = (
    Column("", 9, lambda entry: dot(entry.get("state", "ready"))),
    Column("app", 10, _name),
    Column("commit", 10, lambda entry: entry["commit"]["short"]),
    Column("", 5, _what),
    Column("workers", 3, _workers),
    Column(">pid", 1, lambda entry: str(entry["pid"] or "")),
    Column(">memory", 8, lambda entry: size(entry["memory"]) if entry["pid"] else ""),
    Column(">cpu", 8, lambda entry: f"{entry['cpu'] or 0:.0f} %" if entry["pid"] else ""),
    Column(">up", 4, lambda entry: short(time.time() - entry["since"]) if entry["pid"] else ""),
    Column(">requests", 7, lambda entry: str(entry["requests"])),
    Column(">errors", 5, _errors),
    Column(">idle", 6, _idle),
    Column(">restarts", 3, _restarts),
    Column("last ended", 2, _last_end),
    Column("address", 0, lambda entry: entry["address"]),
)
RATE = Column(">per s", 5, lambda entry: f"{entry['rate']:.1f}" if entry.get("rate") else "")

KEYS: dict[str, tuple[str, Callable[[Entry], Any]]] = {
    "m": ("memory", lambda entry: -(entry["memory"] or 0)),
    "c": ("cpu", lambda entry: -(entry["cpu"] or 0)),
    "r": ("requests", lambda entry: (-(entry.get("rate") or 0), -(entry["requests"] or 0))),
    "n": ("production first", lambda entry: 0),
}
LEAVE = ("q", "")


def shown(entries: Sequence[Entry], width: int, columns: Sequence[Column] = COLUMNS) -> RenderableType:
    """The table, with as many columns as there is room for."""
    cells = {column: [_text(column.cell(entry)) for entry in entries] for column in columns}
    kept = [column for column in columns if any(cell.plain for cell in cells[column])]
    while len(kept) > 1 and sum(_width(column, cells[column]) for column in kept) - GAP > width:
        kept.remove(min(kept, key=lambda column: column.worth))
    rows = zip(*(cells[column] for column in kept), strict=True)
    return table([column.heading for column in kept], rows)


def short(seconds: float) -> str:
    """A duration in one word."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def watch(fetch: Fetch, seconds: float, as_json: bool) -> None:
    """Until the reader leaves: in a terminal on a screen of its own, else a table each time."""
    if as_json or not (os.isatty(0) and sys.stdout.isatty()):
        _repeat(fetch, seconds, as_json)
    else:
        with _keys():
            Watch(fetch, seconds).run(console())


def _repeat(fetch: Fetch, seconds: float, as_json: bool) -> None:
    screen, rates = console(), Rates()
    while True:
        entries = rates.add(fetch())
        if as_json:
            show_json_line(entries)
        else:
            screen.print(_summary(entries))
            screen.print(shown(entries, screen.width, (*COLUMNS, RATE)))
            screen.print("")
        sys.stdout.flush()
        time.sleep(seconds)


@dataclass
class Rates:
    """Requests a second of each, from one look to the next."""

    before: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> list[Entry]:
        now = time.monotonic()
        told = [{**entry, "rate": self._rate(entry, now)} for entry in entries]
        self.before = {entry["deployment"]: (now, entry["requests"]) for entry in entries}
        return told

    def _rate(self, entry: Entry, now: float) -> float:
        at, count = self.before.get(entry["deployment"], (now, 0))
        return max(0.0, (entry["requests"] - count) / (now - at)) if now > at else 0.0


@dataclass
class Watch:
    """What `top` is for processes."""

    fetch: Fetch
    seconds: float
    key: str = "n"
    trouble: str = ""
    entries: list[Entry] = field(default_factory=list)
    rates: Rates = field(default_factory=Rates)

    def run(self, screen: Console) -> None:
        with Live(console=screen, screen=True, auto_refresh=False, redirect_stdout=False) as live:
            while True:
                self._look()
                deadline = time.monotonic() + self.seconds
                while (rest := deadline - time.monotonic()) > 0:
                    live.update(self.view(screen.width, screen.height), refresh=True)
                    key = _key(min(rest, LOOK_SECONDS))
                    if key in LEAVE:
                        return
                    self.key = key if key in KEYS else self.key

    def _look(self) -> None:
        try:
            self.entries, self.trouble = self.rates.add(self.fetch()), ""
        except Unreachable as problem:  # it is being replaced, or started again: this goes on
            self.trouble = problem.sentence

    def view(self, width: int, height: int) -> RenderableType:
        """No larger than the terminal."""
        name, order = KEYS[self.key]
        entries = sorted(self.entries, key=order)
        room = max(1, height - AROUND)
        help_line = f"sorted by {name}; m memory, c cpu, r requests, n production first, q quits"
        if self.key == "n":
            help_line = help_line.removeprefix("sorted by ")
        parts: list[RenderableType] = [
            plain(self.trouble, "red") if self.trouble else _summary(entries),
            plain(help_line, "dim"),
        ]
        if entries:
            parts.append(shown(entries[:room], width, (*COLUMNS, RATE)))
        if len(entries) > room:
            parts.append(plain(f"… and {len(entries) - room} more", "dim"))
        return Group(*parts)


def _summary(entries: Sequence[Entry]) -> Text:
    live = [entry for entry in entries if entry["pid"]]
    memory, cpu = sum(entry["memory"] for entry in live), sum(entry["cpu"] or 0 for entry in live)
    rate = sum(entry.get("rate") or 0 for entry in live)
    clock = time.strftime("%H:%M:%S")
    return plain(f"{clock}  {len(live)} run, {size(memory)}, {cpu:.0f} % cpu, {rate:.1f} requests a second")


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else plain(cell)


def _width(column: Column, cells: Sequence[Text]) -> int:
    return max([len(column.heading.lstrip(">~")), *(cell.cell_len for cell in cells)]) + GAP


def _key(seconds: float) -> str | None:
    """The key that is pressed meanwhile; "" when there is no terminal any more."""
    if not select.select([0], [], [], seconds)[0]:
        return None
    try:
        return os.read(0, 1).decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come at once and are not shown."""
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
