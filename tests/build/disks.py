"""File systems of the tests' own, in a file each."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D  # XFS_IOC_GOINGDOWN, and ext4 has it as well
_LOSE_ALL = struct.pack("I", 2)  # what is in memory and in the log's memory
SIZE = 320 << 20  # xfs takes no less than 300 MB; the file is sparse


class Disk:
    """An image that is mounted at `place`."""

    def __init__(self, image: Path, place: Path) -> None:
        self._image = image
        self.place = place

    def mount(self) -> bool:
        words = ["mount", "-o", "loop", str(self._image), str(self.place)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)

    def cut_power(self) -> None:
        """Lose what was not written, and start again with what was."""
        folder = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, _LOSE_ALL)
        finally:
            os.close(folder)
        self.unmount()
        assert self.mount()


@contextmanager
def disk(folder: Path, kind: str, *options: str) -> Iterator[Disk]:
    """A new file system; skips the test where it cannot be mounted."""
    image, place = folder / f"{kind}.image", folder / kind
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([f"mkfs.{kind}", *options, str(image)], check=True, capture_output=True)
    made = Disk(image, place)
    if os.geteuid() != 0 or not made.mount():
        pytest.skip(f"needs the right and the means to mount {kind}")
    try:
        yield made
    finally:
        made.unmount()
