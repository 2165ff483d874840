"""up reads what to serve; init writes a file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lazycloud.cli.up import read_source
from lazycloud.config import AppSource
from lazycloud.errors import BadInput

from .conftest import CommandLine


def test_a_source_is_a_path_or_a_url_with_or_without_a_name(tmp_path: Path):
    assert read_source("code/shop") == AppSource(str(Path("code/shop").absolute()))
    assert read_source("tea=/srv/shop", "v1", "main") == AppSource("/srv/shop", "tea", "", "v1", "main")
    assert read_source("https://example.com/a?b=c").source == "https://example.com/a?b=c"
    assert read_source("tea=git@example.com:shop.git") == AppSource("git@example.com:shop.git", "tea")


def test_a_folder_with_an_equals_sign_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert read_source("a=b") == AppSource(str(tmp_path / "a=b"))


def test_a_name_that_no_host_can_have_is_refused_with_one_that_can():
    with pytest.raises(BadInput) as caught:
        read_source("My Shop=/srv/shop")
    assert str(caught.value) == "“My Shop” is no name for an app. `my-shop=/srv/shop` would do."


async def test_up_without_anything_to_serve_says_what_to_give(lazycloud: CommandLine, tmp_path: Path):
    done = await lazycloud("up", folder=tmp_path)
    assert done.status == 2
    assert f"Nothing to serve: {tmp_path} is in no git repository" in done.err
    assert "`lazycloud up PATH`" in done.err


async def test_up_refuses_settings_of_repositories_where_it_has_none(lazycloud: CommandLine, tmp_path: Path):
    (lazycloud.home / "apps" / "shop").mkdir(parents=True)
    done = await lazycloud("up", "--follow", "main", folder=tmp_path)
    assert done.status == 2
    assert "--production and --follow" in done.err


@pytest.mark.parametrize("flags", [["--listen", "nowhere:x"], ["--routers", "0"], ["--public-url", "x"]])
async def test_up_refuses_what_cannot_be_right(lazycloud: CommandLine, flags: list[str]):
    done = await lazycloud("up", *flags)
    assert done.status == 2
    assert flags[0].strip("-").replace("-", "_") in done.err.replace("-", "_")


async def test_init_writes_the_example_at_the_top_of_the_repository(lazycloud: CommandLine, repository: Path):
    deep = repository / "deep"
    deep.mkdir()
    done = await lazycloud("init", folder=deep)
    assert done.status == 0
    tomllib.loads((repository / "lazycloud.toml").read_text())


async def test_init_overwrites_only_when_told_to(lazycloud: CommandLine, repository: Path):
    file = repository / "lazycloud.toml"
    file.write_text("mine")
    refused = await lazycloud("init")
    assert refused.status == 1
    assert "--force" in refused.err
    assert file.read_text() == "mine"
    assert (await lazycloud("init", "--force")).status == 0
    assert file.read_text() != "mine"


async def test_init_says_where_it_cannot_write(lazycloud: CommandLine, repository: Path):
    (repository / "lazycloud.toml").mkdir()
    done = await lazycloud("init", "--force")
    assert done.status == 1
    assert f"{repository / 'lazycloud.toml'} cannot be written: Is a directory." in done.err
