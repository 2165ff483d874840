"""Images of a server's apps at the engine: built of Dockerfiles, named by release, removed with them."""

from __future__ import annotations

import asyncio
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import IO, Any

from lazycloud.errors import StepFailed
from lazycloud.processes import Output, Tail
from lazycloud.workers.containers.daemon import NOT_THERE, Daemon, Refused
from lazycloud.workers.containers.recipe import SERVER

IN_MEMORY = 4 << 20  # bytes of a build's files that need no file of their own


class Images:
    """`server` tells this server's from others', `network` is what builds may use."""

    def __init__(self, daemon: Daemon, server: str, network: str) -> None:
        self._daemon = daemon
        self._server = server
        self._network = network

    def name(self, app: str, release: str) -> str:
        return f"lazycloud/{self._server}/{app}:{release}"

    async def has(self, app: str, release: str) -> bool:
        return await self.is_there(self.name(app, release))

    async def is_there(self, tag: str) -> bool:
        try:
            async with self._daemon.asked("for an image"):
                await self._daemon.client.images.inspect(tag)
        except Refused as problem:
            if problem.code != NOT_THERE:
                raise
            return False
        return True

    async def build(
        self,
        app: str,
        release: str,
        tree: Path,
        files: Sequence[str],
        dockerfile: str,
        output: Output,
        timeout: float,
        network: bool,
    ) -> None:
        """Raises StepFailed with the last lines. Nothing is left of a build that fails, or is cancelled."""
        tail = Tail(output)
        parameters = {
            "t": self.name(app, release),
            "dockerfile": dockerfile,
            "networkmode": self._network if network else "none",
            "labels": json.dumps({SERVER: self._server}),
        }
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as archive:
            await asyncio.to_thread(_pack, tree, files, archive)
            archive.seek(0)
            try:
                async with asyncio.timeout(timeout if timeout < float("inf") else None):
                    await self.make(archive, parameters, tail)
            except TimeoutError:
                sentence = f"{dockerfile} could not be built: it took longer than {timeout:g} s."
                raise StepFailed(sentence, "", tail.lines()) from None
            except StepFailed as problem:
                sentence = f"{dockerfile} could not be built: {problem.sentence}"
                raise StepFailed(sentence, problem.advice, tail.lines()) from problem
            finally:
                tail.end()

    async def make(self, archive: IO[bytes], parameters: Mapping[str, str], tail: Tail) -> None:
        """From a tar archive, said to `tail`. Raises StepFailed."""
        common = {"rm": "1", "forcerm": "1"}  # nothing of what it ran in stays, also when it fails
        async with aclosing(self._daemon.build(archive, {**common, **parameters})) as messages:
            async for message in messages:
                tail.feed(_said(message).encode())
                if error := message.get("error"):
                    raise StepFailed(str(error))

    async def remove(self, tag: str) -> None:
        """What still runs in it keeps it, until that is removed."""
        with suppress(Refused):
            async with self._daemon.asked("to remove an image"):
                await self._daemon.client.images.delete(tag)

    async def keep_only(self, releases: Path) -> None:
        """Remove those whose release is gone: `releases` has a folder for each app, with one of releases in it."""
        filters = {"label": [f"{SERVER}={self._server}"]}
        async with self._daemon.asked("for its images"):
            found = await self._daemon.client.images.list(filters=filters)
        for tag in (tag for image in found for tag in image.get("RepoTags") or ()):
            app, _, release = tag.rpartition("/")[2].partition(":")
            if not (releases / app / "releases" / release).is_dir():
                await self.remove(tag)


def _pack(tree: Path, files: Sequence[str], archive: Any) -> None:
    """The same bytes for the same files: whose they are here, and since when, means nothing in an image."""
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name in files:
            packed.add(tree / name, name, recursive=False, filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    if entry.islnk():  # the releases of a server share files; an archive must not
        raise AssertionError(entry.name)
    return entry


def _said(message: Mapping[str, Any]) -> str:
    """What a message of a build means for people; "" for what only moves a bar."""
    if "stream" in message:
        return str(message["stream"])
    if "status" in message and "progress" not in message:
        return f"{message['status']}\n"
    return f"{message['error']}\n" if "error" in message else ""
