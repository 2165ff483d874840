from __future__ import annotations

import os
import shutil

import pytest

from lazycloud.build.git import Git, GitFailed, git_environment
from lazycloud.build.parts import Listings

from .gitfolder import GitFolder


async def test_the_latest_listings_are_remembered_up_to_a_limit(app: GitFolder) -> None:
    one, two, three = (app.commit({f"file{number}": "x"}) for number in range(3))
    git = Git(app.path / ".git", git_environment(os.environ))
    listings = Listings(limit=320)
    for commit in (one, two, three):
        await listings.of(git, commit)
    shutil.rmtree(app.path / ".git/objects")
    assert (await listings.of(git, two)).names == ["file0", "file1"]
    assert (await listings.of(git, three)).names == ["file0", "file1", "file2"]
    with pytest.raises(GitFailed):
        await listings.of(git, one)


async def test_a_path_with_a_tab_is_not_found_by_its_end(app: GitFolder) -> None:
    commit = app.commit({"a\tb": "1", "d/c": "2"})
    listing = await Listings().of(Git(app.path / ".git", git_environment(os.environ)), commit)
    assert listing.find("b") is None
    found = listing.find("a\tb")
    assert found is not None and found.path == "a\tb"
    assert listing.find("c") is None
    assert listing.names == ["a\tb", "d/c"]
