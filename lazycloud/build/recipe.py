"""A plan on this machine: the stages that it takes, their keys, and all that goes into them. Pure."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud.build.commit import Commit
from lazycloud.build.plan import Plan
from lazycloud.build.runtimes.known import BY_NAME
from lazycloud.build.runtimes.runtime import Dependencies, Place, Runtime
from lazycloud.build.toolchain import Tool

LAYOUT = 2  # of folders and keys; another number finds nothing that an older lazycloud left
KEY_LETTERS = 32
PLATFORM = " ".join(filter(None, (platform.system(), platform.machine(), *platform.libc_ver())))


@dataclass(frozen=True)
class Stage:
    """`name` is "source", "dependencies" or "build". `inputs` are all that the key is made of, by name."""

    name: str
    inputs: Mapping[str, str]
    kind: str = ""  # of dependencies: the runtime's

    @property
    def key(self) -> str:
        return digest([LAYOUT, self.name, self.kind, dict(self.inputs)])

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})" if self.kind else self.name


@dataclass(frozen=True)
class Environment:
    """One environment of dependencies in `folder`; a local one belongs to a single release."""

    stage: Stage
    folder: Path
    dependencies: Dependencies
    tool: Tool

    @property
    def key(self) -> str:
        return self.stage.key

    @property
    def runtime(self) -> Runtime:
        return BY_NAME[self.dependencies.kind]

    @property
    def local(self) -> bool:
        return self.dependencies.local

    def place(self, tree: Path) -> Place:
        return Place(self.folder, tree, self.tool)


@dataclass(frozen=True)
class Recipe:
    """`key` is the release's, made of all inputs; `folder` is where it goes.

    `environments` are those that are to be made, `build` None without a build command. `outputs` is the folder
    for what a build leaves that other releases can take over, None where it is done in the release itself.
    """

    key: str
    folder: Path
    source: Stage
    dependencies: tuple[Stage, ...]
    environments: tuple[Environment, ...]
    build: Stage | None
    outputs: Path | None

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.source, *self.dependencies, *([self.build] if self.build else []))


def make_recipe(
    commit: Commit, plan: Plan, tools: Mapping[str, Tool], secrets: Mapping[str, str], folder: Path
) -> Recipe:
    """The recipe for a plan of that commit in an app's `folder`; `tools` by kind, `secrets` are hashes by name."""
    source = Stage("source", {"tree": commit.tree})
    said = {f"secret {name}": value for name, value in secrets.items()}
    dependencies = {
        each.kind: Stage("dependencies", _inputs(each, tools[each.kind], said, plan), each.kind)
        for each in plan.dependencies
    }
    build = _build(commit, plan, dependencies, said)
    key = _release_key(commit, plan, dependencies, build)
    release = folder / "releases" / key
    environments = tuple(
        Environment(stage, _folder(folder, release, each, stage), each, tools[each.kind])
        for each in plan.dependencies
        if not each.nothing
        for stage in [dependencies[each.kind]]
    )
    outputs = folder / "builds" / build.key if build and plan.build_inputs else None
    return Recipe(key, release, source, tuple(dependencies.values()), environments, build, outputs)


def digest(inputs: Any) -> str:
    """A key of anything that is JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:KEY_LETTERS]


def _inputs(each: Dependencies, tool: Tool, said: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """A shared environment depends on nothing that is a single commit's, so neither on its [env]."""
    files = {
        f"file {path}": hashlib.sha256(content).hexdigest()[:KEY_LETTERS] for path, content in each.files
    }
    # Not where the program is: a key means the same on every machine of the platform.
    runtime = f"{each.kind} {tool.version}".strip()
    own = dict(_env(plan)) if each.local else {}
    return {"platform": PLATFORM, "runtime": runtime, **each.settings, **files, **own, **said}


def _build(
    commit: Commit, plan: Plan, dependencies: Mapping[str, Stage], said: Mapping[str, str]
) -> Stage | None:
    if plan.dockerfile:
        return Stage("build", {"platform": PLATFORM, "dockerfile": plan.dockerfile, "tree": commit.tree})
    if plan.build is None:
        return None
    files = {f"files {pattern}": found for pattern, found in plan.build_inputs} or {"tree": commit.tree}
    if plan.build_inputs:
        files["outputs"] = " ".join(plan.build_outputs)
    # Only a build that reads the commit's id depends on it; all others are shared by commits of one tree.
    reads = {"commit": commit.id} if plan.build_reads_commit else {}
    # What a command finds in the network is no input; whether it may look is, as it may end in something else.
    network = {"network": "yes"} if plan.build_network else {}
    inputs = {"platform": PLATFORM, "command": plan.build, **files, **reads, **network, **dict(_env(plan))}
    return Stage("build", {**inputs, **_keys(dependencies), **said})


def _release_key(commit: Commit, plan: Plan, dependencies: Mapping[str, Stage], build: Stage | None) -> str:
    built = build.key if build else ""
    return digest([LAYOUT, PLATFORM, commit.tree, built, dict(plan.env), _keys(dependencies)])


def _keys(dependencies: Mapping[str, Stage]) -> dict[str, str]:
    return {f"dependencies {kind}": stage.key for kind, stage in dependencies.items()}


def _env(plan: Plan) -> Iterator[tuple[str, str]]:
    for name, value in plan.env.items():
        yield f"env {name}", value


def _folder(folder: Path, release: Path, each: Dependencies, stage: Stage) -> Path:
    return release / "environment" / each.kind if each.local else folder / "environments" / stage.key
