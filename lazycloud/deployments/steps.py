"""The timed pieces of a deploy, and how long each usually takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from statistics import median
from typing import Any

BLINK = 0.1  # seconds


class StepName(Enum):
    SOURCE = "source"
    DEPENDENCIES = "dependencies"
    BUILD = "build"
    DATA = "data"
    RELEASE = "release"
    START = "start"
    READY = "ready"
    AFTER = "after"


class Outcome(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REUSED = "reused"  # an earlier deploy left what this step would make
    SKIPPED = "skipped"  # this app has no such step
    FAILED = "failed"


@dataclass
class Step:
    """One step of one attempt. `began` is unix time, `seconds` how long it took; None while unknown."""

    name: StepName
    state: Outcome = Outcome.WAITING
    began: float | None = None
    seconds: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"name": self.name.value, "state": self.state.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Step:
        return cls(**{**data, "name": StepName(data["name"]), "state": Outcome(data["state"])})


def fresh() -> dict[StepName, Step]:
    return {name: Step(name) for name in StepName}


def usual(deploys: Iterable[list[dict[str, Any]]]) -> dict[StepName, float]:
    """Seconds that each step took in the median of earlier deploys; only steps that really ran count.

    What takes less than an eye's blink is left out: nobody wants to read "usually 0.0 s".
    """
    seen: dict[StepName, list[float]] = {}
    for deploy in deploys:
        for data in deploy:
            step = Step.from_dict(data)
            if step.state is Outcome.DONE and step.seconds is not None:
                seen.setdefault(step.name, []).append(step.seconds)
    medians = {name: median(seconds) for name, seconds in seen.items()}
    return {name: seconds for name, seconds in medians.items() if seconds >= BLINK}
