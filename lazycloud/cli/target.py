"""Which server and which app a command line means: --home, --server, --token, --app, and the folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from lazycloud.errors import BadInput

if TYPE_CHECKING:
    from lazycloud.cli.apps import App
    from lazycloud.cli.client import Client

P = ParamSpec("P")
R = TypeVar("R")
KEY = "lazycloud.target"


@dataclass(frozen=True)
class Target:
    """What was given on the command line or in the environment; "" where nothing was."""

    home: str = ""
    server: str = ""
    token: str = ""
    app: str = ""

    @classmethod
    def choose(cls, given: Mapping[str, str], environ: Mapping[str, str]) -> Target:
        """A flag beats the environment: --home means this machine even where LAZYCLOUD_SERVER is set."""
        home, server = given.get("home", ""), given.get("server", "")
        if home and server:
            raise BadInput("--home and --server name two servers.", "Give one of them.")
        server = server or ("" if home else environ.get("LAZYCLOUD_SERVER", ""))
        token = given.get("token") or environ.get("LAZYCLOUD_TOKEN", "")
        return cls(home, server, token, given.get("app", ""))

    @property
    def home_folder(self) -> Path:
        from lazycloud.config import default_home

        if self.home:
            return Path(self.home).absolute()
        if not os.environ.get("LAZYCLOUD_HOME"):
            from lazycloud.cli.checkout import configured_home

            if home := configured_home(Path.cwd()):
                return home
        return default_home(os.environ)

    def client(self) -> Client:
        from lazycloud.cli.client import Client

        return Client.remote(self.server, self.token) if self.server else Client.local(self.home_folder)

    def find_app(self, client: Client) -> App:
        """The app meant; raises BadInput or NotFound with the apps there are."""
        from lazycloud.cli.apps import choose
        from lazycloud.cli.checkout import Checkout

        return choose(client.get("/api/apps"), self.app, Checkout.find(Path.cwd()))


def target_options(function: Callable[P, R]) -> Callable[P, R]:
    """Accept --home, --server, --token and --app; they mean the same before and after the verb."""
    options = [
        click.option("--home", metavar="FOLDER", help="Home of the server on this machine [LAZYCLOUD_HOME]."),
        click.option("--server", metavar="URL", help="Control address of another server [LAZYCLOUD_SERVER]."),
        click.option("--token", help="Token for that server [LAZYCLOUD_TOKEN]."),
        click.option("--app", metavar="NAME", help="The app; else inferred from the folder."),
    ]
    for option in reversed(options):
        function = option(function)

    @wraps(function)
    def remember(*args: P.args, **kwargs: P.kwargs) -> R:
        _remember(kwargs)
        return function(*args, **kwargs)

    return remember


def _remember(kwargs: dict[str, Any]) -> None:
    """Move the options out of `kwargs`; those after the verb come later, and win."""
    given = click.get_current_context().meta.setdefault(KEY, {})
    for name in ("home", "server", "token", "app"):
        if value := kwargs.pop(name, None):
            given[name] = value


def targeted(function: Callable[Concatenate[Target, P], R]) -> Callable[P, R]:
    """A verb that takes the shared options, and a Target as its first argument."""

    @wraps(function)
    def with_target(*args: P.args, **kwargs: P.kwargs) -> R:
        given = click.get_current_context().meta.get(KEY, {})
        return function(Target.choose(given, os.environ), *args, **kwargs)

    return target_options(with_target)
