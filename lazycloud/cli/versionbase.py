"""`versionbase`: serve a versionbase alone, look it through, and have its clients in an app's repository."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from lazycloud.errors import BadInput, LazycloudError

STORE = "LAZYCLOUD_VERSIONBASE_STORE"

store_option = click.option(
    "--store", required=True, envvar=STORE, metavar="URL", help=f"sqlite:///FILE or postgresql://… [{STORE}]."
)


@click.group()
def versionbase() -> None:
    """Serve a versionbase without the rest, verify one, get its clients.

    An app's own is served with it if `[data] versionbase = true` is in its lazycloud.toml.
    Then nothing of this is needed.

    \b
    Example:
      lazycloud versionbase serve --store sqlite:///notes.db
      lazycloud versionbase verify --store sqlite:///notes.db
      lazycloud versionbase client javascript --to src
    """


@versionbase.command()
@store_option
@click.option(
    "--listen", default="127.0.0.1:7070", metavar="ADDRESS", help="HOST:PORT, or unix:PATH [127.0.0.1:7070]."
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What keys are made of [FILE.secret].",
)
@click.option("--relaxed", is_flag=True, help="Acknowledge what is not on the disk yet.")
@click.option("--compress", is_flag=True, help="Let clients compress what they send and get.")
@click.option("--print-url", is_flag=True, help="Say the URLs with keys, also where no terminal is.")
@click.option(
    "--keep-hours",
    type=click.FloatRange(0.1),
    default=24.0,
    metavar="HOURS",
    help="How long what was is kept [24].",
)
@click.option(
    "--keep-commits",
    type=click.IntRange(1),
    default=10_000,
    metavar="NUMBER",
    help="As many commits of each version, at most [10000].",
)
@click.option(
    "--keep-free",
    type=click.IntRange(0),
    default=0,
    metavar="MB",
    help="Write nothing where the disk would have less left [0].",
)
@click.option(
    "--version-limit",
    type=click.IntRange(0),
    default=0,
    metavar="MB",
    help="What each version may have of its own; 0 is no limit [0].",
)
def serve(
    store: str,
    listen: str,
    secret_file: Path | None,
    relaxed: bool,
    compress: bool,
    print_url: bool,
    keep_hours: float,
    keep_commits: int,
    keep_free: int,
    version_limit: int,
) -> int:
    """Serve a versionbase until Ctrl-C or SIGTERM.

    It says where it listens, and in a terminal, or with --print-url, the URLs for apps and for the owner.
    What is acknowledged is on the disk; with --relaxed the last moments before a power cut may be lost.

    \b
    Example:
      lazycloud versionbase serve --store sqlite:///notes.db
      lazycloud versionbase serve --store postgresql://me@localhost/notes --secret-file notes.secret
    """
    from lazycloud.versionbase.process import Options, run

    options = Options(
        store,
        listen,
        secret_file,
        relaxed,
        compress,
        print_url,
        keep_hours,
        keep_commits,
        keep_free * 1_000_000,
        version_limit * 1_000_000,
    )
    return run(options, os.environ)


@versionbase.command()
@store_option
def verify(store: str) -> int:
    """Look through a versionbase that nobody serves just now.

    Whether all that its versions, commits and snapshots refer to is there and in order. Exits with 1 if it is not.

    \b
    Example:
      lazycloud versionbase verify --store sqlite:///notes.db
    """
    from lazycloud.versionbase.process import verify

    problems, looked_at = verify(store, click.echo)
    told = f"{looked_at.roots:,} moments, {looked_at.nodes:,} nodes, {looked_at.entries:,} entries"
    if problems:
        raise LazycloudError(
            f"{problems:,} problems in {told}.", "Restore a copy, or export what can be read of it."
        )
    click.echo(f"All is in order: {told}.")
    return 0


CLIENTS = {
    "python": ("client.py", "versionbase.py"),
    "javascript": ("clients/versionbase.mjs", "versionbase.mjs"),
}
"""Of each language: the file in this package, and what it is called in an app."""

MARK = "sha256 of the rest: "


@versionbase.command()
@click.argument("language", type=click.Choice(list(CLIENTS)))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where [this folder].",
)
@click.option("--force", is_flag=True, help="Also over a file that was changed.")
def client(language: str, folder: Path, force: bool) -> int:
    """Write the client for an app into its repository.

    One file, which needs nothing else of lazycloud. An earlier one is replaced, unless somebody has changed it.

    \b
    Example:
      lazycloud versionbase client python
      lazycloud versionbase client javascript --to src
    """
    from importlib.resources import files

    inside, outside = CLIENTS[language]
    text = marked(
        files("lazycloud.versionbase").joinpath(inside).read_text(), "#" if language == "python" else "//"
    )
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}.", f"Make it: `mkdir -p {shlex.quote(str(folder))}`")
    path = folder / outside
    if path.exists() and not force and not is_untouched(path.read_text(errors="replace")):
        raise BadInput(f"{path} was changed by hand.", "Move it away, or use --force.")
    path.write_text(text)
    click.echo(f"Wrote {path}.", err=True)
    return 0


def marked(text: str, comment: str) -> str:
    """With a first line by which a change is known."""
    from hashlib import sha256

    return f"{comment} Written by `lazycloud versionbase client`; {MARK}{sha256(text.encode()).hexdigest()}\n{text}"


def is_untouched(text: str) -> bool:
    from hashlib import sha256

    first, _, rest = text.partition("\n")
    return MARK in first and first.rpartition(MARK)[2].strip() == sha256(rest.encode()).hexdigest()
