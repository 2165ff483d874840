"""What processes cost: CPU time and memory of a whole process tree, read from /proc."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):  # one that ends while we look has no more children
        for thread in (PROC / str(pid) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                found += tree(int(child))
    return found


def cpu(pid: int) -> int:
    """Nanoseconds on a CPU so far, of all threads of the tree: user and kernel."""
    return sum(_thread_cpu(thread) for each in tree(pid) for thread in _threads(each))


def pss(pid: int) -> int:
    """Bytes of memory of the tree now; a page that n processes share counts 1/n in each."""
    return sum(_sizes(each, "smaps_rollup", "Pss") for each in tree(pid))


def forget_peak(pid: int) -> None:
    """`peak` counts from now on."""
    for each in tree(pid):
        (PROC / str(each) / "clear_refs").write_text("5")


def peak(pid: int) -> int:
    """Bytes: the sum of each process's largest resident size since `forget_peak`."""
    return sum(_sizes(each, "status", "VmHWM") for each in tree(pid))


def rss(pid: int) -> int:
    """Bytes resident now."""
    return sum(_sizes(each, "status", "VmRSS") for each in tree(pid))


def _threads(pid: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (PROC / str(pid) / "task").iterdir()


def _thread_cpu(thread: Path) -> int:
    with contextlib.suppress(OSError):
        return int((thread / "schedstat").read_text().split()[0])
    return 0


def _sizes(pid: int, file: str, name: str) -> int:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", (PROC / str(pid) / file).read_text(), re.M)
        return int(found[1]) * 1024 if found else 0
    return 0


def machine() -> dict[str, str]:
    """What the figures were made on: processor, cores, kernel and the versions of what was run."""
    model = re.search(r"model name\s*:\s*(.*)", (PROC / "cpuinfo").read_text())
    cores = len(re.findall(r"^processor\s*:", (PROC / "cpuinfo").read_text(), re.M))
    return {
        "processor": f"{model[1] if model else platform.machine()}, {cores} cores",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    } | {name: said for name, said in _versions() if said}


_ASK = {"nginx": "-v", "haproxy": "-v", "caddy": "version", "wrk": "-v", "node": "--version"}


def _versions() -> Iterator[tuple[str, str]]:
    for name, how in _ASK.items():
        if shutil.which(name):
            done = subprocess.run([name, how], capture_output=True, text=True, timeout=20)
            found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
            yield name, found[0] if found else ""
    for name in ("uvloop", "aiohttp"):
        yield name, version(name)
