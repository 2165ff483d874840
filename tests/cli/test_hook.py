"""The hooks, with real commits and pushes: server up, down and hanging; other hooks there before."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lazycloud.config import Config

from .conftest import CommandLine, git, make_repository
from .server import HANG, ScriptedServer

ADDRESS = "http://3f2a9c1d0b.localhost:8000/"
ANNOUNCE = "POST /api/announce"


@pytest.fixture
def listening(server: ScriptedServer) -> ScriptedServer:
    server.answer(ANNOUNCE, ADDRESS)
    return server


def announced(server: ScriptedServer) -> list[tuple[str, str]]:
    """Commit and ref of each announcement."""
    return [(form["commit"], form["ref"]) for form in server.asked(ANNOUNCE)]


async def commit(lazycloud: CommandLine, *more: str, folder: Path | None = None) -> str:
    """Make one; returns what git and its hooks wrote."""
    done = await lazycloud.git("commit", "--allow-empty", "-m", "Sell mugs", *more, folder=folder)
    assert done.status == 0, done.err
    return done.out + done.err


async def test_a_commit_is_announced_and_its_address_printed(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    assert (await lazycloud("hook", "install")).status == 0
    assert f"→ {ADDRESS}\n" in await commit(lazycloud)
    head = git(repository, "rev-parse", "HEAD")
    (told,) = listening.asked(ANNOUNCE)
    assert (told["commit"], told["ref"], told["origin"]) == (head, "refs/heads/main", "")
    assert Path(told["repository"]).samefile(repository / ".git")


async def test_the_hook_speaks_to_the_home_it_was_installed_for(
    lazycloud: CommandLine, listening: ScriptedServer
):
    await lazycloud("hook", "install")
    lazycloud.environment["LAZYCLOUD_HOME"] = "/nowhere"
    lazycloud.environment["LAZYCLOUD_SERVER"] = "http://127.0.0.1:1"
    assert ADDRESS in await commit(lazycloud)


async def test_without_a_server_the_commit_is_made_with_one_line_said(lazycloud: CommandLine):
    await lazycloud("hook", "install")
    assert "lazycloud is not running; `lazycloud up` serves this commit.\n" in await commit(lazycloud)


async def test_a_server_that_hangs_delays_a_commit_by_no_more_than_the_bound(
    lazycloud: CommandLine, listening: ScriptedServer
):
    await lazycloud("hook", "install")
    listening.answer(ANNOUNCE, HANG)
    began = time.monotonic()
    said = await commit(lazycloud)
    assert 1.5 < time.monotonic() - began < 20  # git, and two Pythons' starts among it
    assert "lazycloud did not answer within 2 s" in said


@pytest.mark.parametrize("body", ["", "404: Not Found", "<!doctype html>", {"error": 1}])
async def test_nonsense_from_a_server_does_not_fail_a_commit(
    lazycloud: CommandLine, listening: ScriptedServer, body: object
):
    await lazycloud("hook", "install")
    listening.answer(ANNOUNCE, body, status=404)
    said = await commit(lazycloud)
    assert "does not understand this hook; `lazycloud upgrade`" in said
    assert "Traceback" not in said


async def test_what_a_server_says_cannot_move_the_cursor(lazycloud: CommandLine, listening: ScriptedServer):
    await lazycloud("hook", "install")
    listening.answer(ANNOUNCE, "This repository is \x1b[2Jnot served.\nMore.", status=404)
    assert "lazycloud: This repository is [2Jnot served.\n" in await commit(lazycloud)


async def test_something_else_on_the_socket_does_not_fail_a_commit(lazycloud: CommandLine, home: Path):
    await lazycloud("hook", "install")
    run = Config(home).run_folder
    run.mkdir(parents=True, exist_ok=True)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(talk, run / "api"):
        assert "does not understand this hook" in await commit(lazycloud)


async def test_a_hook_of_an_earlier_lazycloud_goes_on_working(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    hook = repository / ".git/hooks/post-commit"
    home = shlex.quote(str(lazycloud.home))
    hook.write_text(f"#!/bin/sh\n{sys.executable} -P -m lazycloud --home {home} hook run post-commit\n")
    hook.chmod(0o755)
    assert f"→ {ADDRESS}\n" in await commit(lazycloud)
    assert announced(listening) == [(git(repository, "rev-parse", "HEAD"), "refs/heads/main")]


async def test_the_hook_imports_next_to_nothing(lazycloud: CommandLine, repository: Path):
    """Each commit waits for it; `socket` or `subprocess` alone would double its time."""
    await lazycloud("hook", "install")
    text = (repository / ".git/hooks/post-commit").read_text()
    code = text.partition("-S -c '")[2].partition("'")[0] + "\nprint(*sys.modules)"
    library = str(Path(__file__).parents[2])
    done = await lazycloud.run(sys.executable, "-I", "-S", "-c", code, library, "/nowhere", "post-commit")
    assert "lazycloud.announcement" in done.out
    assert not {"socket", "signal", "json", "subprocess", "re", "enum", "typing"} & set(done.out.split())


async def test_what_is_committed_cannot_stand_in_for_modules_of_lazycloud(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    await lazycloud("hook", "install")
    for name in ("os.py", "_socket.py", "lazycloud.py"):
        (repository / name).write_text("raise SystemExit('taken over')")
    said = await commit(lazycloud)
    assert "taken over" not in said
    assert ADDRESS in said


async def test_a_linked_work_tree_announces_for_its_main_repository(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path, tmp_path: Path
):
    await lazycloud("hook", "install")
    tree = tmp_path / "tree"
    git(repository, "worktree", "add", "--quiet", str(tree), "-b", "feature/mugs")
    assert ADDRESS in await commit(lazycloud, folder=tree)
    head = git(tree, "rev-parse", "HEAD")
    assert announced(listening) == [(head, "refs/heads/feature/mugs")]
    assert Path(listening.asked(ANNOUNCE)[0]["repository"]).samefile(repository / ".git")


async def test_git_dir_and_work_tree_of_git_itself_do_not_confuse_it(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path, tmp_path: Path
):
    await lazycloud("hook", "install")
    command = ["git", "--git-dir", "shop/.git", "--work-tree", "shop", "commit", "--allow-empty", "-m", "x"]
    done = await lazycloud.run(*command, folder=tmp_path)
    assert done.status == 0
    assert ADDRESS in done.out + done.err
    assert listening.asked(ANNOUNCE)[0]["commit"] == git(repository, "rev-parse", "HEAD")


async def test_a_rebase_announces_none_of_its_steps(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    for name in ("a", "b"):
        (repository / name).write_text(name)
        git(repository, "add", name)
        git(repository, "commit", "-m", name)
    await lazycloud("hook", "install")
    done = await lazycloud.git("rebase", "--force-rebase", "HEAD~2")
    assert done.status == 0, done.err
    assert listening.asked(ANNOUNCE) == []


async def test_a_hook_that_was_there_runs_first_and_comes_back(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    hooks = repository / ".git" / "hooks"
    theirs = hooks / "post-commit"
    theirs.write_text('#!/bin/sh\necho theirs "$@"\nexit 3\n')
    theirs.chmod(0o755)
    await lazycloud("hook", "install")
    said = await commit(lazycloud)
    assert said.index("theirs") < said.index(ADDRESS)
    assert (await lazycloud.run(str(theirs))).status == 3
    await lazycloud("hook", "uninstall")
    assert theirs.read_text().startswith("#!/bin/sh\necho theirs")
    assert sorted(path.name for path in hooks.glob("post-commit*")) == ["post-commit"]


async def test_a_hook_that_git_ignores_stays_ignored(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    theirs = repository / ".git" / "hooks" / "post-commit"
    theirs.write_text("#!/bin/sh\necho theirs\n")
    theirs.chmod(0o644)
    await lazycloud("hook", "install")
    said = await commit(lazycloud)
    assert "theirs" not in said
    assert ADDRESS in said


def changed(path: Path) -> tuple[int, int, int]:
    """What a change of the file would show in."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_mtime_ns


async def test_a_second_install_changes_nothing_and_uninstall_twice_neither(
    lazycloud: CommandLine, repository: Path
):
    hooks = repository / ".git" / "hooks"
    (hooks / "post-commit").symlink_to("/bin/true")
    first = await lazycloud("hook", "install")
    files = {path.name: changed(path) for path in hooks.iterdir()}
    second = await lazycloud("hook", "install")
    assert "Installed" in first.out
    assert "is installed already" in second.out
    assert {path.name: changed(path) for path in hooks.iterdir()} == files
    assert "Removed post-commit." in (await lazycloud("hook", "uninstall")).out
    assert (hooks / "post-commit").readlink() == Path("/bin/true")
    assert "No hook of lazycloud" in (await lazycloud("hook", "uninstall")).out
    assert (hooks / "post-commit").readlink() == Path("/bin/true")


async def test_another_home_is_installed_over_ours(lazycloud: CommandLine, repository: Path):
    await lazycloud("hook", "install")
    # Short enough for its sockets, which are elsewhere else.
    with TemporaryDirectory(prefix="it's $(another)") as home:
        again = await lazycloud("hook", "install", "--home", home)
    assert "Installed" in again.out
    text = (repository / ".git" / "hooks" / "post-commit").read_text()
    assert "another" in text
    assert not (repository / ".git" / "hooks" / "post-commit.before-lazycloud").exists()
    assert "lazycloud is not running" in await commit(lazycloud)


async def test_two_hooks_that_would_have_to_be_kept_are_refused(lazycloud: CommandLine, repository: Path):
    for name in ("post-commit", "post-commit.before-lazycloud"):
        (repository / ".git" / "hooks" / name).write_text("#!/bin/sh\n")
    done = await lazycloud("hook", "install")
    assert done.status == 1
    assert "post-commit.before-lazycloud are both hooks of yours" in done.err


@pytest.mark.parametrize("inside", [True, False])
async def test_core_hooks_path_is_respected(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path, tmp_path: Path, inside: bool
):
    where = ".githooks" if inside else str(tmp_path / "shared hooks")
    git(repository, "config", "core.hooksPath", where)
    deep = repository / "deep"
    deep.mkdir()
    done = await lazycloud("hook", "install", folder=deep)
    assert (repository / where / "post-commit").exists()
    assert not (repository / ".git" / "hooks" / "post-commit").exists()
    assert ("outside of this repository" in done.out) is not inside
    assert ADDRESS in await commit(lazycloud)


async def test_outside_of_a_repository_install_is_misuse(lazycloud: CommandLine, tmp_path: Path):
    done = await lazycloud("hook", "install", folder=tmp_path)
    assert done.status == 2
    assert f"{tmp_path} is in no git repository." in done.err


async def test_a_python_that_is_gone_is_said_and_fails_nothing(lazycloud: CommandLine, repository: Path):
    await lazycloud("hook", "install")
    hook = repository / ".git" / "hooks" / "post-commit"
    lines = hook.read_text().splitlines(keepends=True)
    hook.write_text(
        "".join("python=/gone/python\n" if line.startswith("python=") else line for line in lines)
    )
    assert "lazycloud is not at /gone/python any more" in await commit(lazycloud)


@pytest.fixture
def bare(tmp_path: Path, repository: Path, server: ScriptedServer) -> Path:
    folder = tmp_path / "shop.git"
    make_repository(folder, "--bare")
    server.answer(ANNOUNCE, ADDRESS)
    git(repository, "remote", "add", "origin", str(folder))
    return folder


async def test_a_push_announces_branches_and_tags_and_passes_deleted_ones_by(
    lazycloud: CommandLine, bare: Path, server: ScriptedServer, repository: Path
):
    assert "post-receive" in (await lazycloud("hook", "install", folder=bare)).out
    git(repository, "tag", "-a", "v1", "-m", "one")
    first = await lazycloud.git("push", "origin", "main", "v1", "main:refs/notes/x")
    assert first.status == 0
    assert f"remote: → {ADDRESS}" in first.err
    head, tag = git(repository, "rev-parse", "HEAD", "v1").splitlines()
    told = [(head, "refs/heads/main"), (tag, "refs/tags/v1")]
    assert announced(server) == told
    assert Path(server.asked(ANNOUNCE)[0]["repository"]).samefile(bare)
    assert (await lazycloud.git("push", "origin", ":v1")).status == 0
    assert announced(server) == told


async def test_a_hook_that_was_there_gets_the_same_lines(
    lazycloud: CommandLine, bare: Path, server: ScriptedServer, repository: Path, tmp_path: Path
):
    theirs = bare / "hooks" / "post-receive"
    theirs.write_text(f"#!/bin/sh\ncat > '{tmp_path}/lines'\n")
    theirs.chmod(0o755)
    await lazycloud("hook", "install", folder=bare)
    git(repository, "branch", "tea")
    assert f"→ {ADDRESS}" in (await lazycloud.git("push", "origin", "main", "tea")).err
    lines = (tmp_path / "lines").read_text().splitlines()
    assert [line.split(" ")[2] for line in lines] == ["refs/heads/main", "refs/heads/tea"]
    assert len(server.asked(ANNOUNCE)) == 2


async def test_a_ref_that_the_server_refuses_does_not_keep_the_others_from_it(
    lazycloud: CommandLine, bare: Path, server: ScriptedServer, repository: Path
):
    await lazycloud("hook", "install", folder=bare)
    server.answer(ANNOUNCE, "No such commit.", status=404)
    git(repository, "branch", "tea")
    done = await lazycloud.git("push", "origin", "main", "tea")
    assert done.status == 0
    assert done.err.count("lazycloud: No such commit.") == 2


async def test_commits_in_turn_are_all_announced(
    lazycloud: CommandLine, listening: ScriptedServer, repository: Path
):
    await lazycloud("hook", "install")
    for _ in range(3):
        await commit(lazycloud)
    assert [commit for commit, _ in announced(listening)] == git(
        repository, "rev-list", "--reverse", "-3", "HEAD"
    ).splitlines()
