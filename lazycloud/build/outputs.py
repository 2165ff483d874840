"""Builds that say what they read and what they leave: done apart, once for all commits that agree on the former."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lazycloud.build.patterns import matches
from lazycloud.build.plan import Plan
from lazycloud.build.settings import NAME as SETTINGS_FILE
from lazycloud.errors import StepFailed

WORK, KEPT = "work", "outputs"


def copy_inputs(plan: Plan, tree: Path, work: Path) -> None:
    """What the build reads, and the manifests of its packages, as files that may be changed. Blocks."""
    patterns = [pattern for pattern, _ in plan.build_inputs]
    manifests = {path for each in plan.dependencies for path, _ in each.files}
    for path in _files(tree):
        if path in manifests or any(matches(pattern, path) for pattern in patterns):
            place = work / path
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(tree / path, place)


def keep_outputs(plan: Plan, work: Path, kept: Path) -> None:
    """Move what the build promised to leave. Raises StepFailed for what is not there."""
    for output in plan.build_outputs:
        if not (work / output).exists():
            raise StepFailed(
                f"The build left no {output}, which {SETTINGS_FILE} names among its outputs.",
                "Name in `outputs` of [build] what the command really leaves; it sees only its `inputs`.",
            )
        _demand_own(work, output)
        (kept / output).parent.mkdir(parents=True, exist_ok=True)
        (work / output).rename(kept / output)


def place_outputs(plan: Plan, kept: Path, tree: Path, linked: bool) -> None:
    """Put what a build left into a release, in place of what was committed there. Blocks.

    `linked`: as links to what is kept, for nobody has the right to write to them.
    """
    put = _link if linked else _copy
    for output in plan.build_outputs:
        place = tree / output
        _demand_own(tree, output)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        if (kept / output).is_dir() and not (kept / output).is_symlink():
            shutil.copytree(kept / output, place, symlinks=True, copy_function=put)
        else:
            put(kept / output, place)


def _demand_own(folder: Path, output: str) -> None:
    """Raises StepFailed for an output that lies behind a link, as shared packages do: they are others' as well."""
    if not (folder / output).parent.resolve().is_relative_to(folder.resolve()):
        raise StepFailed(
            f"{output}, which {SETTINGS_FILE} names among the outputs, lies in a folder that other releases share.",
            "Let the build leave it in a folder of its own.",
        )


def _link(source: str | os.PathLike[str], place: str | os.PathLike[str]) -> None:
    """A copy where the disk has no more links to give."""
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, place, follow_symlinks=False)


def _copy(source: str | os.PathLike[str], place: str | os.PathLike[str]) -> None:
    shutil.copyfile(source, place, follow_symlinks=False)
    if not Path(place).is_symlink():
        Path(place).chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _files(tree: Path) -> Iterator[str]:
    """All that is no folder, relative, with `/`; what is linked in from elsewhere is not gone into."""
    for parent, folders, files in os.walk(tree):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            yield os.path.relpath(Path(parent, name), tree)
