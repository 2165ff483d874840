"""From a host to a commit: git is asked once, and again when a branch or tag moves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.build.repository import Repository
from lazycloud.config import Config
from lazycloud.control.resolver import Resolver
from lazycloud.deployments.app import App
from lazycloud.errors import Ambiguous
from lazycloud.hosts import Kind, Place
from tests.e2e.repository import Checkout


class Fleet:
    """One app, whose commits are never run; `looks` are the labels that its repository was asked for."""

    def __init__(self, repository: Repository) -> None:
        nothing: Any = None
        self.only = App("shop", repository.source, "localhost", "", repository, nothing, nothing, (), nothing)
        self.apps, self.looks = {"shop": self.only}, []
        asked = repository.resolve

        async def resolve(label: str, limit: int) -> Any:
            self.looks.append(label)
            return await asked(label, limit)

        repository.resolve = resolve

    def app(self, name: str) -> App:
        return self.apps[name]

    def get(self, app: App, commit_id: str, version: str = "") -> Any:
        return SimpleNamespace(id=commit_id)


@pytest.fixture
async def fleet(tmp_path: Path) -> Fleet:
    checkout = Checkout(tmp_path / "shop")
    checkout.commit({"a": "1"})
    repository = Repository(str(checkout.path), tmp_path / "ours")
    await repository.open()
    return Fleet(repository)


@pytest.fixture
def resolver(fleet: Fleet, tmp_path: Path) -> Resolver:
    stands_in: Any = fleet
    return Resolver(Config(home=tmp_path), stands_in)


async def test_git_is_asked_once_for_a_commits_label_till_a_ref_moves(
    resolver: Resolver, fleet: Fleet, tmp_path: Path
) -> None:
    commit = await fleet.only.repository.head()
    assert commit is not None
    place = Place(Kind.LABEL, "shop", commit.short)
    for _ in range(3):
        assert (await resolver.find(place)).commit == commit
    assert fleet.looks == [commit.short]
    checkout = fleet.only.repository.source
    other = Checkout(tmp_path / "other")  # whose id has nothing to do with it
    other.commit({"a": "2"})
    other.git("push", "-q", checkout, f"HEAD:refs/heads/{commit.short}")
    resolver.moved(fleet.only)
    with pytest.raises(Ambiguous):
        await resolver.find(place)


async def test_a_branch_is_looked_for_each_time(resolver: Resolver, fleet: Fleet) -> None:
    for _ in range(2):
        await resolver.find(Place(Kind.LABEL, "shop", "main"))
    assert fleet.looks == ["main", "main"]


async def test_what_a_hook_was_told_is_looked_for_before_it_is_asked_for(
    resolver: Resolver, fleet: Fleet
) -> None:
    commit = await fleet.only.repository.head()
    assert commit is not None
    resolver.expect(fleet.only, commit)
    assert (await resolver.find(Place(Kind.LABEL, "shop", commit.short))).commit == commit
    assert fleet.looks == [commit.short]
