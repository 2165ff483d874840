"""What is kept of the past of one live database: bases and WALs, a folder for each generation. Nothing speaks SQLite.

A generation is the time in which nobody writes the database file: its base, and one WAL that grows over it. A folder
has the base, or says which generation's end it is (so that a large database is not copied for each), and the WAL as
far as it was copied. What counts of a folder is what its facts say, which are written when the rest is on disk.

All of this belongs in a thread, one call at a time: whoever calls has the `lock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lazycloud.data import blocks, durable, image, wal
from lazycloud.data.layers import Layer, Layers
from lazycloud.data.wal import FRAME, HEADER, Mark
from lazycloud.errors import Unavailable

BASE, WAL, FACTS = "base", "wal", "facts.json"
# Bytes of a base that is copied for each generation where the file system cannot clone it: some times its WAL, which
# has to be kept otherwise.
SMALL = 16_000_000


@dataclass(frozen=True)
class Stored:
    """One generation as it is on disk.

    `start`: what its base alone is, if nothing else was written to it when it was copied. `floor`: the first frame
    that an image can be made of. `before`: the generation at whose end it began, if it has no base of its own.
    `reached`: how far its WAL was copied. `is_ended`: the next generation began exactly there.
    """

    id: str
    start: Mark | None
    floor: int
    before: str
    reached: Mark | None
    is_ended: bool = False

    @property
    def end(self) -> Mark | None:
        return (self.reached or self.start) if self.is_ended else None

    def covers(self, generation: str, mark: Mark) -> bool:
        if mark.frame == 0:  # which names nothing by itself
            return generation == self.id and self.start is not None
        if mark == self.start:
            return True
        reached, floor = self.reached, self.floor
        if reached is None or reached[:2] != mark[:2]:
            return False
        if (
            self.start and self.start[:2] == mark[:2]
        ):  # the WAL of before went on: its first frames are in the base
            floor = max(floor, self.start.frame)
        return floor <= mark.frame <= reached.frame


class Archive:
    """The generations of one database. `folder` is made when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self.lock = asyncio.Lock()
        self._folder = folder
        self._stored: dict[str, Stored] = {}
        self._clones: bool | None = None  # not tried yet
        self._load()

    def __repr__(self) -> str:
        return f"<Archive of {len(self._stored)} generations in {self._folder}>"

    def find(self, generation: str, mark: Mark) -> Stored | None:
        """The one that has it; first the one by that id."""
        ordered = sorted(self._stored.values(), key=lambda stored: stored.id != generation)
        return next(
            (one for one in ordered if one.covers(generation, mark) and self._leads_to(one, mark)), None
        )

    def has(self, generation: str) -> bool:
        return generation in self._stored

    def can_clone(self) -> bool:
        """Whether this file system shares blocks. Tried once."""
        if self._clones is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clones = blocks.are_shared(self._folder)
        return self._clones

    def needs_base(self, generation: str, salts: tuple[int, int] | None) -> bool:
        """Whether it is to be copied still: it is not here, or its WAL does not follow the one before."""
        stored = self._stored.get(generation)
        return not stored or bool(stored.before and not self.continues(stored.before, salts, stored.start))

    def continues(self, before: str, salts: tuple[int, int] | None, start: Mark | None) -> bool:
        """Whether a generation that began at `start` needs no base, since the one before was archived to its end."""
        earlier = self._stored.get(before)
        if not earlier or not start or earlier.end != start:
            return False
        return not salts or salts == start[:2] or wal.follows(start, Mark(*salts, 1, 0, 0, 0, 0))

    def weight(self, generation: str) -> int:
        """Bytes of WAL that are to be written into the base of a generation before it can be used."""
        return sum(stored.reached.end for stored in self._before(generation)[:-1] if stored.reached)

    def copy_base(self, generation: str, base: int) -> None:
        """Copy the database file to where `admit` makes it count, when it is known that nobody wrote it meanwhile."""
        folder = self._folder / generation
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / BASE).open("wb") as made:
            blocks.give(base, made.fileno())
            os.fsync(made.fileno())

    def admit(self, generation: str, start: Mark | None, floor: int, before: str = "") -> None:
        """From now on there is this generation, with the base that was copied or the end of the one `before`.

        Raises Unavailable if it is there already, with another base.
        """
        if generation in self._stored and self._stored[generation].start != start:
            raise Unavailable("It was archived before, and began elsewhere then.")
        (self._folder / generation).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(Stored(generation, start, floor, before, None))
        durable.sync(self._folder)

    def discard(self, generation: str) -> None:
        """What was copied of one that is not admitted."""
        if generation not in self._stored:
            shutil.rmtree(self._folder / generation, ignore_errors=True)

    def append(self, generation: str, log: int, mark: Mark) -> None:
        """Copy the live WAL up to a mark, from where the last copy ended. It counts when `settle` returns.

        Raises Unavailable if the mark is not what is there.
        """
        stored = self._stored[generation]
        begin = stored.reached.end if stored.reached else 0
        if mark.end <= begin or mark == stored.start:
            return
        if stored.reached and (*stored.reached[:2], stored.reached.page_size) != (*mark[:2], mark.page_size):
            raise Unavailable("The WAL has started over since it was copied.")
        with (self._folder / generation / WAL).open("r+b" if begin else "wb") as made:
            made.seek(begin)
            if not begin:
                made.write(os.pread(log, HEADER, 0))
            for data in wal.pieces(log, mark, begin):
                wal.demand_salts(data, mark)
                made.write(data)
            if made.tell() != mark.end:
                raise Unavailable(f"The WAL is shorter than frame {mark.frame:,}.")
        self._demand_reached(generation, mark)

    def settle(self, generation: str, mark: Mark, is_ended: bool = False) -> None:
        """What was appended up to a mark is on disk, and counts. `is_ended`: the next generation begins there."""
        stored = self._stored[generation]
        if mark.frame and mark != stored.start:
            durable.sync(self._folder / generation / WAL)
            stored = replace(stored, reached=mark)
        self._write(replace(stored, is_ended=is_ended))

    def make_image(self, stored: Stored, mark: Mark, folder: Path, name: str) -> None:
        """The database at a mark, as an image in `folder`. Raises Unavailable."""
        if not stored.before:
            is_base_only = mark.frame == 0 or mark == stored.start
            with self._opened(stored.id, BASE) as base, self._opened(stored.id, WAL) as log:
                image.make(base, log, mark._replace(frame=0) if is_base_only else mark, folder, name=name)
            return
        first, segments = self._chain(stored, mark)
        self._fold(first.id, segments, folder / name)

    def layers(self, stored: Stored, mark: Mark, folder: Path) -> Layers:
        """What the database at a mark is made of, as links in `folder`: these stay when it is collected here.

        A WAL goes on growing beyond its mark. Raises Unavailable.
        """
        first, segments = self._chain(stored, mark)
        base = self._link(first.id, BASE, folder)
        wals = tuple(Layer(one, end, self._link(one, WAL, folder)) for one, end in segments)
        return Layers(_base_id(first, base.stat()), base, wals)

    def collect(self, wanted: Iterable[str]) -> None:
        """Remove all generations but those, and what they need."""
        needed = {one.id for generation in wanted for one in self._before(generation)}
        for generation in [*self._stored]:
            if generation not in needed:
                del self._stored[generation]
                (self._folder / generation / FACTS).unlink(
                    missing_ok=True
                )  # first: without, the rest is none
                shutil.rmtree(self._folder / generation, ignore_errors=True)
        if not self._stored:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _chain(self, stored: Stored, mark: Mark) -> tuple[Stored, list[tuple[str, Mark]]]:
        """The generation that has the base of a mark, and those whose WALs lead from there, up to which mark."""
        line = self._before(stored.id)
        if not line:
            raise Unavailable("What it was archived upon is not there any more.")
        ends = [(one.id, one.reached) for one in line[:-1] if one.reached]
        if mark.frame and mark != stored.start:
            ends.append((stored.id, mark))
        # A WAL that went on over the next base, too, is there once more.
        segments = [
            one
            for one, after in zip(ends, [*ends, None][1:], strict=True)
            if not after or one[1][:2] != after[1][:2]
        ]
        return line[0], segments

    def _link(self, generation: str, name: str, folder: Path) -> Path:
        link = folder / secrets.token_hex(8)
        link.hardlink_to(self._folder / generation / name)
        return link

    def _fold(self, first: str, segments: list[tuple[str, Mark]], place: Path) -> None:
        try:
            with place.open("x+b") as made:
                with self._opened(first, BASE) as base:
                    blocks.give(base, made.fileno())
                image.fold_all(
                    made.fileno(), [(partial(self._opened, one, WAL), end) for one, end in segments]
                )
        except BaseException:
            place.unlink(missing_ok=True)
            raise

    def _before(self, generation: str) -> list[Stored]:
        """Those that it needs, from the one with a base on, and itself. Empty if one is missing."""
        found: list[Stored] = []
        while generation in self._stored:
            found.insert(0, self._stored[generation])
            if not found[0].before:
                return found
            generation = found[0].before
        return []

    def _leads_to(self, stored: Stored, mark: Mark) -> bool:
        """Of those with its salts: a copy of a database goes on with the WAL of its source, in its own way."""
        if mark.frame == 0 or mark == stored.start:
            return True
        try:
            self._demand_reached(stored.id, mark)
        except (OSError, Unavailable):
            return False
        return True

    def _demand_reached(self, generation: str, mark: Mark) -> None:
        """The checksum of the last frame, which is over all before it, is the mark's."""
        with self._opened(generation, WAL) as log:
            about = os.pread(log, FRAME, mark.end - FRAME - mark.page_size)
        numbers = [int.from_bytes(about[at : at + 4], "big") for at in range(8, FRAME, 4)]
        if numbers != [mark.salt1, mark.salt2, mark.checksum1, mark.checksum2]:
            raise Unavailable(f"Frame {mark.frame:,} of the WAL is not what was committed there.")

    @contextlib.contextmanager
    def _opened(self, generation: str, name: str) -> Iterator[int]:
        """A descriptor to read; -1 of a WAL that there is not."""
        place = self._folder / generation / name
        if name == WAL and not place.exists():
            yield -1
            return
        with place.open("rb") as file:
            yield file.fileno()

    def _write(self, stored: Stored) -> None:
        durable.write(self._folder / stored.id / FACTS, json.dumps(_as_dict(stored)))
        self._stored[stored.id] = stored

    def _load(self) -> None:
        for place in sorted(self._folder.glob(f"*/{FACTS}")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                stored = _from_dict(json.loads(place.read_text()))
                if stored.id == place.parent.name:
                    self._stored[stored.id] = stored
        for left in self._folder.glob("*"):
            if left.is_dir() and left.name not in self._stored:
                shutil.rmtree(left, ignore_errors=True)


def _base_id(stored: Stored, facts: os.stat_result) -> str:
    """Of the bytes of its base: which file that is, and that it was not copied anew since."""
    looks = facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
    return hashlib.sha256(repr((stored.id, stored.start, stored.floor, looks)).encode()).hexdigest()


def _as_dict(stored: Stored) -> dict[str, object]:
    return {
        "id": stored.id,
        "start": str(stored.start) if stored.start else None,
        "floor": stored.floor,
        "before": stored.before,
        "reached": str(stored.reached) if stored.reached else None,
        "is_ended": stored.is_ended,
    }


def _from_dict(facts: dict[str, object]) -> Stored:
    start, reached = facts["start"], facts["reached"]
    return Stored(
        str(facts["id"]),
        wal.mark(str(start)) if start else None,
        int(str(facts["floor"])),
        str(facts["before"]),
        wal.mark(str(reached)) if reached else None,
        bool(facts["is_ended"]),
    )
