"""A plan on this machine: which interpreters it takes, and the keys of everything that it makes. Pure."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud.build.plan import Plan
from lazycloud.build.toolchain import Interpreter

LAYOUT = 1  # of folders and keys; another number finds nothing that an older lazycloud left
KEY_LETTERS = 32
PLATFORM = (platform.system(), platform.machine(), *platform.libc_ver())


@dataclass(frozen=True)
class Environment:
    """One environment of dependencies. `kind` is "python" or "node"; `local`: it belongs to a single release."""

    kind: str
    key: str
    folder: Path
    local: bool


@dataclass(frozen=True)
class Recipe:
    """`key` is the release's, made of all inputs; `folder` is where it goes. `node` is a version, "" without."""

    key: str
    folder: Path
    interpreter: Interpreter | None
    node: str
    environments: tuple[Environment, ...]


def make_recipe(
    tree: str, commit_id: str, plan: Plan, interpreter: Interpreter | None, node: str, folder: Path
) -> Recipe:
    """The recipe for a plan of the tree with that id, in an app's `folder`."""
    inputs = _inputs(plan, interpreter, node)
    # Only a build that reads the commit's id depends on it; all others are shared by commits of one tree.
    commit = commit_id if plan.build_reads_commit else ""
    key = digest([LAYOUT, PLATFORM, tree, commit, plan.build, dict(plan.env), inputs, node])
    release = folder / "releases" / key
    environments = []
    for kind, values in inputs.items():
        own = digest([LAYOUT, PLATFORM, kind, values])
        local = _is_local(plan, kind)
        place = release / "environment" / kind if local else folder / "environments" / own
        environments.append(Environment(kind, own, place, local))
    return Recipe(key, release, interpreter, node, tuple(environments))


def digest(inputs: Any) -> str:
    """A key of anything that is JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:KEY_LETTERS]


def _inputs(plan: Plan, interpreter: Interpreter | None, node: str) -> dict[str, list[Any]]:
    """By kind, all that goes into an environment."""
    inputs: dict[str, list[Any]] = {}
    if plan.python and interpreter:
        files = _hashes(plan.python.files)
        inputs["python"] = [interpreter.version, interpreter.path, plan.python.origin, files]
    if plan.node:
        inputs["node"] = [node, plan.node.manager, plan.node.version, plan.node.dev, _hashes(plan.node.files)]
    return inputs


def _is_local(plan: Plan, kind: str) -> bool:
    dependencies = plan.python if kind == "python" else plan.node
    return dependencies is not None and dependencies.local


def _hashes(files: tuple[tuple[str, bytes], ...]) -> list[list[str]]:
    return [[path, hashlib.sha256(content).hexdigest()] for path, content in files]
