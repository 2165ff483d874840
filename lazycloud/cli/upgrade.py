"""`upgrade`: a running server becomes what is installed and configured now."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import click

from lazycloud.cli.target import Target, targeted
from lazycloud.config import Config
from lazycloud.errors import BadInput, LazycloudError, NotFound

START_SECONDS = 30.0  # a server that has only just been started
UPGRADE_SECONDS = 300.0  # longer than all that the server itself waits for
TICK = 0.05

Facts = dict[str, Any]


@click.command()
@targeted
def upgrade(target: Target) -> None:
    """Replace a running server by the lazycloud that is installed now.

    config.toml is read again, too. No request is refused or cut; websockets and downloads go on. If the new
    code or the settings would not do, nothing is replaced. `kill -HUP` of the server's process does the same.

    \b
    Example:
      uv tool upgrade lazycloud && lazycloud upgrade
    """
    if target.server:
        raise BadInput("A server is upgraded on its own machine.", "Log in there, and give its --home.")
    config = Config(home=target.home_folder)
    pid = _owner(config)
    before = _await(config, pid, START_SECONDS, lambda facts: True)
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        raise _stranger(config) from None
    after = _await(config, pid, UPGRADE_SECONDS, lambda facts: facts["attempt"] > before["attempt"])
    if after["failed"]:
        raise LazycloudError(after["sentence"])
    click.echo(after["sentence"])


def _owner(config: Config) -> int:
    """The pid of the server of that home, which holds its lock."""
    try:
        with config.lock_file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(config.lock_file.read_text())
    except FileNotFoundError:
        pass
    except PermissionError:
        raise _stranger(config) from None
    raise NotFound(f"No lazycloud server runs on {config.home}.", "Start one with `lazycloud up`.")


def _await(config: Config, pid: int, seconds: float, holds: Callable[[Facts], bool]) -> Facts:
    """What the server says of itself, once that holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            facts: Facts = json.loads(config.generation_file.read_text())
        except FileNotFoundError:
            facts = {}
        if facts.get("pid") == pid and holds(facts):
            return facts
        if _owner(config) != pid:
            break
        time.sleep(TICK)
    raise LazycloudError(
        f"The server on {config.home} (process {pid}) does not say how it goes.",
        "What it writes to its terminal or journal does.",
    )


def _stranger(config: Config) -> LazycloudError:
    return LazycloudError(
        f"The server on {config.home} belongs to another user.",
        "Run this as that user, such as with sudo -u.",
    )
