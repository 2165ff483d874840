"""Markers: a folder is complete when its marker is there, and a folder without one counts as nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TRASH = ".trash-"


def write_marker(path: Path, facts: Mapping[str, Any]) -> None:
    """The last thing to be written in a folder: it survives a crash whole, or is not there."""
    text = json.dumps({**facts, "made": time.time()}, indent=1, sort_keys=True)
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def discard(folder: Path) -> None:
    """Remove a folder. It is out of the way at once, by its name; what remains of a crash is told by its name."""
    aside = folder.with_name(f"{TRASH}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
        removing = asyncio.create_task(asyncio.to_thread(remove, aside), name=f"remove {folder.name}")
        await asyncio.shield(removing)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
