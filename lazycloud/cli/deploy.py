"""`deploy` and `stop`."""

from __future__ import annotations

from urllib.parse import quote

import click

from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.target import Target, targeted


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
@click.argument("ref")
@targeted
def stop(target: Target, ref: str) -> None:
    """Stop the worker of a commit.

    The next request to its address starts it again.

    \b
    Example:
      lazycloud stop feature/dark-mode
    """
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("stop"), {"ref": app.resolve(ref)})
    click.echo("Stopped." if answer["stopped"] else "It was not running.", err=True)
