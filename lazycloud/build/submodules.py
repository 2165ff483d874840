"""Submodules: where their objects are, on this machine or at their remotes."""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lazycloud.build.disk import disk_watched
from lazycloud.build.git import REMOTE_TIMEOUT, Git, GitFailed, run_git
from lazycloud.errors import StepFailed
from lazycloud.processes import Output

PROTOCOLS = ("https", "ssh", "git")
_SCP_LIKE = re.compile(r"(?![-/.])[^/:\s]+:(?!//)(?!:)[^\s]+")


@dataclass(frozen=True)
class Submodule:
    name: str
    path: str
    url: str


@dataclass(frozen=True)
class Origin:
    """A repository to take objects from. `url`: what relative URLs of its submodules start at, if anything."""

    git: Git
    url: str | None = None
    checkout: Path | None = None  # its work tree, in which submodules may be checked out


def parse_modules(listing: bytes) -> dict[str, Submodule]:
    """Submodules by path, from `git config -z --list` of a .gitmodules."""
    values: dict[str, dict[str, str]] = {}
    for item in listing.decode(errors="replace").split("\0"):
        key, _, value = item.partition("\n")
        section, _, rest = key.partition(".")
        name, _, setting = rest.rpartition(".")
        if section == "submodule" and name:
            values.setdefault(name, {})[setting] = value
    found = (Submodule(name, known.get("path", ""), known.get("url", "")) for name, known in values.items())
    return {module.path: module for module in found if module.path}


def absolute_url(url: str, base: str | None) -> str | None:
    """Where a submodule's URL leads; None for a relative one without a base. As git-submodule(1) resolves it."""
    if not url.startswith(("./", "../")):
        return url
    if base is None:
        return None
    scheme, slashes, rest = base.partition("://")
    if slashes:
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}{posixpath.normpath(posixpath.join('/', path.rstrip('/'), url))}"
    host, colon, path = base.partition(":")
    if not colon:
        return posixpath.normpath(posixpath.join(base.rstrip("/"), url))
    return f"{host}:{posixpath.normpath(posixpath.join(path.rstrip('/'), url))}"


def is_scp_like(text: str) -> bool:
    """user@host:path, and neither a URL nor a path."""
    return "://" not in text and bool(_SCP_LIKE.fullmatch(text))


def is_allowed(url: str) -> bool:
    """Whether a commit's content may send us there: never to our own disk, never to a helper program."""
    return urlsplit(url).scheme in PROTOCOLS or is_scp_like(url) if url.isprintable() else False


class Submodules:
    """Finds the objects of submodules; bare clones of those that are nowhere on this machine are kept in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS)}
        self._locks: dict[str, asyncio.Lock] = {}

    async def find(self, parent: Origin, module: Submodule, commit_id: str, output: Output) -> Origin:
        """A repository that has the commit. Raises StepFailed with the name, the URL and what to do."""
        url = absolute_url(module.url, parent.url)
        for checkout, folder in _local_places(parent, module):
            git = Git(folder, self._environment)
            if (folder / "HEAD").is_file() and await git.has_commit(commit_id):
                return Origin(git, url, checkout)
        if url is None or not is_allowed(url):
            raise _cannot(module, url, f"only {', '.join(PROTOCOLS)} URLs are cloned")
        lock = self._locks.setdefault(url, asyncio.Lock())
        async with lock:
            return Origin(await self._cloned(module, url, commit_id, output), url)

    async def _cloned(self, module: Submodule, url: str, commit_id: str, output: Output) -> Git:
        folder = self._folder / f"{hashlib.sha256(url.encode()).hexdigest()}.git"
        try:
            with disk_watched(self._folder):
                if not folder.is_dir():
                    output(f"Cloning the submodule {module.name} from {url}\n")
                    await self._clone(url, folder)
            git = Git(folder, self._environment)
            if not await git.has_commit(commit_id):
                await self._fetch(git, commit_id)
        except GitFailed as failed:
            raise _cannot(module, url, failed.sentence) from failed
        return git

    async def _clone(self, url: str, folder: Path) -> None:
        aside = folder.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        words = ["clone", "--quiet", "--bare", "--end-of-options", url, str(aside)]
        try:
            await run_git(words, self._environment, self._folder, timeout=REMOTE_TIMEOUT)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    async def _fetch(self, git: Git, commit_id: str) -> None:
        fetch = ("fetch", "--quiet", "--no-write-fetch-head", "--end-of-options", "origin")
        await git.run(
            *fetch, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", timeout=REMOTE_TIMEOUT
        )
        if not await git.has_commit(commit_id):
            await git.run(*fetch, commit_id, timeout=REMOTE_TIMEOUT)


def _local_places(parent: Origin, module: Submodule) -> list[tuple[Path | None, Path]]:
    """(its work tree or None, its git folder) where git itself would have put a submodule."""
    if {"", ".", ".."} & {*module.name.split("/"), *module.path.split("/")}:
        return []
    checkout = parent.checkout / module.path if parent.checkout else None
    places = [(checkout, parent.git.folder / "modules" / module.name)]
    if checkout is not None and (own := _git_folder(checkout)):
        places.append((checkout, own))
    return places


def _git_folder(checkout: Path) -> Path | None:
    """The git folder of a work tree: `.git`, or where the file of that name points."""
    dot_git = checkout / ".git"
    if dot_git.is_dir():
        return dot_git
    try:
        pointer = dot_git.read_text(errors="replace")
    except OSError:
        return None
    return checkout / pointer.removeprefix("gitdir:").strip()


def _cannot(module: Submodule, url: str | None, why: str) -> StepFailed:
    return StepFailed(
        f"The submodule “{module.name}” ({url or module.url or 'no URL'}) cannot be had: {why}.",
        "Run `git submodule update --init` in the repository, or give it a URL that this machine can clone.",
    )
