"""What the terminal shows: tables, states, ages, sizes. All text of others is freed of control characters."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 10_000  # of what is no terminal: nothing is cut that a program will read
STATE_STYLES = {
    "ready": "green",
    "failed": "red",
    "queued": "yellow",
    "building": "yellow",
    "starting": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
}
UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))
# Cursor movements and the like would let a build or a commit's subject rewrite what stands above it.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
CONTROL_BUT_COLOURS = re.compile(r"[\x00-\x08\x0a-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[)")


def console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_json_line(value: Any) -> None:
    """One line, at once: a program may wait for it."""
    click.echo(json.dumps(value, ensure_ascii=False))


def show_output(lines: Iterable[str]) -> None:
    """The last lines of a step that failed, on stderr."""
    screen = console(stderr=True)
    for line in lines:
        screen.print(coloured(line, "dim"), soft_wrap=True)


def plain(value: Any, style: str = "") -> Text:
    """Text of others as one line that is cut where the terminal ends."""
    return Text(CONTROL.sub(" ", str(value)), style, no_wrap=True, overflow="ellipsis")


def coloured(line: str, style: str = "") -> Text:
    """A line of output with its ANSI colours; all other escapes are dropped."""
    text = AnsiDecoder().decode_line(CONTROL_BUT_COLOURS.sub("", line.rstrip("\r")))
    text.plain = CONTROL.sub("", text.plain)
    text.style = style
    return text


def table(headings: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> Table:
    """Columns without lines. A heading with `>` in front is of numbers, one with `~` may be cut."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        name = heading.lstrip(">~")
        made.add_column(
            name, justify="right" if heading[0:1] == ">" else "left", no_wrap=not heading.startswith("~")
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, Text | str]]) -> Table:
    """Names and values; pairs without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(name, value if isinstance(value, Text) else Text(CONTROL.sub(" ", value)))
    return made


def dot(state: str) -> Text:
    return Text("●" if state in STATE_STYLES else "○", STATE_STYLES.get(state, "dim"))


def age(at: float | None, now: float | None = None) -> str:
    """How long ago a unix time was, in words."""
    if at is None:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for length, unit in UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def size(count: float | None) -> str:
    """Bytes in words."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s"
