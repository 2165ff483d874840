"""What survives a power cut: written to disk before it gets its name."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lazycloud import trees

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
EACH = 64  # files that are synced one by one; for more, one sync of the file system is faster


def persist(folder: Path) -> None:
    """Return when everything below a folder is on disk."""
    places = list(_regular(folder))
    if len(places) > EACH and _sync_file_system(folder):
        return
    for place in places:
        sync(place)


def publish(made: Path, name: Path, linked: bool = False) -> None:
    """Give a complete folder its name, both in one folder; on return that survives too.

    What lies below it is on disk by then.

    `linked`: its earlier name leads there, for who was told that one.
    """
    sync(made)
    made.rename(name)
    if linked:
        made.symlink_to(name.name)
    sync(name.parent)


def write(place: Path, text: str) -> None:
    """A small file, whole or not at all; on return it survives."""
    making = place.with_name(f"{place.name}.new")
    making.write_text(text)
    sync(making)
    making.rename(place)
    sync(place.parent)


def remove(place: Path) -> None:
    """A file, if it is there; on return it is gone for good."""
    place.unlink(missing_ok=True)
    sync(place.parent)


def discard(place: Path, prefix: str, folder: Path) -> None:
    """Remove a folder, if it is there: at once from where it was, so that nobody sees it half there.

    It goes by a folder in `folder` whose name begins with `prefix`, which is what a crash leaves.
    """
    if place.is_dir():
        gone = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        place.rename(gone / place.name)
        sync(place.parent)
        trees.remove(gone)


def exchange(one: Path, other: Path) -> None:
    """Two folders in one folder take each other's names, in one step (renameat2(2), which Python lacks)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))
    sync(one.parent)


def _regular(folder: Path) -> Iterator[Path]:
    """Files and folders, what is inside before what it is in. No symlinks: they are part of their folder."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _regular(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
    yield folder


def sync(place: Path) -> None:
    """One file, or the names in one folder."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # it may be a pipe by now
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(folder: Path) -> bool:
    """syncfs(2), which Python lacks. False where the C library has none."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True
