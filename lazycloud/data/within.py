"""Files of an app, opened by who sees more than it does: what it may put in their place meanwhile leads nowhere."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # it may be a pipe by now


@contextlib.contextmanager
def opened(root: Path, place: Path, flags: int) -> Iterator[int]:
    """A descriptor of what lies at `place`, in the folder `root`, which is not the app's to replace.

    A link within is followed, once. Raises OSError for one that leads out, and for what changes meanwhile.
    """
    real, there = root.resolve(), place.resolve()
    if not there.is_relative_to(real):
        raise OSError(errno.ELOOP, "It leads out", str(place))
    parts = there.relative_to(real).parts
    with contextlib.ExitStack() as stack:
        descriptor = os.open(real, FOLDER)
        stack.callback(os.close, descriptor)
        for at, part in enumerate(parts, 1):
            descriptor = os.open(part, flags if at == len(parts) else FOLDER, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


@contextlib.contextmanager
def opened_in(folder: int, name: str, flags: int, place: Path) -> Iterator[int]:
    """The same of an entry of an open folder; `place` is what it is called in errors."""
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as problem:
        problem.filename = str(place)
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)
