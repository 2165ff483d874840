"""What the keys of stages are made of, and what that spares."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazycloud.build import marker
from lazycloud.build.stages import Release
from lazycloud.errors import BadInput, StepFailed

from .gitfolder import GitFolder
from .test_lfs import CONTENT, keep, pointer
from .test_stages import Bench, ran

INPUTS = """
[build]
command = "mkdir -p dist && cat src/* > dist/all && echo x >> {log}"
inputs = ["src/**"]
outputs = ["dist"]
[run]
root = "dist"
"""


@pytest.fixture
def bench(app: GitFolder, tmp_path: Path) -> Bench:
    return Bench(app, tmp_path / "home")


async def inputs(bench: Bench, rev: str) -> dict[str, dict[str, str]]:
    """By stage, of a commit."""
    await bench.repository.open()
    _, recipe = await bench.stages.recipe(await bench.repository.revision(rev), bench.hear)
    return {str(stage): dict(stage.inputs) for stage in recipe.stages}


async def test_commits_that_differ_in_files_that_the_build_does_not_read_build_once(
    app: GitFolder, bench: Bench, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    first = app.commit({"src/a": "A", "README": "1", "lazycloud.toml": INPUTS.format(log=log)})
    second = app.commit({"README": "2"})
    third = app.commit({"src/a": "B"})
    made = [await bench.release(rev) for rev in (first, second, third)]
    assert [release.reused for release in made] == [False, True, False]
    assert log.read_text() == "x\n" * 2
    assert [(release.folder / "dist/all").read_text() for release in made] == ["A", "A", "B"]
    assert (made[1].folder / "README").read_text() == "2"
    assert len(bench.made("builds")) == 2


@pytest.mark.registry
async def test_the_script_of_a_package_json_may_say_what_it_reads_too(app: GitFolder, bench: Bench) -> None:
    script = "require('fs').cpSync('src', 'dist', {recursive: true})"
    manifest = {
        "scripts": {"build": "node build.js", "start": "node server.js"},
        "dependencies": {"ms": "2.1.3"},
    }
    toml = '[build]\ninputs = ["src", "build.js"]\noutputs = ["dist"]\n'
    files = {"package.json": json.dumps(manifest), "build.js": script, "server.js": "", "src/a": "A"}
    app.commit({**files, "lazycloud.toml": toml})
    first = await bench.release()
    app.commit({"README": "other"})
    second = await bench.release()
    assert (second.folder / "dist/a").read_text() == "A"
    assert (first.reused, second.reused) == (False, True)


async def test_a_build_with_inputs_sees_nothing_else(app: GitFolder, bench: Bench) -> None:
    """Else an output could depend on what is no part of its key."""
    toml = INPUTS.replace("cat src/* > dist/all", "ls -A > dist/all")
    app.commit({"src/a": "A", "README": "1", "lazycloud.toml": toml.format(log="/dev/null")})
    release = await bench.release()
    assert (release.folder / "dist/all").read_text().split() == ["dist", "src"]


async def test_an_output_takes_the_place_of_what_was_committed(app: GitFolder, bench: Bench) -> None:
    files = {"src/a": "A", "dist/all": "old", "dist/stale": "old"}
    app.commit({**files, "lazycloud.toml": INPUTS.format(log="/dev/null")})
    release = await bench.release()
    assert sorted(path.name for path in (release.folder / "dist").iterdir()) == ["all"]
    assert (release.folder / "dist/all").read_text() == "A"


async def test_an_output_that_is_not_left_is_said_and_nothing_remains(app: GitFolder, bench: Bench) -> None:
    toml = INPUTS.replace('outputs = ["dist"]', 'outputs = ["dist", "other"]').format(log="/dev/null")
    app.commit({"src/a": "A", "lazycloud.toml": toml})
    with pytest.raises(StepFailed, match="The build left no other"):
        await bench.release()
    assert (bench.made("builds"), bench.made("releases")) == ([], [])


async def test_a_build_that_reads_of_a_submodule_is_done_again_when_that_moves(
    app: GitFolder, make_git: Callable[[str], GitFolder], bench: Bench
) -> None:
    lib = make_git("lib")
    lib.commit({"src/a": "old"})
    app.git("submodule", "--quiet", "add", "../lib", "libs/one")
    toml = INPUTS.replace("src/*", "libs/one/src/*")
    first = app.commit({"lazycloud.toml": toml.format(log="/dev/null")})
    assert ((await bench.release(first)).folder / "dist/all").read_text() == "old"
    newer = lib.commit({"src/a": "new"})
    app.git("-C", "libs/one", "fetch", "--quiet")
    app.git("-C", "libs/one", "checkout", "--quiet", newer)
    assert ((await bench.release(app.commit({}))).folder / "dist/all").read_text() == "new"


@pytest.mark.parametrize("apart", [False, True])
async def test_what_was_made_from_pointers_is_made_again_once_their_content_is_there(
    app: GitFolder, bench: Bench, apart: bool
) -> None:
    toml = '[build]\ncommand = "mkdir dist && cat large > dist/all"\n'
    toml += 'inputs = ["large"]\noutputs = ["dist"]\n' if apart else ""
    commit = app.commit({"large": pointer(CONTENT), "lazycloud.toml": f'{toml}[run]\nroot = "dist"'})
    release = await bench.release(commit)
    assert (release.folder / "dist/all").read_text() == pointer(CONTENT)
    assert (await bench.release(commit)).reused
    keep(app.path / ".git", CONTENT)
    bench.stages.in_use = lambda folder: folder == release.folder.parent
    assert (await bench.release(commit)).reused
    bench.stages.in_use = lambda folder: False
    again = await bench.release(commit)
    assert (again.folder / "dist/all").read_bytes() == CONTENT
    assert (await bench.release(commit)).reused


async def test_an_output_may_not_lie_in_packages_that_others_share(app: GitFolder, bench: Bench) -> None:
    toml = """
    [build]
    dependencies = "mkdir -p vendor/own && echo shared > vendor/own/file"
    dependencies_inputs = ["packages"]
    dependencies_output = "vendor"
    command = "true"
    inputs = ["src"]
    outputs = ["vendor/own"]
    [run]
    command = "true"
    """
    app.commit({"src": "A", "packages": "", "lazycloud.toml": toml})
    with pytest.raises(StepFailed, match="lies in a folder that other releases share"):
        await bench.release()
    (environment,) = bench.made("environments")
    held = bench.folder / "environments" / environment / "vendor/own/file"
    assert held.read_text() == "shared\n"


async def test_a_pattern_that_means_no_file_is_warned_of(app: GitFolder, bench: Bench) -> None:
    app.commit(
        {"src/a": "A", "lazycloud.toml": INPUTS.replace('["src/**"]', '["src/**", "scr"]').format(log="x")}
    )
    await bench.source()
    assert "warning: lazycloud.toml names the build input scr" in bench.said


async def test_what_goes_into_a_key_can_be_told(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ncommand = "make"\n[env]\nMODE = "x"'
    first = app.commit({"app.py": "x", "requirements.txt": "", "lazycloud.toml": toml})
    second = app.commit({"requirements.txt": "# other"})
    before, after = await inputs(bench, first), await inputs(bench, second)
    assert set(before) == {"source", "dependencies (python)", "build"}
    assert before["build"]["command"] == "make"
    assert before["build"]["env MODE"] == "x"
    assert before["dependencies (python)"]["runtime"].startswith("python 3.")
    changed = {
        stage: {name for name in values if values[name] != after[stage][name]}
        for stage, values in before.items()
    }
    assert changed == {
        "source": {"tree"},
        "dependencies (python)": {"file requirements.txt"},
        "build": {"tree", "dependencies python"},
    }


async def test_packages_come_by_a_command_of_the_apps_own_once_per_content_of_its_inputs(
    app: GitFolder, bench: Bench, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    toml = f"""
[build]
dependencies = "mkdir -p vendor/x && tr a-z A-Z < deps.lock > vendor/x/code && echo x >> {log}"
dependencies_inputs = ["deps.lock"]
dependencies_output = "vendor/x"
[run]
command = "cat vendor/x/code"
"""
    first = app.commit({"deps.lock": "one", "other": "1", "lazycloud.toml": toml})
    second = app.commit({"other": "2"})
    third = app.commit({"deps.lock": "two"})
    assert [ran(await bench.release(rev)) for rev in (first, second, third)] == ["ONE", "ONE", "TWO"]
    assert log.read_text() == "x\n" * 2


async def test_a_command_that_installs_nothing_is_said(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ndependencies = "true"\ndependencies_inputs = ["a"]\ndependencies_output = "vendor"\n'
    app.commit({"a": "", "lazycloud.toml": f'{toml}[run]\ncommand = "x"'})
    with pytest.raises(StepFailed, match="`true` left no folder vendor"):
        await bench.release()
    app.commit({"lazycloud.toml": f'{toml}[run]\ncommand = "x"'.replace('["a"]', '["b"]')})
    with pytest.raises(
        BadInput, match=r"`dependencies_inputs` in \[build\] names b, which is not in the commit"
    ):
        await bench.release()


async def test_a_secret_reaches_the_build_and_its_key_and_nothing_else(app: GitFolder, bench: Bench) -> None:
    toml = '[build]\ncommand = "printf %s $TOKEN > seen"\nsecrets = ["TOKEN"]\n[run]\ncommand = "cat seen"'
    app.commit({"lazycloud.toml": toml})
    with pytest.raises(StepFailed, match="wants the secret TOKEN") as missing:
        await bench.release()
    file = bench.folder / "secrets.env"
    assert str(file) in missing.value.advice
    file.parent.mkdir(parents=True, exist_ok=True)
    keys = []
    for value in ("abc", "def"):
        file.write_text(f"# mine\nTOKEN = {value}\n")
        file.chmod(0o600)
        release = await bench.release()
        assert ran(release) == value
        assert "TOKEN" not in release.environment
        keys.append(release.key)
    said = json.dumps(await inputs(bench, "HEAD"))
    assert "secret TOKEN" in said and "def" not in json.loads(said)["build"]["secret TOKEN"]
    assert keys[0] != keys[1]
    file.chmod(0o644)
    with pytest.raises(StepFailed, match="can be read by others"):
        await bench.source()


@pytest.mark.registry
async def test_a_settled_environment_is_compiled_and_read_only(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": "import idna; print(idna.__version__)  # PORT", "requirements.txt": "idna==3.10"})
    release = await bench.release()
    await bench.stages.settle(release, bench.hear)
    (environment,) = (bench.folder / "environments").iterdir()
    writable = [
        path
        for path in (environment / "venv").rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o222
    ]
    assert writable == []
    assert list(environment.glob("venv/lib/*/site-packages/idna/__pycache__/core.*.pyc"))
    assert json.loads((environment / "complete.json").read_text())["sealed"] is True
    assert ran(release) == "3.10"
    await marker.discard(environment)
    assert not environment.exists()
    assert not list((bench.folder / "environments").iterdir())


@pytest.mark.registry
async def test_compiled_modules_are_taken_over_where_the_packages_are_the_same(
    app: GitFolder, bench: Bench
) -> None:
    script = "import idna.core as m; print(m.__cached__); print(m.encode.__code__.co_filename)  # PORT"
    app.commit({"app.py": script, "requirements.txt": "idna==3.10\nblinker==1.8.2"})
    before = await settled(bench)
    app.commit({"requirements.txt": "idna==3.10\nblinker==1.9.0"})
    after = await bench.release()
    compiled, named = ran(after).splitlines()
    assert all(place.startswith(after.environment["VIRTUAL_ENV"]) for place in (compiled, named))
    old = Path(before.environment["VIRTUAL_ENV"]) / Path(compiled).relative_to(
        after.environment["VIRTUAL_ENV"]
    )
    assert Path(compiled).samefile(old)
    packages = Path(compiled).parents[2]
    assert not (
        packages / "blinker/__pycache__"
    ).exists()  # another version: it is compiled when it is needed


@pytest.mark.registry
async def test_pins_are_installed_from_the_cache_and_completed_from_the_index(
    app: GitFolder, bench: Bench, tmp_path: Path
) -> None:
    pins = "jinja2==3.1.6\nmarkupsafe==3.0.2\n"
    app.commit({"app.py": "import jinja2; print(jinja2.__version__)  # PORT", "requirements.txt": pins})
    await settled(bench)
    deaf = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    alone = Bench(
        app, tmp_path / "home", {**deaf, **{name.lower(): url for name, url in deaf.items()}, "NO_PROXY": ""}
    )
    app.commit({"requirements.txt": f"# the same\n{pins}"})
    assert ran(await settled(alone)) == "3.1.6"
    assert "Resolved" not in alone.said
    app.commit({"requirements.txt": "jinja2==3.1.6\n"})  # without what it depends on
    assert ran(await bench.release()) == "3.1.6"


async def test_an_environment_whose_interpreter_is_gone_is_made_again(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": 'print("hello")  # PORT'})
    await bench.release()
    (environment,) = (bench.folder / "environments").iterdir()
    (environment / "venv/bin/python").unlink()
    (environment / "venv/bin/python").symlink_to("/nowhere/python")
    assert ran(await bench.release()) == "hello"


async def test_what_a_power_cut_may_have_spoilt_is_made_again(app: GitFolder, bench: Bench) -> None:
    app.commit({"app.py": 'print("hello")  # PORT'})
    folders = [(await bench.release()).folder.parent]
    app.commit({"app.py": 'print("bye")  # PORT'})
    folders.append((await settled(bench)).folder.parent)
    for folder in folders:  # as if it was written before the machine started
        for name in ("source.json", "release.json"):
            facts: dict[str, Any] = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({**facts, "boot": "another"}))
    bench.stages.clear_leftovers()
    assert [folder.exists() for folder in folders] == [False, True]


async def settled(bench: Bench) -> Release:
    release = await bench.release()
    await bench.stages.settle(release, bench.hear)
    return release


@pytest.mark.skipif(shutil.which("php") is None and not os.environ.get("CI"), reason="needs php")
async def test_a_php_app_runs_with_phps_own_server(app: GitFolder, bench: Bench) -> None:
    app.commit({"public/index.php": "<?php echo 'hello';"})
    release = await bench.release()
    assert release.plan.runtime == "php"
    assert release.plan.run == "php -S $HOST:$PORT -t public"
    assert ran(release, "php public/index.php") == "hello"


def stand_in(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which a program is another one."""
    folder.mkdir()
    place = folder / name
    place.write_text(f"#!/bin/sh\n{script}")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


async def test_composer_installs_once_per_lockfile_and_vendor_is_linked(
    app: GitFolder, tmp_path: Path
) -> None:
    """Composer's registry is not asked in tests: a stand-in does what it would."""
    script = "test -f composer.lock && mkdir vendor && echo \"<?php echo 'loaded';\" > vendor/autoload.php\n"
    environ = stand_in(tmp_path / "bin", "composer", script)
    (tmp_path / "bin/php").write_text("#!/bin/sh\necho 8.2.1\n")
    (tmp_path / "bin/php").chmod(0o755)
    bench = Bench(app, tmp_path / "home", environ)
    app.commit({"index.php": "<?php", "composer.json": "{}", "composer.lock": "{}"})
    release = await bench.release()
    assert (release.folder / "vendor/autoload.php").read_text() == "<?php echo 'loaded';\n"
    assert (release.folder / "vendor").is_symlink()
    assert (await inputs(bench, "HEAD"))["dependencies (php)"]["runtime"] == "php 8.2.1"


NIX = """
if [ "$1" = --version ]; then echo "nix (Nix) 2.18.1"; exit; fi
echo x >> {log}
echo "$*" >&2
cat <<'JSON'
{{"bashFunctions": {{}}, "variables": {{
  "PATH": {{"type": "exported", "value": "/nix/store/abc-tool/bin:/path-not-set"}},
  "GREETING": {{"type": "exported", "value": "from nix"}},
  "HOME": {{"type": "exported", "value": "/homeless-shelter"}},
  "shellHook": {{"type": "var", "value": "echo no"}}
}}}}
JSON
"""


async def test_packages_in_the_tree_come_though_the_failure_of_another_commit_took_the_tree_away(
    app: GitFolder, tmp_path: Path
) -> None:
    """Two commits of one tree: the second has its source when the install of the first is given up."""
    environ = stand_in(tmp_path / "bin", "composer", "cp composer.json vendor/installed\n")
    (tmp_path / "bin/php").symlink_to("/bin/echo")
    bench = Bench(app, tmp_path / "home", environ)
    app.commit({"index.php": "", "composer.json": "{}", "vendor/own.php": ""})
    source = await bench.source()
    await marker.discard(source.recipe.folder)
    dependencies = await bench.stages.dependencies(source, bench.hear)
    release = await bench.stages.build(source, dependencies, bench.hear)
    assert (release.folder / "vendor/installed").read_text() == "{}"


async def test_nix_is_asked_once_and_its_programs_come_first(app: GitFolder, tmp_path: Path) -> None:
    """What nix itself makes of a flake needs its channels; a stand-in answers as it does."""
    log = tmp_path / "log"
    bench = Bench(app, tmp_path / "home", stand_in(tmp_path / "bin", "nix", NIX.format(log=log)))
    toml = '[build]\ncommand = "echo $GREETING $PATH > seen"\n[run]\ncommand = "cat seen"'
    first = app.commit({"flake.nix": "{}", "flake.lock": "1", "lazycloud.toml": toml})
    second = app.commit({"other": ""})
    third = app.commit({"flake.lock": "2"})
    for rev in (first, second, third):
        release = await bench.release(rev)
        assert ran(release).startswith("from nix /nix/store/abc-tool/bin:")
        assert "path-not-set" not in release.environment["PATH"]
        assert release.environment["GREETING"] == "from nix"
        assert "HOME" not in release.environment
    assert log.read_text() == "x\n" * 2
    keys = await inputs(bench, third)
    assert "dependencies nix" in keys["build"]
    assert set(keys["dependencies (nix)"]) >= {"file flake.nix", "file flake.lock", "runtime"}


async def test_a_missing_nix_is_said_and_the_commands_run_without(app: GitFolder, tmp_path: Path) -> None:
    bench = Bench(app, tmp_path / "home", {"PATH": "/usr/bin:/bin"})
    app.commit({"shell.nix": "{}", "Procfile": "web: echo hello"})
    assert ran(await bench.release()) == "hello"
    assert "warning: nix was not found on PATH" in bench.said
    app.commit({"lazycloud.toml": "[build]\nnix = false"})
    bench.said = ""
    await bench.release()
    assert "nix" not in bench.said
