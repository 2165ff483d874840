"""`python -m tests.router.watched`: a router that at SIGUSR2 writes what lives in it to a file beside its link."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from lazycloud.router import __main__, process
from lazycloud.router.plane import Plane
from lazycloud.router.settings import Settings


class Watched(Plane):
    """`census` counts the router's own objects by class, its tasks, and what waits for control."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._census = Path(settings.link + ".census")
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self.census)

    def census(self) -> None:
        gc.collect()
        objects = Counter(
            type(each).__name__
            for each in gc.get_objects()
            if type(each).__module__.startswith(("lazycloud.router", "uvloop"))
        )
        facts = {**objects, "tasks": len(asyncio.all_tasks()), "held": self.link.held}
        part = self._census.with_suffix(".part")
        part.write_text(json.dumps(facts))
        part.rename(self._census)


if __name__ == "__main__":
    process.Plane = Watched  # type: ignore[misc]
    sys.exit(__main__.main())
