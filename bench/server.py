"""A whole `lazycloud up` in a scratch home, and git as its users run it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from peer import Running, free_port, spawn

_PATIENCE = 120.0
_IDENTITY = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


@contextlib.contextmanager
def up(folder: Path, source: Path | str, flags: Sequence[str] = (), cores: str = "") -> Iterator[Running]:
    """A server of that repository with its home in the folder, on those cores or all; ended as Ctrl-C does."""
    port = free_port()
    command = [sys.executable, "-m", "lazycloud", "up", str(source), "--home", str(folder / "home")]
    command += ["--listen", f"127.0.0.1:{port}", *flags]
    running = spawn("lazycloud up", command, cores, folder, port)
    try:
        yield running.wait()
    finally:
        running.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(_PATIENCE)
        running.stop()


def git(folder: Path, *arguments: str) -> str:
    """What git answered."""
    return _run(folder, arguments).stdout


def git_aloud(folder: Path, *arguments: str) -> str:
    """All that git and its hooks said."""
    done = _run(folder, arguments)
    return done.stdout + done.stderr


def _run(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command, environment = ["git", *arguments], os.environ | _IDENTITY
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
