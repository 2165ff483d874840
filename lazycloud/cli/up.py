"""`lazycloud up`: read what to serve and how, and run the server."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lazycloud.config import AppSource, Config, load, locate
from lazycloud.errors import BadInput
from lazycloud.hosts import app_name, is_app_name

NAMED = re.compile(r"(?P<name>[^/:=]*)=(?P<source>.+)", re.DOTALL)


@click.command()
@click.argument("sources", nargs=-1, metavar="[[NAME=]PATH|URL]...")
@click.option(
    "--listen", multiple=True, metavar="ADDRESS", help="Where to accept, such as localhost:8000 (repeatable)."
)
@click.option("--domain", metavar="NAME", help="Domain that apps and commits are served under [localhost].")
@click.option("--home", metavar="FOLDER", help="Where all of the server is kept [LAZYCLOUD_HOME].")
@click.option(
    "--production", metavar="REF", default="", help="What is production at the first start [default branch]."
)
@click.option(
    "--follow", metavar="BRANCH", default="", help="Promote each new commit of this branch by itself."
)
@click.option(
    "--public-previews", is_flag=True, default=None, help="Show commits to everybody on a public address."
)
@click.option("--public-url", metavar="URL", help="What browsers see when a front stands before the server.")
@click.option(
    "--trust-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="NETWORK",
    help="A front whose X-Forwarded-* headers are believed, such as 127.0.0.1 (repeatable).",
)
@click.option("--routers", type=click.IntRange(1), metavar="N", help="Router processes [one per core].")
@click.option(
    "--builds", type=click.IntRange(1), metavar="N", help="Deploys at work at a time [one per core]."
)
@click.option(
    "--tls-cert", multiple=True, metavar="FILE", help="Speak https with this certificate (PEM; repeatable)."
)
@click.option(
    "--tls-key", multiple=True, metavar="FILE", help="Its key, if that is not in the same file (repeatable)."
)
@click.option(
    "--access-log", metavar="FILE", help="Write a line of JSON for each request; - is standard output."
)
@click.pass_context
def up(ctx: click.Context, /, sources: tuple[str, ...], production: str, follow: str, **flags: Any) -> None:
    """Serve repositories until Ctrl-C.

    Without a source: the repository of this folder, else the apps that the home knows.

    \b
    Example:
      lazycloud up ~/code/shop
      lazycloud up shop=~/code/shop blog=https://github.com/me/blog.git --listen 0.0.0.0:80 --domain example.com
    """
    from lazycloud.cli.target import KEY

    flags["home"] = flags["home"] or ctx.meta.get(KEY, {}).get("home")
    given = sources or _this_folder()
    config = load(flags, os.environ, [read_source(text, production, follow) for text in given])
    _demand_apps(config, bool(given), production or follow)
    from lazycloud.server import run

    sys.exit(run(config, os.environ))


def read_source(text: str, production: str = "", follow: str = "") -> AppSource:
    """`PATH`, `URL` or `NAME=` before either. A path that exists is one, even with `=` in it."""
    named = NAMED.fullmatch(text)
    if named is None or Path(text).exists():
        return AppSource(locate(text), production=production, follow=follow)
    name = named["name"]
    if not is_app_name(name):
        raise BadInput(f"“{name}” is no name for an app.", f"`{app_name(name)}={named['source']}` would do.")
    return AppSource(locate(named["source"]), name, production=production, follow=follow)


def _this_folder() -> Sequence[str]:
    from lazycloud.cli.checkout import Checkout

    checkout = Checkout.find(Path.cwd())
    return [str(checkout.root)] if checkout else []


def _demand_apps(config: Config, given: bool, settings_of_given: str) -> None:
    if not given and not config.apps and not _knows_apps(config):
        raise BadInput(
            f"Nothing to serve: {Path.cwd()} is in no git repository, and {config.home} knows no app.",
            "Give the path or clone URL of one: `lazycloud up PATH`.",
        )
    if not given and settings_of_given:
        raise BadInput(
            "--production and --follow are for the repositories of this command line; it has none."
        )


def _knows_apps(config: Config) -> bool:
    folder = config.app_folder("x").parent
    return folder.is_dir() and any(folder.iterdir())
