"""`python bench/router.py [FIGURE …]`: what the router costs beside other proxies, in one run on one machine."""

from __future__ import annotations

import resource
import shutil
import sys

from rich.console import Console

from command import Command
from figures import bodies, builds, idle, requests, websockets
from peer import CannotRun, Peer, peers
from run import Run

_ALL = (requests, bodies, websockets, idle, builds)


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    command = Command("router", __doc__, (figure for module in _ALL for figure in module.FIGURES))
    add = command.parser.add_argument
    add("--seconds", type=float, default=2.0, help="of each measurement; wrk's at least 1")
    add("--rounds", type=int, default=3, help="of which the median is shown")
    add("--peers", nargs="+", metavar="NAME", help="only these, besides lazycloud")
    given = command.parse()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        demand_load()
        chosen = choose(command.console, peers(), given.peers)
    except CannotRun as problem:
        print(problem, file=sys.stderr)
        return 2
    machine = command.describe()
    results = command.measured(Run(chosen, given.seconds, given.rounds, given.case), given.figures)
    return command.write(given, machine, f"--seconds {given.seconds:g} --rounds {given.rounds}", results)


def choose(console: Console, known: list[Peer], wanted: list[str] | None) -> list[Peer]:
    """Those that are asked for and installed; says which are not."""
    names = [word for given in wanted or [] for word in given.replace(",", " ").split()]
    if unknown := set(names) - {peer.name for peer in known}:
        raise CannotRun(f"No peer “{min(unknown)}”; there are {', '.join(peer.name for peer in known)}.")
    asked = [peer for peer in known if not names or peer.name in names or peer.name.startswith("lazycloud")]
    for peer in asked:
        if peer.lacks():
            console.print(f"[yellow]Left out: {peer.name}, for lack of {peer.lacks()}.[/]", soft_wrap=True)
    return [peer for peer in asked if not peer.lacks()]


def demand_load() -> None:
    """Raise CannotRun without what every figure needs."""
    for program, package in (("nginx", "nginx"), ("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(program):
            raise CannotRun(f"{program} is needed for the load and its back end (apt: {package}).")


if __name__ == "__main__":
    sys.exit(main())
