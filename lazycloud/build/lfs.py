"""Git LFS: a commit has a pointer, the file's content is in a store on this machine or at the remote.

What is a pointer is told by its content. The repository's own configuration, and what a commit says of itself, is
never what git-lfs runs with: both can name programs. It runs in a repository of ours, which has the pointers that are
wanted and the URL to ask; the rest (credentials, proxies) is the operator's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lazycloud.build.disk import disk_watched
from lazycloud.build.git import REMOTE_TIMEOUT, Git, GitFailed, run_git
from lazycloud.build.listing import FILE
from lazycloud.build.parts import Part
from lazycloud.processes import Output

POINTER = b"version https://git-lfs.github.com/spec/v1"
POINTER_SIZE = 1024  # the specification's limit
_POINTER = re.compile(POINTER + rb"\noid sha256:([0-9a-f]{64})\nsize ([0-9]{1,15})\n?")
_PULL = "run `git lfs pull` in the repository and deploy again"


@dataclass(frozen=True)
class LargeFile:
    """A leaf that is a pointer. `oid` is the content's SHA-256, "" where the pointer does not say it plainly."""

    part: Part
    line: bytes
    pointer: bytes
    oid: str
    size: int

    def within(self, store: Path) -> Path:
        return store / self.oid[:2] / self.oid[2:4] / self.oid


def large_file(part: Part, line: bytes, content: bytes) -> LargeFile | None:
    """None for content that is no pointer. One with extensions needs programs to be read, and is none to us."""
    if not content.startswith(POINTER):
        return None
    if match := _POINTER.fullmatch(content):
        return LargeFile(part, line, content, match[1].decode(), int(match[2]))
    return LargeFile(part, line, content, "", 0)


class LargeFiles:
    """Stores of LFS objects: git-lfs's own beside a repository's objects, and ours in `folder` for the rest."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._locks: dict[Path, asyncio.Lock] = {}

    def place(self, file: LargeFile) -> Path | None:
        """Where its content is, if it is on this machine. Whoever reads it checks that it is what `oid` says."""
        stores = [store for store in (_store(file.part.git.folder), self._store(file.part)) if store]
        places = [file.within(store) for store in stores] if file.oid else []
        return next((place for place in places if _size(place) == file.size), None)

    def have_come(self, oids: Sequence[str], git_folder: Path) -> bool:
        """Whether any of what was not on this machine is by now: beside those objects, or with us. Blocks."""
        stores = [_store(git_folder), *map(_store, self._folder.glob("*.git"))]
        return any((store / oid[:2] / oid[2:4] / oid).is_file() for store in stores for oid in oids)

    async def fetch(self, files: Sequence[LargeFile], output: Output) -> str:
        """Have git-lfs fetch those that are not on this machine. Says why that cannot be, and what to do; else ""."""
        missing: dict[bytes, list[LargeFile]] = {}
        for file in files:
            if file.oid and self.place(file) is None:
                missing.setdefault(file.part.place, []).append(file)
        troubles = [await self._fetch(wanted, output) for wanted in missing.values()]
        return next((trouble for trouble in troubles if trouble), "")

    async def _fetch(self, files: Sequence[LargeFile], output: Output) -> str:
        part = files[0].part
        folder = self._repository(part)
        if folder is None:
            return f"no remote is known that has them; {_PULL}"
        if shutil.which("git-lfs", path=self._environment.get("PATH")) is None:
            return f"git-lfs is not on PATH; install it, {_PULL}"
        async with self._locks.setdefault(folder, asyncio.Lock()):
            output(f"Fetching {len(files):,} files from Git LFS\n")
            try:
                with disk_watched(self._folder):
                    git = await self._prepared(folder, part, output)
                    await git.run("fast-import", "--quiet", "--force", stdin=_commit_of(files))
                    await git.run("lfs", "fetch", "origin", "refs/heads/wanted", timeout=REMOTE_TIMEOUT)
            except GitFailed as failed:
                return f"{failed.sentence.rstrip('.')}; {_PULL}"
        return ""

    async def _prepared(self, folder: Path, part: Part, output: Output) -> Git:
        """A bare repository with nothing but a remote."""
        if not (folder / "HEAD").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            words = ["init", "--quiet", "--bare", "--template=", "--object-format=sha1", "."]
            await run_git(words, self._environment, folder)
        lines = ["[core]", "bare = true", "repositoryformatversion = 0"]
        lines += ['[remote "origin"]', f"url = {_quoted(part.remote or '')}"]
        if url := await _lfs_url(part, output):
            lines += ["[lfs]", f"url = {_quoted(url)}"]
        aside = folder / "config.new"
        aside.write_text("\n".join([*lines, ""]))
        aside.rename(folder / "config")
        return Git(folder, self._environment)

    def _repository(self, part: Part) -> Path | None:
        if part.remote is None:
            return None
        return self._folder / f"{hashlib.sha256(os.fsencode(part.remote)).hexdigest()}.git"

    def _store(self, part: Part) -> Path | None:
        folder = self._repository(part)
        return _store(folder) if folder else None


async def _lfs_url(part: Part, output: Output) -> str | None:
    """Where the remote's LFS server is, if somebody says so: the operator may say anything, a commit https only."""
    if url := await part.git.ask("config", "--get", "lfs.url"):
        return url
    entry = part.listing.find(".lfsconfig")
    if entry is None or entry.mode != FILE:
        return None
    url = await part.git.ask("config", f"--blob={entry.object}", "--get", "lfs.url")
    if url and (urlsplit(url).scheme != "https" or not url.isprintable()):
        output("warning: lfs.url in .lfsconfig is not an https URL and is not used\n")
        return None
    return url


def _commit_of(files: Sequence[LargeFile]) -> bytes:
    """For git fast-import: a commit with these pointers and nothing else."""
    head = b"commit refs/heads/wanted\ncommitter lazycloud <lazycloud@localhost> 0 +0000\ndata 0\ndeleteall\n"
    blobs = (
        b"M 100644 inline %d\ndata %d\n%s\n" % (number, len(file.pointer), file.pointer)
        for number, file in enumerate(files)
    )
    return head + b"".join(blobs)


def _quoted(value: str) -> str:
    """As git reads it in a configuration file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _store(git_folder: Path) -> Path:
    return git_folder / "lfs" / "objects"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
