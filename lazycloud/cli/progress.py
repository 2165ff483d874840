"""A deploy as it goes on: steps that tick in a terminal, plain lines elsewhere, JSON Lines for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lazycloud.cli.client import Client, Event
from lazycloud.cli.terminal import coloured, console, duration, plain, show_json_line
from lazycloud.data.names import MIGRATION, PRODUCTION, REHEARSAL
from lazycloud.errors import LazycloudError, StepFailed

MARKS = {
    "done": ("✓", "green"),
    "reused": ("✓", "cyan"),
    "skipped": ("–", "dim"),
    "failed": ("✗", "red"),
    "running": ("…", "yellow"),
    "waiting": ("·", "dim"),
}


DEPLOYING = ("queued", "building", "starting")
ACTS = (
    (REHEARSAL, "Rehearsal, on a fork of production’s data"),
    (MIGRATION, "On a fork that takes the place of production’s data; requests wait"),
    (PRODUCTION, "Production’s new workers"),
)
"""What each deploy of a promote is for, by how the name of its version begins."""

Ends = Callable[[Event], bool]
"""Whether an event is the last one to wait for."""


class View(Protocol):
    """Takes the events of one deploy, in order."""

    def show(self, event: Event) -> None: ...


class JsonView:
    """Each event as it came, on stdout."""

    def show(self, event: Event) -> None:
        show_json_line(event)


class PlainView:
    """A line for each step when it has ended, and each line of output."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._lines = Lines()
        self._acts = Acts()

    def show(self, event: Event) -> None:
        if act := self._acts.begins(event):
            self._screen.print(plain(act, "bold"))
        if event["kind"] == "output":
            self._print(self._lines.feed(event["text"]))
        elif event["kind"] == "step_finished":
            self._print(self._lines.rest())
            words = [event["step"], _time(event), event.get("note") or ""]
            self._screen.print(mark(event["outcome"]), plain(" ".join(filter(None, words))))
        elif event["kind"] == "migration_rehearsed":
            self._screen.print(plain(f"{event['sentence']}."))
        elif event.get("ahead"):
            self._screen.print(plain(_queue(event["ahead"])))

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._screen.print("  ", coloured(line), sep="", soft_wrap=True)


@dataclass
class Step:
    """A step on the screen. `began` is on the monotonic clock."""

    name: str
    began: float
    state: str = "running"
    time: str = ""
    note: str = ""


class LiveView:
    """The steps, ticking, below the output that scrolls by."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._lines = Lines()
        self._steps: dict[str, Step] = {}
        self._ahead = 0
        self._deployment: str | None = None
        self._acts = Acts()
        self._spinner = Spinner("dots", style="yellow")

    def show(self, event: Event) -> None:
        if act := self._acts.begins(event):
            self._scroll()
            self._screen.print(plain(act, "bold"))
        if event["kind"] == "output":
            self._print(self._lines.feed(event["text"]))
        elif event["kind"] == "step_started":
            self._begin(event.get("deployment"), event["step"])
        elif event["kind"] == "step_finished":
            self._print(self._lines.rest())
            step = self._steps.setdefault(event["step"], Step(event["step"], time.monotonic()))
            step.state, step.time, step.note = event["outcome"], _time(event), event.get("note") or ""
        elif event["kind"] == "migration_rehearsed":
            self._scroll()
            self._screen.print(plain(f"{event['sentence']}."))
        elif event["kind"] == "state_changed":
            self._ahead = event.get("ahead") or 0

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._screen.print(coloured(line, "dim"), soft_wrap=True)

    def _begin(self, deployment: str | None, step: str) -> None:
        """A promote is two deploys: the steps of the first scroll away when the second begins."""
        if deployment != self._deployment:
            self._scroll()
        self._deployment = deployment
        self._steps[step] = Step(step, time.monotonic())

    def _scroll(self) -> None:
        if self._steps:
            self._screen.print(self._grid())
            self._steps.clear()

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        if self._ahead:
            yield plain(_queue(self._ahead), "yellow")
        yield self._grid()

    def _grid(self) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for step in self._steps.values():
            glyph = self._spinner if step.state == "running" else mark(step.state)
            clock = step.time or duration(time.monotonic() - step.began)
            grid.add_row(glyph, plain(step.name), plain(clock, "dim"), plain(step.note, "dim"))
        return grid


class Acts:
    """Tells the deploys of a promote apart, where it has a rehearsal."""

    def __init__(self) -> None:
        self._act = ""

    def begins(self, event: Event) -> str:
        """What begins with an event, "" if nothing does."""
        version = str(event.get("deployment") or "").rpartition(".")[2]
        act = next((words for start, words in ACTS if version.startswith(start)), "")
        if event["kind"] not in ("output", "step_started") or act == self._act:
            return ""
        if not self._act and version == PRODUCTION:
            return ""  # without a release command there is but one
        self._act = act
        return act


class Lines:
    """Makes whole lines of text that comes in pieces."""

    def __init__(self) -> None:
        self._open = ""

    def feed(self, text: str) -> list[str]:
        *whole, self._open = (self._open + text).split("\n")
        return whole

    def rest(self) -> list[str]:
        last, self._open = self._open, ""
        return [last] if last else []


@contextmanager
def view(as_json: bool) -> Iterator[View]:
    """The view that fits where stderr goes."""
    screen = console(stderr=True)
    if as_json:
        yield JsonView()
    elif screen.is_terminal and not screen.is_dumb_terminal:
        live = LiveView(screen)
        with Live(live, console=screen, refresh_per_second=10, redirect_stdout=False, redirect_stderr=False):
            yield live
    else:
        yield PlainView(screen)


def follow(client: Client, path: str, after: int, ends: Ends, as_json: bool) -> Event:
    """Show events till the one that ends it; returns that one, or raises what it says went wrong."""
    last: Event = {}
    broken: dict[str, Any] = {}
    with view(as_json) as shown:
        for last in client.follow(path, after, ends):
            shown.show(last)
            broken = last.get("failure") or broken
    if problem := failure(last, broken):
        raise problem
    return last


def ends_deploy(event: Event) -> bool:
    """Ready, failed, or stopped by somebody before it was either."""
    if event["kind"] != "state_changed":
        return False
    if event["after"] in ("stopping", "stopped"):  # not where an earlier worker of it has yet to end
        return event["before"] in DEPLOYING or event["before"] == "stopped"
    return event["after"] in ("ready", "failed")


def ends_promotion(event: Event) -> bool:
    return event["kind"] in ("promoted", "promote_failed")


def failure(event: Event, broken: dict[str, Any]) -> LazycloudError | None:
    """What an event that ends a deploy or a promotion says went wrong; `broken` is the deploy's last failure."""
    last = broken.get("last") or ()
    if event["kind"] == "promote_failed":
        return StepFailed(event["sentence"], event.get("advice") or "", last)
    if event["kind"] == "promoted" or event["after"] == "ready":
        return None
    if broken:
        step = f"{broken['step']}: " if broken.get("step") else ""
        return StepFailed(step + broken["sentence"], broken.get("advice") or "", last)
    return LazycloudError(f"The deploy was ended: {event.get('reason') or event['after']}.")


def mark(state: str) -> Text:
    return Text(*MARKS.get(state, ("·", "dim")))


def _time(event: dict[str, Any]) -> str:
    if event["outcome"] in ("reused", "skipped"):
        return str(event["outcome"])
    return duration(event.get("seconds") or 0)


def _queue(ahead: int) -> str:
    return f"Waiting; {ahead} deploy{'s' if ahead > 1 else ''} ahead."
