"""The git repository of a folder, asked through git itself; its environment (GIT_DIR …) is respected."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIT_SECONDS = 10
HOME_SETTING = "lazycloud.home"


@dataclass(frozen=True)
class Checkout:
    """`folder` is where git is asked, `shared` the real path of the git folder that all its work trees share."""

    folder: Path
    shared: Path
    bare: bool

    @classmethod
    def find(cls, folder: Path) -> Checkout | None:
        """The repository that `folder` is in; None if it is in none, or there is no git."""
        answer = _git(folder, "rev-parse", "--git-common-dir", "--is-bare-repository")
        if answer is None:
            return None
        shared, bare = answer.rsplit("\n", 1)
        return cls(folder, Path(os.path.realpath(folder / shared)), bare == "true")

    @property
    def root(self) -> Path:
        """What an app's source says: the main work tree, or the bare repository itself."""
        if self.bare:
            return self.shared
        if self.shared.name == ".git":
            return self.shared.parent
        return Path(_git(self.folder, "rev-parse", "--show-toplevel") or self.shared)

    @property
    def top(self) -> Path:
        """The top of this very work tree; of a bare repository its folder."""
        return Path(_git(self.folder, "rev-parse", "--show-toplevel") or self.shared)

    @property
    def origin(self) -> str:
        """The URL of the remote of that name; "" without one."""
        return _git(self.folder, "config", "--get", "remote.origin.url") or ""

    def head_lines(self) -> str:
        """What hooks/post-commit asks git: the folders that a rebase makes, the newest commit, its ref."""
        folders = ("--git-path", "rebase-merge", "--git-path", "rebase-apply")
        return _git(self.folder, "rev-parse", *folders, "HEAD", "--symbolic-full-name", "HEAD") or ""

    def remember_home(self, home: Path) -> None:
        """So that verbs in this repository find its server without being told."""
        _git(self.folder, "config", "--local", HOME_SETTING, str(home))

    def path(self, name: str) -> Path:
        """Where git keeps `name` ("hooks": core.hooksPath respected)."""
        return self.folder / (_git(self.folder, "rev-parse", "--git-path", name) or self.shared / name)

    def resolve(self, ref: str) -> str | None:
        """The full id of the commit that `ref` names here; None if it names none."""
        return _git(self.folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def is_at(self, source: str) -> bool:
        """Whether `source` is the path of this repository."""
        return os.path.realpath(source) in (str(self.shared), os.path.realpath(self.root))

    def is_clone_of(self, source: str) -> bool:
        return bool(self.origin) and _bare_url(self.origin) == _bare_url(source)


def _bare_url(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def configured_home(folder: Path) -> Path | None:
    """The home of the server that this repository's hooks speak to, as `hook install` wrote it down."""
    home = _git(folder, "config", "--local", "--get", HOME_SETTING)
    return Path(home) if home else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, without the last line's end; None if it fails, is missing or does not end."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(done.stdout).rstrip("\n")
