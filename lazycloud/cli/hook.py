"""`hook install`, `hook uninstall`, and `hook run`, which the installed hooks call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lazycloud.cli.checkout import Checkout
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput, Conflict

folder_argument = click.argument(
    "folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group()
def hook() -> None:
    """Print the address of each new commit by a git hook.

    \b
    Example:
      lazycloud hook install
    """


@hook.command()
@folder_argument
@click.option("--bare", is_flag=True, help="Install post-receive, as in a bare repository [auto].")
@targeted
def install(target: Target, folder: Path, bare: bool) -> None:
    """Install post-commit, or post-receive in a bare repository.

    Hooks that are there stay, and run first; core.hooksPath is respected.

    \b
    Example:
      cd ~/code/shop && lazycloud hook install
    """
    from lazycloud.cli.githooks import Hook, script

    checkout = _checkout(folder)
    name = "post-receive" if bare or checkout.bare else "post-commit"
    hooks = checkout.path("hooks")
    try:
        changed = Hook(hooks / name).install(script(name, target.home_folder))
    except OSError as problem:
        raise Conflict(f"{hooks / name} cannot be written: {problem.strerror}.") from problem
    checkout.remember_home(target.home_folder)
    click.echo(f"Installed {hooks / name}." if changed else f"{hooks / name} is installed already.")
    if not any(hooks.resolve().is_relative_to(own) for own in (checkout.root, checkout.shared)):
        click.echo("core.hooksPath is outside of this repository: others that use it have the hook too.")


@hook.command()
@folder_argument
def uninstall(folder: Path) -> None:
    """Take the hooks out again.

    Those that were there before are put back.

    \b
    Example:
      cd ~/code/shop && lazycloud hook uninstall
    """
    from lazycloud.cli.githooks import NAMES, Hook

    hooks = _checkout(folder).path("hooks")
    removed = [name for name in NAMES if Hook(hooks / name).uninstall()]
    click.echo(f"Removed {' and '.join(removed)}." if removed else f"No hook of lazycloud is in {hooks}.")


@hook.command(hidden=True)
@click.argument("name", type=click.Choice(["post-commit", "post-receive"]))
@targeted
def run(target: Target, name: str) -> None:
    """Announce what git says is new, as hooks did that an earlier lazycloud installed. Never fails.

    \b
    Example:
      lazycloud hook run post-commit
    """
    from lazycloud import announcement
    from lazycloud.config import Config

    if checkout := Checkout.find(Path.cwd()):
        news = checkout.head_lines() if name == "post-commit" else sys.stdin.read()
        said = f"{checkout.shared}\n{checkout.origin}\n{news}"
        announcement.tell(str(Config(home=target.home_folder).run_folder), name, os.fsencode(said))


def _checkout(folder: Path) -> Checkout:
    checkout = Checkout.find(folder)
    if checkout is None:
        raise BadInput(f"{folder.absolute()} is in no git repository.", "Go to one, or `git init`.")
    return checkout
