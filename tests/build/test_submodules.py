from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lazycloud.build.repository import Repository
from lazycloud.build.submodules import absolute_url, is_allowed, parse_modules
from lazycloud.errors import StepFailed

from .gitfolder import GitFolder


async def written(source: object, tmp_path: Path) -> tuple[Path, str]:
    repository = Repository(str(source), tmp_path / "ours")
    await repository.open()
    said: list[str] = []
    commit = await repository.head()
    assert commit is not None
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    await repository.write_source(commit, tmp_path / "out", said.append)
    return tmp_path / "out", "".join(said)


@pytest.fixture
def nested(app: GitFolder, make_git) -> GitFolder:
    """app has lib at libs/one, and lib has inner at deep."""
    inner, lib = make_git("inner"), make_git("lib")
    inner.commit({"leaf": "innermost"})
    lib.commit({"lib.py": "x = 1"})
    lib.git("submodule", "--quiet", "add", "../inner", "deep")
    lib.git("config", "-f", ".gitmodules", "submodule.deep.url", "../inner")
    lib.commit({})
    app.commit({"app.py": "import lib"})
    app.git("submodule", "--quiet", "add", "../lib", "libs/one")
    app.commit({})
    return app


async def test_submodules_come_from_the_clones_that_git_made(nested: GitFolder, tmp_path: Path) -> None:
    nested.git("submodule", "--quiet", "update", "--init", "--recursive")
    shutil.rmtree(tmp_path / "lib")
    shutil.rmtree(tmp_path / "inner")
    out, said = await written(nested.path, tmp_path)
    assert (out / "libs/one/lib.py").read_text() == "x = 1"
    assert (out / "libs/one/deep/leaf").read_text() == "innermost"
    assert "5 files" in said
    assert not (tmp_path / "ours").exists()


async def test_submodules_are_cloned_and_fetched_from_where_they_live(
    nested: GitFolder, tmp_path: Path, git_daemon: str
) -> None:
    out, said = await written(f"{git_daemon}/app", tmp_path)
    assert (out / "libs/one/deep/leaf").read_text() == "innermost"
    assert said.count("Cloning the submodule") == 2
    (tmp_path / "lib/lib.py").write_text("x = 2")
    lib = GitFolder.__new__(GitFolder)
    lib.path, lib._clock = tmp_path / "lib", 1_800_000_000
    changed = lib.commit({})
    nested.git("update-index", "--cacheinfo", f"160000,{changed},libs/one")
    nested.git("commit", "--quiet", "-m", "Take the new lib")
    repository = Repository(f"{git_daemon}/app", tmp_path / "ours")
    await repository.open()
    await repository.fetch()
    out, said = await written(f"{git_daemon}/app", tmp_path)
    assert (out / "libs/one/lib.py").read_text() == "x = 2"
    assert "Cloning" not in said


@pytest.mark.parametrize(
    "url",
    ["/etc", "file:///etc", "ext::sh -c 'touch pwned'", "--upload-pack=touch pwned", "http://x/y", "fd::7"],
)
async def test_a_url_to_our_own_disk_or_a_program_is_refused(
    app: GitFolder, tmp_path: Path, url: str
) -> None:
    app.commit({".gitmodules": f'[submodule "lib"]\n\tpath = lib\n\turl = "{url}"\n'})
    app.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    app.git("commit", "--quiet", "-m", "Add lib")
    with pytest.raises(StepFailed) as caught:
        await written(app.path, tmp_path)
    assert "The submodule “lib”" in caught.value.sentence
    assert url in caught.value.sentence
    assert "git submodule update --init" in caught.value.advice


async def test_a_submodule_that_is_gone_says_its_name_its_url_and_what_to_do(
    nested: GitFolder, tmp_path: Path, git_daemon: str
) -> None:
    shutil.rmtree(tmp_path / "lib")
    with pytest.raises(StepFailed, match=rf"“libs/one” \({git_daemon}/lib\) cannot be had"):
        await written(f"{git_daemon}/app", tmp_path)


async def test_a_gitlink_without_an_entry_is_an_empty_folder_and_a_warning(
    app: GitFolder, tmp_path: Path
) -> None:
    app.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},orphan")
    app.git("commit", "--quiet", "-m", "A repository within, added by mistake")
    out, said = await written(app.path, tmp_path)
    assert list((out / "orphan").iterdir()) == []
    assert "orphan is a submodule that .gitmodules does not name" in said


async def test_a_name_that_leads_out_of_the_modules_folder_finds_nothing(
    app: GitFolder, tmp_path: Path
) -> None:
    commit = app.commit({"a": "1", ".gitmodules": '[submodule "../.."]\n\tpath = lib\n\turl = /x\n'})
    app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    app.git("commit", "--quiet", "-m", "Look outside")
    with pytest.raises(StepFailed, match="cannot be had"):
        await written(app.path, tmp_path)


@pytest.mark.parametrize(
    ("url", "base", "absolute"),
    [
        ("https://x/y.git", None, "https://x/y.git"),
        ("../lib", None, None),
        ("../lib", "https://x/me/app", "https://x/me/lib"),
        ("../../you/lib", "ssh://git@x/me/app/", "ssh://git@x/you/lib"),
        ("./lib", "git@x:me/app", "git@x:me/app/lib"),
        ("../lib", "git@x:me/app.git", "git@x:me/lib"),
        ("../../../../lib", "https://x/app", "https://x/lib"),
        ("../lib", "/srv/app", "/srv/lib"),
    ],
)
def test_relative_urls_start_at_the_remote(url: str, base: str | None, absolute: str | None) -> None:
    assert absolute_url(url, base) == absolute


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://x/y", True),
        ("ssh://git@x/y", True),
        ("git://x/y", True),
        ("git@x:y/z", True),
        ("http://x/y", False),
        ("file:///x", False),
        ("ext::sh", False),
        ("-oProxyCommand=x:y", False),
        ("./x:y", False),
        ("https://x/\ny", False),
    ],
)
def test_only_urls_that_lead_to_other_machines_are_cloned(url: str, allowed: bool) -> None:
    assert is_allowed(url) is allowed


def test_names_with_dots_are_read_whole() -> None:
    listing = b"submodule.a.b/c.path\nlibs/x\0submodule.a.b/c.url\nhttps://x\0core.bare\ntrue\0"
    (module,) = parse_modules(listing).values()
    assert (module.name, module.path, module.url) == ("a.b/c", "libs/x", "https://x")
