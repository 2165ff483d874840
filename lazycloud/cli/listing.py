"""`ls`, `ps`, `releases`: what there is, what runs, what production was."""

from __future__ import annotations

from typing import Any

import click

from lazycloud.cli.interrupt import interruptible
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
@click.option("-a", "--all", "everything", is_flag=True, help="Those that sleep or have failed, too.")
@click.option("-w", "--watch", "watching", is_flag=True, help="Go on, as `top` does, until q or Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds between two looks."
)
@as_json
@targeted
def ps(target: Target, everything: bool, watching: bool, every: float, as_json: bool) -> None:
    """List what runs, of all apps or of --app: production first.

    Memory counts pages that several share by share; idle is the time since somebody used it. With --watch
    m, c and r sort by memory, cpu and requests, n puts production first again, and q quits; where stdout is
    no terminal, the list is printed again and again (with --json as a line).

    \b
    Example:
      lazycloud ps
      lazycloud ps --watch
    """
    from lazycloud.cli.running import shown, watch
    from lazycloud.cli.terminal import console, show_json

    client = target.client()

    def fetch() -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = client.get(
            "/api/ps", app=target.app or None, also="all" if everything else "down"
        )
        return answer

    if watching:
        with interruptible():
            watch(fetch, every, as_json)
        return
    answer, screen = fetch(), console()
    if as_json:
        show_json(answer)
    elif answer:
        screen.print(shown(answer, screen.width))
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


def _releases(entries: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, plain, table

    rows = []
    for entry in entries:
        commit = entry["commit"]
        mark = plain("●" if entry["current"] else "○", "green" if entry["current"] else "dim")
        rows.append([mark, commit["short"], commit["subject"], age(entry["at"]), entry["who"], entry["why"]])
    return table(["", "commit", "~subject", "when", "who", "~why"], rows)
