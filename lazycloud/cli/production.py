"""`promote` and `rollback`: move the pointer that is production."""

from __future__ import annotations

import click

from lazycloud.cli.apps import App
from lazycloud.cli.client import Client
from lazycloud.cli.interrupt import interruptible
from lazycloud.cli.target import Target, targeted

why_option = click.option("-m", "--why", default="", help="Why; kept in the history (`lazycloud releases`).")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the answer and each event, as JSON Lines."
)


@click.command()
@click.argument("ref")
@why_option
@json_option
@targeted
def promote(target: Target, ref: str, why: str, as_json: bool) -> None:
    """Make a commit production.

    It is started with production's data, and swapped in when it is healthy.
    If it fails, production stays what it was.

    \b
    Example:
      lazycloud promote HEAD -m "hearts are done"
    """
    client = target.client()
    app = target.find_app(client)
    _move(client, app, "promote", {"ref": app.resolve(ref), "why": why}, as_json)


@click.command()
@click.argument("ref", required=False)
@why_option
@json_option
@targeted
def rollback(target: Target, ref: str | None, why: str, as_json: bool) -> None:
    """Make production what it was before, or REF.

    \b
    Example:
      lazycloud rollback -m "signing is broken"
    """
    client = target.client()
    app = target.find_app(client)
    commit = _move(client, app, "rollback", {"ref": app.resolve(ref) if ref else None, "why": why}, as_json)
    if not as_json:
        _tell_moved(client, app, commit)


def _move(client: Client, app: App, verb: str, body: dict[str, str | None], as_json: bool) -> str:
    """The commit that is production now."""
    from lazycloud.cli.progress import ends_promotion, follow
    from lazycloud.cli.terminal import show_json_line

    answer = client.post(app.api(verb), body)
    if as_json:
        show_json_line(answer)
    with interruptible(f"The {verb} goes on; `lazycloud releases` shows what came of it."):
        last = follow(client, app.api("production/follow"), answer["number"], ends_promotion, as_json)
    if not as_json:
        click.echo(f"Production of {app.name} is now {last['commit'][:10]}.", err=True)
        click.echo(app.address)
    return str(last["commit"])


def _tell_moved(client: Client, app: App, commit: str) -> None:
    """It runs on data that others may have changed meanwhile."""
    moved = client.get(app.api("data/moved"), ref=commit)
    if not moved["changes"]:
        return
    click.echo(f"Since {commit[:10]} was production the schema of its data has moved:", err=True)
    for change in moved["changes"]:
        click.echo(f"  {change}", err=True)
    point = f"production@{moved['snapshot']}"
    click.echo("It runs on the data as they are. Those of before, without what was written since:", err=True)
    click.echo(f"  lazycloud data restore {point}", err=True)
