"""`ls`, `ps`, `releases`: what there is, what runs, what production was."""

from __future__ import annotations

from typing import Any

import click

from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

as_json = click.option("--json", "as_json", is_flag=True, help="Print what the API answers.")


@click.command()
@click.option(
    "-n", "--count", type=click.IntRange(1), default=20, show_default=True, help="How many commits."
)
@as_json
@targeted
def ls(target: Target, count: int, as_json: bool) -> None:
    """List the newest commits and their addresses.

    Where no app is meant, the apps are listed.

    \b
    Example:
      lazycloud ls
      lazycloud ls --app shop --count 5 --json
    """
    from lazycloud.cli.terminal import console, show_json

    client = target.client()
    try:
        app = target.find_app(client)
    except BadInput:
        answer = client.get("/api/apps")
        shown = _apps(answer)
    else:
        answer = client.get(app.api("commits"), count=count)
        shown = _commits(answer)
    show_json(answer) if as_json else console().print(shown)


@click.command()
@as_json
@targeted
def ps(target: Target, as_json: bool) -> None:
    """List what runs, of all apps or of --app.

    \b
    Example:
      lazycloud ps
    """
    from lazycloud.cli.terminal import console, show_json

    answer = target.client().get("/api/ps", app=target.app or None)
    if as_json:
        show_json(answer)
    elif answer:
        console().print(_running(answer))
    else:
        click.echo("Nothing runs; open an address, and it starts.", err=True)


@click.command()
@as_json
@targeted
def releases(target: Target, as_json: bool) -> None:
    """List what production was, newest first.

    \b
    Example:
      lazycloud releases
    """
    from lazycloud.cli.terminal import console, show_json

    client = target.client()
    answer = client.get(target.find_app(client).api("releases"))
    show_json(answer) if as_json else console().print(_releases(answer))


def _apps(apps: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import dot, table

    rows = []
    for app in apps:
        now = app["production"] or {"state": "cold", "commit": {"short": "", "subject": ""}}
        commit = now["commit"]
        rows.append([dot(now["state"]), app["name"], commit["short"], commit["subject"], app["address"]])
    return table(["", "app", "production", "~subject", "address"], rows)


def _commits(entries: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, dot, plain, table

    rows = []
    for entry in entries:
        commit = entry["commit"]
        refs = plain(", ".join(entry["refs"]), "cyan")
        if entry.get("is_pinned"):
            refs = plain("pinned ", "yellow").append_text(refs)
        if entry["is_production"]:
            refs = plain("production ", "green").append_text(refs)
        age_of = age(commit["authored"])
        rows.append([dot(entry["state"]), commit["short"], refs, commit["subject"], age_of, entry["address"]])
    return table(["", "commit", "~refs", "~subject", "age", "address"], rows)


def _running(entries: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, plain, size, table

    rows = []
    for entry in entries:
        name = plain(entry["app"], "green" if entry["production"] else "")
        work = [str(entry["requests"]), plain(entry["errors"], "red" if entry["errors"] else "dim")]
        load = [str(entry["pid"]), size(entry["memory"]), f"{entry['cpu'] or 0:.0f} %"]
        address, last = entry["address"], age(entry["last"])
        rows.append([name, entry["commit"]["short"], *load, *work, last, age(entry["since"]), address])
    headings = [">pid", ">memory", ">cpu", ">requests", ">errors", "last", "started", "address"]
    return table(["app", "commit", *headings], rows)


def _releases(entries: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, plain, table

    rows = []
    for entry in entries:
        commit = entry["commit"]
        mark = plain("●" if entry["current"] else "○", "green" if entry["current"] else "dim")
        rows.append([mark, commit["short"], commit["subject"], age(entry["at"]), entry["who"], entry["why"]])
    return table(["", "commit", "~subject", "when", "who", "~why"], rows)
