"""What a worker writes: a file that its processes append to by themselves, so that it outlives control."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

ROTATE_AT = 10_000_000  # bytes
BLOCK = 65536  # bytes: what is read at a time; the last lines are looked for in the last one
LONGEST = 1 << 42  # bytes that a log may seem to have, most of them let go; ext4 ends at four times as many
KEEP_SIZE, PUNCH_HOLE = 1, 2  # of fallocate(2)
POLL = 0.1  # seconds: no eye sees the difference, and a stat costs a microsecond; inotify would need ctypes


def open_log(log: Path) -> BinaryIO:
    """Open for appending, made if need be. A large one is moved to `.1` first, and an older `.1` dropped."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > ROTATE_AT:
            log.replace(log.with_name(f"{log.name}.1"))
    # O_APPEND: every process of the worker has its own idea of a position, and none overwrites another's.
    return log.open("ab", buffering=0)


def cut(log: Path, most: int) -> int:
    """Let go of the beginning of a log that takes more than `most` bytes of the disk: half of that is kept.

    A hole is made of it, while others go on writing: nothing of theirs is lost, and each byte that is left stays
    where it is in the file. Returns the bytes that came free. Blocks. Raises OSError.
    """
    try:
        seen = log.stat()
        if seen.st_blocks * 512 <= most and seen.st_size < LONGEST:
            return 0
        file = os.open(log, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        before = os.fstat(file)
        if before.st_blocks * 512 <= most or before.st_size >= LONGEST:
            return _begin_again(file) if before.st_size >= LONGEST else 0
        end = (before.st_size - most // 2) // BLOCK * BLOCK
        if end <= 0 or not _punch(file, end):
            return _begin_again(file) if before.st_size > most else 0
        return (before.st_blocks - os.fstat(file).st_blocks) * 512
    finally:
        os.close(file)


def _punch(file: int, end: int) -> bool:
    """Whether the file system can do it."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(file, PUNCH_HOLE | KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(end))
    if done and ctypes.get_errno() not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return not done


def _begin_again(file: int) -> int:
    """All of it goes: who appends goes on at the start."""
    size = os.fstat(file).st_blocks * 512
    os.ftruncate(file, 0)
    return size


def _kept_from(file: int, position: int) -> int:
    """The first byte from there on that was not let go; the end of the file if there is none."""
    try:
        return os.lseek(file, position, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            return position  # the file system knows no holes
        return max(position, os.fstat(file).st_size)


def last_lines(log: Path, count: int, since: int = 0) -> list[str]:
    """At most `count` last lines that say something, oldest first, of what was written after byte `since`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = _kept_from(file.fileno(), max(size - BLOCK, min(since, size)))
            file.seek(start)
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
    again after a truncation. What is let go before it was read is left out, and said.
    """
    start = _start_of_last(log, lines)
    while True:
        with await _opened(log) as file:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            position = start
            while True:
                replaced = _is_replaced(
                    log, file, position
                )  # asked first: what was written before is still read
                while chunk := os.pread(file.fileno(), BLOCK, position):
                    kept = _kept_from(
                        file.fileno(), position
                    )  # asked afterwards: a hole may come at any moment
                    if kept > position:
                        yield f"\n… {kept - position:,} bytes were not kept …\n"
                        position = kept
                        continue
                    position += len(chunk)
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


def _is_replaced(log: Path, file: BinaryIO, position: int) -> bool:
    """Whether the name stands for another file by now, or for the same one cut short."""
    ours = os.fstat(file.fileno())
    try:
        named = log.stat()
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or named.st_size < position


def _start_of_last(log: Path, lines: int) -> int:
    """The byte at which the last `lines` lines begin, no further back than a block for each hundred lines."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = _kept_from(file.fileno(), max(0, size - BLOCK * (1 + lines // 100)))
            file.seek(start)
            block = file.read(size - start)
    except FileNotFoundError:
        return 0
    at = len(block)
    for _ in range(lines):
        at = block.rfind(b"\n", 0, max(0, at - 1)) + 1
        if at == 0:
            break
    return start + at
