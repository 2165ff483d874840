"""`restart` and `scale`: the workers of a commit."""

from __future__ import annotations

import click

from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

START_SECONDS = 900.0  # that new workers may take: as long as the app itself allows, one after the other


@click.command()
@click.argument("ref", required=False)
@targeted
def restart(target: Target, ref: str | None) -> None:
    """Replace the workers of a commit by new ones, one at a time. REF is a commit, branch or tag [production].

    A new worker serves before an old one ends: no request is lost. If one does not get ready, the old one stays.

    \b
    Example:
      lazycloud restart
      lazycloud restart feature/dark-mode
    """
    client = target.client()
    app = target.find_app(client)
    wanted = app.resolve(ref) if ref and ref != "production" else "production"
    with interruptible("The restart goes on; `lazycloud ps` shows what came of it."):
        answer = client.patient(START_SECONDS).post(app.api("restart"), {"ref": wanted})
    click.echo(f"Restarted {', '.join(answer['processes'])}.", err=True)


@click.command()
@click.argument("ref")
@click.argument("counts", nargs=-1, required=True, metavar="KIND=NUMBER...")
@targeted
def scale(target: Target, ref: str, counts: tuple[str, ...]) -> None:
    """Have so many workers of some kinds, whatever the commit says. REF is a commit, branch, tag or `production`.

    `web` are those that requests go to; the others are the Procfile's. Production's numbers stay with production,
    whichever commit that is.

    \b
    Example:
      lazycloud scale production web=3 worker=1
    """
    client = target.client()
    app = target.find_app(client)
    body = {"ref": ref if ref == "production" else app.resolve(ref), "counts": dict(map(_count, counts))}
    with interruptible("It goes on; `lazycloud ps` shows what came of it."):
        answer = client.patient(START_SECONDS).post(app.api("scale"), body)
    shown = ", ".join(f"{number} × {kind}" for kind, number in answer["counts"].items())
    click.echo(f"It has {shown}.", err=True)


def _count(text: str) -> tuple[str, int]:
    kind, _, number = text.partition("=")
    if not kind or not (number.isascii() and number.isdecimal() and len(number) < 6):
        raise BadInput(f"“{text}” is no number of workers.", "Give KIND=NUMBER, such as web=3.")
    return kind, int(number)
