"""`previews`: who may see an app's previews."""

from __future__ import annotations

import sys

import click

from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

MODES = ("public", "login", "password")
WORDS = {
    "public": "for everybody",
    "login": "for who logs in",
    "password": "for who logs in or has the password",
}
SET_BY = {"default": " (as this server has it for all apps)", "config.toml": " (by config.toml)"}


@click.command()
@click.argument("app_name", metavar="APP")
@click.argument("mode", required=False, type=click.Choice(MODES))
@targeted
def previews(target: Target, app_name: str, mode: str | None) -> None:
    """Say, or change, who may see the previews of an app.

    A password is asked for, or read from standard input. Each change ends what was opened before, but links that
    were shared. Production is always public.

    \b
    Example:
      lazycloud previews shop
      lazycloud previews shop password
      lazycloud previews shop login
    """
    from lazycloud.cli.apps import choose

    client = target.client()
    app = choose(client.get("/api/apps"), app_name, None)
    if mode is None:
        answer = client.get(app.api("previews"))
        click.echo(f"Previews of {app.name} are {WORDS[answer['mode']]}{SET_BY.get(answer['set_by'], '')}.")
        if answer["mode"] == "password" and not answer["password"]:
            click.echo(f"There is no password yet: lazycloud previews {app.name} password", err=True)
        return
    password = _password() if mode == "password" else ""
    answer = client.post(app.api("previews"), {"mode": mode, "password": password})
    click.echo(f"Previews of {app.name} are {WORDS[answer['mode']]}.", err=True)


def _password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadInput(
            "No password came on standard input.", "Give it as a line there, or in a terminal, which asks."
        )
    return password
