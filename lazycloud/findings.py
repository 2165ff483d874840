"""What a machine lacks, and what that costs: a line of `lazycloud doctor`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Weight(IntEnum):
    """How much it matters; the most important first."""

    BROKEN = 0  # something that was asked for does not work
    UNSAFE = 1
    LIMITED = 2  # something works less well, or slower
    FINE = 3  # nothing is lacking


@dataclass(frozen=True)
class Finding:
    """`what` names the subject (“sandbox”), `sentence` says how it is, `advice` what to do ("" for nothing)."""

    weight: Weight
    what: str
    sentence: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return {
            "weight": self.weight.name.lower(),
            "what": self.what,
            "sentence": self.sentence,
            "advice": self.advice,
        }
