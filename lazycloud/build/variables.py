"""The environment variables of installs, builds and runs of one release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lazycloud.build.plan import Plan
from lazycloud.build.recipe import Environment, Recipe
from lazycloud.build.runtimes.nix import Nix

NON_INTERACTIVE = {"CI": "1", "FORCE_COLOR": "1"}


@dataclass(frozen=True)
class Variables:
    """`base` is the build environment as given, `tree` the folder of the files, `secrets` are values by name."""

    base: Mapping[str, str]
    plan: Plan
    recipe: Recipe
    tree: Path
    secrets: Mapping[str, str]

    def install(self, environment: Environment) -> dict[str, str]:
        """A shared environment depends on nothing that is a single commit's. Those before it are there."""
        before = list(takewhile(lambda each: each is not environment, self.recipe.environments))
        within = [each for each in before if each.dependencies.kind == Nix.name]
        env = self.plan.env if environment.local else {}
        own = environment.runtime.path(environment.place(self.tree))
        path = self._path(own, within)
        return {**self.base, **NON_INTERACTIVE, **self._of(within), **env, **self.secrets, "PATH": path}

    def build(self, commit_id: str) -> dict[str, str]:
        """COMMIT_ID only for a command that mentions it: it is an input then, and commits of one tree part ways."""
        commit = {"COMMIT_ID": commit_id} if self.plan.build_reads_commit else {}
        return {**self.base, **NON_INTERACTIVE, **self.run(), **self.secrets, **commit}

    def run(self) -> dict[str, str]:
        """What the release itself needs; the worker's contract comes on top."""
        environments = list(self.recipe.environments)
        variables = {"PATH": self._path([], environments), "PYTHONUNBUFFERED": "1", **self._of(environments)}
        if self.plan.python_path:
            variables["PYTHONPATH"] = ":".join(str(self.tree / place) for place in self.plan.python_path)
        return {**variables, **self.plan.env}

    def _of(self, environments: list[Environment]) -> dict[str, str]:
        return {
            name: value
            for each in environments
            for name, value in each.runtime.variables(each.place(self.tree)).items()
        }

    def _path(self, own: list[Path], environments: list[Environment]) -> str:
        """PATH: the app's own tools, then those of nix, then the machine's."""
        nearest_first = sorted(environments, key=lambda each: each.dependencies.kind == Nix.name)
        places = [
            *own,
            *(place for each in nearest_first for place in each.runtime.path(each.place(self.tree))),
        ]
        return ":".join([*map(str, places), self.base.get("PATH", "")])
