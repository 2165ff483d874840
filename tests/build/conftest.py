from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE, accepts, wait

from .gitfolder import GitFolder


@pytest.fixture
def make_git(tmp_path: Path) -> Callable[[str], GitFolder]:
    return lambda name="app": GitFolder(tmp_path / name)


@pytest.fixture
def app(make_git) -> GitFolder:
    return make_git("app")


@pytest.fixture
def git_daemon(tmp_path: Path) -> Iterator[str]:
    """The URL of a git daemon that serves tmp_path: a remote with no disk in common, as far as git knows."""
    port = free_port()
    command = ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    daemon = subprocess.Popen(
        [*command, f"--base-path={tmp_path}", str(tmp_path)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: accepts(port), "git daemon")
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait(PATIENCE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    size = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if mount is None or subprocess.run([mount, *size], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
