"""The environment variables of installs, builds and runs of one release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.node_modules import FOLDER as NODE_MODULES
from lazycloud.build.plan import Plan
from lazycloud.build.python_environment import FOLDER as VENV
from lazycloud.build.recipe import Environment, Recipe

NON_INTERACTIVE = {"CI": "1", "FORCE_COLOR": "1"}


@dataclass(frozen=True)
class Variables:
    """`base` is the build environment as given, `tree` the release's files, `stand_in` a folder for PATH."""

    base: Mapping[str, str]
    plan: Plan
    recipe: Recipe
    tree: Path
    stand_in: Path | None = None

    def install(self, environment: Environment) -> dict[str, str]:
        """A shared environment depends on nothing that is a single commit's."""
        env = self.plan.env if environment.local else {}
        return {**self.base, **NON_INTERACTIVE, **env, "PATH": self._path()}

    def build(self, commit_id: str) -> dict[str, str]:
        """COMMIT_ID only for a command that mentions it: it is an input then, and commits of one tree part ways."""
        commit = {"COMMIT_ID": commit_id} if self.plan.build_reads_commit else {}
        return {**self.base, **NON_INTERACTIVE, **self.run(), **commit}

    def run(self) -> dict[str, str]:
        """What the release itself needs; the worker's contract comes on top."""
        return {"PATH": self._path(), "PYTHONUNBUFFERED": "1", **self._python(), **self.plan.env}

    def _python(self) -> dict[str, str]:
        variables = {}
        if venv := self._venv():
            variables["VIRTUAL_ENV"] = str(venv)
        if self.plan.python_path:
            variables["PYTHONPATH"] = ":".join(str(self.tree / place) for place in self.plan.python_path)
        return variables

    def _path(self) -> str:
        """PATH: the app's own tools before the machine's."""
        venv = self._venv()
        places = [venv / "bin"] if venv else []
        if self.plan.node:
            places.append(self.tree / NODE_MODULES / ".bin")
        if self.stand_in:
            places.append(self.stand_in)
        return ":".join([*map(str, places), self.base.get("PATH", "")])

    def _venv(self) -> Path | None:
        places = (each.folder / VENV for each in self.recipe.environments if each.kind == "python")
        return next(places, None)
