"""`deploy` and `stop`."""

from __future__ import annotations

import os
from urllib.parse import quote

import click

from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput


@click.command()
@click.argument("ref", required=False)
@click.option("-d", "--detach", is_flag=True, help="Ask for it, print the address, and do not wait.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer and each event, as JSON Lines.")
@targeted
def deploy(target: Target, ref: str | None, detach: bool, as_json: bool) -> None:
    """Build and start a commit, and show how it goes. REF is a commit, branch or tag [HEAD].

    The address goes to stdout, all else to stderr. A deploy that failed is tried again.

    \b
    Example:
      lazycloud deploy
      lazycloud deploy feature/dark-mode --detach
    """
    from lazycloud.cli.progress import ends_deploy, follow
    from lazycloud.cli.terminal import show_json_line

    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("deploy"), {"ref": app.resolve_or_head(ref), "retry": True})
    if as_json:
        show_json_line(answer)
    path = f"/api/deployments/{quote(answer['deployment'], safe='')}/follow"
    with interruptible(f"The deploy goes on: {answer['address']}"):
        if not detach and answer["state"] != "ready":
            follow(client, path, answer["number"], ends_deploy, as_json)
    if not as_json:
        click.echo(answer["address"])


@click.command()
@click.argument("ref", required=False)
@click.option("--all", "everything", is_flag=True, help="Every preview; without a server, all it has left.")
@targeted
def stop(target: Target, ref: str | None, everything: bool) -> None:
    """Stop the workers of a commit.

    The next request to its address starts them again. With --all those of all previews are stopped; where the
    server of --home is gone for good, all of its workers, production's too, and what they started.

    \b
    Example:
      lazycloud stop feature/dark-mode
      lazycloud stop --all --home /srv/lazycloud
    """
    if everything is bool(ref):
        raise BadInput("What is to be stopped?", "Give a commit, branch or tag; or --all.")
    if everything:
        _stop_all(target)
        return
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("stop"), {"ref": app.resolve(str(ref))})
    click.echo("Stopped." if answer["stopped"] else "It was not running.", err=True)


def _stop_all(target: Target) -> None:
    from lazycloud.cli.client import Unreachable

    client = target.client()
    try:
        running = client.get("/api/ps", app=target.app or None)
    except Unreachable:
        if target.server:
            raise
        _stop_what_is_left(target)
        return
    previews = [one for one in running if not one["production"]]
    for one in previews:
        client.post(f"/api/deployments/{quote(one['deployment'], safe='')}/stop")
    stopped = "1 preview" if len(previews) == 1 else f"{len(previews)} previews"
    click.echo(f"Stopped {stopped}. Production goes on until the server is stopped.", err=True)


def _stop_what_is_left(target: Target) -> None:
    from lazycloud.config import load
    from lazycloud.leftovers import end_all

    if target.app:
        raise BadInput("Without a server --app means nothing.", "All workers of a home are ended together.")
    count = end_all(load({"home": target.home_folder}, os.environ))
    click.echo(f"Ended {count} worker{'' if count == 1 else 's'} of {target.home_folder}.", err=True)
