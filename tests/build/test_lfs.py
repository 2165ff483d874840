"""Git LFS: the content is taken from this machine, else fetched, else said to be missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lazycloud.build.repository import Repository

from ..tools import needs
from .gitfolder import GitFolder
from .releases import Releases, contents

CONTENT = b"many bytes " * 1000


def pointer(content: bytes, size: int | None = None) -> str:
    oid = hashlib.sha256(content).hexdigest()
    size = len(content) if size is None else size
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def keep(store: Path, content: bytes, held: bytes | None = None) -> Path:
    oid = hashlib.sha256(content).hexdigest()
    place = store / "lfs/objects" / oid[:2] / oid[2:4] / oid
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content if held is None else held)
    return place


@pytest.fixture
def without_git_lfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH with git and nothing else of interest."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh"):
        (programs / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(programs))


@pytest.fixture
def releases(app: GitFolder, tmp_path: Path) -> Releases:
    return Releases(app, tmp_path / "home")


@pytest.fixture
def lfs_server() -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that has CONTENT, and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["objects"]
            known = hashlib.sha256(CONTENT).hexdigest()
            objects = [{**each, **self._found(each["oid"] == known)} for each in wanted]
            self._answer(json.dumps({"transfer": "basic", "objects": objects}).encode())

        def do_GET(self) -> None:
            asked.append(self.path)
            self._answer(CONTENT)

        def _found(self, known: bool) -> dict[str, object]:
            if not known:
                return {"error": {"code": 404, "message": "no such object"}}
            return {"actions": {"download": {"href": f"{url}/object"}}}

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.git-lfs+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield url, asked
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.usefixtures("without_git_lfs")
async def test_what_git_lfs_has_on_this_machine_needs_no_git_lfs(app: GitFolder, releases: Releases) -> None:
    keep(app.path / ".git", CONTENT)
    commit = app.commit({"large.bin": pointer(CONTENT), "small": "x"})
    made = await releases.make(commit, linked=True)
    assert (made.tree / "large.bin").read_bytes() == CONTENT
    assert (made.tree / "large.bin").stat().st_mode & 0o222 == 0
    assert "1 files are from Git LFS" in made.said
    assert "warning" not in made.said
    after = await releases.make(app.commit({"small": "y"}), made, linked=True)
    assert (after.tree / "large.bin").samefile(made.tree / "large.bin")


@pytest.mark.usefixtures("without_git_lfs")
@pytest.mark.parametrize("held", [CONTENT[:-1] + b"!", CONTENT[:-1], b""])
async def test_content_that_is_not_what_the_pointer_says_is_not_used(
    app: GitFolder, releases: Releases, held: bytes
) -> None:
    keep(app.path / ".git", CONTENT, held)
    made = await releases.make(app.commit({"large.bin": pointer(CONTENT)}))
    assert (made.tree / "large.bin").read_text() == pointer(CONTENT)
    assert "warning: 1 files are in Git LFS and are written as their pointers" in made.said


@pytest.mark.usefixtures("without_git_lfs")
async def test_a_pointer_that_was_left_is_tried_again(
    app: GitFolder, releases: Releases, tmp_path: Path
) -> None:
    app.git("remote", "add", "origin", str(tmp_path / "nowhere"))
    commit = app.commit({"large.bin": pointer(CONTENT), "small": "x"})
    before = await releases.make(commit)
    assert "git-lfs is not on PATH; install it" in before.said
    keep(app.path / ".git", CONTENT)
    after = await releases.make(commit, before)
    assert after.written.shared == 1
    assert (after.tree / "large.bin").read_bytes() == CONTENT


async def test_what_only_looks_like_a_pointer_is_written_as_it_is(app: GitFolder, releases: Releases) -> None:
    extension = pointer(CONTENT).replace("\noid", f"\next-0-x sha256:{'0' * 64}\noid")
    texts = {
        "extension": extension,
        "no oid": pointer(CONTENT)[:60],
        "up": pointer(CONTENT).replace("oid ", "oid ../"),
    }
    keep(app.path / ".git", CONTENT)
    made = await releases.make(app.commit(texts))
    assert {path: held for path, (_, held) in contents(made.tree).items()} == {
        path: text.encode() for path, text in texts.items()
    }
    assert "warning: 3 files are in Git LFS" in made.said


@needs("git-lfs")
async def test_what_is_missing_is_fetched_from_the_remote(
    app: GitFolder, make_git, releases: Releases, tmp_path: Path
) -> None:
    keep(app.path / ".git", CONTENT)
    app.commit({"a/large.bin": pointer(CONTENT), "same.bin": pointer(CONTENT), "small": "x"})
    app.git("clone", "--quiet", "--bare", ".", str(tmp_path / "clone"))
    clone = Repository(str(tmp_path / "clone"), tmp_path / "home/ours")
    releases.repository = clone
    made = await releases.make("main")
    assert (made.tree / "a/large.bin").read_bytes() == (made.tree / "same.bin").read_bytes() == CONTENT
    assert "2 files are from Git LFS" in made.said
    assert not (tmp_path / "clone/lfs").exists()


@needs("git-lfs")
async def test_the_operators_lfs_server_is_asked(
    app: GitFolder, releases: Releases, lfs_server: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = lfs_server
    app.git("remote", "add", "origin", str(tmp_path / "nowhere"))
    app.git("config", "lfs.url", url)
    missing = pointer(b"nobody has this")
    made = await releases.make(app.commit({"large.bin": pointer(CONTENT), "missing.bin": missing}))
    assert asked == ["/objects/batch", "/object"]
    assert (made.tree / "large.bin").read_bytes() == CONTENT
    assert (made.tree / "missing.bin").read_text() == missing
    assert "warning: 1 files are in Git LFS and are written as their pointers" in made.said
    assert "git lfs pull" in made.said


@needs("git-lfs")
async def test_neither_the_commit_nor_the_repository_has_git_lfs_run_programs(
    app: GitFolder, releases: Releases, lfs_server: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, asked = lfs_server
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    evil.chmod(0o755)
    app.git("remote", "add", "origin", str(tmp_path / "nowhere"))
    for name in (
        "lfs.extension.x.smudge",
        "lfs.customtransfer.x.path",
        "filter.lfs.smudge",
        "core.sshCommand",
    ):
        app.git("config", name, str(evil))
    app.git("config", "lfs.standalonetransferagent", "x")
    app.git("config", "lfs.extension.x.priority", "0")
    agent = (
        f'[lfs "customtransfer.x"]\n\tpath = "{evil}"\n[lfs]\n\tstandalonetransferagent = x\n\turl = {url}\n'
    )
    made = await releases.make(app.commit({"large.bin": pointer(CONTENT), ".lfsconfig": agent}))
    assert (made.tree / "large.bin").read_text() == pointer(CONTENT)
    assert "lfs.url in .lfsconfig is not an https URL and is not used" in made.said
    assert not (tmp_path / "pwned").exists()
    assert asked == []
