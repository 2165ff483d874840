"""Which app is meant: the one named, that of the folder's repository, or the only one there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from lazycloud.cli.checkout import Checkout
from lazycloud.errors import BadInput, NotFound


@dataclass(frozen=True)
class App:
    """An app as the API tells it, and the folder's repository if that is the app's."""

    facts: dict[str, Any]
    checkout: Checkout | None = None

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def address(self) -> str:
        return str(self.facts["address"])

    def api(self, rest: str) -> str:
        return f"/api/apps/{quote(self.name, safe='')}/{rest}"

    def resolve(self, ref: str) -> str:
        """The full id where the folder's repository knows it, else `ref` as it was typed."""
        return (self.checkout.resolve(ref) if self.checkout else None) or ref

    def resolve_or_head(self, ref: str | None) -> str:
        if ref:
            return self.resolve(ref)
        head = self.checkout.resolve("HEAD") if self.checkout else None
        return head or str(self.facts["default_branch"])


def choose(apps: Sequence[dict[str, Any]], name: str, checkout: Checkout | None) -> App:
    """The app meant by `name` ("" for none given) in a folder; raises NotFound, or BadInput with the choices."""
    if not apps:
        raise NotFound("This server has no app.", "Serve one with `lazycloud up PATH`.")
    if name:
        return _named(apps, name, checkout)
    mine = of_checkout(apps, checkout) if checkout else None
    if mine:
        return mine
    if len(apps) == 1 and checkout is None:
        return App(apps[0])
    names = ", ".join(app["name"] for app in apps)
    raise BadInput(f"Which app? This folder belongs to none of {names}.", "Name one with --app.")


def of_checkout(apps: Sequence[dict[str, Any]], checkout: Checkout) -> App | None:
    """The app that is served from this repository, else one served from where it was cloned from."""
    for belongs in (checkout.is_at, checkout.is_clone_of):
        for app in apps:
            if belongs(app["source"]):
                return App(app, checkout)
    return None


def _named(apps: Sequence[dict[str, Any]], name: str, checkout: Checkout | None) -> App:
    found = [app for app in apps if app["name"] == name]
    if not found:
        names = [app["name"] for app in apps]
        near = get_close_matches(name, names, 1)
        raise NotFound(f"There is no app “{name}”.", "" if near else f"There is {', '.join(names)}.", near)
    mine = of_checkout(found, checkout) if checkout else None
    return mine or App(found[0])
