"""`pin` and `unpin`: what is built of a commit stays on the disk, or need not."""

from __future__ import annotations

import click

from lazycloud.cli.target import Target, targeted


@click.command()
@click.argument("ref")
@targeted
def pin(target: Target, ref: str) -> None:
    """Keep what is built of a commit, however short the disk gets, and its workers awake.

    They sleep neither for want of visitors nor to make room for others. A branch or tag means the commit that it
    is at now.

    \b
    Example:
      lazycloud pin v1.2
    """
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("pin"), {"ref": app.resolve(ref)})
    said = "is pinned" if answer["changed"] else "was pinned already"
    click.echo(f"{answer['commit']['short']} {said}.", err=True)


@click.command()
@click.argument("ref")
@targeted
def unpin(target: Target, ref: str) -> None:
    """Let what is built of a commit go when the disk is short.

    \b
    Example:
      lazycloud unpin v1.2
    """
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("unpin"), {"ref": app.resolve(ref)})
    said = "is no longer pinned" if answer["changed"] else "was not pinned"
    click.echo(f"{answer['commit']['short']} {said}.", err=True)
