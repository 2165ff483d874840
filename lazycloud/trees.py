"""Folders that somebody else has filled, however deep, removed and measured: nothing of them is a reason to stop.

`shutil.rmtree` goes into a folder by calling itself, with a descriptor for each level: some thousand levels, which
take an app a moment to make, end it with a RecursionError, which no `ignore_errors` covers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ITSELF = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(place: Path) -> None:
    """A folder and all below it; a link itself. What cannot be removed stays; there may be nothing.

    What is two levels down is moved up first, so two descriptors do for any depth, and no path gets too long.
    """
    with contextlib.suppress(OSError):
        if place.is_symlink():
            place.unlink()
            return
        top = _opened(None, str(place))
        try:
            _clear(top)
        finally:
            os.close(top)
        place.rmdir()


def empty(folder: Path) -> None:
    """All that is in it; a file that cannot be removed is an OSError."""
    for place in list(folder.iterdir()):
        if place.is_dir() and not place.is_symlink():
            remove(place)
        else:
            place.unlink()


def size(place: Path) -> int:
    """Bytes of the regular files below a folder. What cannot be looked at, or vanishes meanwhile, counts nothing."""
    total, waiting = 0, [str(place)]
    while waiting:
        with contextlib.suppress(OSError):
            for entry in os.scandir(waiting.pop()):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _clear(top: int) -> None:
    stuck: set[str] = set()
    while names := [name for name in os.listdir(top) if name not in stuck]:
        for name in names:
            try:
                _take(top, name)
            except OSError:
                stuck.add(name)


def _take(top: int, name: str) -> None:
    """One entry of a folder, but for the folders within it, which become entries beside it."""
    try:
        inner = _opened(top, name)
    except NotADirectoryError:
        os.unlink(name, dir_fd=top)
        return
    try:
        for each in os.listdir(inner):  # noqa: PTH208 - of a descriptor
            try:
                os.unlink(each, dir_fd=inner)
            except (IsADirectoryError, PermissionError):  # which of the two it is depends on the system
                os.close(_opened(inner, each))  # one that nobody may write to cannot be moved
                os.rename(each, f".{secrets.token_hex(16)}", src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _opened(folder: int | None, name: str) -> int:
    """To read and change it, whatever its mode was. Raises NotADirectoryError for a link, too."""
    itself = os.open(name, _ITSELF, dir_fd=folder)
    try:
        with contextlib.suppress(OSError):
            os.chmod(f"/proc/self/fd/{itself}", 0o700)  # noqa: PTH101 - of a descriptor
        return os.open(".", _FOLDER, dir_fd=itself)
    finally:
        os.close(itself)
