"""An app's repository that lazycloud serves: commits with one changed line, announced by its hook."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answer import Answer, first_200
from app import App, Installed, run
from lazycloud.cli.client import Client
from peer import CannotRun, Running, free_port, spawn
from run import Sample
from server import git, git_aloud, up

_ADDRESS = re.compile(r"→ http://([^/\s]+)/")


@dataclass
class Checkout:
    """`server` serves `folder`, a work tree of the app; `installed` is what starts it by hand."""

    app: App
    folder: Path
    server: Running
    installed: Installed
    api: Client
    number: int = 0
    commit: str = ""

    def change(self, settings: str = "") -> None:
        """Another line of source, staged; the page shows it by `shown`."""
        self.number += 1
        name, words = self.app.line
        file = self.folder / name
        file.write_text(re.sub(re.escape(words) + r"( \d+)?", self.shown, file.read_text()))
        (self.folder / "lazycloud.toml").write_text(settings)
        git(self.folder, "add", "-A")

    def deploy(self, settings: str = "") -> Sample:
        """From the start of `git commit` to the first 200 at the address that it printed."""
        self.change(settings)
        return self.timed("commit", "-q", "-m", f"change {self.number}")

    def commit_quietly(self, settings: str = "") -> None:
        """Another commit that no hook tells of."""
        self.change(settings)
        git(self.folder, "-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", f"change {self.number}")
        self.commit = git(self.folder, "rev-parse", "HEAD").strip()

    def timed(self, *words: str) -> Sample:
        """From the start of a git command, whose hook prints an address, to the first 200 there."""
        began = time.perf_counter()
        said = git_aloud(self.folder, *words)
        told = time.perf_counter()
        answer = first_200(self.server.port, address_in(said))
        return self.told(answer, {"seconds": answer.at - began, "git": told - began})

    def wake(self) -> Sample:
        """A request for the newest commit, which is built and stopped."""
        self.stop()
        began = time.perf_counter()
        answer = first_200(self.server.port, self.host)
        return self.told(answer, {"seconds": answer.at - began})

    def by_hand(self, venv: Path | None = None) -> Sample:
        """From the start of the app's command in the work tree to its first 200."""
        port = free_port()
        environment = self.installed.environment(port, self.commit, venv)
        command = ["/bin/sh", "-c", f"exec {self.app.command}"]
        began = time.perf_counter()
        started = spawn(
            "by hand", command, "", self.installed.folder, port, environment=environment, at=self.folder
        )
        try:
            answer = first_200(port)
        except CannotRun as problem:
            raise CannotRun(f"{problem} It said: {started.output.read_text()[-2000:]}") from problem
        finally:
            started.stop()
        check(answer, self.shown)
        return Sample({"seconds": answer.at - began})

    @property
    def host(self) -> str:
        return f"{self.commit[:10]}.localhost:{self.server.port}"

    @property
    def shown(self) -> str:
        return f"{self.app.line[1]} {self.number}"

    def told(self, answer: Answer, values: dict[str, float]) -> Sample:
        """The answer is this commit's; where the time went by lazycloud's own word. Its worker is stopped."""
        check(answer, self.shown)
        self.commit = git(self.folder, "rev-parse", "HEAD").strip()
        seen = self.inspect()
        seconds = {step["name"]: step["seconds"] or 0.0 for step in seen["steps"]}
        building = sum(seconds[name] for name in ("source", "dependencies", "build", "data"))
        self.stop()
        start, preloaded = seconds["start"] + seconds["ready"], bool(seen["worker"].get("preloaded"))
        return Sample(values | {"build": building, "start": start, "preloaded": float(preloaded)})

    def inspect(self) -> Any:
        return self.api.get("/api/apps/shop/inspect", ref=self.commit)

    def stop(self) -> None:
        self.api.post("/api/apps/shop/stop", {"ref": self.commit})


@contextlib.contextmanager
def served(folder: Path, app: App, bare: bool = False, config: str = "") -> Iterator[Checkout]:
    """The app in a repository with one commit, which is production; with the hook, and ready to start by hand.

    `bare`: what is served, and has the hook, is the remote `origin` that is pushed to. `config`: the server's.
    """
    checkout, installed = folder / "shop", Installed(app, folder / "hand")
    checkout.mkdir()
    installed.folder.mkdir()
    git(checkout, "init", "-q", "-b", "main")
    app.write(checkout)
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "the first")
    installed.install(checkout)
    source = bare_of(checkout, "origin") if bare else checkout
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(config)
    with up(folder, f"shop={source}") as server:
        run([sys.executable, "-m", "lazycloud", "hook", "install", "--home", str(folder / "home")], source)
        first_200(server.port, f"localhost:{server.port}")
        app.write_procfile(checkout)
        yield Checkout(app, checkout, server, installed, Client.local(folder / "home"))


def bare_of(checkout: Path, remote: str) -> Path:
    """A bare clone beside it, known to it as that remote."""
    bare = checkout.with_name(f"{remote}.git")
    git(checkout, "clone", "-q", "--bare", str(checkout), str(bare))
    git(checkout, "remote", "add", remote, str(bare))
    return bare


def address_in(said: str) -> str:
    """The host that the hook printed."""
    found = _ADDRESS.search(said)
    if not found:
        raise CannotRun(f"The hook printed no address: {said}")
    return found[1]


def check(answer: Answer, shown: str) -> None:
    if f"{shown}<" not in answer.body:
        raise CannotRun(f"“{shown}” is not in the answer: {answer.body[:500]}")
