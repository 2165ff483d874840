from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.build.listing import Listing
from lazycloud.build.repository import Repository
from lazycloud.errors import StepFailed

from .gitfolder import GitFolder


async def written(app: GitFolder, rev: str, folder: Path) -> str:
    repository = Repository(str(app.path), folder.parent / "ours")
    await repository.open()
    said: list[str] = []
    await repository.write_source(await repository.revision(rev), folder, said.append)
    return "".join(said)


async def test_the_files_are_those_of_the_commit_with_their_modes(app: GitFolder, tmp_path: Path) -> None:
    (app.path / "run").write_text("#!/bin/sh\n")
    (app.path / "run").chmod(0o755)
    (app.path / "link").symlink_to("deep/er/file")
    large = os.urandom(3 << 20)
    names = {"deep/er/file": "x", "empty": "", "wëird näme\n": "y", "large": large, "back\\slash": "z"}
    commit = app.commit(names)
    (app.path / "empty").write_text("not committed")
    await written(app, commit, tmp_path / "out")
    out = tmp_path / "out"
    assert {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()} == {
        *names,
        "run",
        "link",
    }
    assert (out / "large").read_bytes() == large
    assert (out / "empty").read_bytes() == b""
    assert os.access(out / "run", os.X_OK)
    assert (out / "deep/er/file").stat().st_mode & 0o111 == 0
    assert str((out / "link").readlink()) == "deep/er/file"
    assert (out / "link").read_text() == "x"


async def test_attributes_and_filters_have_no_say(app: GitFolder, tmp_path: Path) -> None:
    app.git("config", "filter.evil.smudge", f"touch {tmp_path}/pwned")
    attributes = "secret export-ignore\n*.txt filter=evil eol=crlf\n$Id$ ident\n"
    commit = app.commit({".gitattributes": attributes, "secret": "1", "a.txt": "a\nb\n"})
    await written(app, commit, tmp_path / "out")
    assert (tmp_path / "out/secret").read_text() == "1"
    assert (tmp_path / "out/a.txt").read_bytes() == b"a\nb\n"
    assert not (tmp_path / "pwned").exists()


async def test_an_empty_tree_is_an_empty_folder(app: GitFolder, tmp_path: Path) -> None:
    await written(app, app.commit({}), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "..", "x" * 5000])
async def test_a_symlink_that_leads_out_is_refused_and_named(
    app: GitFolder, tmp_path: Path, target: str
) -> None:
    commit = app.craft(f"120000 blob {app.blob(target)}\tescape\n".encode())
    with pytest.raises(StepFailed, match="The symlink “escape” leads out"):
        await written(app, commit, tmp_path / "out")
    assert not (tmp_path / "out/escape").is_symlink()


async def test_a_symlink_that_leads_out_by_way_of_another_is_refused(app: GitFolder, tmp_path: Path) -> None:
    """b/up is the root of the tree, so that up/../x, which looks harmless, is beside it."""
    inner = app.git("mktree", stdin=f"120000 blob {app.blob('..')}\tup\n".encode())
    lines = f"040000 tree {inner}\tb\n120000 blob {app.blob('b/up/../x')}\tescape\n"
    with pytest.raises(StepFailed, match="“escape” leads out"):
        await written(app, app.craft(lines.encode()), tmp_path / "out")
    assert not (tmp_path / "out/escape").is_symlink()


@pytest.mark.parametrize("target", [".", "b", "nowhere", "b/../b", "./a"])
async def test_a_symlink_within_the_tree_is_written_as_it_is(
    app: GitFolder, tmp_path: Path, target: str
) -> None:
    commit = app.craft(f"120000 blob {app.blob(target)}\tlink\n".encode())
    await written(app, commit, tmp_path / "out")
    assert (tmp_path / "out/link").readlink() == Path(target)


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "git~1", "GIT~1"])
async def test_a_name_that_could_lead_astray_is_refused_and_named(
    app: GitFolder, tmp_path: Path, name: str
) -> None:
    inner = app.git("mktree", stdin=f"100644 blob {app.blob('x')}\thooks\n".encode())
    for lines in (f"040000 tree {inner}\t{name}\n", f"100644 blob {app.blob('x')}\t{name}\n"):
        with pytest.raises(StepFailed, match=f"“{name}"):
            await written(app, app.craft(lines.encode()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "a//b", "a/./b", "a/../b", ""])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(StepFailed, match="cannot be written safely"):
        Listing(f"100644 blob {'0' * 40}\t{path}\0".encode()).check()


async def test_a_name_that_is_both_link_and_folder_is_refused(app: GitFolder, tmp_path: Path) -> None:
    inner = app.git("mktree", stdin=f"100644 blob {app.blob('x')}\tx\n".encode())
    lines = f"120000 blob {app.blob('.')}\ta\n040000 tree {inner}\ta\n"
    with pytest.raises(StepFailed, match="twice"):
        await written(app, app.craft(lines.encode()), tmp_path / "out")


async def test_a_missing_object_is_named(app: GitFolder, tmp_path: Path) -> None:
    commit = app.craft(f"100644 blob {'1' * 40}\tlost\n".encode())
    with pytest.raises(StepFailed, match="no object for “lost”"):
        await written(app, commit, tmp_path / "out")


async def test_lfs_pointers_are_written_as_they_are_and_counted(app: GitFolder, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    said = await written(app, app.commit({"a": pointer, "b": pointer, "c": "x"}), tmp_path / "out")
    assert "2 files are in Git LFS" in said
    assert (tmp_path / "out/a").read_text() == pointer


async def test_ten_thousand_files_take_a_second_or_two(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({f"d{number % 100}/f{number}": f"file {number}" for number in range(10_000)})
    began = sum(os.times()[:4])  # of the processor, for us and for git: others may use it too
    said = await written(app, commit, tmp_path / "out")
    assert sum(os.times()[:4]) - began < 10  # measured at 1 s
    assert "10,000 files" in said
    assert (tmp_path / "out/d99/f9999").read_text() == "file 9999"


async def test_a_full_disk_is_said_in_a_sentence(app: GitFolder, tmp_path: Path, small_disk: Path) -> None:
    commit = app.commit({"large": os.urandom(4 << 20)})
    with pytest.raises(StepFailed, match=r"The disk of .* is full \(0 MB free\)"):
        await written(app, commit, small_disk / "out")


async def test_a_cancelled_write_stops_before_it_returns(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({f"f{number}": "x" * 20_000 for number in range(3000)})
    writing = asyncio.create_task(written(app, commit, tmp_path / "out"))
    while not (tmp_path / "out").exists():
        await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert len(list((tmp_path / "out").iterdir())) < 3000
    assert _processes_of(app.path) == []


async def test_a_look_at_a_tree_that_is_not_there_leaves_no_git_behind(
    app: GitFolder, tmp_path: Path
) -> None:
    repository = Repository(str(app.path), tmp_path / "ours")
    await repository.open()
    commit = replace(await repository.revision(app.commit({"a": "1"})), tree="1" * 40)
    with pytest.raises(StepFailed):
        await repository.look(commit, lambda tree: tree.names())
    assert _processes_of(app.path) == []


def _processes_of(path: Path) -> list[str]:
    """Command lines that still name the repository."""
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"--git-dir={path}" in line:
                lines.append(line)
    return lines
