"""What a worker writes: a file that its processes append to by themselves, so that it outlives control."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

ROTATE_AT = 10_000_000  # bytes
BLOCK = 65536  # bytes: what is read at a time; the last lines are looked for in the last one
POLL = 0.1  # seconds: no eye sees the difference, and a stat costs a microsecond; inotify would need ctypes


def open_log(log: Path) -> BinaryIO:
    """Open for appending, made if need be. A large one is moved to `.1` first, and an older `.1` dropped."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > ROTATE_AT:
            log.replace(log.with_name(f"{log.name}.1"))
    # O_APPEND: every process of the worker has its own idea of a position, and none overwrites another's.
    return log.open("ab", buffering=0)


def last_lines(log: Path, count: int, since: int = 0) -> list[str]:
    """At most `count` last lines that say something, oldest first, of what was written after byte `since`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(size - BLOCK, min(since, size)))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if start > since:
        del lines[0]  # begun before the block
    return [line for line in lines if line.strip()][-count:] if count else []


async def follow(log: Path, lines: int = 0) -> AsyncIterator[str]:
    """New text as it is written, after the last `lines` lines of what is there. Never ends by itself.

    Waits for a log that is not there yet, goes on with the new file after a rotation, and from the start
    again after a truncation.
    """
    start = _start_of_last(log, lines)
    while True:
        with await _opened(log) as file:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            file.seek(start)
            while True:
                replaced = _is_replaced(log, file)  # asked first: what was written before is still read
                while chunk := file.read(BLOCK):
                    if text := decoder.decode(chunk):
                        yield text
                if replaced:
                    break
                await asyncio.sleep(POLL)
        start = 0


async def _opened(log: Path) -> BinaryIO:
    while not log.exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(POLL)
    return log.open("rb", buffering=0)


def _is_replaced(log: Path, file: BinaryIO) -> bool:
    """Whether the name stands for another file by now, or for the same one cut short."""
    ours = os.fstat(file.fileno())
    try:
        named = log.stat()
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or named.st_size < file.tell()


def _start_of_last(log: Path, lines: int) -> int:
    """The byte at which the last `lines` lines begin, no further back than a block for each hundred lines."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - BLOCK * (1 + lines // 100)))
            block = file.read(size - start)
    except FileNotFoundError:
        return 0
    at = len(block)
    for _ in range(lines):
        at = block.rfind(b"\n", 0, max(0, at - 1)) + 1
        if at == 0:
            break
    return start + at
