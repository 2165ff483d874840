"""What users get wrong, and what the machine does: each is a sentence, and loses nothing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, Server

JSON = {"Accept": "application/json"}


async def test_an_unknown_commit_is_404_with_those_that_look_like_it(up: Up, checkout: Checkout) -> None:
    commit = checkout.commit(counter("one"))
    server = up(checkout.path)
    near = commit[:9] + ("0" if commit[9] != "0" else "1")
    answer = await server.get(near, **JSON)
    assert answer.status == 404
    assert near in answer.json["error"]["sentence"]
    assert any(commit.startswith(label) for label in answer.json["error"]["near"])
    page = await server.get(near, **BROWSER)
    assert page.status == 404
    assert f'href="http://{answer.json["error"]["near"][0]}.localhost' in page.text
    assert "text/plain" in (await server.get(near)).headers["Content-Type"]
    assert all(row["production"] for row in server.json("ps"))


async def test_an_ambiguous_label_is_a_choice_of_links(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"), "the first")
    checkout.git("branch", "Feature/x")
    second = checkout.commit(counter("second"), "the second")
    checkout.git("branch", "feature-x")
    server = up(checkout.path)
    answer = await server.get("feature-x", **BROWSER)
    assert answer.status == 300
    for commit in (first, second):
        assert f'href="http://{commit}.localhost:{server.port}/"' in answer.text
    assert "the first" in answer.text
    choices = (await server.get("feature-x", **JSON)).json["error"]["choices"]
    assert {choice["label"] for choice in choices} == {first, second}


@pytest.mark.parametrize("label", ["a_b", "-x", "x" * 64, "a.b"])
async def test_a_label_that_can_name_nothing_is_404_and_no_work(shared: Server, label: str) -> None:
    answer = await shared.get(label, **JSON)
    assert answer.status == 404
    assert "cannot name a commit" in answer.json["error"]["sentence"]


async def test_an_unknown_host_is_404(shared: Server) -> None:
    answer = await shared.get(Host="example.org")
    assert answer.status == 404
    assert f"http://localhost:{shared.port}/" in answer.text


def refused(home: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lazycloud", "up", *arguments, "--home", str(home), "--listen", "localhost:0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_path_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "home", str(tmp_path))
    assert code == 2
    assert f"{tmp_path} is not a git repository" in said


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "home", str(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere" in said


async def test_an_empty_repository_is_served_and_says_what_is_missing(up: Up, checkout: Checkout) -> None:
    server = up(checkout.path)
    answer = await server.get()
    assert answer.status == 404
    assert "no commit" in answer.text
    commit = checkout.commit(counter("one"))
    assert (await server.get(commit)).json["name"] == "one"
    server.cli("promote", "HEAD", folder=checkout.path)
    assert (await server.get()).json["name"] == "one"


# Quick to start: what is looked for is there before the time is over, whatever else the machine does.
ELSEWHERE = (
    "python -SEc \"import _socket, time; one = _socket.socket(); one.bind(('127.0.0.1', 0)); one.listen();"
    ' time.sleep(600)"'
)


@pytest.mark.parametrize(
    ("files", "sentences"),
    [
        ({"Procfile": "web: python a.py\nweb: python b.py\n"}, ["Procfile", "line 1", "2", "web"]),
        (
            {"lazycloud.toml": '[build]\ncomand = "make"\n'},
            ["unknown key `comand`", "Did you mean `command`?"],
        ),
        ({"lazycloud.toml": "[run\n"}, ["lazycloud.toml", "line 1"]),
        ({"README": "nothing to run"}, ["No way to run", "command ="]),
        (
            {"Procfile": "web: python app.py\nrelease: echo migrating; exit 4\n", "app.py": ""},
            ["`echo migrating; exit 4` ended with exit status 4", "migrating"],
        ),
        ({"Procfile": "web: echo going; exit 5\n"}, ["ended with exit status 5", "going"]),
        ({"Procfile": "web: no-such-program\n"}, ["not found", "no-such-program"]),
        (
            {"Procfile": "web: sleep 600\n", "lazycloud.toml": "[run]\nready_timeout = 1\n"},
            ["did not listen", "1 s"],
        ),
        (
            {
                "Procfile": f"web: {ELSEWHERE}\n",
                "lazycloud.toml": "[run]\nready_timeout = 6\n",
            },
            ["listens on 127.0.0.1:", "PORT"],
        ),
        (
            {
                "Procfile": "web: python -m http.server --bind $HOST $PORT\n",
                "lazycloud.toml": '[run]\nhealth = "/missing"\nready_timeout = 6\n',
            },
            ["/missing", "404"],
        ),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
async def test_a_commit_that_cannot_run_says_why(
    shared: Server, shared_checkout: Checkout, files: dict[str, str], sentences: list[str]
) -> None:
    shared_checkout.git("checkout", "-q", "-B", "bad", "main")
    bad = shared_checkout.commit({"app.py": None, "Procfile": None, **files})
    answer = await shared.get(bad)
    assert answer.status == 502
    assert [sentence for sentence in sentences if sentence not in answer.text] == [], answer.text
    assert shared.cli("deploy", bad, folder=shared_checkout.path, code=1)
    page = await shared.get(bad, **BROWSER)
    assert page.status == 502
    assert "Try again" in page.text
    assert (await shared.get()).json["name"] == "good"


async def test_a_failure_is_remembered_and_tried_again_only_when_asked(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, checkout = shared, shared_checkout
    checkout.git("checkout", "-q", "-B", "failing", "main")
    bad = checkout.commit({**counter("bad"), "lazycloud.toml": '[build]\ncommand = "exit 1"\n'})
    for _ in range(3):
        assert (await server.get(bad)).status == 502
    seen = server.json("inspect", bad, folder=checkout.path)
    assert seen["attempt"] == 1
    retry = await server.post(bad, "", "/.well-known/lazycloud/retry")
    assert retry.status == 202
    assert (await server.get(bad)).status == 502
    seen = server.json("inspect", bad, folder=checkout.path)
    assert seen["attempt"] == 2


async def test_text_of_a_stranger_never_becomes_markup_or_an_option(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, checkout = shared, shared_checkout
    checkout.git("checkout", "-q", "-B", "script", "main")
    commit = checkout.commit(counter("one"), "<script>alert(1)</script> --exec=x")
    checkout.git("update-ref", "refs/heads/--upload-pack=touch-x", commit)
    await server.told("--upload-pack=touch-x is now at")
    page = await server.get("upload-pack-touch-x", "/<script>", **BROWSER)
    assert page.status in (200, 503)
    assert "<script>alert(1)" not in page.text
    assert (await server.get("upload-pack-touch-x")).json["name"] == "one"
    missing = await server.get("x-y-z", "/<script>alert(2)</script>", **BROWSER)
    assert "<script>alert" not in missing.text
    for ref in ("--help", "-x", "a..b", "$(reboot)", "a\x1bb", "@{-1}", ""):
        said = server.cli("inspect", "--app", "shop", "--", ref, code=None)
        assert "Traceback" not in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=26m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    """Until nothing more goes onto its disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


async def test_a_full_disk_fails_one_deploy_and_nothing_else(
    up: Up, checkout: Checkout, small_disk: Path
) -> None:
    good = checkout.commit(counter("good"))
    checkout.path.joinpath("large.bin").write_bytes(b"x" * 30_000_000)
    bad = checkout.commit(counter("bad"))
    checkout.git("rm", "-q", "large.bin")
    fine = checkout.commit(counter("fine"))
    server = up(checkout.path, "--production", good, home=small_disk / "home")
    await server.post("", "kept")
    answer = await server.get(bad)
    assert answer.status == 502
    assert "is full" in answer.text
    assert (await server.get()).json["notes"] == ["kept"]
    assert (await server.get(fine)).json["notes"] == ["kept"]
    filler = small_disk / "filler"
    fill(filler)
    assert (await server.get()).json["notes"] == ["kept"]
    other = checkout.commit(counter("other"))
    full = await server.get(other)
    assert full.status == 502
    assert "is full" in full.text
    filler.unlink()
    retry = await server.post(other, "", "/.well-known/lazycloud/retry")
    assert retry.status == 202
    assert (await server.get(other)).json["notes"] == ["kept"]
    assert server.json("ls", "--app", "shop")[0]["commit"]["id"] == other
