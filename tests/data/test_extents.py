"""What versions take of the disk: shared blocks once, and what each has alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazycloud.data import blocks
from lazycloud.data.extents import Usage, shared, usage
from tests.build.disks import disk

DISK, FILE = (1, 0), (1, 7)
MB = 1 << 20


def test_what_several_hold_counts_once_and_is_nobodys_own() -> None:
    held = {
        "a": [(DISK, 0, 100), (DISK, 50, 100), (FILE, 0, 10)],  # twice its own: a snapshot of it
        "b": [(DISK, 80, 120)],
        "c": [(FILE, 0, 10), (DISK, 500, 501)],
        "d": [],
    }
    assert shared(held) == Usage(120 + 10 + 1, {"a": 80, "b": 20, "c": 1, "d": 0})


def write(place: Path, size: int) -> None:
    place.parent.mkdir(exist_ok=True)
    with place.open("wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def test_copies_share_nothing_links_everything_and_what_is_no_file_counts_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a" / "file", MB)
    write(tmp_path / "b" / "file", MB)
    (tmp_path / "c").mkdir()
    os.link(tmp_path / "a" / "file", tmp_path / "c" / "same")
    (tmp_path / "c" / "link").symlink_to(tmp_path / "b" / "file")
    os.mkfifo(tmp_path / "c" / "pipe")
    folders = {name: [tmp_path / name, tmp_path / "gone"] for name in ("a", "b", "c")}
    found = usage(folders)
    assert found.own["a"] == found.own["c"] == 0 and found.own["b"] >= MB
    assert found.total == 2 * found.own["b"]
    assert usage({"a": folders["a"]}).own["a"] == found.own["b"]


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_where_the_file_system_shares_blocks_a_fork_has_only_what_it_wrote(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path, kind) as made:
        write(made.place / "a" / "file", 8 * MB)
        (made.place / "b").mkdir()
        with (
            (made.place / "a" / "file").open("rb") as source,
            (made.place / "b" / "file").open("wb+") as target,
        ):
            assert blocks.give(source.fileno(), target.fileno())
            os.pwrite(target.fileno(), os.urandom(MB), 2 * MB)
            os.fsync(target.fileno())
        found = usage({name: [made.place / name] for name in ("a", "b")})
        assert (found.total, found.own) == (9 * MB, {"a": MB, "b": MB})
