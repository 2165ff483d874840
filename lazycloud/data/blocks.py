"""The contents of an open file, given to another: shared where the file system can, else copied."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

FICLONE = 0x40049409
CANNOT = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)
_AT_ONCE = 1 << 27  # bytes that the kernel is asked to copy
_BY_HAND = 1 << 20


def give(source: int, target: int) -> bool:
    """All of a file to an empty one; True if they share their blocks now. Holes stay holes."""
    if clone(source, target):
        return True
    copy(source, target)
    return False


def are_shared(folder: Path) -> bool:
    """Whether files in a folder, which can be written to, can share blocks."""
    with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
        one.write(bytes(4096))
        one.flush()
        return clone(one.fileno(), other.fileno())


def clone(source: int, target: int) -> bool:
    """Let both share their blocks; whether the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as problem:
        if problem.errno not in CANNOT:
            raise
        return False
    return True


def copy(source: int, target: int) -> None:
    """What the file has, up to the size that it has now."""
    facts = os.fstat(source)
    os.ftruncate(target, facts.st_size)
    is_sparse = facts.st_blocks * 512 < facts.st_size
    for begin, end in _data(source, facts.st_size) if is_sparse else [(0, facts.st_size)]:
        while begin < end:
            done = _copy_some(source, target, begin, end)
            if not done:  # it is shorter by now
                os.ftruncate(target, begin)
                return
            begin += done


def _data(source: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, and no hole."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(source, end, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno != errno.ENXIO:  # which says that nothing comes any more
                raise
            return
        end = os.lseek(source, begin, os.SEEK_HOLE)
        yield begin, end


def _copy_some(source: int, target: int, begin: int, end: int) -> int:
    """In the kernel where it can, else by hand, which says what is wrong; the number of bytes, 0 at the end."""
    with contextlib.suppress(OSError):
        done = os.copy_file_range(source, target, min(end - begin, _AT_ONCE), begin, begin)
        if done:
            return done
    return os.pwrite(target, os.pread(source, min(end - begin, _BY_HAND), begin), begin)
