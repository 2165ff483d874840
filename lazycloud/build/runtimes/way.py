"""A way to run an app, found in its files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """`run` is a shell command, "" for a static site; `roots` are the folders that one may be served from.

    `found` says in sentences what was seen; `python_path` are folders of the tree that imports start in.
    """

    runtime: str
    found: tuple[str, ...]
    run: str = ""
    roots: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()
