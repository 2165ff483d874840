"""What folders take of the disk, and what they share."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lazycloud.deployments.footprint import Pace, measure, part
from lazycloud.deployments.retention import Kind, Name

A, B, C = (Name("shop", Kind.RELEASE, key) for key in "abc")


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def as_du(*places: Path) -> int:
    lines = subprocess.check_output(["du", "-s", "--block-size=1", *map(str, places)], text=True).splitlines()
    return sum(int(line.split()[0]) for line in lines)


def test_blocks_are_counted_as_du_does(tmp_path: Path) -> None:
    write(tmp_path / "a/large", 300_000)
    write(tmp_path / "a/deep/er/small", 10)
    os.link(tmp_path / "a/large", tmp_path / "a/again")
    (tmp_path / "a/link").symlink_to("/usr")
    with (tmp_path / "a/sparse").open("wb") as file:
        file.truncate(10**9)
    assert measure(tmp_path / "a", Pace()).bytes == as_du(tmp_path / "a")
    assert measure(tmp_path / "a/large").bytes == as_du(tmp_path / "a/large")
    assert measure(tmp_path / "nowhere").bytes == 0


def test_what_is_linked_belongs_to_all_who_hold_it(tmp_path: Path) -> None:
    write(tmp_path / "a/own", 100_000)
    write(tmp_path / "a/both", 200_000)
    write(tmp_path / "a/all", 50_000)
    before = measure(tmp_path / "a")  # a release is looked at once, before later ones link to it
    for folder, names in (("b", ("both", "all")), ("c", ("all",))):
        (tmp_path / folder).mkdir()
        for name in names:
            os.link(tmp_path / "a" / name, tmp_path / folder / name)
    own, shared = part({A: before, B: measure(tmp_path / "b"), C: measure(tmp_path / "c")})
    blocks = {name: (tmp_path / "a" / name).stat().st_blocks * 512 for name in ("own", "both", "all")}
    assert {group.holders: group.bytes for group in shared} == {
        frozenset({A, B}): blocks["both"],
        frozenset({A, B, C}): blocks["all"],
    }
    total = sum(own.values()) + sum(group.bytes for group in shared)
    assert total == as_du(*(tmp_path / name for name in "abc"))
    assert own[A] == blocks["own"] + as_du(tmp_path / "b") - as_du(tmp_path / "b/both", tmp_path / "b/all")


def test_links_to_what_nobody_else_holds_are_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a/one", 100_000)
    os.link(tmp_path / "a/one", tmp_path / "outside")
    own, shared = part({A: measure(tmp_path / "a")})
    assert (own[A], shared) == (as_du(tmp_path / "a"), [])
    shutil.rmtree(tmp_path / "a")
