"""Sealed folders: shared by many releases, and read-only to those who run in them.

A worker may be root, whom modes do not stop: it is started without that power (workers.command).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

WRITE = 0o222


def seal(folder: Path, writable: Iterable[str] = ()) -> None:
    """Take all rights to write from what lies in a folder, but from `writable` ones, relative to it. Blocks.

    The folder itself stays as it is: markers are renewed in it.
    """
    spared = {str(folder / place) for place in writable}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if f"{parent}/{name}" not in spared]
        for name in (*files, *folders):
            if parent != str(folder) or name in folders:
                _close(f"{parent}/{name}")


def _close(path: str) -> None:
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        if status.st_mode & WRITE and not os.path.islink(path):  # noqa: PTH114 - ten thousands of them
            os.chmod(path, status.st_mode & 0o777 & ~WRITE)  # noqa: PTH101
