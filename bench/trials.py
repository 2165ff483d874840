"""One run of deploys: how often each is done, and the order in which ours and the other way take turns."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazycloud.build.settings import parse_settings
from lazycloud.errors import BadInput
from run import Row, Sample, median

Take = Callable[[], Sample]
_PATIENCE = 90.0  # seconds
OURS, BY_HAND = "lazycloud", "by hand"


@dataclass
class Trials:
    """`rounds` of each, of which the median is shown; `commits` are live at once where that is asked."""

    rounds: int = 15
    commits: int = 50
    only: str = ""  # cases that contain this
    say: Callable[[str], object] = print

    @property
    def preloads(self) -> bool:
        """Whether this lazycloud knows `[run] preload`."""
        try:
            parse_settings(PLAIN.encode())
        except BadInput:
            return False
        return True

    def interleaved(
        self, case: str, ways: Mapping[str, Take], warm: int = 1, rounds: int | None = None
    ) -> list[Row]:
        """Each way once a round, A B A B, so that a busy machine meets both; `warm` rounds do not count.

        Medians; of `seconds` the quartiles as well.
        """
        taken: dict[str, list[Sample]] = {name: [] for name in ways}
        rounds = rounds or self.rounds
        for number in range(-warm, rounds):
            self.say(f"{case}, round {number + 1} of {rounds}")
            for name, take in ways.items():
                sample = take()
                if number >= 0:
                    taken[name].append(sample)
        return [_row(case, name, samples) for name, samples in taken.items()]

    def until_preloaded(self, case: str, take: Take) -> None:
        """Deploy until a start is preloaded: what earlier ones taught is tried out first, at low priority."""
        deadline = time.monotonic() + _PATIENCE
        while self.preloads and not take().values["preloaded"] and time.monotonic() < deadline:
            self.say(f"{case}, until its starts are preloaded")
            time.sleep(1)


PLAIN = "[run]\npreload = false\n"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _row(case: str, name: str, samples: Sequence[Sample]) -> Row:
    values, trouble = median(samples)
    if len(samples) > 1:
        seconds = [sample.values["seconds"] for sample in samples]
        values["q1"], _, values["q3"] = statistics.quantiles(seconds, n=4, method="inclusive")
    return Row(case, name, values, trouble)
