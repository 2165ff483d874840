"""`account`: the people who may use a server, and their sessions."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import click

from lazycloud.cli.client import Client
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.cli.token import ROLES
from lazycloud.errors import BadInput


@click.group()
def account() -> None:
    """Say who may use this server, as what: viewer, developer or owner.

    \b
    Example:
      lazycloud account add ada --role developer
      lazycloud account ls
      lazycloud account set ada --role viewer
    """


@account.command()
@click.argument("name")
@click.option("--role", type=ROLES, required=True, help="What they may do.")
@click.option("--password", "with_password", is_flag=True, help="Ask for a password; else a link is printed.")
@as_json
@targeted
def add(target: Target, name: str, role: str, with_password: bool, as_json: bool) -> None:
    """Add a person. Without --password, a link is printed that logs them in once; there they can choose one.

    \b
    Example:
      lazycloud account add ada --role developer
    """
    from lazycloud.cli.terminal import show_json

    client = target.client()
    body = {"name": name, "role": role}
    if with_password:
        body["password"] = _ask_password()
    answer = client.post("/api/accounts", body)
    if not with_password:
        answer |= {"url": _link(client, answer["name"])}
    if as_json:
        show_json(answer)
        return
    click.echo(f"“{answer['name']}” is {_a(answer['role'])} now.", err=True)
    if not with_password:
        _show_link(answer["name"], answer["url"])


@account.command()
@as_json
@targeted
def ls(target: Target, as_json: bool) -> None:
    """List the accounts. Whoever can use this server's socket, or has its own token, is its owner without one.

    \b
    Example:
      lazycloud account ls
    """
    from lazycloud.cli.terminal import age, console, show_json, table

    answer = target.client().get("/api/accounts")
    rows = [
        [
            one["name"],
            one["role"] + (", disabled" if one["disabled"] else ""),
            "password" if one["password"] else "by link",
            str(one["sessions"]),
            age(one["seen"]) if one["seen"] else "",
            f"{age(one['created'])} by {one['who']}",
        ]
        for one in answer
    ]
    headings = ["account", "role", "logs in", ">sessions", "seen", "added"]
    show_json(answer) if as_json else console().print(table(headings, rows))


@account.command(name="set")
@click.argument("name")
@click.option("--role", type=ROLES, help="What they may do from now on.")
@click.option("--password", "with_password", is_flag=True, help="Ask for a new password.")
@click.option("--no-password", is_flag=True, help="Take the password away: in by link only.")
@click.option("--disable/--enable", "disabled", default=None, help="Let them in no more, or again.")
@as_json
@targeted
def change(
    target: Target,
    name: str,
    role: str | None,
    with_password: bool,
    no_password: bool,
    disabled: bool | None,
    as_json: bool,
) -> None:
    """Change an account. Whatever changes, their browsers are logged out.

    \b
    Example:
      lazycloud account set ada --role owner
      lazycloud account set ada --disable
    """
    from lazycloud.cli.terminal import show_json

    if with_password and no_password:
        raise BadInput("--password and --no-password do not go together.", "Give one of them.")
    body: dict[str, Any] = {} if role is None else {"role": role}
    if disabled is not None:
        body["disabled"] = disabled
    if not body and not with_password and not no_password:
        raise BadInput("What is to change?", "Give --role, --password, --no-password, --disable or --enable.")
    if with_password or no_password:
        body["password"] = _ask_password() if with_password else ""
    answer = target.client().post(f"/api/accounts/{quote(name, safe='')}/set", body)
    if as_json:
        show_json(answer)
        return
    state = "disabled" if answer["disabled"] else _a(answer["role"])
    click.echo(f"“{answer['name']}” is {state} now.{_ended(answer)}", err=True)
    if answer["disabled"]:
        _tell_of_tokens(answer)


@account.command()
@click.argument("name")
@targeted
def rm(target: Target, name: str) -> None:
    """Remove an account. What they did stays in the event log.

    \b
    Example:
      lazycloud account rm ada
    """
    answer = target.client().post(f"/api/accounts/{quote(name, safe='')}/remove")
    click.echo(f"“{answer['name']}” is removed.{_ended(answer)}", err=True)
    _tell_of_tokens(answer)


@account.command()
@click.argument("name")
@targeted
def link(target: Target, name: str) -> None:
    """Print a link that logs a person in: once, within a quarter of an hour.

    \b
    Example:
      lazycloud account link ada
    """
    _show_link(name, _link(target.client(), name))


@account.command()
@click.argument("name", required=False)
@as_json
@targeted
def sessions(target: Target, name: str | None, as_json: bool) -> None:
    """List the browsers that are logged in: all, or those of one account (`owner`: by the server's own token).

    \b
    Example:
      lazycloud account sessions ada
    """
    from lazycloud.cli.terminal import age, console, show_json, table

    answer = target.client().get("/api/sessions", account=name)
    rows = [
        [one["id"], one["name"], age(one["created"]), age(one["seen"]), one["client"], one["agent"]]
        for one in answer
    ]
    headings = ["session", "account", "since", "seen", "from", "~browser"]
    show_json(answer) if as_json else console().print(table(headings, rows))


@account.command()
@click.argument("name", required=False)
@click.option("--session", metavar="ID", help="Only this one, of those that `account sessions` lists.")
@targeted
def logout(target: Target, name: str | None, session: str | None) -> None:
    """Log all browsers of an account out, or one.

    \b
    Example:
      lazycloud account logout ada
      lazycloud account logout --session 3f9a2c81d0e4
    """
    if bool(name) == bool(session):
        raise BadInput("Who is to be logged out?", "Give the name of an account, or --session ID.")
    answer = target.client().post("/api/sessions/end", {"account": name, "session": session})
    click.echo(_ended(answer).strip() or "Nobody was logged in.", err=True)


def _ask_password() -> str:
    """Twice in a terminal; a program writes it to standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _link(client: Client, name: str) -> str:
    return str(client.post(f"/api/accounts/{quote(name, safe='')}/link")["url"])


def _show_link(name: str, url: str) -> None:
    click.echo(f"This logs {name} in, once, within a quarter of an hour:", err=True)
    click.echo(url)


def _ended(answer: dict[str, Any]) -> str:
    count = answer["ended"]
    return f" {count} session{'' if count == 1 else 's'} ended." if count else ""


def _tell_of_tokens(answer: dict[str, Any]) -> None:
    if names := answer["tokens"]:
        click.echo(
            f"Tokens that they made go on: {', '.join(names)}. `lazycloud token revoke` ends one.", err=True
        )


def _a(role: str) -> str:
    return f"an {role}" if role == "owner" else f"a {role}"
