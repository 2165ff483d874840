"""`webhook` and `allow`: a forge tells what moved; a fork's pull request is let in."""

from __future__ import annotations

import sys
from typing import Any

import click

from lazycloud.cli.apps import choose
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

TICK = """\
  GitHub         Settings, Webhooks, Add webhook: this URL and secret, content type application/json,
                 and of the events: Pushes, Branch or tag creation and deletion, Pull requests
  GitLab         Settings, Webhooks: this URL, the secret as “Secret token”, and tick
                 Push events, Tag push events, Merge request events
  Gitea, Forgejo Settings, Webhooks, Add webhook: this URL and secret, POST, application/json, and tick
                 Push, Create, Delete, Pull request, Pull request synchronized"""
FETCH_SECONDS = 900.0


@click.command()
@click.argument("app_name", metavar="APP")
@click.option("--rotate", is_flag=True, help="Make a new secret; the one before is worth nothing then.")
@as_json
@targeted
def webhook(target: Target, app_name: str, rotate: bool, as_json: bool) -> None:
    """Print what GitHub, GitLab, Gitea or Forgejo is to be told, so that a push is here at once.

    \b
    Example:
      lazycloud webhook shop
      lazycloud webhook shop --rotate
    """
    from lazycloud.cli.terminal import show_json

    client = target.client()
    app = choose(client.get("/api/apps"), app_name, None)
    answer = client.post(app.api("webhook"), {"rotate": rotate})
    if as_json:
        show_json(answer)
        return
    click.echo(f"URL     {answer['url']}\nSecret  {answer['secret']}")
    click.echo(f"\n{TICK}", err=True)
    if not answer["is_remote"]:
        click.echo(
            f"\n{app.name} is served from a folder: what is committed there is seen without it.", err=True
        )


@click.command()
@click.argument("app_name", metavar="APP")
@click.argument("number", metavar="PULL", type=click.IntRange(1), required=False)
@click.argument("commit", required=False)
@as_json
@targeted
def allow(target: Target, app_name: str, number: int | None, commit: str | None, as_json: bool) -> None:
    """Fetch the commit at which a fork's pull request is, and give it an address.

    It is built and run as your own commits are: look at it first. A later push to the pull request has to be
    allowed again. COMMIT is its whole id: a stranger can make two that begin alike. Without PULL, those that are
    open are listed; without COMMIT, you are asked.

    \b
    Example:
      lazycloud allow shop
      lazycloud allow shop 7 3f2a9c1d0b8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a
    """
    from lazycloud.cli.terminal import show_json

    client = target.client()
    app = choose(client.get("/api/apps"), app_name, None)
    pulls = client.get(app.api("pulls"))
    if number is None:
        if as_json:
            show_json(pulls)
        elif pulls:
            _list(pulls)
        else:
            click.echo(f"No fork has told of a pull request to {app.name}.", err=True)
        return
    commit = commit or _ask(pulls, number)
    answer = client.patient(FETCH_SECONDS).post(app.api(f"pulls/{number}/allow"), {"commit": commit})
    if as_json:
        show_json(answer)
        return
    click.echo(f"{answer['commit']['short']} of pull request {number} is allowed.", err=True)
    click.echo(answer["address"])


def _list(pulls: list[dict[str, Any]]) -> None:
    from lazycloud.cli.terminal import age, console, table

    rows = [
        [
            str(one["number"]),
            one["commit"],
            "waits" if one["waits"] else "allowed",
            one["author"],
            one["title"],
            age(one["at"]),
            one["address"],
        ]
        for one in pulls
    ]
    headings = [">pull", "commit", "", "by", "~title", "told", "address of what was allowed"]
    console().print(table(headings, rows))


def _ask(pulls: list[dict[str, Any]], number: int) -> str:
    """The commit that whoever is there has looked at, and says so."""
    from lazycloud.cli.terminal import plain

    known = next((one for one in pulls if one["number"] == number), None)
    if known is None:
        raise BadInput(
            f"No webhook has told of pull request {number}.", "Give the commit that you have looked at too."
        )
    about = plain(f"“{known['title']}” by {known['author']} is at {known['commit']}  {known['url']}").plain
    click.echo(about, err=True)
    if not sys.stdin.isatty():
        raise BadInput("Which commit of it?", f"Give it: lazycloud allow {known['app']} {number} COMMIT")
    click.confirm("Have you looked at it, and may it run here?", abort=True, err=True)
    return str(known["commit"])
