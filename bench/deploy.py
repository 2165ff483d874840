"""`python bench/deploy.py [FIGURE …]`: what a commit waits for its first answer, beside the same by hand."""

from __future__ import annotations

import os
import sys

from command import Command
from figures import deploys, live, lockfile, page, push
from trials import Trials

_ALL = (deploys, lockfile, push, live, page)


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    command = Command("deploy", __doc__, (figure for module in _ALL for figure in module.FIGURES))
    add = command.parser.add_argument
    add("--rounds", type=int, default=15, help="of which the median is shown")
    add("--commits", type=int, default=50, help="that are live at once, for what they take in memory")
    given = command.parse()
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]  # by hand, Python keeps what it compiled, as everywhere
    trials = Trials(given.rounds, given.commits, given.case)
    machine = command.describe()
    if not trials.preloads:
        command.console.print("[yellow]This lazycloud does not preload: all its starts are plain.[/]\n")
    results = command.measured(trials, given.figures)
    return command.write(given, machine, f"--rounds {given.rounds}", results)


if __name__ == "__main__":
    sys.exit(main())
