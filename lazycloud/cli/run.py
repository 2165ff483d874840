"""`run` and `shell`: a command in a commit's release, environment and data."""

from __future__ import annotations

import os
import shlex

import click

from lazycloud.cli.apps import App
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

yes_option = click.option("-y", "--yes", is_flag=True, help="On production’s data, without being asked.")


@click.command()
@click.argument("ref")
@click.argument("command", nargs=-1, required=True)
@click.option(
    "-T", "--no-terminal", is_flag=True, help="Keep input, output and errors apart, in a terminal too."
)
@yes_option
@targeted
def run(target: Target, ref: str, command: tuple[str, ...], no_terminal: bool, yes: bool) -> int:
    """Run a command once in a commit's release, environment and data.

    REF is a commit, branch or tag, on data of its own; or `production`, which means production's data. One
    word is a line for a shell, several are a program and its arguments. In a terminal the command has one, too;
    else it is given standard input. It ends when this does, and its exit status is this one's.

    \b
    Example:
      lazycloud run HEAD -- flask routes
      lazycloud run HEAD -- 'sqlite3 "${DATABASE_URL#sqlite:///}" .schema'
      lazycloud run production --yes -- python manage.py loaddata - < more.json
    """
    line = command[0] if len(command) == 1 else shlex.join(command)
    return _run(target, ref, line, yes, no_terminal)


@click.command()
@click.argument("ref", required=False)
@yes_option
@targeted
def shell(target: Target, ref: str | None, yes: bool) -> int:
    """Open a shell in a commit's release, environment and data. REF as in `lazycloud run` [HEAD].

    It is the app's own $SHELL, else bash or sh; it ends when this does.

    \b
    Example:
      lazycloud shell
      lazycloud shell feature/dark-mode
    """
    return _run(target, ref, None, yes, no_terminal=False)


def _run(target: Target, ref: str | None, line: str | None, yes: bool, no_terminal: bool) -> int:
    """`line`: None for a shell."""
    from lazycloud.cli.console import run_there

    client = target.client()
    app = target.find_app(client)
    commit = "production" if ref == "production" else app.resolve_or_head(ref)
    if commit == "production" and not yes:
        _ask_for_consent(app)
    is_terminal = not no_terminal and os.isatty(0) and os.isatty(1)
    return run_there(client, app.api("run"), {"ref": commit}, line, is_terminal)


def _ask_for_consent(app: App) -> None:
    """Raises BadInput where nobody can be asked, click.Abort for a no."""
    sentence = f"This is the data of production of {app.name}: what the command does to it is done."
    if not (os.isatty(0) and os.isatty(2)):
        raise BadInput(sentence, "Say --yes, or name a commit, whose data is a fork.")
    click.confirm(f"{sentence} Go on?", abort=True, err=True)
