"""An app that means harm, in a real server: it gets nothing of the server's, of other apps', of other versions'."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lazycloud.walls import landlock, sandbox
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server

pytestmark = pytest.mark.skipif(
    bool(sandbox.missing()) and "CI" not in os.environ, reason=f"no sandbox: {sandbox.missing()}"
)

APP = Path(__file__).parents[1] / "apps" / "hostile"
WORD = "SECRET-WORD"
KINDS = {"040000": "tree", "100644": "blob", "120000": "blob", "160000": "commit"}


def hostile(**files: str) -> dict[str, str]:
    own = {"app.py": (APP / "app.py").read_text(), "Procfile": "web: python app.py\n"}
    return {**own, **files}


@pytest.fixture
def server(up: Up, checkout: Checkout, tmp_path: Path) -> Server:
    """Its production keeps a secret; the hostile commit is the newest."""
    honest = counter("honest", **{"lazycloud.toml": f'[env]\nPASSWORD = "{WORD}"\n'})
    good = checkout.commit(honest)
    checkout.commit({**hostile(), "lazycloud.toml": '[data]\nfrom = "empty"\n'})
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    (server.home / "apps/shop/secrets.env").write_text(f"TOKEN={WORD}\n")
    (server.home / "config.toml").touch()
    return server


async def attack(server: Server, commit: str, name: str, words: Any) -> Any:
    answer = await server.post(commit, json.dumps({"attack": name, "with": words}))
    assert answer.status == 200, answer
    return answer.json


def secrets(server: Server) -> list[str]:
    """Files of the server and of the machine that exist, and are nobody's business."""
    home = server.home
    found = [
        *(home / name for name in ("token", "key", "state.sqlite", "config.toml", "lock")),
        home / "apps/shop/secrets.env",
        *home.glob("apps/shop/data/production/*"),
        *home.glob("apps/shop/logs/*"),
        *home.glob("apps/shop/releases/*/tree/app.py"),
        *home.glob("walls/*"),
        *map(
            Path, ("/etc/shadow", "/root/.bashrc", "/etc/ssh", "/root/.npmrc", "/proc/kcore", "/proc/1/mem")
        ),
    ]
    return [str(place) for place in found if place.exists()]


def is_own(place: Path, commit: str) -> bool:
    """Whether it is the hostile app's: its files, and its log, to which it writes."""
    return commit in place.name or (place.name == "app.py" and "ATTACKS" in place.read_text())


def others(server: Server) -> list[int]:
    """Processes as the machine numbers them: the server's own, and other workers."""
    return [
        server.process.pid,
        *(child.pid for child in server.children().values()),
        *(worker.pid for worker in server.inmates()),
    ]


async def test_it_gets_nothing_at_run_time(server: Server, checkout: Checkout) -> None:
    commit = checkout.git("rev-parse", "HEAD")
    assert (await server.post("", "a note of production")).status == 201
    assert (await server.get(commit)).status == 200
    places = [place for place in secrets(server) if not is_own(Path(place), commit)]
    assert str(server.home / "token") in places and any("production" in place for place in places)
    assert await attack(server, commit, "read", places) == []
    assert await attack(server, commit, "by_links", places) == []
    assert await attack(server, commit, "by_processes", places) == []
    assert await attack(server, commit, "find", WORD) == []
    assert await attack(server, commit, "touch_processes", others(server)) == []
    assert await attack(server, commit, "ask_the_kernel", None) == []
    targets = [
        *("/x", "/usr/x", "/etc/x", "/root/x", "/var/x", "/run/x", "app.py", "new.py", "__pycache__"),
        *("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"),
        *("/sys/fs/cgroup/x", "/sys/kernel/uevent_helper", "/dev/sda", "/dev/mem", "/dev/kmsg"),
    ]
    assert await attack(server, commit, "write", targets) == []
    assert (await server.get()).json["notes"] == ["a note of production"]


async def test_it_reaches_no_socket_that_is_not_a_port(server: Server, checkout: Checkout) -> None:
    commit = checkout.git("rev-parse", "HEAD")
    assert (await server.get(commit)).status == 200
    paths = [str(server.home / "run" / name) for name in ("api", "control", "link")]
    assert await attack(server, commit, "talk_to", [*paths, "/run/docker.sock", "/var/run/docker.sock"]) == []
    if not landlock.missing():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0lazycloud-hostile-{os.getpid()}")
            listener.listen()
            assert await attack(server, commit, "talk_to", [f"\0lazycloud-hostile-{os.getpid()}"]) == []


async def test_it_gets_nothing_at_build_time(server: Server, checkout: Checkout) -> None:
    """Neither its build command nor what it has installed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = {
            "attacks": {
                "read": secrets(server),
                "by_links": secrets(server),
                "by_processes": secrets(server),
                "find": WORD,
                "touch_processes": others(server),
                "ask_the_kernel": None,
                "talk_to": [str(server.home / "run" / name) for name in ("api", "control", "link")],
                "write": ["/x", "/etc/x", str(server.home / "apps/shop/x"), "/proc/sys/kernel/core_pattern"],
            },
            "port": listener.getsockname()[1],
        }
        files = {
            "attack.py": (APP / "build.py").read_text(),
            "told.json": json.dumps(told),
            "lazycloud.toml": '[build]\ncommand = "python attack.py"\n[data]\nfrom = "empty"\n',
        }
        commit = checkout.commit(hostile(**files))
        got = (await server.get(commit)).json["built"]
        # A home in /tmp, as that of tests, has folders of the same name in the /tmp of the app.
        got["write"] = [place for place in got["write"] if not place.startswith("/tmp")]
        assert got == {name: [] for name in (*told["attacks"], "network", "secrets")}
        assert not (server.home / "apps/shop/x").exists()
        networked = files | {"lazycloud.toml": '[build]\nnetwork = true\ncommand = "python attack.py"\n'}
        got = (await server.get(checkout.commit(hostile(**networked)))).json["built"]
        assert got["network"] == ["connected"]
        assert set(got["read"]) <= {"/root/.npmrc"}  # what packages are installed with
        assert got["find"] == got["touch_processes"] == got["ask_the_kernel"] == got["secrets"] == []


@pytest.mark.parametrize("target", ["database", "files"])
async def test_a_copy_of_its_data_brings_it_nothing(server: Server, checkout: Checkout, target: str) -> None:
    """It puts links in place of its data; a child is forked from that by the server, with all rights."""
    commit = checkout.git("rev-parse", "HEAD")
    assert (await server.get(commit)).status == 200
    aim = [str(server.home / "state.sqlite"), None] if target == "database" else [None, str(server.home)]
    await attack(server, commit, "lead_away", aim)
    child = checkout.commit({"lazycloud.toml": '[data]\nfrom = "parent"\n'})
    answer = await server.get(child)
    assert answer.status == 502, answer
    assert "is a link that leads out of that data" in answer.text
    assert not (server.home / f"apps/shop/data/{child}").exists()


async def test_nothing_of_a_repository_runs_outside(up: Up, tmp_path: Path) -> None:
    """Attributes, filters, submodules and links of a commit, in a repository whose owner has hooks and filters."""
    pwned = tmp_path / "pwned"
    checkout = Checkout(tmp_path / "shop")
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        path = checkout.path / ".git/hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {pwned}-{hook}\n")
    links = {"link": "/etc/passwd", "up": "../../../../../state.sqlite"}
    files = counter(
        "odd", **{".gitattributes": "* filter=evil diff=evil export-subst\n", "a.txt": "$Format:%H$"}
    )
    checkout.commit(files)
    for path in (checkout.path / ".git/hooks").iterdir():
        path.chmod(0o755)
    checkout.git("config", "filter.evil.smudge", f"touch {pwned}-smudge")
    checkout.git("config", "filter.evil.clean", f"touch {pwned}-clean; cat")
    checkout.git("config", "core.fsmonitor", f"touch {pwned}-fsmonitor")
    good = checkout.git("rev-parse", "HEAD")
    server = up(checkout.path, "--production", good, LAZYCLOUD_ISOLATION="sandbox")
    assert (await server.get(good)).json["name"] == "odd"
    for name, target in links.items():
        bad = plumbed(checkout, good, {name: ("120000", blob(checkout, target))})
        assert (await server.get(bad)).status == 502
    modules = '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c touch% ' + f"{pwned}-ext\n"
    entries = {".gitmodules": ("100644", blob(checkout, modules)), "x": ("160000", "1" * 40)}
    assert (await server.get(plumbed(checkout, good, entries))).status == 502
    hidden = tree(
        checkout, {"config": ("100644", blob(checkout, f"[core]\n\tfsmonitor = touch {pwned}-config\n"))}
    )
    assert (await server.get(plumbed(checkout, good, {".git": ("040000", hidden)}))).status == 502
    assert (await server.get(good)).json["name"] == "odd"
    assert list(tmp_path.glob("pwned*")) == []


def blob(checkout: Checkout, content: str) -> str:
    return _git(checkout, "hash-object", "-w", "--stdin", "--no-filters", stdin=content)


def tree(checkout: Checkout, entries: Mapping[str, tuple[str, str]], base: str = "") -> str:
    lines = base.splitlines() + [
        f"{mode} {KINDS[mode]} {number}\t{name}" for name, (mode, number) in entries.items()
    ]
    kept = {line.split("\t")[1]: line for line in lines}
    return _git(checkout, "mktree", "--missing", stdin="\n".join(kept.values()) + "\n")


def plumbed(checkout: Checkout, parent: str, entries: Mapping[str, tuple[str, str]]) -> str:
    """A commit that git's own commands would refuse to make."""
    made = tree(checkout, entries, _git(checkout, "ls-tree", parent))
    commit = _git(checkout, "commit-tree", made, "-p", parent, "-m", "odd")
    _git(checkout, "update-ref", f"refs/heads/odd-{commit[:9]}", commit)
    return commit


def _git(checkout: Checkout, *words: str, stdin: str = "") -> str:
    """Without the filters and hooks that are meant for the server."""
    quiet = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(
        ["git", *quiet, *words],
        cwd=checkout.path,
        input=stdin,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@x",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@x",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
