"""What a walled process sees and may do, told by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazycloud.build.environment import build_environment
from lazycloud.walls import landlock, sandbox
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.view import View

pytestmark = pytest.mark.skipif(
    bool(sandbox.missing()) and "CI" not in os.environ, reason=f"no sandbox: {sandbox.missing()}"
)

Ask = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A server's folder, with secrets in it."""
    home = tmp_path / "home"
    for place in (
        "apps/shop/releases/1/tree",
        "apps/shop/data/a/files",
        "apps/shop/data/b",
        "scratch/a",
        "run",
    ):
        (home / place).mkdir(parents=True)
    for name in ("token", "key", "state.sqlite", "apps/shop/secrets.env", "apps/shop/data/b/database.sqlite"):
        (home / name).write_text("secret")
    (home / "apps/shop/releases/1/tree/app.py").write_text("print('app')")
    return home


@pytest.fixture
def view(home: Path) -> View:
    shop = home / "apps/shop"
    return View(home, (shop / "releases/1",), (shop / "data/a",), scratch=home / "scratch/a")


@pytest.fixture
def walls(home: Path) -> Sandbox:
    return Sandbox(home, build_environment(os.environ, home / "build-home", home / "cache"))


@pytest.fixture
def within(home: Path, view: View, walls: Sandbox) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command within; its environment is PATH and what is given."""

    def run(
        *command: str, view: View = view, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        tree = home / "apps/shop/releases/1/tree"
        environment = {"PATH": os.environ["PATH"], "HOME": str(home / "scratch/a")} | dict(variables or {})
        enclosed = walls.enclose(view, tree, environment)
        return subprocess.run(
            [*enclosed.words, *command], env=enclosed.environment, cwd=tree, capture_output=True, text=True
        )

    return run


@pytest.fixture
def ask(within: Callable[..., subprocess.CompletedProcess[str]]) -> Ask:
    """What the lines of a Python function answer within: its `return`."""

    def ask(lines: str, **options: Any) -> Any:
        body = textwrap.indent(textwrap.dedent(lines), "    ")
        program = f"import json, os, sys, socket, signal\ndef f():\n{body}\nprint(json.dumps(f()))"
        done = within(sys.executable, "-I", "-c", program, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def test_it_sees_its_release_and_its_data_and_nothing_else_of_the_server(ask: Ask, home: Path) -> None:
    found = ask(f"""
        return sorted(
            os.path.relpath(os.path.join(parent, name), {str(home)!r})
            for parent, folders, files in os.walk({str(home)!r}) for name in files
        )
    """)
    assert found == ["apps/shop/releases/1/tree/app.py"]
    assert ask(f"return os.listdir({str(home / 'apps/shop/data')!r})") == ["a"]


def test_it_writes_its_data_and_tmp_and_nothing_else(ask: Ask, home: Path) -> None:
    places = ["/tmp/x", "/var/tmp/y", "/dev/shm/z", str(home / "apps/shop/data/a/files/f")]
    refused = ["/x", "/usr/x", "/etc/x", "/root/x", "/run/x", "/var/x", "app.py", "new.py"]
    refused += ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"]
    told = ask(f"""
        told = dict()
        for place in {places + refused!r}:
            try:
                os.close(os.open(place, os.O_WRONLY | (0 if place.startswith("/proc") else os.O_CREAT)))
                told[place] = True
            except OSError:
                told[place] = False
        return told
    """)
    assert told == dict.fromkeys(places, True) | dict.fromkeys(refused, False)
    assert not Path("/tmp/x").exists()
    assert not (home / "x").exists()


def test_it_sees_no_secrets_of_the_machine_and_no_other_users(ask: Ask) -> None:
    places = [
        "/etc/shadow",
        "/etc/ssl/private",
        "/etc/ssh",
        "/root/.npmrc",
        "/root/.ssh",
        "/var/lib",
        "/run/docker.sock",
    ]
    assert (
        ask(f"return [place for place in {places!r} if os.path.exists(place) and place != '/var/lib']") == []
    )
    users = ask("import pwd; return [user.pw_name for user in pwd.getpwall()]")
    assert users == ["app", "nobody"]
    assert ask("return os.listdir('/sys')") in ([], ["devices"])


def test_it_sees_no_other_processes_and_has_no_rights(ask: Ask) -> None:
    assert ask("return sorted(int(name) for name in os.listdir('/proc') if name.isdigit())") == [1, 2]
    status = ask("return open('/proc/self/status').read()")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert (
        ask(f"""
        try:
            os.kill({os.getpid()}, 0)
        except ProcessLookupError:
            return "gone"
    """)
        == "gone"
    )


def test_calls_that_apps_have_no_use_for_are_refused(ask: Ask) -> None:
    machine = os.uname().machine
    numbers = {"x86_64": (165, 272, 250, 321, 298, 425), "aarch64": (40, 97, 219, 280, 241, 425)}[machine]
    told = ask(f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def call(*words):
            ctypes.set_errno(0)
            libc.syscall(*map(ctypes.c_long, words))
            return ctypes.get_errno()
        refused = [call(number, 0x10000000, 0, 0, 0, 0) for number in {numbers!r}]
        return refused, call(435, 0, 0), call(600), call({ {"x86_64": 56, "aarch64": 220}[machine] }, 0x10000000)
    """)
    assert told == [[1] * 6, 38, 38, 1]


def test_what_a_commit_says_of_its_environment_means_nothing_to_the_walls(
    ask: Ask, within: Callable[..., subprocess.CompletedProcess[str]], home: Path
) -> None:
    tree = home / "apps/shop/releases/1/tree"
    for name in ("bwrap", "perl", "sh"):
        (tree / name).write_text(f"#!/bin/sh\necho outside > {home}/escaped-by-{name}\nexit 1\n")
        (tree / name).chmod(0o755)
    hostile = {
        "PATH": f"{tree}:{os.environ['PATH']}",
        "LD_PRELOAD": f"{tree}/evil.so",
        "PERL5OPT": "-Mevil",
        "ENV": f"{tree}/sh",
        "BASH_ENV": f"{tree}/sh",
        "QUOTED": "it's $HOME\n`id`",
    }
    told = ask("return dict(os.environ)", variables=hostile)
    assert {name: told[name] for name in hostile} == hostile
    assert not list(home.glob("escaped*"))
    assert "evil.so" in within("/bin/true", variables=hostile).stderr.splitlines()[0]
    # Once for the program itself: neither the shell, nor bwrap, nor perl had it.
    assert within("/bin/true", variables=hostile).stderr.count("evil.so") == 1


def test_only_the_server_s_own_environment_names_what_is_shown(ask: Ask, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert (
        ask(f"return os.path.exists({str(other)!r})", variables={"PATH": f"{other}:/usr/bin:/bin"}) is False
    )


def test_a_link_leads_nowhere(ask: Ask, home: Path) -> None:
    for name, target in {
        "up": "../../../..",
        "state": home / "state.sqlite",
        "root": "/root",
        "own": "/tmp",
    }.items():
        (home / "apps/shop/data/a" / name).symlink_to(target)
        (home / "apps/shop/releases/1/tree" / name).symlink_to(target)
    for place in ("apps/shop/data/a", "apps/shop/releases/1/tree"):
        told = ask(f"""
            os.chdir({str(home / place)!r})
            names = ("up/token", "up/up/token", "state")
            found = [name for name in names if os.path.exists(name) and open(name).read()]
            try:
                open("state", "w")  # the home of this test lies in /tmp, and so in the process's own
            except OSError:
                pass
            return found
        """)
        assert told == []
    assert (home / "state.sqlite").read_text() == "secret"


def test_there_is_no_network_if_it_may_not_have_one(ask: Ask, view: View) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"""
            try:
                socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 5).close()
                return True
            except OSError:
                return False
        """
        assert ask(connect) is True
        assert ask(connect, view=replace(view, network=False)) is False


def test_abstract_sockets_of_others_are_out_of_reach(ask: Ask) -> None:
    if landlock.missing():
        pytest.skip(landlock.missing())
    with socket.socket(socket.AF_UNIX) as server:
        name = f"\0lazycloud-test-{os.getpid()}"
        server.bind(name)
        server.listen()
        assert (
            ask(f"""
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect({name!r})
                except PermissionError:
                    return "refused"
            return "connected"
        """)
            == "refused"
        )


def test_a_folder_of_its_own_in_what_it_reads_is_empty_and_writable(ask: Ask, view: View, home: Path) -> None:
    cache = home / "apps/shop/releases/1/cache"
    cache.mkdir()
    (cache / "of another").write_text("x")
    told = ask(
        f"""
        open({str(cache / "mine")!r}, "w").close()
        return os.listdir({str(cache)!r})
        """,
        view=replace(view, fresh=(cache,)),
    )
    assert told == ["mine"]
    assert [each.name for each in cache.iterdir()] == ["of another"]


def test_a_copy_is_written_in_place_of_what_it_is_shown_as(ask: Ask, view: View, home: Path) -> None:
    tree, copy = home / "apps/shop/releases/1/tree", home / "copy"
    copy.mkdir()
    (copy / "app.py").write_text("print('copy')")
    assert ask(
        "open('app.py', 'a').write('#'); return os.getcwd()", view=replace(view, copies=((copy, tree),))
    ) == str(tree)
    assert (copy / "app.py").read_text() == "print('copy')#"
    assert (tree / "app.py").read_text() == "print('app')"


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 128 + signal.SIGKILL)])
def test_it_ends_as_its_command_did(
    within: Callable[..., subprocess.CompletedProcess[str]], script: str, status: int
) -> None:
    assert within("/bin/sh", "-c", script).returncode == status


def test_tools_that_hold_the_server_s_folder_are_not_shown(home: Path, view: View) -> None:
    walls = Sandbox(home, {"PATH": f"{home.parent}:{home}/apps:/usr/bin"})
    words = " ".join(walls.arguments(view, Path("/")))
    assert f"--ro-bind-try {home.parent} " not in words
    assert f"--ro-bind-try {home}/apps " not in words


def test_what_a_process_left_that_was_killed_while_it_tried_the_sandbox_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (tmp_path / f"{sandbox.TRIAL}{pid}-x").mkdir()
    sandbox._missing.cache_clear()
    sandbox.missing()
    assert [place.name for place in tmp_path.iterdir()] == [f"{sandbox.TRIAL}{os.getpid()}-x"]
