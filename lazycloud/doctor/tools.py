"""Programs that builds use."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import uv

from lazycloud.config import Config
from lazycloud.findings import Finding, Weight

OLDEST_GIT = (2, 30)  # `rev-parse --end-of-options`
OLDEST_NODE = (18,)  # older ones are not mended any more
ANSWER_SECONDS = 5.0


def git(config: Config) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_GIT))
    said = _says("git", "--version")
    if not said:
        yield Finding(Weight.BROKEN, "git", "There is no git on PATH.", f"Install git {oldest} or newer.")
    elif _version(said) < OLDEST_GIT:
        yield Finding(Weight.BROKEN, "git", f"{said} is too old.", f"Install git {oldest} or newer.")
    else:
        yield Finding(Weight.FINE, "git", f"{said}.")


def git_lfs(config: Config) -> Iterator[Finding]:
    if shutil.which("git-lfs"):
        yield Finding(Weight.FINE, "git-lfs", "It is here.")
        return
    sentence = "Files in Git LFS that are not in the repository’s folder stay pointers."
    yield Finding(Weight.LIMITED, "git-lfs", sentence, "Install git-lfs, if an app uses it.")


def package_installer(config: Config) -> Iterator[Finding]:
    try:
        place = uv.find_uv_bin()
    except FileNotFoundError:
        advice = "Install lazycloud again; uv comes with it."
        yield Finding(Weight.BROKEN, "uv", "Python apps cannot be built: there is no uv.", advice)
        return
    said = _says(place, "--version")
    if said:
        yield Finding(Weight.FINE, "uv", f"{said}.")
    else:
        sentence = f"Python apps cannot be built: {place} does not run."
        yield Finding(Weight.BROKEN, "uv", sentence, "Install lazycloud again; uv comes with it.")


def node(config: Config) -> Iterator[Finding]:
    said = _says("node", "--version")
    if not said:
        yield Finding(
            Weight.LIMITED, "node", "Node apps cannot be built.", "Install node and npm, if you have some."
        )
    elif _version(said) < OLDEST_NODE:
        advice = f"Install node {OLDEST_NODE[0]} or newer."
        yield Finding(Weight.LIMITED, "node", f"node {said} is too old for most packages.", advice)
    elif shutil.which("npm") is None:
        yield Finding(Weight.LIMITED, "npm", "Node apps that use npm cannot be built.", "Install npm.")
    else:
        yield Finding(Weight.FINE, "node", f"node {said}, with npm.")


def redis(config: Config) -> Iterator[Finding]:
    for name in ("redis-server", "valkey-server"):
        if said := _says(name, "--version"):
            yield Finding(Weight.FINE, "redis", f"{said.partition(' sha=')[0].removesuffix('.')}.")
            return
    sentence = "Apps that want a Redis cannot be deployed: there is no redis-server."
    advice = "Install redis-server, if an app has `redis = true`; it needs not run as a service."
    yield Finding(Weight.LIMITED, "redis", sentence, advice)


LOOKS = (git, package_installer, node, git_lfs, redis)


def _says(*words: str) -> str:
    """The first line that a program prints; "" if it is not there, or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def _version(said: str) -> tuple[int, ...]:
    found = re.search(r"\d+(\.\d+)*", said)
    return tuple(map(int, found[0].split("."))) if found else ()
