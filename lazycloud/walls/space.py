"""How much of the disk some folders take, and when too little of it is left."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

FEW = (
    2000  # files that are counted here; more are left to a program, which leaves this one's interpreter free
)
PATIENCE = 60.0  # seconds for that program
BLOCK = 512  # bytes: the unit of st_blocks
RESERVE = 256_000_000  # bytes of the disk that builds and workers leave free, for all else that has to write
RESERVE_SHARE = 0.01  # of a small disk


def all_but_full(free: int, total: int) -> bool:
    """Of a disk, in bytes: whether who goes on writing there is to be ended."""
    return free < kept_free(total)


def kept_free(total: int) -> int:
    """Bytes of a disk of that size."""
    return int(min(RESERVE, RESERVE_SHARE * total))


def taken(places: Sequence[Path]) -> int:
    """Bytes that the files below them take, each once however often it is linked. Blocks; belongs in a thread."""
    here = [place for place in places if place.is_dir()]
    try:
        return _count(here)
    except OverflowError:
        words = ("nice", "-n", "19", "du", "-s", "-c", "-B1", "--", *map(str, here))
        # It is not content where something goes while it looks; what it has found counts.
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return int(done.stdout.split()[-2]) if done.stdout else 0


@contextlib.contextmanager
def _going() -> Iterator[None]:
    """What goes while we look counts nothing; what has too long a path might be anything."""
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.ENAMETOOLONG:
            raise OverflowError from problem


def _count(places: Sequence[Path]) -> int:
    """Raises OverflowError where there are more than a few, or they are deeper than a path can say."""
    size, files = 0, 0
    seen: set[int] = set()
    folders = [str(place) for place in places]
    while folders:
        with _going():
            for entry in os.scandir(folders.pop()):
                files += 1
                if files > FEW:
                    raise OverflowError
                with _going():
                    stat = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif stat.st_nlink == 1 or stat.st_ino not in seen:
                        seen.add(stat.st_ino)
                        size += stat.st_blocks * BLOCK
    return size
