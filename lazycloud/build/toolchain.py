"""The programs of this machine that runtimes need."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.processes import run

ASK_TIMEOUT = 30.0  # a cold disk, a slow shim


@dataclass(frozen=True)
class Tool:
    """A program: its `version`, the `path` to run, "" where PATH leads to it; `stand_in` is a folder for PATH."""

    version: str = ""
    path: str = ""
    stand_in: Path | None = None


class Toolchain:
    """Looks programs up by the `environment` that they will run in; `folder` is for stand-ins of missing ones.

    `within` names an environment of programs that is yet to be made, "" for this machine as it is.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.within = ""
        self._folder = folder
        self._answers: dict[tuple[str, ...], tuple[object, str]] = {}

    def inside(self, within: str) -> Toolchain:
        """The same, for commands that run in such an environment."""
        tools = Toolchain(self.environment, self._folder)
        tools.within = within
        return tools

    def which(self, name: str) -> str | None:
        return shutil.which(name, path=self.environment.get("PATH"))

    async def ask(self, command: Sequence[str]) -> str:
        """The last line that a command says; asked again when its program has changed. Raises CommandFailed."""
        words = tuple(command)
        stamp = _stamp(self.which(words[0]))
        known = self._answers.get(words)
        if known is None or known[0] != stamp:
            said: list[str] = []
            await run(command, Path("/"), self.environment, said.append, ASK_TIMEOUT)
            known = self._answers[words] = (stamp, "".join(said).strip().split("\n")[-1])
        return known[1]

    def stand_in(self, name: str, command: str) -> Path:
        """A folder with a program `name` that runs `command`."""
        folder = self._folder / command.replace("/", "_").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / name
        if not script.exists():
            aside = folder / f"{name}.new"
            aside.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            aside.chmod(0o755)
            aside.rename(script)
        return folder


def _stamp(path: str | None) -> object:
    """Differs when another program is there: an upgrade of Node.js is seen without a restart."""
    if path is None:
        return None
    status = Path(path).stat()
    return path, status.st_ino, status.st_mtime_ns, status.st_size
