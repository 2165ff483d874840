"""Markers: a folder is complete when its marker is there, and a folder without one counts as nothing.

A marker is written at once and its folder flushed to the disk afterwards, as only a power cut could tell the
difference: one that was made in an earlier boot and not flushed then counts as none.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lazycloud.processes import boot_id

TRASH = ".trash-"
_libc = ctypes.CDLL(None, use_errno=True)


def write_marker(path: Path, facts: Mapping[str, Any]) -> None:
    """The last thing to be written in a folder. `settle_marker` has to follow, some time."""
    _write(path, {**facts, "made": time.time(), "boot": boot_id(), "settled": False})


def settle_marker(path: Path, **more: Any) -> None:
    """Flush the folder of a marker and note it, with `more` facts. Blocks while the disk works."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _libc.syncfs(folder)
        facts = read_marker(path)
        if facts:
            used = path.stat().st_mtime
            _write(path, {**facts, **more, "settled": True}, fsync=True)
            os.utime(path, (used, used))
        os.fsync(folder)
    finally:
        os.close(folder)


def read_marker(path: Path) -> dict[str, Any] | None:
    """What a marker says; None if there is none, or one that cannot be read."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def is_whole(path: Path) -> bool:
    """Whether the folder of a marker survived what has been since: to be asked at the start, of all."""
    facts = read_marker(path)
    return facts is not None and (facts.get("settled", True) or facts.get("boot") == boot_id())


def use_marker(path: Path) -> None:
    """Note that what it stands for was used just now: its mtime."""
    with suppress(OSError):
        os.utime(path)


async def discard(folder: Path) -> None:
    """Remove a folder. It is out of the way at once, by its name; what remains of a crash is told by its name."""
    aside = folder.with_name(f"{TRASH}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
        removing = asyncio.create_task(asyncio.to_thread(remove, aside), name=f"remove {folder.name}")
        await asyncio.shield(removing)


def remove(folder: Path) -> None:
    """A whole tree, read-only folders included. What resists is left to the next start."""

    def once_more(work: Callable[[str], Any], path: str, _why: Any) -> None:
        with suppress(OSError):
            for place in (Path(path).parent, Path(path)):
                if stat.S_ISDIR(place.lstat().st_mode):
                    place.chmod(0o700)
            if work in (os.rmdir, os.unlink):
                work(path)
            else:
                shutil.rmtree(path, ignore_errors=True)

    shutil.rmtree(folder, onerror=once_more)


def _write(path: Path, facts: Mapping[str, Any], fsync: bool = False) -> None:
    aside = path.with_suffix(f".{uuid.uuid4().hex}")  # several deploys of one release may settle it at once
    with aside.open("w") as file:
        file.write(json.dumps(facts, indent=1, sort_keys=True))
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    aside.rename(path)
