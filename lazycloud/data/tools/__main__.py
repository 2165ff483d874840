"""A task: reads an order from standard input as a line of JSON, does it, writes what came of it to standard output.

It ends with whoever asked: that one keeps our input open. Nothing of what an app wrote is run here, but it is parsed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lazycloud.data.tools.comparing import compare
from lazycloud.data.tools.exporting import export
from lazycloud.data.tools.importing import restore, take_in
from lazycloud.data.tools.process import ERRORS
from lazycloud.data.tools.summing import sum_up
from lazycloud.errors import LazycloudError

NICENESS = 10

Order = Mapping[str, Any]


def _compare(order: Order) -> dict[str, Any]:
    return compare(Path(order["one"]), Path(order["other"]), order["table"], order["rows"]).as_dict()


def _sum_up(order: Order) -> dict[str, Any]:
    return sum_up(Path(order["folder"]), order["rows"], order["sizes"]).as_dict()


def _export(order: Order) -> dict[str, Any]:
    target = Path(order["target"])
    note = export(Path(order["folder"]), target, order["kind"], Path(os.environ["TMPDIR"]))
    return {"bytes": target.stat().st_size, "note": note}


def _restore(order: Order) -> dict[str, Any]:
    restore(Path(order["dump"]), Path(order["target"]))
    return {}


def _load(order: Order) -> dict[str, Any]:
    from lazycloud.data.tools.loading import load  # only it needs libpq

    return {"warnings": load(Path(order["file"]), order["login"], order["told"])}


def _import(order: Order) -> dict[str, Any]:
    file, folder = Path(order["file"]), Path(order["folder"])
    kind, warnings = take_in(file, folder, order["kind"], order["most"], order["with_dump"])
    return {"kind": kind, "warnings": warnings}


TASKS: dict[str, Callable[[Order], dict[str, Any]]] = {
    "compare": _compare,
    "sum up": _sum_up,
    "export": _export,
    "import": _import,
    "restore": _restore,
    "load": _load,
}


def main() -> None:
    told = json.loads(sys.stdin.buffer.readline())
    _limit(told["memory"], told["disk"])
    threading.Thread(target=_end_with_who_asked, daemon=True).start()
    try:
        answer = {"done": TASKS[told["task"]](told["order"])}
    except LazycloudError as problem:
        kind = next((name for name, cls in ERRORS.items() if isinstance(problem, cls)), "StepFailed")
        answer = {"problem": {"kind": kind, "sentence": problem.sentence, "advice": problem.advice}}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # the thread waits for our input


def _limit(memory: int, disk: int) -> None:
    """A write beyond the limit is an error, not a signal."""
    os.nice(NICENESS)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for which, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, disk),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))


def _end_with_who_asked() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
