"""Run git so that neither the repository nor our own environment can bend what it does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from lazycloud.errors import StepFailed
from lazycloud.processes import signal_group

LOCAL_TIMEOUT = 60.0  # reading objects of a repository on disk
REMOTE_TIMEOUT = 900.0  # a clone of a large repository over a slow line

HARDENING = (
    ("safe.directory", "*"),  # the operator named the repository; it may belong to a service's user
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("protocol.ext.allow", "never"),
    ("gc.auto", "0"),  # a commit that no branch reaches any more keeps its address
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("core.quotePath", "false"),
)
# Certificates and the way to a host are the operator's; GIT_DIR and its kin are those of a hook that called us.
KEPT = frozenset({"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS"})


class GitFailed(StepFailed):
    """A git command that did not succeed. `ended_with` is its exit status, None at its deadline."""

    def __init__(self, command: str, ended_with: int | None, said: str) -> None:
        lines = [line for line in said.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("fatal: ") if lines else f"exit status {ended_with}"
        super().__init__(f"`git {command}` failed: {reason}", last=lines[-20:])
        self.ended_with = ended_with


def git_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of every git run: the operator's, so that keys and proxies work, but nobody is asked."""
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_") or name in KEPT}
    if not {"GIT_SSH", "GIT_SSH_COMMAND"} & kept.keys():
        kept["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o ConnectTimeout=15"
    return {
        **kept,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C.UTF-8",
    }


def git_command(*arguments: str) -> list[str]:
    options = [word for name, value in HARDENING for word in ("-c", f"{name}={value}")]
    return ["git", "--no-pager", *options, *arguments]


async def run_git(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    stdin: bytes = b"",
    timeout: float = LOCAL_TIMEOUT,
) -> bytes:
    """What one git command wrote. Raises GitFailed; nothing of it is left, however it ends."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    # Files and no pipes: there is nothing to be fed or drained while it runs, its end is all that is waited for.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as written,
        tempfile.TemporaryFile() as said,
    ):
        given.write(stdin)
        given.seek(0)
        process = _begin(arguments, environment, folder, (given, written, said))
        try:
            async with asyncio.timeout(timeout):
                await _end_of(process)
        except TimeoutError:
            raise GitFailed(verb, None, f"it did not end within {timeout:.0f} s") from None
        finally:
            if process.poll() is None:
                signal_group(process.pid, signal.SIGKILL)
                await asyncio.shield(asyncio.to_thread(process.wait))
        if process.returncode:
            raise GitFailed(verb, process.returncode, _all(said).decode(errors="replace"))
        return _all(written)


def _begin(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, files: Sequence[IO[bytes]]
) -> subprocess.Popen[bytes]:
    """Popen borrows our memory (vfork) till git begins; the event loop's own way copies it: 2 ms against 5."""
    given, written, said = files
    try:
        return subprocess.Popen(
            git_command(*arguments),
            cwd=folder,
            env=dict(environment),
            stdin=given,
            stdout=written,
            stderr=said,
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise (no_git() if folder.is_dir() else gone(folder)) from missing


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Wait for it; the caller reaps it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def gone(folder: Path) -> StepFailed:
    return StepFailed(
        f"The repository is not at {folder} any more.", "Put it back, or serve it from its new place."
    )


def no_git() -> StepFailed:
    return StepFailed("git was not found on PATH.", "Install git.")


class Git:
    """One repository's git folder. Every run names it, so nothing is discovered from where we are."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)

    def __repr__(self) -> str:
        return f"Git({os.fspath(self.folder)!r})"

    def command(self, *arguments: str) -> list[str]:
        """For those who talk to a git process themselves."""
        return git_command(f"--git-dir={self.folder}", *arguments)

    async def run(self, *arguments: str, stdin: bytes = b"", timeout: float = LOCAL_TIMEOUT) -> bytes:
        """What the command wrote. Raises GitFailed."""
        words = [f"--git-dir={self.folder}", *arguments]
        return await run_git(words, self.environment, self.folder, stdin, timeout)

    async def ask(self, *arguments: str, stdin: bytes = b"") -> str | None:
        """What the command wrote, without the end of line; None when it says no."""
        try:
            return (await self.run(*arguments, stdin=stdin)).decode(errors="replace").rstrip("\n")
        except GitFailed as failed:
            if failed.ended_with is None:
                raise
            return None

    async def has_commit(self, commit_id: str) -> bool:
        line = await self.ask("cat-file", "--batch-check=%(objecttype)", stdin=f"{commit_id}\n".encode())
        return line == "commit"
