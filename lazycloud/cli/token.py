"""`token`: what programs show, made, listed and revoked."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import click

from lazycloud.cli.lifetime import day, parse_lifetime
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

ROLES = click.Choice(["viewer", "developer", "owner"])


@click.group()
def token() -> None:
    """Make and revoke tokens: what programs show to act on a server, each with a role.

    \b
    Example:
      lazycloud token create ci --role developer --app shop --expires 30d
      lazycloud token ls
      lazycloud token revoke ci
    """


@token.command()
@click.argument("name")
@click.option("--role", type=ROLES, help="What it may do.")
@click.option("--expires", metavar="TIME", help="When it ends: in 12h, 30d, 26w; else never.")
@click.option("--previews", is_flag=True, help="It only opens previews, for tests that run against them.")
@as_json
@targeted
def create(
    target: Target, name: str, role: str | None, expires: str | None, previews: bool, as_json: bool
) -> None:
    """Make a token, and print it: it is not kept, and cannot be shown again.

    With --app it is for that app only. NAME is what the event log says for whatever is done with it. It goes into
    LAZYCLOUD_TOKEN, or an `Authorization: Bearer` header; one of --previews into a `Lazycloud-Token` header.

    \b
    Example:
      lazycloud token create ci --role developer --app shop --expires 30d
      lazycloud token create e2e --previews
    """
    from lazycloud.cli.terminal import show_json

    if previews == bool(role):
        raise BadInput("What is the token for?", "Give --role viewer, developer or owner; or --previews.")
    body: dict[str, Any] = {"name": name, "role": role, "app": target.app, "previews": previews}
    if expires:
        body["expires"] = time.time() + parse_lifetime("--expires", expires)
    answer = target.client().post("/api/tokens", body)
    if as_json:
        show_json(answer)
        return
    of = f" of {answer['app']}" if answer["app"] else ""
    role = "an owner" if role == "owner" else f"a {role}"
    what = f"opens previews{of}" if previews else f"is {role}{of}"
    click.echo(
        f"“{answer['name']}” {what}, until {day(answer['expires'], 'it is revoked')}. Keep it now:", err=True
    )
    click.echo(answer["token"])


@token.command()
@as_json
@targeted
def ls(target: Target, as_json: bool) -> None:
    """List the tokens, and when each was used last (within some ten minutes).

    \b
    Example:
      lazycloud token ls
    """
    from lazycloud.cli.terminal import age, console, show_json, table

    answer = target.client().get("/api/tokens")
    rows = [
        [
            one["name"],
            "previews" if one["previews"] else one["role"],
            one["app"] or "all",
            f"{age(one['created'])} by {one['who']}",
            age(one["used"]) if one["used"] else "never",
            day(one["expires"]) + (", over" if one["expired"] else ""),
        ]
        for one in answer
    ]
    headings = ["token", "may", "app", "made", "used", "ends"]
    show_json(answer) if as_json else console().print(table(headings, rows))


@token.command()
@click.argument("name")
@targeted
def revoke(target: Target, name: str) -> None:
    """End a token: it is worth nothing from now on.

    \b
    Example:
      lazycloud token revoke ci
    """
    answer = target.client().post(f"/api/tokens/{quote(name, safe='')}/revoke")
    click.echo(f"“{answer['name']}” is worth nothing any more.", err=True)
