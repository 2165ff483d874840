"""`python bench/data_postgres.py --url URL [FIGURE …]`: what forks in Postgres take, beside copies by hand."""

from __future__ import annotations

import sys

from command import Command
from figures import postgres
from figures.postgres import Forks


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    command = Command("data_postgres", __doc__, postgres.FIGURES)
    add = command.parser.add_argument
    add("--url", help="of a server whose role may make databases and roles, as `postgres_url`")
    add("--rounds", type=int, default=5, help="of which the median is shown")
    add("--sizes", type=int, nargs="+", default=[10, 1000], metavar="MB", help="of the databases")
    given = command.parse()
    if not given.url:
        command.parser.error("which server? --url is missing")
    trials = Forks(given.rounds, only=given.case, url=given.url, sizes=given.sizes)
    machine = command.describe()
    results = command.measured(trials, given.figures)
    return command.write(given, machine, f"--rounds {given.rounds}", results)


if __name__ == "__main__":
    sys.exit(main())
