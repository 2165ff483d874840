"""Which folders of a recipe can be had from a store, and what is to be known of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lazycloud.build.artifacts.pack import Subject
from lazycloud.build.manifest import MANIFEST as SOURCE_MANIFEST
from lazycloud.build.recipe import PLATFORM, Environment, Recipe
from lazycloud.build.runtimes.nix import Nix
from lazycloud.build.toolchain import Tool

MARKER, RELEASE_MARKER = "complete.json", "release.json"
PYTHON = "python"  # the runtime whose environments link to an interpreter


def subjects(recipe: Recipe, provenance: Mapping[str, str]) -> Iterator[Subject]:
    """Environments first: what is made later needs them.

    None for an app whose programs come from nix: its store lies outside, and brings them itself.
    """
    if any(each.dependencies.kind == Nix.name for each in recipe.environments):
        return
    root = recipe.folder.parent.parent
    for environment in recipe.environments:
        if not environment.local:
            yield _environment(environment, root, provenance)
    needs = {each.key: _below(each.folder, root) for each in recipe.environments if not each.local}
    if recipe.build and recipe.outputs:
        place = _below(recipe.outputs, root)
        yield Subject("build", recipe.build.key, str(root), place, MARKER, PLATFORM, provenance=provenance)
    elif recipe.build or any(each.local for each in recipe.environments):
        release = Subject(
            "release", recipe.key, str(root), _below(recipe.folder, root), RELEASE_MARKER, PLATFORM
        )
        local = [each for each in recipe.environments if each.local]
        tool = _python(local)
        yield replace(
            release,
            needs=needs,
            left_out=(SOURCE_MANIFEST,),
            provenance=provenance,
            python=tool.path,
            python_version=tool.version,
        )


def find_subject(recipe: Recipe, kind: str, key: str) -> Subject | None:
    """The one of that kind and key, as it is to be taken."""
    return next((one for one in subjects(recipe, {}) if (one.kind, one.key) == (kind, key)), None)


def _environment(environment: Environment, root: Path, provenance: Mapping[str, str]) -> Subject:
    place = _below(environment.folder, root)
    subject = Subject("environment", environment.key, str(root), place, MARKER, PLATFORM)
    left_out = environment.runtime.writable
    tool = _python([environment])
    return replace(
        subject, left_out=left_out, provenance=provenance, python=tool.path, python_version=tool.version
    )


def _python(environments: Sequence[Environment]) -> Tool:
    """The interpreter that environments link to: a recipe has one."""
    return next((each.tool for each in environments if each.dependencies.kind == PYTHON), Tool())


def _below(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root))
