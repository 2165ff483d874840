"""What was written into a release's tree: which object each file holds, and how to tell that it still does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

FORMAT = 1
MANIFEST = "source.manifest"  # beside the tree
_COARSE = 5  # CLOCK_REALTIME_COARSE, which file systems take their times from
_TICK = 0.001
# Inode, size, time of modification, mode, time of change, packed: ten thousand are no work for Python's collector.
Mark = bytes
_MARK = Struct("5Q")
MARK_SIZE = _MARK.size


def mark_of(status: os.stat_result, sealed: bool) -> Mark:
    """What a file looked like when it was written.

    Whoever may write to a file can set its time of modification back, but not its time of change. In a sealed
    tree nobody writes, and each link that is made or removed is a change: there it does not count.
    """
    changed = 0 if sealed else status.st_ctime_ns
    return _MARK.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, changed)


def wait_past(marks: Iterable[Mark]) -> None:
    """Until a file that is written now gets another time than those have: some milliseconds at most.

    A change within the tick of the clock in which a file was written would otherwise leave no trace.
    """
    moment = max((_MARK.unpack(mark)[2] for mark in marks), default=0)
    while moment - 1_000_000_000 < time.clock_gettime_ns(_COARSE) <= moment:
        time.sleep(_TICK)


@dataclass
class Manifest:
    """`marks` by a listing's line, for regular files with their object's content. `sealed`: nobody writes to them."""

    sealed: bool
    marks: dict[bytes, Mark] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Nobody waits for the disk: a torn one does not add up, and costs the next commit some time."""
        lines, marks = b"\0".join(self.marks), b"".join(self.marks.values())
        facts = {"format": FORMAT, "sealed": self.sealed, "files": len(self.marks), "lines": len(lines)}
        aside = path.with_suffix(".new")
        aside.write_bytes(json.dumps(facts).encode() + b"\n" + lines + marks)
        aside.rename(path)


def read_manifest(path: Path) -> Manifest | None:
    """None for one that is not there, torn, or of another lazycloud."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        head, _, body = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        if facts["format"] == FORMAT:
            return Manifest(facts["sealed"], dict(_rows(facts["files"], body, facts["lines"])))
    return None


def _rows(files: int, body: bytes, end: int) -> Iterator[tuple[bytes, Mark]]:
    if len(body) != end + files * MARK_SIZE:
        raise ValueError("torn")
    marks = (body[start : start + MARK_SIZE] for start in range(end, len(body), MARK_SIZE))
    return zip(body[:end].split(b"\0") if files else (), marks, strict=True)
