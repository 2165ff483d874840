"""What a folder takes of the disk: allocated blocks, each file counted once however many links it has.

Releases share files by hard links with their neighbours, environments with the package cache. Sparse files count
as what they occupy. Extents that are shared by reflinks cannot be told apart, and count for each.
"""

from __future__ import annotations

import os
import stat
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.deployments.retention import Name, Shared

BLOCK = 512  # bytes that st_blocks counts in, whatever the file system's own
WORK = 0.005  # seconds of looking between two pauses
DEVICE_BITS = 44

Pause = Callable[[], None]


@dataclass(frozen=True)
class Footprint:
    """`folders`: bytes of what can have no second link. Of the files, their numbers and bytes, side by side:
    `single` had one link when they were looked at, `linked` had more.
    """

    folders: int
    single: tuple[array[int], array[int]]
    linked: tuple[array[int], array[int]]

    @property
    def bytes(self) -> int:
        return self.folders + sum(self.single[1]) + sum(self.linked[1])

    @classmethod
    def joined(cls, footprints: Sequence[Footprint]) -> Footprint:
        """Of several places that have no file in common."""
        if len(footprints) == 1:
            return footprints[0]
        made = _Measuring().footprint()
        for one in footprints:
            for files, more in ((made.single, one.single), (made.linked, one.linked)):
                files[0].extend(more[0])
                files[1].extend(more[1])
        return cls(sum(one.folders for one in footprints), made.single, made.linked)


class Pace:
    """Pauses for as long as was worked, so that a walk over many files leaves others their time."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self) -> None:
        worked = time.monotonic() - self._since
        if worked > WORK:
            time.sleep(worked)
            self._since = time.monotonic()


def in_haste() -> None:
    """No pauses: somebody waits for it."""


def measure(place: Path, pause: Pause = in_haste) -> Footprint:
    """Of a folder or file; what cannot be read, or goes meanwhile, counts nothing. Blocks."""
    measuring = _Measuring()
    waiting: list[str] = []
    try:
        found = place.lstat()
    except OSError:
        return measuring.footprint()
    measuring.add(found)
    if stat.S_ISDIR(found.st_mode):
        waiting.append(str(place))
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    pause()
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    measuring.add(found)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
        except OSError:
            continue
    return measuring.footprint()


class _Measuring:
    def __init__(self) -> None:
        self._folders = 0
        self._files: tuple[dict[int, int], dict[int, int]] = ({}, {})  # with one link, and with more

    def add(self, found: os.stat_result) -> None:
        size = found.st_blocks * BLOCK
        if stat.S_ISDIR(found.st_mode):
            self._folders += size
        elif size:
            number = found.st_ino ^ (found.st_dev << DEVICE_BITS) & (1 << 64) - 1
            self._files[found.st_nlink > 1][number] = size

    def footprint(self) -> Footprint:
        single, linked = ((array("Q", files.keys()), array("Q", files.values())) for files in self._files)
        return Footprint(self._folders, single, linked)


def part(footprints: Mapping[Name, Footprint]) -> tuple[dict[Name, int], list[Shared]]:
    """What each holds alone, and what several hold together.

    Only files that somebody saw with more than one link can be held twice: the rest is never gone through one by
    one, which keeps this quick and small where there are a million of them.
    """
    holders: dict[int, int] = {}  # number of a file -> who holds it, as a place in `groups`
    sizes: dict[int, int] = {}
    groups = _Groups()
    own: dict[Name, int] = {}
    for footprint in footprints.values():
        for number, size in zip(*footprint.linked, strict=True):
            holders[number], sizes[number] = 0, size
    for name, footprint in footprints.items():
        own[name] = footprint.folders
        for number in footprint.linked[0]:
            holders[number] = groups.joined(holders[number], name)
        for number, size in zip(*footprint.single, strict=True):
            if number in holders:
                holders[number] = groups.joined(holders[number], name)
            else:
                own[name] += size
    together: dict[int, int] = defaultdict(int)
    for number, place in holders.items():
        together[place] += sizes[number]
    shared = []
    for place, size in together.items():
        if len(groups[place]) == 1:
            own[next(iter(groups[place]))] += size
        else:
            shared.append(Shared(groups[place], size))
    return own, shared


class _Groups:
    """Sets of names by number, 0 the empty one: most files are held by one of a few sets."""

    def __init__(self) -> None:
        self._sets: list[frozenset[Name]] = [frozenset()]
        self._places = {self._sets[0]: 0}
        self._name: Name | None = None
        self._known: dict[int, int] = {}

    def __getitem__(self, place: int) -> frozenset[Name]:
        return self._sets[place]

    def joined(self, place: int, name: Name) -> int:
        """The set at `place`, with `name` in it too. Quick for many calls with one name."""
        if name is not self._name:
            self._name, self._known = name, {}
        if place not in self._known:
            joined = self._sets[place] | {name}
            if joined not in self._places:
                self._places[joined] = len(self._sets)
                self._sets.append(joined)
            self._known[place] = self._places[joined]
        return self._known[place]
