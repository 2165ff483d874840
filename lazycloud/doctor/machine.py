"""What the kernel, the disk and the clock give."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from lazycloud.allowance import in_words
from lazycloud.config import Config, memory
from lazycloud.findings import Finding, Weight

TIME_ERROR = 5  # sys/timex.h: the clock is not synchronised
TIMEX_SIZE = 512  # bytes, more than struct timex has anywhere
FEW_FILES = 8192  # a router may have two for each connection
FULL = 256_000_000  # bytes: what builds leave of a disk at the least
DISTANT = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph"}
"""File systems that another machine may change meanwhile, or that lock among themselves."""


def kernel(config: Config) -> Iterator[Finding]:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as problem:
        sentence = f"Workers cannot be watched: this kernel has no pidfds ({problem.strerror})."
        yield Finding(Weight.BROKEN, "kernel", sentence, "Linux 5.3 or newer has them.")


def home(config: Config) -> Iterator[Finding]:
    place = existing(config.home)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):  # `disk` says that
            sentence = f"{config.home} cannot be lazycloud’s home: {problem.strerror}."
            yield Finding(Weight.BROKEN, "home", sentence, "Give another folder with --home.")
            return
    kind = file_system(place)
    if kind in DISTANT:
        sentence = f"{config.home} is on {kind}: databases there may be damaged, and locks may not hold."
        yield Finding(Weight.UNSAFE, "home", sentence, "Give a folder on a disk of this machine with --home.")


def disk(config: Config) -> Iterator[Finding]:
    usage = shutil.disk_usage(existing(config.home))
    said = f"{in_words(usage.free)} of {in_words(usage.total)} are free"
    reserve = config.disk.reserve.of(usage.total)
    if usage.free < FULL:
        yield Finding(Weight.BROKEN, "disk", f"{said}: deploys fail.", "Make room; see `lazycloud prune`.")
    elif usage.free < reserve:
        sentence = (
            f"{said}, less than the reserve of {in_words(reserve)}: what can be built again is removed."
        )
        yield Finding(Weight.LIMITED, "disk", sentence, "Make room; see `lazycloud disk`.")
    else:
        yield Finding(Weight.FINE, "disk", f"{said}.")


def free_memory(config: Config) -> Iterator[Finding]:
    total, available = memory(), min(memory(), psutil.virtual_memory().available)
    reserve = config.workers.reserve.of(total)
    said = f"{in_words(available)} of {in_words(total)} are available"
    if available < reserve:
        sentence = f"{said}, less than the reserve of {in_words(reserve)}: few previews can be awake."
        advice = "End what else takes memory, or lower `reserve` of [workers]."
        yield Finding(Weight.LIMITED, "memory", sentence, advice)
    else:
        yield Finding(Weight.FINE, "memory", f"{said}.")


def open_files(config: Config) -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= FEW_FILES:
        yield Finding(Weight.FINE, "open files", f"A process may open {_count(hard)}.")
        return
    sentence = (
        f"A process may open {_count(hard)}: a router serves about {hard // 2:,} connections at a time."
    )
    yield Finding(
        Weight.LIMITED, "open files", sentence, f"Raise the limit (`ulimit -Hn`) to {FEW_FILES:,} or more."
    )


def clock(config: Config) -> Iterator[Finding]:
    """The kernel knows whether somebody keeps its clock; a container asks it, too."""
    said = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_SIZE))
    if said == TIME_ERROR:
        sentence = "Nobody keeps the clock: times in logs, logins and certificates go wrong with it."
        yield Finding(Weight.LIMITED, "clock", sentence, "Let chrony or systemd-timesyncd keep it.")
    elif said >= 0:
        yield Finding(Weight.FINE, "clock", "It is kept.")


LOOKS = (kernel, home, disk, free_memory, open_files, clock)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def file_system(place: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a folder is on, as the kernel calls it."""
    found, length = "The file system", -1
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        if place.resolve().is_relative_to(point) and len(point) >= length:  # of equals, the last covers
            found, length = rest.split()[0], len(point)
    return found


def _count(hard: int) -> str:
    return "any number of files" if hard == resource.RLIM_INFINITY else f"{hard:,} files"
