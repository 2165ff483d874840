"""`open`: the address of a commit, of production or of the control page, in the browser."""

from __future__ import annotations

import sys

import click

from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput


@click.command(name="open")
@click.argument("ref", required=False)
@click.option("--control", is_flag=True, help="The control page, with a link that logs in once.")
@click.option("--print", "only_print", is_flag=True, help="Print the address, and open nothing.")
@targeted
def open_address(target: Target, ref: str | None, control: bool, only_print: bool) -> None:
    """Open the address of a commit, or of production.

    The address is printed too. Where stdout is no terminal, nothing is opened.

    \b
    Example:
      lazycloud open HEAD
      lazycloud open --control
    """
    if control and ref:
        raise BadInput("--control is a page of the server; it takes no REF.")
    address = _control(target) if control else _address(target, ref)
    click.echo(address)
    if not only_print and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(address)


def _control(target: Target) -> str:
    return str(target.client().post("/api/login-link")["url"])


def _address(target: Target, ref: str | None) -> str:
    client = target.client()
    app = target.find_app(client)
    if not ref:
        return app.address
    return str(client.get(app.api("inspect"), ref=app.resolve(ref))["address"])
