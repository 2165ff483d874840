"""What a large database at a moment consists of: a base that nobody writes any more, and WALs over it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lazycloud.data import wal
from lazycloud.data.wal import Mark


@dataclass(frozen=True)
class Layer:
    """What the WAL of one generation says, up to a mark. `place`: the file, which may have more."""

    generation: str
    mark: Mark
    place: Path


@dataclass(frozen=True)
class Layers:
    """Of one database. `wals` are in the order in which they are folded into the base.

    `id`: of the base's bytes. Two with the same id are folded into the same, with WALs from the first on.
    """

    id: str
    base: Path
    wals: tuple[Layer, ...]

    def as_json(self) -> str:
        wals = [[one.generation, str(one.mark), str(one.place)] for one in self.wals]
        return json.dumps({"id": self.id, "base": str(self.base), "wals": wals})

    @classmethod
    def from_json(cls, text: str) -> Layers:
        facts = json.loads(text)
        wals = (Layer(one, wal.mark(mark), Path(place)) for one, mark, place in facts["wals"])
        return cls(facts["id"], Path(facts["base"]), tuple(wals))
