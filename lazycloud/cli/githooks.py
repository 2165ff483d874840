"""Installs hooks/post-commit and hooks/post-receive into a repository, before hooks that were there.

A hook that exists is kept beside ours as `<name>.before-lazycloud`, and ours runs it first.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import lazycloud
from lazycloud.config import Config
from lazycloud.errors import Conflict

NAMES = ("post-commit", "post-receive")
KEPT = ".before-lazycloud"
MARK = b"lazycloud hook uninstall"  # in the head of ours, and of nobody else's


@dataclass(frozen=True)
class Hook:
    """One hook of a repository: `file` is where git looks for it."""

    file: Path

    @property
    def kept(self) -> Path:
        return self.file.with_name(self.file.name + KEPT)

    @property
    def is_ours(self) -> bool:
        return self.file.is_file() and MARK in self.file.read_bytes()[:1000]

    def install(self, script: str) -> bool:
        """Whether anything changed. Raises Conflict where two hooks would have to be kept."""
        if self.is_ours and self.file.read_text() == script:
            return False
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_ours and os.path.lexists(self.file):
            self._keep()
        _write(self.file, script)
        return True

    def uninstall(self) -> bool:
        """Whether it was there. What was kept is put back."""
        if not self.is_ours:
            return False
        self.file.unlink()
        if os.path.lexists(self.kept):
            self.kept.rename(self.file)
        return True

    def _keep(self) -> None:
        if os.path.lexists(self.kept):
            raise Conflict(
                f"{self.file} and {self.kept.name} are both hooks of yours.",
                "Make one of the two, then install again.",
            )
        self.file.rename(self.kept)


def script(name: str, home: Path) -> str:
    """The hook's text, with this Python, our package's folder and that of the server's sockets in it."""
    text = (_folder() / name).read_text()
    library, run = Path(lazycloud.__file__).parent.parent, Config(home=home).run_folder
    for mark, value in (("@PYTHON@", sys.executable), ("@LIBRARY@", library), ("@RUN@", run)):
        text = text.replace(mark, shlex.quote(str(value)))
    return text


def _folder() -> Path:
    package = Path(lazycloud.__file__).parent
    packaged = package / "hooks"
    return packaged if packaged.is_dir() else package.parent / "hooks"


def _write(file: Path, text: str) -> None:
    """Whole or not at all: a commit may be made at this moment."""
    half = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    half.write_text(text)
    half.chmod(0o755)
    half.replace(file)
