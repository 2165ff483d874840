"""What protects: walls around apps, who can reach the server, backups."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lazycloud.config import Config
from lazycloud.data.backup import standing
from lazycloud.findings import Finding, Weight
from lazycloud.walls import groups, ports, sandbox


def walls(config: Config) -> Iterator[Finding]:
    """What is asked for and does not work is broken; nothing that works is unsafe."""
    if config.isolation == "container":
        yield from _container(config)
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
    """What holds the limits of workers, and keeps them from each other's ports. The engine sees to its containers."""
    if config.isolation != "container":
        yield from groups.findings(config.home)
        yield from ports.findings(config.home)


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
        yield Finding(Weight.FINE, "reach", "Only users of this machine, and apps here, reach the server.")


def backups(config: Config) -> Iterator[Finding]:
    yield from standing.findings(config.home, config.data.backup)


LOOKS = (walls, reach, user, limits, backups)


def _container(config: Config) -> list[Finding]:
    from lazycloud.workers.containers.findings import findings  # takes a tenth of a second, and few need it

    return findings(config.container)


def _no_walls(config: Config, why: str, advice: str) -> Finding:
    who = "Whoever gets code into an app" if config.is_public else "Every app"
    sentence = f"There are no walls around apps: {why.rstrip('.')}. {who} may do what lazycloud’s user may."
    return Finding(Weight.UNSAFE, "sandbox", sentence, advice)
