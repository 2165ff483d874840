"""Read git objects one after another, in a thread."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import IO, TypeVar

from lazycloud.build.git import Git
from lazycloud.build.listing import printable
from lazycloud.errors import StepFailed

T = TypeVar("T")
CHUNK = 1 << 20
BUFFER = 1 << 17  # most files are smaller: one read of the pipe is then many of them


class Objects:
    """A `git cat-file --batch`; blocking, so it lives in a thread.

    With `ids` it reads them in that order and is not asked anything more: ten thousand small files then cost
    no wait each. Without, `read` asks for one at a time.
    """

    def __init__(self, git: Git, ids: Sequence[bytes] | None = None) -> None:
        questions = subprocess.PIPE if ids is None else _in_memory(ids)
        try:
            self._process = subprocess.Popen(
                git.command("cat-file", "--batch", *(["--buffer"] if ids is not None else [])),
                cwd=git.folder,
                env=git.environment,
                stdin=questions,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=BUFFER,
                start_new_session=True,
            )
        finally:
            if ids is not None:
                os.close(questions)

    @property
    def _answers(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def begin(self, path: bytes | str) -> int:
        """The size of the next object, whose bytes follow. Raises StepFailed when the repository lacks it."""
        words = self._answers.readline().split()
        if len(words) != 3 or not words[2].isdigit():
            raise StepFailed(
                f"The repository has no object for {printable(path)}.",
                "If it is a shallow or partial clone, fetch the rest: git fetch --unshallow --refetch",
            )
        return int(words[2])

    def take(self, size: int) -> bytes:
        """The next `size` bytes of the object that was begun, at most one chunk."""
        return self._answers.read(min(size, CHUNK))

    def end(self) -> None:
        self._answers.read(1)

    def read(self, object_id: str, name: str) -> bytes:
        """A whole object. Raises StepFailed when it is not there."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{object_id}\n".encode())
        self._process.stdin.flush()
        content = self._answers.read(self.begin(name))
        self.end()
        return content

    def kill(self) -> None:
        """From another thread: whoever reads gets the end of file."""
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._answers.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def _in_memory(ids: Sequence[bytes]) -> int:
    """A descriptor to read them from: with a pipe, git and we could each wait for the other."""
    descriptor = os.memfd_create("objects")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.writelines(object_id + b"\n" for object_id in ids)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def in_thread(work: Callable[[], T], stop: Callable[[], None], timeout: float) -> T:
    """Run blocking work; at the deadline, or when cancelled, `stop` makes it end, and its end is awaited."""
    task = asyncio.create_task(asyncio.to_thread(work), name="work in a thread")
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.shield(task)
    except (asyncio.CancelledError, TimeoutError):
        stop()
        await asyncio.wait({task}, timeout=10)
        if task.done() and not task.cancelled():
            task.exception()  # seen: it is the stop that counts
        raise
