"""`events`: what happened, and who did it."""

from __future__ import annotations

import time
from typing import Any

import click

from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.logs import till_hung_up
from lazycloud.cli.target import Target, targeted


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option(
    "-n", "--count", type=click.IntRange(1), default=50, show_default=True, help="How many to begin with."
)
@click.option("--who", metavar="NAME", help="Only what this account, token or user did, of these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, as the API has them.")
@targeted
def events(target: Target, follow: bool, count: int, who: str | None, as_json: bool) -> None:
    """Show what happened on the server, oldest first: all apps, or the one that --app names.

    Who logged in, and what was refused to whom, only owners see.

    \b
    Example:
      lazycloud events -f
      lazycloud events -n 1000 --who ci
    """
    from lazycloud.cli.terminal import console, plain, show_json_line

    wanted = {"app": target.app or None, "newest": count, "follow": 1 if follow else None}
    screen = console()
    with interruptible(), till_hung_up("events"):
        for event in target.client().stream("/api/events", silence=None, **wanted):
            if who and event.get("who") != who:
                continue
            if as_json:
                show_json_line(event)
            elif event["sentence"]:
                screen.print(plain(_line(event)), soft_wrap=True)


def _line(event: dict[str, Any]) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event['at']))}  {event['sentence']}"
