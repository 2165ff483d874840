"""Files that survive a power cut: their bytes are on the disk before the marker that vouches for them."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path

# A file system may write names long before contents: after a power cut, a file that was there can be empty.
FEW = 64  # files that are synced one by one; beyond, one call for the whole file system is quicker
_COARSE = 5  # CLOCK_REALTIME_COARSE, which file systems take their times from
_TICK = 0.001
_libc = ctypes.CDLL(None, use_errno=True)


def sync_files(paths: Sequence[bytes], folder: Path) -> None:
    """Have these files, which lie on the file system of `folder`, on the disk.

    One by one while they are few: whatever else the machine has to write, another app's upload or a build, does
    not hold up a commit with three changed files.
    """
    if len(paths) > FEW:
        sync_file_system(folder)
        return
    descriptors = [os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) for path in paths]
    try:
        for descriptor in descriptors:
            os.fsync(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def sync_file_system(folder: Path) -> None:
    """syncfs(2). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)


def wait_past(moment: int) -> None:
    """Until a file that is written now gets another time than `moment`, in nanoseconds: some milliseconds at most.

    A change within the tick of the clock in which a file was written would otherwise leave no trace.
    """
    while moment - 1_000_000_000 < time.clock_gettime_ns(_COARSE) <= moment:
        time.sleep(_TICK)
