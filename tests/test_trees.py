from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lazycloud.trees import remove

DEPTH = 3000  # levels: more than Python calls itself, more than a path may be long


def deep(place: Path, name: str = "d", depth: int = DEPTH) -> None:
    """A folder in a folder in a folder …, the last of which has a file."""
    place.mkdir(exist_ok=True)
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_folder_goes_however_deep_it_is(tmp_path: Path) -> None:
    deep(tmp_path / "a")
    with pytest.raises(RecursionError):  # else there would be no need of ours
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
    remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "file").touch()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    for place in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"):
        (place / "link").symlink_to(kept)
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "a")
    remove(tmp_path / "link")
    assert sorted(place.name for place in tmp_path.rglob("*")) == ["file", "inner", "kept"]


def test_folders_that_nobody_may_write_to_go_too(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c" / "file").touch()
    for place in (tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a"):
        place.chmod(0)
    remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_or_no_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    remove(tmp_path / "none")
    assert [place.name for place in tmp_path.iterdir()] == ["file"]
