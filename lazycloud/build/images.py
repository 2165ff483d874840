"""Images of Dockerfiles: a seam, for who builds them is an engine of containers, which builds know nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lazycloud.build.patterns import matches
from lazycloud.processes import Output

IGNORE = ".dockerignore"


class Images(Protocol):
    """`app` and `release` (its key) name an image."""

    def name(self, app: str, release: str) -> str:
        """What the engine calls it."""

    async def has(self, app: str, release: str) -> bool:
        """Whether it is there."""

    async def build(
        self,
        app: str,
        release: str,
        tree: Path,
        files: Sequence[str],
        dockerfile: str,
        output: Output,
        timeout: float,
        network: bool,
    ) -> None:
        """From these files of `tree`, of which `dockerfile` says how. Raises StepFailed."""


def context(tree: Path, dockerfile: str) -> list[str]:
    """What a Dockerfile may copy: all files of a tree, but for those that .dockerignore names. Blocks."""
    ignored = _ignored(tree)
    paths = sorted(
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_symlink() or path.is_file()
    )
    return [path for path in paths if path == dockerfile or not _is_ignored(path, ignored)]


def _ignored(tree: Path) -> list[str]:
    try:
        lines = (tree / IGNORE).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_ignored(path: str, patterns: Sequence[str]) -> bool:
    """The last pattern that speaks of it decides; one with an exclamation mark takes it back in."""
    ignored = False
    for pattern in patterns:
        if matches(pattern.removeprefix("!").lstrip("/"), path):
            ignored = not pattern.startswith("!")
    return ignored
