"""A tree that is written beside another one is the same as one that is written alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazycloud.errors import StepFailed

from .gitfolder import GitFolder
from .releases import Made, Releases, contents, shared

FILES = {"a": "one", "b/c": "two", "b/d": "three", "e/f/g": "four", "run": "#!/bin/sh\n"}


@pytest.fixture
def releases(app: GitFolder, tmp_path: Path) -> Releases:
    return Releases(app, tmp_path / "home")


@pytest.mark.parametrize("linked", [True, False])
async def test_only_what_changed_is_written(app: GitFolder, releases: Releases, linked: bool) -> None:
    app.commit(FILES)
    (app.path / "run").chmod(0o755)
    (app.path / "link").symlink_to("b")
    before = await releases.make(app.commit({}), linked=linked)
    commit = app.commit({"b/c": "TWO", "new/file": "five", "e/f/g": None})
    after = await releases.make(commit, before, linked=linked)
    assert after.written.shared == 3
    assert "3 of them unchanged" in after.said
    assert shared(before, after) == (["a", "b/d", "run"] if linked else [])
    assert contents(after.tree) == contents((await releases.make(commit, linked=linked)).tree)
    assert (before.tree / "b/c").read_text() == "two"


async def test_files_of_a_sealed_tree_cannot_be_written_to(app: GitFolder, releases: Releases) -> None:
    app.commit(FILES)
    (app.path / "run").chmod(0o755)
    before = os.umask(0o077)
    try:
        private = await releases.make(app.commit({}), linked=True)
        os.umask(0o022)
        sealed = await releases.make("main", linked=True)
    finally:
        os.umask(before)
    assert [(private.tree / name).stat().st_mode & 0o777 for name in ("a", "run")] == [0o400, 0o500]
    assert [(sealed.tree / name).stat().st_mode & 0o777 for name in ("a", "run")] == [0o444, 0o555]


async def test_a_file_is_in_two_trees_only_if_both_are_sealed(app: GitFolder, releases: Releases) -> None:
    commit = app.commit(FILES)
    sealed, open_ = await releases.make(commit, linked=True), await releases.make(commit)
    for before, linked in ((sealed, False), (open_, True)):
        after = await releases.make(commit, before, linked=linked)
        assert after.written.shared == len(FILES)
        assert shared(before, after) == []
        assert (after.tree / "a").stat().st_mode & 0o777 == (0o444 if linked else 0o644)


async def test_files_that_moved_are_found_by_their_content(app: GitFolder, releases: Releases) -> None:
    before = await releases.make(app.commit({f"old/{n}": f"file {n}" for n in range(100)}), linked=True)
    app.git("mv", "old", "new")
    after = await releases.make(app.commit({}), before, linked=True)
    assert after.written.shared == 100
    assert (after.tree / "new/7").samefile(before.tree / "old/7")


async def test_several_neighbours_give_what_each_has(app: GitFolder, releases: Releases) -> None:
    halves = [{f"{half}/{n}": f"{half} {n}" for n in range(50)} for half in ("x", "y")]
    one = await releases.make(app.commit(halves[0]), linked=True)
    app.git("rm", "-rq", "x")
    two = await releases.make(app.commit(halves[1]), linked=True)
    both = await releases.make(app.commit(halves[0]), one, two, linked=True)
    assert both.written.shared == 100
    assert (len(shared(one, both)), len(shared(two, both))) == (50, 50)


def _in_place(keep_times: bool) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        status = (made.tree / "b/c").stat()
        with (made.tree / "b/c").open("r+") as file:
            file.write("TWO")
        if keep_times:
            os.utime(made.tree / "b/c", ns=(status.st_atime_ns, status.st_mtime_ns))

    return change


def _replace(made: Made) -> None:
    status = (made.tree / "b/c").stat()
    (made.tree / "b/x").write_text("TWO")
    (made.tree / "b/x").chmod(status.st_mode & 0o777)
    os.utime(made.tree / "b/x", ns=(status.st_atime_ns, status.st_mtime_ns))
    (made.tree / "b/x").rename(made.tree / "b/c")


def _link_elsewhere(made: Made) -> None:
    (made.tree / "b/c").unlink()
    (made.folder / "elsewhere").write_text("TWO")
    (made.tree / "b/c").symlink_to(made.folder / "elsewhere")


def _fifo(made: Made) -> None:
    (made.tree / "b/c").unlink()
    os.mkfifo(made.tree / "b/c")


def _folder_elsewhere(made: Made) -> None:
    shutil.copytree(made.tree / "b", made.folder / "elsewhere")
    (made.folder / "elsewhere/c").chmod(0o644)
    (made.folder / "elsewhere/c").write_text("TWO")
    shutil.rmtree(made.tree / "b")
    (made.tree / "b").symlink_to(made.folder / "elsewhere")


def _tear_manifest(made: Made) -> None:
    manifest = made.folder / "source.manifest"
    content = manifest.read_bytes()
    manifest.write_bytes(content[: len(content) - 40])


TRICKS: dict[str, Callable[[Made], object]] = {
    "written to in place, at the same size": _in_place(keep_times=False),
    "replaced, with the same size and times": _replace,
    "longer": lambda made: (made.tree / "b/c").write_text("two and more"),
    "cut": lambda made: os.truncate(made.tree / "b/c", 0),
    "executable": lambda made: (made.tree / "b/c").chmod(0o755),
    "gone": lambda made: (made.tree / "b/c").unlink(),
    "a link to a file elsewhere": _link_elsewhere,
    "a pipe": _fifo,
    "in a folder elsewhere": _folder_elsewhere,
    "gone with its folder": lambda made: shutil.rmtree(made.tree / "b"),
    "gone with the tree": lambda made: shutil.rmtree(made.tree),
    "gone with the release": lambda made: shutil.rmtree(made.folder),
    "listed in half a manifest": _tear_manifest,
    "listed in no manifest": lambda made: (made.folder / "source.manifest").unlink(),
    "listed in another format": lambda made: (made.folder / "source.manifest").write_text('{"format": 0}\n'),
}


@pytest.mark.parametrize("linked", [True, False])
async def test_a_neighbour_that_was_meddled_with_does_not_leak(
    app: GitFolder, releases: Releases, linked: bool
) -> None:
    before = await releases.make(app.commit(FILES), linked=linked)
    commit = app.commit({"a": "ONE"})
    expected = contents((await releases.make(commit, linked=linked)).tree)
    for trick, play in TRICKS.items():
        before = await releases.make("main~1", linked=linked)
        play(before)
        after = await releases.make(commit, before, linked=linked)
        assert contents(after.tree) == expected, trick


async def test_who_sets_a_files_time_back_is_found_out(app: GitFolder, releases: Releases) -> None:
    """Where the neighbour is not sealed, its own worker may have written there."""
    commit = app.commit(FILES)
    before = await releases.make(commit)
    _in_place(keep_times=True)(before)
    after = await releases.make(commit, before)
    assert (after.tree / "b/c").read_text() == "two"
    assert after.written.shared == len(FILES) - 1


async def test_a_neighbour_on_another_disk_is_of_use_if_files_are_copied(
    app: GitFolder, releases: Releases, small_disk: Path
) -> None:
    commit = app.commit(FILES)
    expected = contents((await releases.make(commit)).tree)
    before = await releases.make(commit, home=small_disk)
    after = await releases.make(commit, before)
    assert contents(after.tree) == expected
    before = await releases.make(commit, home=small_disk, linked=True)
    after = await releases.make(commit, before, linked=True)
    assert {path: held for path, (_, held) in contents(after.tree).items()} == {
        path: held for path, (_, held) in expected.items()
    }


@pytest.mark.parametrize("linked", [True, False])
async def test_a_leaf_may_become_something_else(app: GitFolder, releases: Releases, linked: bool) -> None:
    app.commit({"file": "1", "folder/x": "2", "plain": "3", "kept": "4"})
    (app.path / "link").symlink_to("kept")
    before = await releases.make(app.commit({}), linked=linked)
    app.git("rm", "-rq", "file", "folder", "link")
    app.commit({"file/x": "1", "folder": "2", "link": "kept"})
    (app.path / "plain").chmod(0o755)
    (app.path / "kept").unlink()
    (app.path / "kept").symlink_to("plain")
    commit = app.commit({})
    after = await releases.make(commit, before, linked=linked)
    assert contents(after.tree) == contents((await releases.make(commit, linked=linked)).tree)
    assert os.access(after.tree / "plain", os.X_OK)
    assert not os.access(before.tree / "plain", os.X_OK)


async def test_a_symlink_that_did_not_change_may_lead_out_now(app: GitFolder, releases: Releases) -> None:
    def crafted(up: str) -> str:
        inner = app.git("mktree", stdin=f"120000 blob {app.blob(up)}\tup\n".encode())
        lines = f"040000 tree {inner}\tb\n120000 blob {app.blob('b/up/../x')}\tescape\n"
        return app.craft(lines.encode())

    before = await releases.make(crafted("."), linked=True)
    with pytest.raises(StepFailed, match="“escape” leads out"):
        await releases.make(crafted(".."), before, linked=True)


async def test_names_are_judged_beside_a_neighbour_as_well(app: GitFolder, releases: Releases) -> None:
    before = await releases.make(app.commit(FILES), linked=True)
    blob = app.blob("one")
    inner = app.git("mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    for lines, why in (
        (f"100644 blob {blob}\ta\n100644 blob {blob}\t.git\n", "cannot be written safely"),
        (f"100644 blob {blob}\ta\n040000 tree {inner}\ta\n", "twice"),
    ):
        with pytest.raises(StepFailed, match=why):
            await releases.make(app.craft(lines.encode()), before, linked=True)


async def test_a_submodule_that_moved_takes_its_files_along(
    app: GitFolder, make_git: Callable[[str], GitFolder], releases: Releases
) -> None:
    lib = make_git("lib")
    lib.commit({f"f{n}": f"lib {n}" for n in range(50)} | {"deep/x": "1"})
    app.commit({"app.py": "import lib"})
    app.git("submodule", "--quiet", "add", "../lib", "libs/one")
    before = await releases.make(app.commit({}), linked=True)
    again = await releases.make("main", before, linked=True)
    assert again.written.shared == again.written.files == 53
    app.git("mv", "libs/one", "two")
    commit = app.commit({})
    after = await releases.make(commit, before, linked=True)
    assert after.written.shared == 52  # all but .gitmodules
    assert contents(after.tree) == contents((await releases.make(commit, linked=True)).tree)


async def test_a_symlink_into_a_submodule_may_not_lead_out_by_way_of_it(
    app: GitFolder, make_git: Callable[[str], GitFolder], releases: Releases
) -> None:
    lib = make_git("lib")
    (lib.path / "a").mkdir()
    (lib.path / "a/up").symlink_to("..")
    lib.commit({"x": "1"})
    app.git("submodule", "--quiet", "add", "../lib", "lib")
    (app.path / "escape").symlink_to("lib/a/up/../../x")
    with pytest.raises(StepFailed, match="“escape” leads out"):
        await releases.make(app.commit({}))


LEAVES = st.sampled_from(["one", "two", "run one", "link a", "link d/b", "link .", None])
TREES = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "d", "f/a"]), LEAVES),
    min_size=2,
    max_size=4,
)


@given(trees=TREES, linked=st.booleans())
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_sequence_of_trees_is_written_as_if_alone(
    trees: list[dict[str, str | None]], linked: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        app = GitFolder(Path(place) / "app")
        releases = Releases(app, Path(place) / "home")
        made: list[Made] = []
        for tree in trees:
            commit = _commit(app, tree)
            beside = await releases.make(commit, *reversed(made[-2:]), linked=linked)
            alone = await releases.make(commit, linked=linked)
            assert contents(beside.tree) == contents(alone.tree)
            made.append(beside)


def _commit(app: GitFolder, tree: dict[str, str | None]) -> str:
    for place in list(app.path.iterdir()):
        if place.name != ".git":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    for path, what in tree.items():
        place = app.path / path
        if what is None or any(above.is_file() or above.is_symlink() for above in place.parents):
            continue
        if place.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if what.startswith("link "):
            place.symlink_to(what.removeprefix("link "))
        else:
            place.write_text(what)
            place.chmod(0o755 if what.startswith("run") else 0o644)
    return app.commit({})
