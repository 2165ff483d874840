from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uv

from lazycloud.build import limits
from lazycloud.build.environment import build_environment
from lazycloud.build.repository import Repository
from lazycloud.build.stages import Release, Stages
from lazycloud.errors import BadInput, StepFailed
from tests.waiting import PATIENCE, until

from .gitfolder import GitFolder

HELLO = 'print("hello")  # PORT'


class Bench:
    """Stages for one app, with all that they said."""

    def __init__(self, app: GitFolder, folder: Path, environ: dict[str, str] | None = None) -> None:
        self.folder = folder / "apps/app"
        self.repository = Repository(str(app.path), folder / "repository")
        environment = build_environment({**os.environ, **(environ or {})}, folder / "home", folder / "cache")
        self.stages = Stages(self.repository, self.folder, folder / "cache", environment)
        self.said = ""

    def hear(self, text: str) -> None:
        self.said += text

    async def source(self, rev: str = "HEAD") -> Any:
        await self.repository.open()
        return await self.stages.source(await self.repository.revision(rev), self.hear)

    async def release(self, rev: str = "HEAD") -> Release:
        source = await self.source(rev)
        dependencies = await self.stages.dependencies(source, self.hear)
        return await self.stages.build(source, dependencies, self.hear)

    def made(self, kind: str) -> list[str]:
        folder = self.folder / kind
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def bench(app: GitFolder, tmp_path: Path) -> Bench:
    return Bench(app, tmp_path / "home")


def ran(release: Release, command: str | None = None) -> str:
    """What the release's command says, run as a worker would run it."""
    done = subprocess.run(
        ["/bin/sh", "-c", command or release.plan.run],
        cwd=release.folder,
        env={**release.environment, "PORT": "1", "HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_a_commit_becomes_a_release_that_runs(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": HELLO})
    release = await bench.release()
    assert ran(release) == "hello"
    assert (release.skipped, release.reused) == (True, False)
    assert "Found app.py: runs `python app.py`." in bench.said
    facts = json.loads((release.folder.parent / "release.json").read_text())
    assert facts["key"] == release.key


async def test_stages_that_are_done_are_not_done_again(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": HELLO, "lazycloud.toml": '[build]\ncommand = "echo built >> log"'})
    await bench.release()
    source = await bench.source()
    dependencies = await bench.stages.dependencies(source, bench.hear)
    release = await bench.stages.build(source, dependencies, bench.hear)
    assert (source.reused, dependencies.reused, release.reused) == (True, True, True)
    assert (dependencies.skipped, release.skipped) == (False, False)
    assert (release.folder / "log").read_text() == "built\n"


async def test_commits_with_one_tree_share_a_release(app: GitFolder, bench: Bench) -> None:
    first = app.commit({"app.py": HELLO})
    second = app.commit({}, "Only a message")
    assert (await bench.release(first)).folder == (await bench.release(second)).folder


async def test_commits_part_ways_where_the_build_reads_their_id(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ncommand = "echo $COMMIT_ID > id"'
    ids = [app.commit({"index.html": "", "lazycloud.toml": toml}), app.commit({}, "Only a message")]
    releases = [await bench.release(commit_id) for commit_id in ids]
    assert [(release.folder / "id").read_text().strip() for release in releases] == ids


async def test_the_build_gets_what_it_is_promised_and_nothing_of_ours(app: GitFolder, tmp_path: Path) -> None:
    app.commit({"index.html": "", "lazycloud.toml": '[build]\ncommand = "env > env"\n[env]\nMINE = "x y"'})
    bench = Bench(app, tmp_path / "home", {"LAZYCLOUD_TOKEN": "secret", "SECRET": "secret", "GIT_DIR": "/x"})
    text = (await bench.release()).folder.joinpath("env").read_text()
    values = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    assert values["MINE"] == "x y"
    assert values["CI"] == values["FORCE_COLOR"] == "1"
    home = Path(values["HOME"])
    assert home.parent.parent == tmp_path / "home/home" and not home.exists()
    assert not {"SECRET", "LAZYCLOUD_TOKEN", "GIT_DIR", "COMMIT_ID"} & values.keys()
    assert "secret" not in text


async def test_a_build_that_fails_says_so_leaves_nothing_and_is_tried_again(
    app: GitFolder, bench: Bench
) -> None:
    app.commit(
        {"index.html": "", "lazycloud.toml": '[build]\ncommand = "echo broken >> log; cat log; exit 3"'}
    )
    for _ in range(2):
        with pytest.raises(StepFailed, match=r"The build failed: .* ended with exit status 3\.") as caught:
            await bench.release()
        assert caught.value.last == ("broken",)
        assert bench.made("releases") == []


async def test_a_build_that_is_too_slow_is_ended(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ncommand = "sleep 300 & sleep 300"\ntimeout = 0.2'
    app.commit({"index.html": "", "lazycloud.toml": toml})
    with pytest.raises(
        StepFailed, match=r"The build failed: `sleep 300 & sleep 300` took too long\."
    ) as caught:
        await bench.release()
    assert caught.value.advice == "It was ended after 0.2 s."


async def test_a_failed_build_of_one_commit_does_not_harm_another_with_its_tree(
    app: GitFolder, bench: Bench
) -> None:
    toml = f'[build]\ncommand = "test -e {bench.folder}/may"'
    app.commit({"index.html": "", "lazycloud.toml": toml})
    waiting = await bench.source()
    dependencies = await bench.stages.dependencies(waiting, bench.hear)
    with pytest.raises(StepFailed):
        await bench.release()
    (bench.folder / "may").touch()
    release = await bench.stages.build(waiting, dependencies, bench.hear)
    assert (release.folder / "index.html").exists()


async def test_many_who_want_one_commit_at_once_build_it_once(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ncommand = "echo built | tee -a log"'
    app.commit({**{f"f{number}": "x" for number in range(200)}, "index.html": "", "lazycloud.toml": toml})
    await bench.repository.open()
    releases = await asyncio.gather(*(bench.release() for _ in range(10)))
    assert len({release.folder for release in releases}) == 1
    assert (releases[0].folder / "log").read_text() == "built\n"
    assert bench.said.count("built\n") == 10  # each is told


async def test_a_cancelled_build_leaves_nothing_and_no_process(
    app: GitFolder, bench: Bench, tmp_path: Path
) -> None:
    toml = f'[build]\ncommand = "echo $$ > {tmp_path}/pid; exec sleep 300"'
    app.commit({"index.html": "", "lazycloud.toml": toml})
    task = asyncio.create_task(bench.release())
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.made("releases") == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_one_who_leaves_does_not_cancel_the_build_of_the_other(
    app: GitFolder, bench: Bench, tmp_path: Path
) -> None:
    toml = f'[build]\ncommand = "echo begun; while ! test -e {tmp_path}/go; do sleep 0.02; done"'
    app.commit({"index.html": "", "lazycloud.toml": toml})
    leaver, stayer = (asyncio.create_task(bench.release()) for _ in range(2))
    await until(lambda: bench.said.count("begun\n") == 2)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    (tmp_path / "go").touch()
    assert (await stayer).folder.is_dir()


async def test_what_an_earlier_process_left_half_made_is_cleared(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": HELLO})
    release = await bench.release()
    for name in ("releases/half/tree", "environments/half/venv", "releases/.trash-1"):
        (bench.folder / name).mkdir(parents=True)
    bench.stages.clear_leftovers()
    assert bench.made("releases") == [release.key]
    assert len(bench.made("environments")) == 1
    assert ran(release) == "hello"


async def test_a_half_made_folder_is_made_again_even_if_it_was_not_cleared(
    app: GitFolder, bench: Bench
) -> None:
    app.commit({"app.py": HELLO})
    source = await bench.source()
    (source.recipe.folder / "source.json").unlink()
    (source.folder / "stale").touch()
    release = await bench.release()
    assert not (release.folder / "stale").exists()


async def test_a_commit_that_cannot_be_run_writes_nothing(app: GitFolder, bench: Bench) -> None:
    app.commit({"README": ""})
    with pytest.raises(StepFailed, match="No way to run this commit was found"):
        await bench.release()
    app.commit({"lazycloud.toml": "[build]\ncomand = 1"})
    with pytest.raises(BadInput, match="unknown key `comand`"):
        await bench.release()
    assert not bench.folder.exists()


async def test_a_tree_that_leads_out_leaves_nothing(app: GitFolder, bench: Bench) -> None:
    lines = f"100644 blob {app.blob('')}\tindex.html\n120000 blob {app.blob('/etc/passwd')}\tx\n"
    with pytest.raises(StepFailed, match="leads out"):
        await bench.release(app.craft(lines.encode()))
    assert bench.made("releases") == []


async def test_a_full_disk_is_said_and_leaves_nothing(
    app: GitFolder, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "all_but_full", lambda *_: False)  # the watch sees it first on a busy machine
    bench = Bench(app, small_disk)
    app.commit({"index.html": "", "large": os.urandom(4 << 20)})
    with pytest.raises(StepFailed, match=r"is full \(\d MB free\)"):
        await bench.release()
    assert bench.made("releases") == []
    app.commit({"large": None, "lazycloud.toml": '[build]\ncommand = "head -c 9000000 /dev/zero > out"'})
    with pytest.raises(StepFailed, match=r"The disk of .* is full"):
        await bench.release()
    assert bench.made("releases") == []
    app.commit({"lazycloud.toml": None})
    assert (await bench.release()).folder.is_dir()


async def test_a_built_site_is_served_from_the_folder_that_the_build_leaves(
    app: GitFolder, bench: Bench
) -> None:
    app.commit(
        {"lazycloud.toml": '[build]\ncommand = "mkdir web && touch web/index.html"\n[run]\nroot = "web"'}
    )
    assert (await bench.release()).plan.run == f"{sys.executable} -I -m lazycloud.workers.static web"
    app.commit({"lazycloud.toml": '[run]\nroot = "web"'})
    with pytest.raises(StepFailed, match="There is no folder to serve: looked for web"):
        await bench.release()


async def test_a_missing_tool_is_named(app: GitFolder, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "nice", "env"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    app.commit({"package.json": '{"main": "a.js", "dependencies": {"x": "1"}}', "a.js": "", "yarn.lock": ""})
    bench = Bench(app, tmp_path / "home", {"PATH": str(tools)})
    with pytest.raises(StepFailed, match="node was not found on PATH"):
        await bench.release()
    (tools / "node").write_text("#!/bin/sh\necho v20.0.0\n")
    (tools / "node").chmod(0o755)
    with pytest.raises(StepFailed, match=r"yarn was not found on PATH, and yarn\.lock needs it"):
        await bench.release()


async def test_a_python_that_is_not_here_is_replaced_with_a_warning(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": "import platform; print(platform.python_version())", ".python-version": "3.99"})
    release = await bench.release()
    assert ".python-version wants Python 3.99, which is not on this machine" in bench.said
    assert ran(release) == sys.version.split()[0]


async def test_a_package_under_src_can_be_imported(app: GitFolder, bench: Bench) -> None:
    flask = "from flask import Flask\napp = Flask('x')"
    app.commit({"src/shop/__init__.py": "", "src/shop/app.py": flask, "src/shop/x.py": "print('in')"})
    assert ran(await bench.release(), "python -m shop.x") == "in"


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "-r base.txt", "base.txt": "itsdangerous==2.2.0"},
        {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["itsdangerous==2.2.0"]'},
        {"Pipfile.lock": '{"default": {"itsdangerous": {"version": "==2.2.0"}}}'},
    ],
)
async def test_python_packages_are_installed_and_shared(
    app: GitFolder, bench: Bench, files: dict[str, str]
) -> None:
    script = "import itsdangerous, sys; print(itsdangerous.__name__, sys.prefix)  # PORT"
    first = app.commit({**files, "app.py": script})
    second = app.commit({"app.py": script + "\n"})
    one = await bench.release(first)
    other = await bench.release(second)
    assert one.key != other.key
    assert ran(one) == ran(other) == f"itsdangerous {one.environment['VIRTUAL_ENV']}"
    assert len(bench.made("environments")) == 1


@pytest.mark.registry
@pytest.mark.slow
async def test_a_uv_lock_is_installed_as_it_is_locked(app: GitFolder, bench: Bench) -> None:
    lock = [uv.find_uv_bin(), "lock", "--quiet", "--python", sys.executable]
    (app.path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["itsdangerous==2.1.2"]\n'
    )
    await asyncio.to_thread(subprocess.run, lock, cwd=app.path, check=True)
    app.commit({"app.py": "import importlib.metadata as m; print(m.version('itsdangerous'))  # PORT"})
    assert ran(await bench.release()) == "2.1.2"


@pytest.mark.registry
@pytest.mark.slow
async def test_a_project_that_is_a_package_is_installed_with_its_scripts(
    app: GitFolder, bench: Bench
) -> None:
    project = """
        [project]
        name = "shop"
        version = "1"
        dependencies = ["itsdangerous"]
        [project.scripts]
        shop = "shop:main"
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
    """
    app.commit(
        {
            "pyproject.toml": project,
            "src/shop/__init__.py": "import itsdangerous\ndef main():\n    print('open')\n",
            "Procfile": "web: shop",
        }
    )
    release = await bench.release()
    assert ran(release) == "open"
    assert bench.made("environments") == []
    assert release.environment["VIRTUAL_ENV"].startswith(str(release.folder.parent))


@pytest.mark.registry
@pytest.mark.slow
async def test_packages_that_cannot_be_had_are_said_with_uvs_last_lines(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": HELLO, "requirements.txt": "itsdangerous==99.99"})
    with pytest.raises(
        StepFailed, match=r"uv could not install the dependencies of requirements\.txt"
    ) as caught:
        await bench.release()
    assert any("99.99" in line for line in caught.value.last)
    assert bench.made("environments") == []


@pytest.mark.registry
@pytest.mark.slow
async def test_node_packages_are_installed_shared_and_found_by_the_build(
    app: GitFolder, bench: Bench
) -> None:
    package = {
        "scripts": {"build": "node build.js", "start": "node server.js"},
        "dependencies": {"ms": "2.1.3"},
        "devDependencies": {"isarray": "2.0.5"},
    }
    files = {
        "package.json": json.dumps(package),
        "build.js": "require('isarray'); require('fs').writeFileSync('out.txt', String(require('ms')('1m')))",
        "server.js": "console.log(require('fs').readFileSync('out.txt', 'utf8'), require('ms')('2m'))",
    }
    first = await bench.release(app.commit(files))
    assert ran(first) == "60000 120000"
    assert "there is no lockfile" in bench.said
    second = await bench.release(app.commit({"server.js": files["server.js"] + "\n"}))
    assert (second.folder / "node_modules").resolve() == (first.folder / "node_modules").resolve()


@pytest.mark.registry
@pytest.mark.slow
async def test_node_packages_of_a_workspace_are_installed_in_the_release(
    app: GitFolder, bench: Bench
) -> None:
    root = {"workspaces": ["lib"], "main": "a.js", "dependencies": {"lib": "1.0.0"}}
    app.commit(
        {
            "package.json": json.dumps(root),
            "lib/package.json": '{"name": "lib", "version": "1.0.0", "main": "i.js"}',
            "lib/i.js": "module.exports = 'from the tree'",
            "a.js": "console.log(require('lib'))",
        }
    )
    release = await bench.release()
    assert ran(release) == "from the tree"
    assert bench.made("environments") == []
