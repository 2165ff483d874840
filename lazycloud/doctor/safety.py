"""Who could do harm: walls around apps, and who can reach the server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from lazycloud.config import Config
from lazycloud.findings import Finding, Weight
from lazycloud.walls import sandbox

TRY_SECONDS = 5.0
ENGINE_SOCKET = Path("/var/run/docker.sock")
CONTROLLERS = ("memory", "cpu", "pids")


def walls(config: Config) -> Iterator[Finding]:
    """What is asked for and does not work is broken; nothing that works is unsafe."""
    if config.isolation == "container":
        yield from _container()
    elif config.isolation == "none":
        yield _no_walls(config, "`isolation` is none", "Set it to auto.")
    elif trouble := sandbox.missing():
        if config.isolation == "sandbox":
            yield Finding(Weight.BROKEN, "sandbox", f"The server does not start: {trouble}", sandbox.advice())
        else:
            yield _no_walls(config, trouble, sandbox.advice())
    else:
        yield from sandbox.findings()


def limits(config: Config) -> Iterator[Finding]:
    """What holds the limits of workers."""
    holds = control_groups()
    if holds:
        yield Finding(Weight.FINE, "limits", f"{holds} can hold the limits of workers.")
        return
    sentence = "No control group can be made here: limits are of single processes, not of a whole app."
    advice = "Let the service have its own: `Delegate=yes` in its unit, or run as root."
    yield Finding(Weight.LIMITED, "limits", sentence, advice)


def user(config: Config) -> Iterator[Finding]:
    if os.geteuid() == 0:
        sentence = "lazycloud runs as root: whoever gets out of an app has the whole machine."
        yield Finding(Weight.UNSAFE, "user", sentence, "Run it as a user of its own (docs/server.md).")


def reach(config: Config) -> Iterator[Finding]:
    if config.is_public and config.addresses.scheme != "https":
        sentence = "Others reach this server without https: who listens on the way reads logins and pages."
        advice = "Give certificates (--tls-cert), or put a front before it (--public-url https://…)."
        yield Finding(Weight.UNSAFE, "https", sentence, advice)
    elif not config.is_public:
        yield Finding(Weight.FINE, "reach", "Only users of this machine reach the server.")


LOOKS = (walls, reach, user, limits)


def control_groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> str:
    """Which control groups this process may make groups in; "" for none."""
    try:
        places = dict(line.split(":", 2)[1:] for line in own.read_text().splitlines())
    except (OSError, ValueError):
        return ""
    unified = root / places.get("", "/").lstrip("/")
    if (unified / "cgroup.controllers").is_file() and os.access(unified, os.W_OK):
        offered = (unified / "cgroup.controllers").read_text().split()
        if all(name in offered for name in CONTROLLERS):
            return "Control groups of version 2"
    folders = [_of_version_1(name, places, root) for name in CONTROLLERS]
    if all(folder and os.access(folder, os.W_OK) for folder in folders):
        return "Control groups of version 1"
    return ""


def _of_version_1(controller: str, places: dict[str, str], root: Path) -> Path | None:
    for names, place in places.items():
        if controller in names.split(","):
            folder = root / names / place.lstrip("/")
            return folder if folder.is_dir() else None
    return None


def _container() -> Iterator[Finding]:
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(TRY_SECONDS)
            tried.connect(str(ENGINE_SOCKET))
    except OSError as problem:
        sentence = f"No app starts: no container engine answers at {ENGINE_SOCKET} ({problem.strerror})."
        yield Finding(Weight.BROKEN, "container", sentence, "Start docker, or set `isolation` to auto.")
    else:
        yield Finding(Weight.FINE, "container", "A container engine answers.")


def _no_walls(config: Config, why: str, advice: str) -> Finding:
    who = "Whoever gets code into an app" if config.is_public else "Every app"
    sentence = f"There are no walls around apps: {why.rstrip('.')}. {who} may do what lazycloud’s user may."
    return Finding(Weight.UNSAFE, "sandbox", sentence, advice)
