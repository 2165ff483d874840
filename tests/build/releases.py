"""Releases' folders as a build leaves them, and what a tree holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.repository import Repository
from lazycloud.build.source import Written

from .gitfolder import GitFolder


@dataclass(frozen=True)
class Made:
    folder: Path
    tree: Path
    written: Written
    said: str


class Releases:
    """Writes commits of `app` into folders of `home`, one after another."""

    def __init__(self, app: GitFolder, home: Path) -> None:
        self.home = home
        self.repository = Repository(str(app.path), home / "ours")
        self._count = 0

    async def make(self, rev: str, *neighbours: Made, linked: bool = False, home: Path | None = None) -> Made:
        await self.repository.open()
        self._count += 1
        folder = (home or self.home) / f"r{self._count}"
        folder.mkdir(parents=True)
        said: list[str] = []
        commit = await self.repository.revision(rev)
        near = [neighbour.folder for neighbour in neighbours]
        written = await self.repository.write_source(commit, folder / "tree", said.append, near, linked)
        return Made(folder, folder / "tree", written, "".join(said))


def contents(tree: Path) -> dict[str, tuple[str, object]]:
    """By path: (kind and permissions, bytes or target)."""
    found: dict[str, tuple[str, object]] = {}
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            place = Path(folder) / name
            mode = stat.filemode(place.lstat().st_mode)
            held = None if mode[0] == "d" else place.readlink() if mode[0] == "l" else place.read_bytes()
            found[str(place.relative_to(tree))] = (mode, held)
    return found


def shared(one: Made, other: Made) -> Sequence[str]:
    """Paths of files that are one and the same in both."""
    return sorted(
        str(path.relative_to(one.tree))
        for path in one.tree.rglob("*")
        if path.is_file() and not path.is_symlink()
        if (twin := other.tree / path.relative_to(one.tree)).exists() and twin.samefile(path)
    )
