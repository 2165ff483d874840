"""A disk that is full, in words."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lazycloud.errors import DiskFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
SAYINGS = ("No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT")


def disk_full(folder: Path) -> DiskFull:
    free = "free space unknown"
    with suppress(OSError):
        free = f"{shutil.disk_usage(_existing(folder)).free / 1e6:,.0f} MB free"
    return DiskFull(
        f"The disk of {folder} is full ({free}).",
        "`lazycloud disk` tells where it went, `lazycloud prune --all` removes what can be built again.",
    )


@contextmanager
def disk_watched(folder: Path) -> Iterator[None]:
    """Turns an OSError that means a full disk into a sentence about `folder`."""
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise disk_full(folder) from problem
        raise


def says_full(lines: Sequence[str]) -> bool:
    """Whether a tool's last lines complain of a full disk."""
    return any(saying in line for line in lines for saying in SAYINGS)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
