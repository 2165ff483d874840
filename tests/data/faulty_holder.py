"""The holder, that kills itself at one step: `faulty_holder.py PROGRAM STEP before|during|after NUMBER`.

The steps within a turn count as well. NUMBER: at which time that it comes there.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

STEPS = ("hold", "release", "checkpoint", "bar", "turn", "lift")
WHENS = ("before", "during", "after")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def faulty(step: Callable[..., Any], when: str, number: int) -> Callable[..., Any]:
    left = number

    def stepping(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left:
            return step(*arguments, **named)
        if when == "before":
            die()
        if when == "during":
            threading.Timer(0.001, die).start()
        answer = step(*arguments, **named)
        die()
        return answer

    return stepping


if __name__ == "__main__":
    program, step, when, number = sys.argv[1:]
    names = runpy.run_path(program)
    database = names["Database"]
    setattr(database, step, faulty(getattr(database, step), when, int(number)))
    try:
        names["main"]()
    finally:
        os._exit(0)
