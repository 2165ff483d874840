"""What a tree costs on file systems that share blocks, and what a power cut leaves of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lazycloud.build.marker import is_whole, settle_marker, write_marker

from ..tools import needs
from .disks import disk
from .gitfolder import GitFolder
from .releases import Releases, contents, shared


@needs("mkfs.xfs", "mkfs.btrfs", "filefrag")
@pytest.mark.parametrize(("kind", "options"), [("xfs", ["-m", "reflink=1"]), ("btrfs", [])])
async def test_unchanged_files_share_their_blocks_where_the_disk_can_do_that(
    app: GitFolder, tmp_path: Path, kind: str, options: list[str]
) -> None:
    with disk(tmp_path, kind, *options) as made:
        releases = Releases(app, made.place)
        before = await releases.make(app.commit({"large": "x" * (8 << 20), "a": "1"}))
        after = await releases.make(app.commit({"a": "2"}), before)
        assert after.written.shared == 1
        assert shared(before, after) == []
        assert _blocks(before.tree / "large") == _blocks(after.tree / "large") != []
        (before.tree / "large").write_text("y")
        assert contents(after.tree) == contents((await releases.make("main")).tree)


def _blocks(path: Path) -> list[str]:
    """Where on the disk the file lies."""
    subprocess.run(["sync", "-f", str(path)], check=True)
    said = subprocess.run(["filefrag", "-v", str(path)], capture_output=True, text=True, check=True).stdout
    return [
        words[3] for line in said.splitlines() if (words := line.split()) and words[0].rstrip(":").isdigit()
    ]


@needs("mkfs.xfs", "mkfs.ext4")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_a_power_cut_leaves_all_files_of_a_settled_release(
    app: GitFolder, tmp_path: Path, kind: str
) -> None:
    with disk(tmp_path, kind) as made:
        releases = Releases(app, made.place)
        app.commit({f"{n % 7}/f{n}": f"file {n} " * 500 for n in range(100)} | {"kept": "1"})
        before = await releases.make("main", linked=True)
        after = await releases.make(app.commit({"0/f0": "new"}), before, linked=True)
        expected = [contents(release.tree) for release in (before, after)]
        write_marker(after.folder / "source.json", {})
        settle_marker(after.folder / "source.json")
        made.cut_power()
        assert is_whole(after.folder / "source.json")
        assert [contents(release.tree) for release in (before, after)] == expected
