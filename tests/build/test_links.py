"""What installs and builds leave is handled with the server's rights: no link of theirs leads it anywhere."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.build.outputs import place_outputs
from lazycloud.build.plan import Plan
from lazycloud.build.runtimes.compiled import take_compiled
from lazycloud.build.stages import _demand_inside
from lazycloud.errors import StepFailed

PLAN = replace(Plan("command", (), "true"), build_outputs=("dist",))


@pytest.mark.parametrize("linked", [True, False])
def test_an_output_that_is_a_link_stays_one(tmp_path: Path, linked: bool) -> None:
    secret, kept, tree = tmp_path / "home", tmp_path / "kept", tmp_path / "tree"
    for folder in (secret, kept, tree):
        folder.mkdir()
    (secret / "token").write_text("secret")
    (kept / "dist").symlink_to(secret)
    place_outputs(PLAN, kept, tree, linked)
    assert (tree / "dist").is_symlink()


@pytest.fixture
def environments(tmp_path: Path) -> tuple[Path, Path]:
    """Two virtual environments with a module from one cache, which the second has compiled."""
    (tmp_path / "module.py").write_text("x = 1")
    for name in ("new", "old"):
        packages = tmp_path / name / "lib/site-packages/p"
        packages.mkdir(parents=True)
        os.link(tmp_path / "module.py", packages / "module.py")
    cache = tmp_path / "old/lib/site-packages/p/__pycache__"
    cache.mkdir()
    (cache / "module.cpython-311.pyc").write_text("compiled")
    return tmp_path / "new", tmp_path / "old"


def test_what_is_compiled_is_taken_over(environments: tuple[Path, Path]) -> None:
    assert take_compiled(*environments) == 1


def test_no_link_is_taken_for_a_compiled_module(environments: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    compiled = environments[1] / "lib/site-packages/p/__pycache__/module.cpython-311.pyc"
    compiled.unlink()
    compiled.symlink_to(tmp_path / "token")
    assert take_compiled(*environments) == 0
    assert (tmp_path / "token").stat().st_nlink == 1


@pytest.mark.parametrize("place", ["__pycache__", ""])
def test_nothing_is_put_behind_a_link(environments: tuple[Path, Path], tmp_path: Path, place: str) -> None:
    outside, new = tmp_path / "outside", environments[0] / "lib/site-packages/p"
    if place:
        outside.mkdir()
        (new / place).symlink_to(outside)
    else:
        new.rename(outside)
        new.symlink_to(outside)
    assert take_compiled(*environments) == 0
    assert not list(outside.rglob("*.pyc"))


def test_packages_are_not_linked_to_where_a_committed_link_leads(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / "x").symlink_to(outside)
    _demand_inside(tree, "a/vendor")
    with pytest.raises(StepFailed, match="leads out of the repository"):
        _demand_inside(tree, "x/vendor")
