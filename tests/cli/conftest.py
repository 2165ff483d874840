from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

from .server import ScriptedServer

GIT_IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}
OWN = ("LAZYCLOUD_", "GIT_", "XDG_")


@dataclass(frozen=True)
class Done:
    """What a process left."""

    status: int
    out: str
    err: str


@dataclass
class CommandLine:
    """Runs `lazycloud` as a user does: as a process, in a folder, with an environment."""

    home: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    async def __call__(self, *arguments: str, folder: Path | None = None, stdin: str = "") -> Done:
        return await self.run(sys.executable, "-m", "lazycloud", *arguments, folder=folder, stdin=stdin)

    async def git(self, *arguments: str, folder: Path | None = None) -> Done:
        return await self.run("git", *arguments, folder=folder)

    async def run(self, *command: str, folder: Path | None = None, stdin: str = "") -> Done:
        process = await self.start(*command, folder=folder)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def start(self, *command: str, folder: Path | None = None) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, cwd=folder or self.folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    async def in_a_terminal(self, *arguments: str) -> str:
        """What a terminal was sent; the exit status is 0."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lazycloud", *arguments,
            cwd=self.folder, env=self.environment | {"TERM": "xterm"},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as reader:
            text = await asyncio.to_thread(read_to_the_end, reader)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        return text.decode()


def read_to_the_end(reader: FileIO) -> bytes:
    pieces = []
    with contextlib.suppress(OSError):  # how a pseudo terminal says that its other end was closed
        while piece := reader.read(4096):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home of lazycloud"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A work tree with two commits on main."""
    folder = tmp_path / "shop"
    make_repository(folder)
    return folder


def make_repository(folder: Path, *more: str) -> None:
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main", *more)
    for subject in ("Open the shop", "Sell tea") if not more else ():
        git(folder, "commit", "--quiet", "--allow-empty", "-m", subject)


def git(folder: Path, *arguments: str) -> str:
    environment = clean_environment()
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return kept | GIT_IDENTITY


@pytest.fixture
def lazycloud(home: Path, repository: Path) -> CommandLine:
    environment = clean_environment() | {
        "LAZYCLOUD_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    return CommandLine(home, repository, environment)


@pytest.fixture
async def server(home: Path, repository: Path) -> AsyncIterator[ScriptedServer]:
    """A server that serves `repository` as the app shop."""
    made = ScriptedServer(home)
    made.answer("GET /api/apps", [app("shop", repository)])
    await made.start()
    yield made
    await made.stop()


def app(name: str, source: Path | str) -> dict[str, object]:
    return {
        "name": name,
        "source": str(source),
        "address": f"http://{name}.localhost:8000/",
        "default_branch": "main",
        "follow": "",
        "production": None,
    }


def commit(short: str = "3f2a9c1d0b", subject: str = "Sell tea") -> dict[str, object]:
    return {"id": short * 4, "short": short, "subject": subject, "author": "Ada", "authored": 1_700_000_000}
