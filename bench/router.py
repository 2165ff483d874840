"""`python bench/router.py [FIGURE …]`: what the router costs beside other proxies, in one run on one machine."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from rich.console import Console

import measure
import report
from figures import Figure, bodies, builds, idle, requests, websockets
from peer import CannotRun, Peer, peers
from run import Row, Run

_ALL = (requests, bodies, websockets, idle, builds)
FIGURES = {figure.name: figure for module in _ALL for figure in module.FIGURES}
_QUIET = 0.5  # load average above which others use the processor too
PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"


def arguments() -> argparse.Namespace:
    names = ", ".join(FIGURES)
    parser = argparse.ArgumentParser(prog="bench/router.py", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {names}; all without one")
    parser.add_argument("--figure", action="append", default=[], metavar="FIGURE", help="the same")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; wrk's at least 1")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these, besides lazycloud")
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases that contain this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values there")
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="FILE",
        help=f"write the tables there ({PAGE.name})",
    )
    given = parser.parse_args()
    given.figures = list(dict.fromkeys([*given.figures, *given.figure])) or list(FIGURES)
    if unknown := [name for name in given.figures if name not in FIGURES]:
        parser.error(f"no figure “{unknown[0]}”; there are {names}")
    return given


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


def main() -> int:
    """Exits 0 when all ran, whether or not targets are met; 2 when something could not run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of whatever stops what was started
    console, given = Console(highlight=False, width=None if sys.stdout.isatty() else 120), arguments()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        demand_load()
        chosen = choose(console, peers(), given.peers)
    except CannotRun as problem:
        print(problem, file=sys.stderr)
        return 2
    machine = describe(console)
    results = measured(console, Run(chosen, given.seconds, given.rounds, given.case), given.figures)
    if given.json:
        given.json.write_text(json.dumps(report.as_json(machine, results), indent=1))
    if given.markdown:
        options = f"--seconds {given.seconds:g} --rounds {given.rounds}"
        report.write_markdown(given.markdown, machine, options, results)
    return 0 if len(results) == len(given.figures) else 2


def demand_load() -> None:
    """Raise CannotRun without what every figure needs."""
    for program, package in (("nginx", "nginx"), ("wrk", "wrk"), ("taskset", "util-linux")):
        if not shutil.which(program):
            raise CannotRun(f"{program} is needed for the load and its back end (apt: {package}).")


def describe(console: Console) -> dict[str, str]:
    """Say what the figures are made on, and whether it is fit for that."""
    load = os.getloadavg()[0]
    machine = measure.machine() | {"load at the start": f"{load:.1f}"}
    console.print("; ".join(f"{name} {said}" for name, said in machine.items()), "\n", soft_wrap=True)
    if load > _QUIET:
        console.print(f"[yellow]The machine is not quiet (load {load:.1f}): trust ratios, not rates.[/]\n")
    return machine


def measured(console: Console, run: Run, names: list[str]) -> list[tuple[Figure, list[Row]]]:
    """Measure and show one figure after the other; one that cannot run is said and left out."""
    results = []
    for figure in (FIGURES[name] for name in names):
        try:
            with console.status(figure.title) as status:
                run.say = status.update
                rows = figure.measure(run)
        except CannotRun as problem:
            print(f"{figure.title}: {problem}", file=sys.stderr)
            continue
        results.append((figure, rows))
        report.show(console, figure, rows)
    return results


if __name__ == "__main__":
    sys.exit(main())
