"""`lazycloud init`: a commented lazycloud.toml."""

from __future__ import annotations

from pathlib import Path

import click

from lazycloud.cli.checkout import Checkout
from lazycloud.errors import Conflict

NAME = "lazycloud.toml"


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite the one that is there.")
def init(folder: Path | None, force: bool) -> None:
    """Write a commented lazycloud.toml.

    It goes to the top of this repository, or into FOLDER.

    \b
    Example:
      cd ~/code/shop && lazycloud init
    """
    from lazycloud.build.settings import EXAMPLE

    file = (folder or _top()) / NAME
    try:
        with file.open("w" if force else "x", encoding="utf-8") as writer:
            writer.write(EXAMPLE)
    except FileExistsError:
        raise Conflict(f"{file} is there already.", "`--force` overwrites it.") from None
    except OSError as problem:
        raise Conflict(f"{file} cannot be written: {problem.strerror}.") from problem
    click.echo(f"Wrote {file}; it counts from the commit that has it.")


def _top() -> Path:
    checkout = Checkout.find(Path.cwd())
    return checkout.top if checkout else Path.cwd()
