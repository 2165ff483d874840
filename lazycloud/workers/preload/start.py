"""One start of a Python worker: what is to be run, with which variables, and which parent can do it. Pure."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud.workers.preload.inside.trial import OURS, VARYING
from lazycloud.workers.preload.invocation import Invocation, find_invocation
from lazycloud.workers.preload.unsuitable import Unsuitable

VERSION = 1  # of what inside/ does: another number finds no verdict of an older lazycloud


@dataclass(frozen=True)
class Venv:
    """An environment that many commits share. `memory` is a folder for what was learned of it, made if need be."""

    path: Path
    memory: Path

    @classmethod
    def at(cls, path: Path) -> Venv:
        """With its memory beside it, in the folder of the environment that both belong to."""
        return cls(path, path.parent / "preload")


@dataclass(frozen=True)
class Start:
    """`environment` is all that the worker gets; `folder` is where it runs."""

    venv: Venv
    invocation: Invocation
    environment: Mapping[str, str]
    folder: Path

    @property
    def given(self) -> dict[str, str]:
        """What a parent has of the variables: those that are no single worker's."""
        withheld = self.withheld
        return {name: value for name, value in self.environment.items() if name not in withheld}

    @property
    def withheld(self) -> frozenset[str]:
        """What it has not: a module that reads one of them is not imported ahead."""
        return frozenset(
            name
            for name, value in self.environment.items()
            if name in VARYING or name.startswith(OURS) or str(self.folder) in value
        )

    @property
    def key(self) -> str:
        """Two starts with one key can be forks of one parent."""
        options = self.invocation.options
        facts = [
            VERSION,
            str(self.venv.path),
            options,
            sorted(self.given.items()),
            sorted(self.withheld - VARYING),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def order(self, record: Path | None) -> dict[str, Any]:
        """As a fork is told. `record`: a file in which the worker notes what it imports."""
        return {
            "program": self.invocation.program,
            "arguments": self.invocation.arguments,
            "module": self.invocation.module,
            "script": self.invocation.script,
            "rest": self.invocation.rest,
            "name": self.invocation.name,
            "folder": str(self.folder),
            "environment": dict(self.environment),
            "record": str(record) if record else None,
        }


NOTHING = Invocation("", (), None, None, (), "")
"""For a start of which only the circumstances matter."""


def make_start(command: str, environment: Mapping[str, str], folder: Path, venv: Venv) -> Start:
    """Raises Unsuitable for a command that is no simple one of the environment's Python, and for odd environments."""
    invocation = find_invocation(command, environment, folder, venv.path)
    if "PYTHONHOME" in environment:
        raise Unsuitable("PYTHONHOME is set")
    if _sees_other_packages(venv.path):
        raise Unsuitable("its environment includes packages of the machine")
    # As a shell does for all that it starts.
    variables = {**environment, "PWD": environment.get("PWD") or os.path.realpath(folder)}
    return Start(venv, invocation, variables, folder)


def _sees_other_packages(venv: Path) -> bool:
    try:
        lines = (venv / "pyvenv.cfg").read_text().lower().splitlines()
    except OSError as problem:
        raise Unsuitable("its environment has no pyvenv.cfg") from problem
    settings = dict(line.replace(" ", "").partition("=")[::2] for line in lines)
    return settings.get("include-system-site-packages") == "true"
