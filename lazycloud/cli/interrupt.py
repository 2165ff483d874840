"""Ctrl-C while something goes on elsewhere: quiet, and it does go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@contextmanager
def interruptible(sentence: str = "") -> Iterator[None]:
    """End with 130 at Ctrl-C, saying what goes on all the same."""
    try:
        yield
    except KeyboardInterrupt:
        if sentence:
            click.echo(sentence, err=True)
        sys.exit(INTERRUPTED)
