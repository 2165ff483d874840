"""`logs`: what a build and its worker wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import click

from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import LazycloudError


@click.command()
@click.argument("ref", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=200, show_default=True, help="How many to begin with."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: source, step, process, text.")
@targeted
def logs(target: Target, ref: str | None, follow: bool, lines: int, as_json: bool) -> None:
    """Show what a build and its worker wrote.

    Those of production, without REF.

    \b
    Example:
      lazycloud logs -f
      lazycloud logs 3f2a9c1 -n 50
    """
    from lazycloud.cli.terminal import show_json_line

    client = target.client()
    app = target.find_app(client)
    wanted = {"ref": app.resolve(ref) if ref else None, "follow": 1 if follow else None, "lines": lines}
    # A worker may be silent for days: only Ctrl-C or the server ends the wait for its next line.
    entries = client.stream(app.api("logs"), silence=None, **wanted)
    show = show_json_line if as_json else _printer()
    with interruptible(), till_hung_up():
        for entry in entries:
            show(entry)


@contextmanager
def till_hung_up(what: str = "log") -> Iterator[None]:
    """What breaks off without a word is said."""
    try:
        yield
    except BrokenPipeError:  # of our own reader
        raise
    except (OSError, HTTPException, ValueError) as problem:
        raise LazycloudError(f"The server ended the {what}.", "Is it still running?") from problem


def _printer() -> Callable[[dict[str, Any]], None]:
    from lazycloud.cli.terminal import coloured, console

    screen = console()

    def show(entry: dict[str, Any]) -> None:
        style = "dim" if entry["source"] == "build" else ""
        process = entry.get("process", "web.1")
        whose = "" if process == "web.1" else f"{process} | "
        for line in entry["text"].removesuffix("\n").split("\n"):
            screen.print(coloured(f"{whose}{line}", style), soft_wrap=True)

    return show
