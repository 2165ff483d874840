from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from lazycloud.build.repository import Repository
from lazycloud.errors import Ambiguous, BadInput, NotFound, StepFailed
from lazycloud.hosts import slug

from .gitfolder import BEGIN, GitFolder


async def opened(source: object, tmp_path: Path, **options: object) -> Repository:
    repository = Repository(str(source), tmp_path / "ours", **options)
    await repository.open()
    return repository


async def test_a_commit_tells_who_when_and_what(app: GitFolder, tmp_path: Path) -> None:
    first = app.commit({"a": "1"}, "Begin")
    second = app.commit({"a": "2"}, "A subject\nof two lines\n\nand a body")
    commit = await (await opened(app.path, tmp_path)).commit(second)
    assert commit.parents == (first,)
    assert commit.author == "Ada Lovelace"
    assert commit.authored == BEGIN + 120
    assert commit.subject == "A subject of two lines"
    assert commit.short == second[:10]
    assert commit.tree == app.git("rev-parse", "HEAD^{tree}")


async def test_a_message_in_another_encoding_is_read_as_what_it_is(app: GitFolder, tmp_path: Path) -> None:
    app.git("config", "i18n.commitEncoding", "latin1")
    app.git("commit", "--allow-empty", "--file=-", stdin="Grüße".encode("latin1"))
    head = await (await opened(app.path, tmp_path)).head()
    assert head is not None
    assert head.subject == "Grüße"


@pytest.mark.parametrize("rev_id", ["0" * 40, "main", "", "--help", "zz"])
async def test_only_a_full_id_names_a_commit(app: GitFolder, tmp_path: Path, rev_id: str) -> None:
    app.commit({"a": "1"})
    repository = await opened(app.path, tmp_path)
    with pytest.raises(NotFound):
        await repository.commit(rev_id)


async def test_the_id_of_a_tree_or_file_is_no_commit(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"a": "1"})
    repository = await opened(app.path, tmp_path)
    for name in ("HEAD^{tree}", "HEAD:a"):
        with pytest.raises(NotFound):
            await repository.resolve(app.git("rev-parse", name))


async def test_refs_are_branches_and_tags_peeled_to_commits(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    app.git("tag", "light")
    app.git("tag", "-m", "annotated", "v1.0")
    app.git("tag", "-m", "a tag of a tag", "v1.0-again", "v1.0")
    app.git("tag", "a-file", "HEAD:a")
    app.git("branch", "feature/x")
    refs = await (await opened(app.path, tmp_path)).refs()
    assert {(ref.kind, ref.name, ref.commit) for ref in refs} == {
        ("branch", "main", commit),
        ("branch", "feature/x", commit),
        ("tag", "light", commit),
        ("tag", "v1.0", commit),
        ("tag", "v1.0-again", commit),
    }


async def test_remote_branches_count_where_no_local_one_has_the_name(
    app: GitFolder, tmp_path: Path, make_git
) -> None:
    app.commit({"a": "1"})
    app.git("branch", "theirs")
    app.git("clone", "--quiet", str(app.path), str(tmp_path / "clone"))
    refs = await (await opened(tmp_path / "clone", tmp_path)).refs()
    assert {(ref.kind, ref.name) for ref in refs} == {("branch", "main"), ("remote branch", "theirs")}


async def test_an_empty_repository_has_nothing(app: GitFolder, tmp_path: Path) -> None:
    repository = await opened(app.path, tmp_path)
    assert await repository.head() is None
    assert await repository.default_branch() is None
    assert await repository.refs() == []
    assert await repository.newest(5) == []
    with pytest.raises(NotFound):
        await repository.resolve("main")
    with pytest.raises(NotFound):
        await repository.revision("HEAD")


async def test_a_detached_head_has_a_commit_but_no_branch(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    repository = await opened(app.path, tmp_path)
    assert await repository.default_branch() == "main"
    app.git("checkout", "--quiet", "--detach")
    assert await repository.default_branch() is None
    assert (await repository.head()).id == commit


async def test_a_path_that_is_no_repository_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not a git repository\. Make it one with `git init`"):
        await opened(tmp_path, tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        await opened(tmp_path / "nowhere", tmp_path)


async def test_a_folder_within_a_repository_is_not_taken_for_it(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"inner/a": "1"})
    with pytest.raises(BadInput, match="not its top folder"):
        await opened(app.path / "inner", tmp_path)


async def test_a_bare_repository_and_a_linked_work_tree_are_read_in_place(
    app: GitFolder, tmp_path: Path
) -> None:
    commit = app.commit({"a": "1"})
    app.git("clone", "--quiet", "--bare", str(app.path), str(tmp_path / "bare.git"))
    app.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    for place, branch in ((tmp_path / "bare.git", "main"), (tmp_path / "linked", "other")):
        repository = await opened(place, tmp_path)
        assert await repository.default_branch() == branch
        assert (await repository.head()).id == commit
    assert not (tmp_path / "ours").exists()


async def test_a_hooks_environment_does_not_lead_elsewhere(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    environ = {**os.environ, "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere", "GIT_WORK_TREE": "/"}
    repository = await opened(app.path, tmp_path, environ=environ)
    assert (await repository.head()).id == commit


async def test_a_label_is_an_id_a_prefix_or_the_slug_of_a_ref(app: GitFolder, tmp_path: Path) -> None:
    first = app.commit({"a": "1"})
    app.git("tag", "v1.0")
    second = app.commit({"a": "2"})
    app.git("branch", "Feature/Größe_x")
    repository = await opened(app.path, tmp_path)
    for label, commit in ((first, first), (first[:7], first), ("v1-0", first), ("main", second)):
        assert (await repository.resolve(label)).id == commit
    slugs = [ref.name for ref in await repository.refs()]
    assert "Feature/Größe_x" in slugs


async def test_several_refs_on_one_commit_are_not_ambiguous(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    app.git("branch", "a/b")
    app.git("branch", "a.b")
    repository = await opened(app.path, tmp_path)
    assert slug("a/b") == slug("a.b")
    assert (await repository.resolve(slug("a/b"))).id == commit


async def test_a_label_of_several_commits_names_the_choices(app: GitFolder, tmp_path: Path) -> None:
    first = app.commit({"a": "1"}, "The first")
    app.git("branch", "a/b")
    second = app.commit({"a": "2"}, "The second")
    app.git("tag", "a.b")
    repository = await opened(app.path, tmp_path)
    with pytest.raises(Ambiguous) as caught:
        await repository.resolve("a-b")
    assert dict(caught.value.choices) == {
        first: f"{first[:10]} “The first” (branch a/b)",
        second: f"{second[:10]} “The second” (tag a.b)",
    }


async def test_a_full_id_beats_a_branch_of_that_name(app: GitFolder, tmp_path: Path) -> None:
    first = app.commit({"a": "1"})
    app.commit({"a": "2"})
    app.git("update-ref", f"refs/heads/{first}", "HEAD")
    repository = await opened(app.path, tmp_path)
    assert (await repository.resolve(first)).id == first
    with pytest.raises(Ambiguous):
        app.git("update-ref", f"refs/heads/{first[:9]}", "HEAD")
        await repository.resolve(first[:9])


async def test_what_is_not_there_comes_with_near_labels(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"a": "1"})
    app.git("branch", "feature/login")
    with pytest.raises(NotFound) as caught:
        await (await opened(app.path, tmp_path)).resolve("feature-logim")
    assert caught.value.near[0] == "feature-login"


async def test_a_branch_named_like_an_option_is_only_a_name(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    names = [
        f"--upload-pack=touch${{IFS}}{tmp_path}/pwned",
        "-x",
        "quote'\"s",
        "ünïcode",
        "a/b/c",
        "sep\u2028x",
    ]
    for name in names:
        app.git("update-ref", f"refs/heads/{name}", commit)
    repository = await opened(app.path, tmp_path)
    assert {ref.name for ref in await repository.refs()} == {*names, "main"}
    for name in names[:-1]:
        assert (await repository.revision(name)).id == commit
    assert (await repository.resolve("x")).id == commit
    await repository.fetch()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("text", ["HEAD", "main", "feature/x", "v1.0", "main~0", "id", "prefix", "PREFIX"])
async def test_a_revision_is_what_people_type(app: GitFolder, tmp_path: Path, text: str) -> None:
    commit = app.commit({"a": "1"})
    app.git("branch", "feature/x")
    app.git("tag", "-m", "t", "v1.0")
    typed = {"id": commit, "prefix": commit[:8], "PREFIX": commit[:8].upper()}.get(text, text)
    assert (await (await opened(app.path, tmp_path)).revision(typed)).id == commit


@pytest.mark.parametrize("text", ["nothing", "--all", "HEAD~9", "main:a", "@{u}", "a b"])
async def test_a_revision_that_is_none_is_not_found(app: GitFolder, tmp_path: Path, text: str) -> None:
    app.commit({"a": "1"})
    with pytest.raises(NotFound):
        await (await opened(app.path, tmp_path)).revision(text)


@pytest.mark.parametrize("text", ["", "a\0b", "a\nb", "x" * 2000])
async def test_a_revision_that_cannot_be_one_is_bad_input(app: GitFolder, tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput):
        await (await opened(app.path, tmp_path)).revision(text)


async def test_the_newest_commits_come_with_their_refs(app: GitFolder, tmp_path: Path) -> None:
    ids = [app.commit({"a": str(number)}) for number in range(3)]
    app.git("checkout", "--quiet", "-b", "side", ids[0])
    side = app.commit({"b": "1"})
    newest = await (await opened(app.path, tmp_path)).newest(3)
    assert [(commit.id, [ref.name for ref in refs]) for commit, refs in newest] == [
        (side, ["side"]),
        (ids[2], ["main"]),
        (ids[1], []),
    ]


async def test_ancestors_are_the_first_parents_nearest_first(app: GitFolder, tmp_path: Path) -> None:
    ids = [app.commit({"a": str(number)}) for number in range(3)]
    app.git("checkout", "--quiet", "-b", "side", ids[1])
    app.commit({"b": "1"})
    app.git("checkout", "--quiet", "main")
    app.git("merge", "--quiet", "--no-ff", "-m", "merge", "side")
    repository = await opened(app.path, tmp_path)
    assert await repository.ancestors(app.git("rev-parse", "HEAD"), 10) == ids[::-1]
    assert await repository.ancestors(ids[2], 1) == [ids[1]]


async def test_a_file_is_read_from_the_commit_and_not_from_the_work_tree(
    app: GitFolder, tmp_path: Path
) -> None:
    app.commit({"a": "committed", "b/c": "inner", "lock": b"x" * (2 << 20), "large": b"x" * (9 << 20)})
    (app.path / "link").symlink_to("a")
    app.commit({})
    (app.path / "a").write_text("changed")
    repository = await opened(app.path, tmp_path)
    commit = await repository.head()
    assert await repository.read(commit, "a") == b"committed"
    assert await repository.read(commit, "b/c") == b"inner"
    assert len(await repository.read(commit, "lock") or b"") == 2 << 20
    for path in ("nothing", "b", "link", "../a", "-a", "a\nb"):
        assert await repository.read(commit, path) is None
    with pytest.raises(BadInput, match="larger than 8 MiB"):
        await repository.read(commit, "large")


async def test_the_signature_moves_with_refs_and_head(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"a": "1"})
    repository = await opened(app.path, tmp_path)
    seen = [repository.signature()]
    assert repository.signature() == seen[0]
    steps = (
        lambda: app.commit({"a": "2"}),
        lambda: app.git("branch", "deep/er/x"),
        lambda: app.git("checkout", "--quiet", "deep/er/x"),
        lambda: app.git("tag", "t"),
        lambda: app.git("pack-refs", "--all"),
        lambda: app.git("branch", "-D", "main"),
    )
    for step in steps:
        step()
        seen.append(repository.signature())
    assert len(set(seen)) == len(seen)


async def test_a_url_is_mirrored_and_follows_its_remote(
    app: GitFolder, tmp_path: Path, git_daemon: str
) -> None:
    first = app.commit({"a": "1"})
    app.git("update-ref", "refs/pull/1/head", "HEAD")
    repository = await opened(f"{git_daemon}/app", tmp_path)
    assert (await repository.head()).id == first
    assert await repository.default_branch() == "main"
    second = app.commit({"a": "2"})
    app.git("branch", "-m", "main", "trunk")
    await repository.fetch()
    assert [(ref.name, ref.commit) for ref in await repository.refs()] == [("trunk", second)]
    assert await repository.default_branch() == "trunk"
    assert (await repository.commit(first)).id == first
    assert [entry.name for entry in (tmp_path / "ours").iterdir()] == ["mirror.git"]


async def test_an_empty_remote_is_followed_when_it_gets_its_first_commit(
    app: GitFolder, tmp_path: Path
) -> None:
    repository = await opened(f"file://{app.path}", tmp_path)
    assert await repository.head() is None
    commit = app.commit({"a": "1"})
    await repository.fetch()
    assert (await repository.head()).id == commit


async def test_a_url_that_cannot_be_cloned_says_so_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        await opened(f"file://user:secret@{tmp_path}/nothing", tmp_path)
    assert "could not be cloned" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list((tmp_path / "ours").iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://example.com/x", "fd://17/x", "nonsense://x"])
def test_a_url_of_another_scheme_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadInput, match="cannot be cloned"):
        Repository(url, tmp_path)


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("git@example.com:a/b.git", True),
        ("https://x/y", True),
        ("./a:b", False),
        ("ext::sh -c x", False),
        ("/a", False),
    ],
)
def test_a_source_is_a_url_or_a_path(tmp_path: Path, source: str, remote: bool) -> None:
    assert Repository(source, tmp_path).is_remote is remote


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_missing_commit_is_looked_for_at_the_remote(
    app: GitFolder, tmp_path: Path, git_daemon: str
) -> None:
    app.commit({"a": "1"})
    clock = Clock()
    repository = await opened(f"{git_daemon}/app", tmp_path, clock=clock)
    second = app.commit({"a": "2"})
    assert (await repository.resolve(second[:10])).id == second
    third = app.commit({"a": "3"})
    with pytest.raises(NotFound):
        await repository.resolve(third[:10])  # the remote was asked less than ten seconds ago
    clock.now += 11
    assert (await repository.resolve(third[:10])).id == third


async def test_a_path_repository_fetches_from_its_own_remotes(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"a": "1"})
    app.git("clone", "--quiet", str(app.path), str(tmp_path / "clone"))
    repository = await opened(tmp_path / "clone", tmp_path)
    second = app.commit({"a": "2"})
    assert (await repository.resolve(second)).id == second


async def test_a_label_that_was_not_there_is_not_looked_for_again_for_a_minute(
    app: GitFolder, tmp_path: Path
) -> None:
    app.commit({"a": "1"})
    clock = Clock()
    repository = await opened(f"file://{app.path}", tmp_path, clock=clock)
    with pytest.raises(NotFound):
        await repository.resolve("soon")
    app.git("branch", "soon")
    clock.now += 30
    with pytest.raises(NotFound):
        await repository.resolve("soon")
    clock.now += 31
    assert (await repository.resolve("soon")).subject == "Change things"


async def test_many_who_miss_at_once_share_one_fetch(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"a": "1"})
    repository = await opened(f"file://{app.path}", tmp_path)
    second = app.commit({"a": "2"})
    found = await asyncio.gather(*(repository.resolve(second[:length]) for length in range(8, 28)))
    assert {commit.id for commit in found} == {second}


async def test_a_remote_that_is_gone_is_said_and_nothing_else_breaks(app: GitFolder, tmp_path: Path) -> None:
    commit = app.commit({"a": "1"})
    repository = await opened(f"file://{app.path}", tmp_path)
    app.path.rename(tmp_path / "moved")
    assert (await repository.resolve("main")).id == commit
    with pytest.raises(NotFound, match="The remote could not be asked"):
        await repository.resolve("other")
