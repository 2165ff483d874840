"""A fork's pull request: of all that it brings only the commit that somebody allowed can be named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazycloud.build.repository import Pull, Repository
from lazycloud.errors import NotFound, StepFailed
from tests.e2e.repository import Checkout


@pytest.fixture
def fork(tmp_path: Path) -> Checkout:
    """Its branch `theirs` is pull request 7 of the bare repository that it was cloned from."""
    checkout = Checkout(tmp_path / "fork")
    checkout.commit({"a": "1"})
    checkout.git("clone", "-q", "--bare", ".", str(tmp_path / "forge.git"))
    checkout.git("remote", "add", "forge", str(tmp_path / "forge.git"))
    checkout.git("checkout", "-q", "-b", "theirs")
    return checkout


def push(fork: Checkout, to: str = "refs/pull/7/head") -> None:
    fork.git("push", "-q", "forge", f"+HEAD:{to}")


@pytest.fixture
async def repository(fork: Checkout, tmp_path: Path) -> Repository:
    repository = Repository(f"file://{tmp_path}/forge.git", tmp_path / "ours")
    await repository.open()
    return repository


@pytest.mark.parametrize("name", ["refs/pull/7/head", "refs/merge-requests/7/head"])
async def test_its_head_is_told_and_nothing_of_it_is_fetched(
    repository: Repository, fork: Checkout, name: str
) -> None:
    assert await repository.pull_head(7) is None
    theirs = fork.commit({"b": "1"})
    push(fork, name)
    await repository.fetch()
    assert await repository.pull_head(7) == Pull(7, theirs)
    assert await repository.existing([theirs]) == set()
    for text in (theirs, theirs[:10], "theirs"):
        with pytest.raises(NotFound):
            await repository.resolve(text)


async def test_only_the_commit_that_was_allowed_can_be_named_until_it_is_merged(
    repository: Repository, fork: Checkout
) -> None:
    hidden = fork.commit({"b": "evil"})
    allowed = fork.commit({"b": "good"})
    push(fork)
    later = fork.commit({"b": "evil again"})
    push(fork)
    await repository.fetch_pull(Pull(7, allowed))
    for text in (allowed, allowed[:7], allowed[:10]):
        assert (await repository.resolve(text)).id == allowed
        assert (await repository.revision(text)).id == allowed
    for other in (hidden, later):
        for text in (other, other[:10]):
            with pytest.raises(NotFound):
                await repository.resolve(text)
    for text in (hidden, hidden[:10], f"{allowed}~1"):
        with pytest.raises(NotFound):
            await repository.revision(text)
    assert [ref.name for ref in await repository.refs()] == ["main"]

    await repository.fetch_pull(Pull(7, later))  # the one that was allowed before stays so
    assert (await repository.resolve(allowed[:10])).id == allowed
    push(fork, "refs/heads/main")
    await repository.fetch()
    assert (await repository.resolve(hidden[:10])).id == hidden


async def test_a_commit_that_the_remote_does_not_have_is_said(repository: Repository) -> None:
    with pytest.raises(StepFailed):
        await repository.fetch_pull(Pull(7, "c" * 40))


async def test_what_the_repository_had_before_stays_named(repository: Repository, fork: Checkout) -> None:
    """A commit that a forced push took away keeps its address, also beside pull requests."""
    lost = fork.commit({"c": "1"})
    fork.git("push", "-q", "forge", "HEAD:refs/heads/feature")
    await repository.fetch()
    fork.git("reset", "-q", "--hard", "main")
    allowed = fork.commit({"b": "good"})
    fork.git("push", "-q", "--force", "forge", "HEAD:refs/heads/feature")
    fork.git("push", "-q", "forge", ":refs/heads/feature")
    push(fork)
    await repository.fetch_pull(Pull(7, allowed))
    await repository.fetch()
    assert (await repository.resolve(lost[:10])).id == lost
