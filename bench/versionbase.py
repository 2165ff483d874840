"""`python bench/versionbase.py [FIGURE …]`: what documents with versions cost, beside documents in plain tables."""

from __future__ import annotations

import sys
from pathlib import Path

from command import Command
from figures import documents, forks
from figures.documents import Documents

_ALL = (documents, forks)


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    command = Command("versionbase", __doc__, (figure for module in _ALL for figure in module.FIGURES))
    add = command.parser.add_argument
    add("--rounds", type=int, default=5, help="of which the median is shown")
    add("--documents", type=int, default=1_000_000, metavar="N", help="that are there")
    sizes = [1000, 1_000_000, 10_000_000]
    add("--sizes", type=int, nargs="+", default=sizes, metavar="N", help="documents of what is forked")
    add("--versions", type=int, default=1000, metavar="N", help="of one store")
    add("--url", default="", help="of a Postgres on this machine, to compare with")
    add("--folder", type=Path, metavar="FOLDER", help="where to write; the temporary folder without")
    given = command.parse()
    run = Documents(
        given.rounds,
        only=given.case,
        documents=given.documents,
        sizes=given.sizes,
        versions=given.versions,
        url=given.url,
        folder=given.folder,
    )
    machine = command.describe()
    results = command.measured(run, given.figures)
    return command.write(given, machine, f"--rounds {given.rounds}", results)


if __name__ == "__main__":
    sys.exit(main())
