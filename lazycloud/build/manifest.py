"""What was written into a release's tree: which object each file holds, and how to tell that it still does."""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "source.manifest"  # beside the tree
_COARSE = 5  # CLOCK_REALTIME_COARSE, which file systems take their times from
_TICK = 0.001
Mark = tuple[int, int, int, int, int]  # inode, size, time of modification, mode, time of change


def mark_of(status: os.stat_result, sealed: bool) -> Mark:
    """What a file looked like when it was written.

    Whoever may write to a file can set its time of modification back, but not its time of change. In a sealed
    tree nobody writes, and each link that is made or removed is a change: there it does not count.
    """
    changed = 0 if sealed else status.st_ctime_ns
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode, changed


def wait_past(moment: int) -> None:
    """Until a file that is written now gets another time than `moment`, in nanoseconds: some milliseconds at most.

    A change within the tick of the clock in which a file was written would otherwise leave no trace.
    """
    while moment - 1_000_000_000 < time.clock_gettime_ns(_COARSE) <= moment:
        time.sleep(_TICK)


@dataclass
class Manifest:
    """`marks` by a listing's line, for regular files with their object's content. `sealed`: nobody writes to them."""

    sealed: bool
    marks: dict[bytes, Mark] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Nobody waits for the disk: a torn one does not add up, and costs the next commit some time."""
        lines = b"\0".join(self.marks)
        columns = zip(*self.marks.values(), strict=True)
        body = lines + b"".join(array("Q", column).tobytes() for column in columns)
        facts = {"format": FORMAT, "sealed": self.sealed, "files": len(self.marks), "lines": len(lines)}
        aside = path.with_suffix(".new")
        aside.write_bytes(json.dumps(facts).encode() + b"\n" + body)
        aside.rename(path)


def read_manifest(path: Path) -> Manifest | None:
    """None for one that is not there, torn, or of another lazycloud."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        head, _, body = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        if facts["format"] == FORMAT:
            return Manifest(facts["sealed"], dict(_rows(facts, body)))
    return None


def _rows(facts: dict[str, Any], body: bytes) -> Iterator[tuple[bytes, Mark]]:
    count, end = facts["files"], facts["lines"]
    numbers = array("Q", body[end:])
    columns = [numbers[start * count : (start + 1) * count] for start in range(5)]
    lines = body[:end].split(b"\0") if count else []
    return zip(lines, zip(*columns, strict=True), strict=True)
