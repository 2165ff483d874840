"""`python bench/data.py [FIGURE …]`: what marks and images of a database cost, beside copies made in other ways."""

from __future__ import annotations

import sys
from pathlib import Path

from command import Command
from figures import backups, held, images, marks
from kept import Kept

_ALL = (marks, images, held, backups)


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    command = Command("data", __doc__, (figure for module in _ALL for figure in module.FIGURES))
    add = command.parser.add_argument
    add("--rounds", type=int, default=5, help="of which the median is shown")
    add("--sizes", type=int, nargs="+", default=[10, 1000], metavar="MB", help="of the databases")
    add("--folder", type=Path, metavar="FOLDER", help="where to write; the temporary folder without")
    disks = "also on a new xfs or btrfs, in a file there; both without this, if you are root; none with none"
    add("--disk", nargs="*", default=["xfs", "btrfs"], metavar="KIND", help=disks)
    given = command.parse()
    kept = Kept(given.rounds, only=given.case, sizes=given.sizes, folder=given.folder, disks=given.disk)
    machine = command.describe()
    results = command.measured(kept, given.figures)
    return command.write(given, machine, f"--rounds {given.rounds}", results)


if __name__ == "__main__":
    sys.exit(main())
