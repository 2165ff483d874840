"""What a server has left of itself: processes, mounts, sockets, control groups, temporary files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
_TEMPORARY = re.compile(
    r"\.(making|dropping|trash)-.*"  # a version, or a folder, that is being made or removed
    r"|.*\.new"  # a file that is to take another's place
    r"|.*\.[0-9a-f]{32}"  # a marker likewise
)


def processes(*words: str) -> list[psutil.Process]:
    """Whoever has one of these in its environment or its arguments, but this process and those above it."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            said = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid not in spared and any(word in text for word in words for text in said):
            found.append(process)
    return found


def groups(home: Path) -> list[str]:
    """The control groups of a server; others may run beside it."""
    name = f"lazycloud-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    return [folder for folder, _, _ in os.walk(GROUPS) if name in folder]


def temporary(folder: Path) -> Iterator[Path]:
    """What was to be renamed, or removed, and never was."""
    for place, folders, names in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *names) if _TEMPORARY.fullmatch(name))


def of(home: Path, temporaries: Path) -> list[str]:
    """Sentences. `temporaries` is the TMPDIR that the server had for itself."""
    found = [f"{one} still runs: {one.cmdline()}" for one in processes(str(home), str(temporaries))]
    for table in ("/proc/mounts", "/proc/net/unix"):
        lines = Path(table).read_text().splitlines()
        found += [f"{table}: {line}" for line in lines if str(home) in line or str(temporaries) in line]
    found += [f"The control group {one} is left." for one in groups(home)]
    found += [f"{place} is left." for place in temporaries.iterdir()]
    found += [f"{place} is left." for place in temporary(home)]
    found += [
        f"{place} is left." for place in (home / "run", *(home / "scratch").glob("*")) if place.exists()
    ]
    return found
