"""Stages of two homes with one store between them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.blobs.folder_store import FolderStore
from lazycloud.blobs.store import Missing, StoreFailed
from lazycloud.build.artifacts import depot
from lazycloud.build.artifacts.depot import Depot
from lazycloud.build.artifacts.place import Place, read_place
from lazycloud.build.artifacts.subjects import subjects
from lazycloud.build.stages import Release, Stages
from lazycloud.errors import BadInput
from tests.build.gitfolder import GitFolder
from tests.build.test_lfs import CONTENT, pointer
from tests.build.test_stages import HELLO, Bench, ran
from tests.waiting import PATIENCE

BUILT = '[build]\ncommand = "echo built for $PWD > out; echo ran >> {log}"'


class Shop(Bench):
    """A bench with a store; `trusted` are the keys of others."""

    def __init__(self, app: GitFolder, home: Path, store: Path, *trusted: str, pushes: bool = True) -> None:
        super().__init__(app, home)
        store.mkdir(exist_ok=True)
        place = Place(f"file://{store}", trusted, home / "artifact-key", home / "scratch", pushes)
        self.depot = Depot(place)
        self.stages = Stages(
            self.repository, self.folder, home / "cache", self.stages._environment, depot=self.depot
        )

    async def settled(self, rev: str = "HEAD") -> Release:
        """A release whose artifacts are in the store."""
        release = await self.release(rev)
        await self.stages.settle(release, self.hear)
        if self.depot._pushing:
            await self.depot._pushing
        return release


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def stored(store: Path) -> list[str]:
    return sorted(path.parent.name for path in store.glob("*/*.lazyart"))


async def test_what_one_server_made_another_takes_and_does_not_make(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    app.commit({"app.py": HELLO, "lazycloud.toml": BUILT.format(log=tmp_path / "log")})
    there = Shop(app, tmp_path / "there", store)
    made = await there.settled()
    assert stored(store) == ["environments", "releases"]
    here = Shop(app, tmp_path / "here it is", store, there.depot.public_key)
    source = await here.source()
    dependencies = await here.stages.dependencies(source, here.hear)
    release = await here.stages.build(source, dependencies, here.hear)
    assert (source.fetched, dependencies.fetched, release.fetched) == (True, True, True)
    assert (tmp_path / "log").read_text() == "ran\n"
    assert (release.folder / "out").read_text() == f"built for {release.folder}\n"
    assert release.key == made.key
    assert ran(release) == "hello"
    prefix = ran(release, "python -c 'import sys; print(sys.prefix, sys.base_prefix)'")
    assert prefix == f"{release.environment['VIRTUAL_ENV']} {sys.base_prefix}"
    assert here.said.count("Taken from the artifact store") == 2
    assert f"signed by {there.depot.public_key}" in here.said
    assert not (release.folder.parent / "source.manifest").exists()  # it tells of another disk's files
    assert '"sealed"' not in (Path(release.environment["VIRTUAL_ENV"]).parent / "complete.json").read_text()
    await here.stages.settle(release, here.hear)
    environment = Path(release.environment["VIRTUAL_ENV"])
    assert (environment / "pyvenv.cfg").stat().st_mode & 0o222 == 0
    assert (environment.parent / "complete.json").read_text().count('"sealed": true') == 1
    facts = [made.facts for _, made in here.stages.made(source.recipe) if made and "fetched" in made.facts]
    assert [fact["fetched"]["provenance"]["app"] for fact in facts] == ["app", "app"]


async def test_a_take_that_is_cancelled_leaves_nothing(app: GitFolder, tmp_path: Path, store: Path) -> None:
    app.commit({"app.py": HELLO})
    there = Shop(app, tmp_path / "there", store)
    await there.settled()
    here = Shop(app, tmp_path / "here", store, there.depot.public_key)
    environments = here.folder / "environments"
    source = await here.source()
    taking = asyncio.create_task(here.stages.dependencies(source, here.hear))
    async with asyncio.timeout(PATIENCE):
        while not (environments.is_dir() and any(environments.iterdir())):
            await asyncio.sleep(0)  # it is there for a moment only
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert list(environments.iterdir()) == []
    assert ran(await here.release()) == "hello"


async def test_commits_with_one_lockfile_store_their_environment_once(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    app.commit({"app.py": HELLO, "lazycloud.toml": BUILT.format(log=tmp_path / "log")})
    there = Shop(app, tmp_path / "there", store)
    await there.settled()
    app.commit({"app.py": HELLO + "\n"})
    await there.settled()
    assert stored(store) == ["environments", "releases", "releases"]
    app.commit({"lazycloud.toml": None})
    await there.settled()  # its files are in the repository: there is nothing to store
    assert stored(store) == ["environments", "releases", "releases"]


async def test_outputs_of_a_build_that_names_its_inputs_are_taken_too(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    log = tmp_path / "log"
    toml = f'[build]\ncommand = "mkdir web; cp a web/index.html; echo ran >> {log}"\n'
    app.commit(
        {"a": "one", "lazycloud.toml": toml + 'inputs = ["a"]\noutputs = ["web"]\n[run]\nroot = "web"'}
    )
    there = Shop(app, tmp_path / "there", store)
    await there.settled()
    assert stored(store) == ["builds"]
    app.commit({"README": "another tree"})
    here = Shop(app, tmp_path / "here", store, there.depot.public_key)
    release = await here.release()
    assert (release.folder / "web/index.html").read_text() == "one"
    assert (release.fetched, log.read_text()) == (True, "ran\n")


@pytest.mark.parametrize("harm", ["changed", "cut", "stranger", "disk away"])
async def test_what_may_not_be_used_is_said_and_made_here(
    app: GitFolder, tmp_path: Path, store: Path, harm: str
) -> None:
    app.commit({"app.py": HELLO})
    there = Shop(app, tmp_path / "there", store)
    await there.settled()
    (artifact,) = store.glob("*/*.lazyart")
    content = bytearray(artifact.read_bytes())
    content[-9] ^= 1
    expected = {
        "changed": "refused: Its content was changed after it was signed.",
        "cut": "refused: It is cut short",
        "stranger": "whom this server does not trust",
        "disk away": "warning: The artifact store",
    }[harm]
    if harm == "changed":
        artifact.write_bytes(content)
    elif harm == "cut":
        artifact.write_bytes(content[:-100])
    elif harm == "disk away":
        store.rename(tmp_path / "elsewhere")
    trusted = [] if harm == "stranger" else [there.depot.public_key]
    here = Shop(app, tmp_path / "here", tmp_path / "unused", *trusted)
    here.depot._place = replace(here.depot._place, store=f"file://{store}")
    release = await here.release()
    assert expected in here.said
    assert ran(release) == "hello"
    assert not release.fetched
    assert [path.name for path in here.folder.joinpath("environments").iterdir() if path.name[0] == "."] == []


async def test_a_failure_to_store_is_a_line_in_the_log_and_hurts_nobody(
    app: GitFolder, tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toml = BUILT.format(log=tmp_path / "log").replace("echo built", "ln -s /etc/hosts hosts; echo built")
    app.commit({"app.py": HELLO, "lazycloud.toml": toml})
    there = Shop(app, tmp_path / "there", store)
    with caplog.at_level(logging.WARNING):
        release = await there.settled()
    assert ran(release) == "hello"
    assert "was not put into the artifact store: “tree/hosts” is a link out of it" in caplog.text
    assert stored(store) == ["environments"]
    shutil.rmtree(store)
    app.commit({"app.py": HELLO + "\n"})
    with caplog.at_level(logging.WARNING):
        await there.settled()
    assert "is not there" in caplog.text


async def test_what_a_store_was_away_for_is_put_by_the_next_deploy(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    app.commit({"app.py": HELLO})
    there = Shop(app, tmp_path / "there", store)
    store.rmdir()
    await there.settled()
    store.mkdir()
    await there.settled()
    assert stored(store) == ["environments"]


async def test_a_store_that_hangs_holds_one_thread_and_nobody_elses(
    app: GitFolder, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), []

    class Hanging(FolderStore):
        def exists(self, name: str) -> bool:
            asked.append(name)
            return answers.wait(60)

    monkeypatch.setattr(depot, "open_store", lambda url: Hanging(store))
    monkeypatch.setattr(depot, "ANSWER_TIMEOUT", 0.05)
    ours = Shop(app, tmp_path / "home", store).depot
    try:
        for _ in range(40):
            with pytest.raises(StoreFailed, match="did not answer"):
                await ours.exists("environments/abc")
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), PATIENCE) == "free"
        assert len(asked) == 1
    finally:
        answers.set()
    async with asyncio.timeout(PATIENCE):
        while len(asked) == 1:
            with suppress(StoreFailed):
                await ours.exists("environments/abc")
            await asyncio.sleep(0)


@pytest.mark.parametrize("writes", ["new", "out"])
async def test_what_an_app_wrote_beside_its_code_is_not_put(
    app: GitFolder, tmp_path: Path, store: Path, caplog: pytest.LogCaptureFixture, writes: str
) -> None:
    """It may be what visitors told it; and it would be served elsewhere as what the commit's build left."""
    app.commit({"app.py": HELLO, "lazycloud.toml": BUILT.format(log=tmp_path / "log")})
    there = Shop(app, tmp_path / "there", store)
    release = await there.release()
    assert (
        ran(release, f"while :; do echo x > {writes}; [ {writes} -nt ../release.json ] && break; done") == ""
    )
    with caplog.at_level(logging.WARNING):
        await there.settled()
    assert f"“tree/{writes}” was written after it was complete" in caplog.text
    assert stored(store) == ["environments"]


async def test_what_was_made_from_pointers_of_git_lfs_is_not_put(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    toml = BUILT.format(log=tmp_path / "log")
    app.commit({"app.py": HELLO, "large": pointer(CONTENT), "lazycloud.toml": toml})
    await Shop(app, tmp_path / "there", store).settled()
    assert stored(store) == ["environments"]


async def test_a_server_that_only_takes_puts_nothing(app: GitFolder, tmp_path: Path, store: Path) -> None:
    app.commit({"app.py": HELLO})
    await Shop(app, tmp_path / "there", store, pushes=False).settled()
    assert stored(store) == []


async def test_many_who_want_one_environment_take_it_once(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    app.commit({"app.py": HELLO})
    there = Shop(app, tmp_path / "there", store)
    release = await there.settled()
    here = Shop(app, tmp_path / "here", store, there.depot.public_key)
    (subject,) = subjects((await here.source()).recipe, {})
    await asyncio.gather(
        here.stages.pull(subject, here.hear), *(here.release() for _ in range(3)), here.release()
    )
    assert len(here.made("environments")) == 1
    assert not await here.stages.pull(subject, here.hear)
    shutil.rmtree(store / "environments")
    for ask in (here.depot.pull(subject), here.depot.verify(subject.name)):
        with pytest.raises(Missing):
            await ask
    assert not await here.depot.take(subject, here.hear)
    assert ran(await here.release()) == ran(release)


async def test_node_without_its_package_manager_runs_what_was_taken(
    app: GitFolder, tmp_path: Path, store: Path
) -> None:
    package = '{"dependencies": {"greeting": "file:./greeting"}, "scripts": {"start": "node a.js"}}'
    files = {
        "package.json": package,
        "greeting/package.json": '{"name": "greeting", "version": "1.0.0", "main": "g.js"}',
        "greeting/g.js": "module.exports = 'good morning'",
        "a.js": "console.log(require('greeting'))",
    }
    app.commit(files)
    there = Shop(app, tmp_path / "there", store)
    assert ran(await there.settled()) == "good morning"
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "nice", "env", "git", "node"):
        (tools / name).symlink_to(shutil.which(name) or "")
    here = Shop(app, tmp_path / "here", store, there.depot.public_key)
    here.stages._tools.environment["PATH"] = str(tools)
    here.stages._environment["PATH"] = str(tools)
    release = await here.release()
    assert release.fetched
    assert ran(release) == "good morning"


def test_the_table_of_the_configuration_says_what_is_wrong(tmp_path: Path) -> None:
    for table, why in (
        ({"stroe": ""}, "no setting `stroe`. Did you mean `store`?"),
        ({"store": "s3://x"}, "no store that lazycloud knows"),
        ({"store": 5}, "`store` is a URL"),
        ({"push": "yes"}, "`push` is true or false"),
        ({"trusted": "ed25519:x"}, "`trusted` is a list"),
        ({"trusted": ["x"]}, "“x” is no public key"),
    ):
        with pytest.raises(BadInput) as caught:
            read_place(table, tmp_path / "key", tmp_path)
        assert why in str(caught.value)
    assert read_place({}, tmp_path / "key", tmp_path).store == ""
