"""What the hooks do: tell the server what is new, within a bound, whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import FrameType

import click

from lazycloud.cli.apps import of_checkout
from lazycloud.cli.checkout import Checkout
from lazycloud.cli.client import Client, Refused, Unreachable
from lazycloud.cli.target import Target
from lazycloud.errors import LazycloudError

PATIENCE = 2.0  # seconds, in all: what a commit may wait for a server that hangs
ZEROS = "0" * 40  # what git says for "none"; longer with SHA-256


@dataclass(frozen=True)
class News:
    """A ref and the full id of the commit that it names now."""

    commit: str
    ref: str


class TookTooLong(Exception):
    """The patience is at its end. No OSError: nothing on the way may take it for a connection's."""


def announce(target: Target, find: Callable[[Checkout], Iterable[News]]) -> None:
    """Announce what `find` finds in the repository of this folder; prints addresses, or why there are none."""
    try:
        with _bounded(PATIENCE):
            if checkout := Checkout.find(Path.cwd()):
                _announce_all(target.client(), checkout, find(checkout))
    except TookTooLong:
        _murmur(
            f"lazycloud did not answer within {PATIENCE:.0f} s; it sees the commit when it is asked for it."
        )
    except Unreachable:
        _murmur("lazycloud is not running; `lazycloud up` serves this commit.")
    except (LazycloudError, OSError, HTTPException, LookupError, TypeError, ValueError) as problem:
        _murmur(f"lazycloud: {problem}")


def committed(checkout: Checkout) -> Iterator[News]:
    """The commit just made; none while a rebase makes many that are passed by."""
    commit = checkout.resolve("HEAD")
    if commit and not checkout.is_rebasing:
        yield News(commit, checkout.branch)


def received(checkout: Checkout, lines: Iterable[str]) -> Iterator[News]:
    """The branches and tags pushed, from lines of `old new ref`; deleted ones are no news."""
    for line in lines:
        _, new, ref = line.rstrip("\n").split(" ", 2)
        if not new.startswith(ZEROS) and ref.startswith(("refs/heads/", "refs/tags/")):
            commit = checkout.resolve(new)
            if commit:
                yield News(commit, ref)


def _announce_all(client: Client, checkout: Checkout, news: Iterable[News]) -> None:
    app = of_checkout(client.get("/api/apps"), checkout)
    if app is None:
        _murmur("lazycloud does not serve this repository; `lazycloud up` does.")
        return
    for one in news:
        try:
            answer = client.post(app.api("announce"), {"commit": one.commit, "ref": one.ref})
            click.echo(f"→ {answer['address']}")
        except Refused as problem:
            _murmur(f"lazycloud: {problem}")


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise TookTooLong after so long: unlike the timeouts of sockets this bounds all of it."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _murmur(sentence: str) -> None:
    click.secho(sentence, dim=True, err=True)
