"""What the benchmarks' commands share: their arguments, and measuring, showing and writing down figures in turn."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

import measure
import report
from figures import Figure
from peer import CannotRun
from run import Row

Results = list[tuple[Figure, list[Row]]]
PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
_QUIET = 0.5  # load average above which others use the processor too


class Command:
    """`python bench/<name>.py [FIGURE …]`, with the figures that it knows."""

    def __init__(self, name: str, about: str | None, figures: Iterable[Figure]) -> None:
        self.name = f"bench/{name}.py"
        self.figures = {figure.name: figure for figure in figures}
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        self.parser = argparse.ArgumentParser(prog=self.name, description=about)
        add = self.parser.add_argument
        names = ", ".join(self.figures)
        add("figures", nargs="*", metavar="FIGURE", help=f"of {names}; all without one")
        add("--figure", action="append", default=[], metavar="FIGURE", help="the same")
        add("--case", default="", metavar="TEXT", help="only cases that contain this")
        add("--json", type=Path, metavar="FILE", help="write all values there")
        add(
            "--markdown",
            type=Path,
            nargs="?",
            const=PAGE,
            metavar="FILE",
            help=f"write the tables there ({PAGE.name})",
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of whatever stops what was started

    def parse(self) -> argparse.Namespace:
        """The arguments; `figures` are names of figures that exist."""
        given = self.parser.parse_args()
        given.figures = list(dict.fromkeys([*given.figures, *given.figure])) or list(self.figures)
        if unknown := [name for name in given.figures if name not in self.figures]:
            self.parser.error(f"no figure “{unknown[0]}”; there are {', '.join(self.figures)}")
        return given

    def describe(self) -> dict[str, str]:
        """Say what the figures are made on, and whether it is fit for that."""
        load = os.getloadavg()[0]
        machine = measure.machine() | {"load at the start": f"{load:.1f}"}
        self.console.print(
            "; ".join(f"{name} {said}" for name, said in machine.items()), "\n", soft_wrap=True
        )
        if load > _QUIET:
            self.console.print(
                f"[yellow]The machine is not quiet (load {load:.1f}): trust ratios, not rates.[/]\n"
            )
        return machine

    def measured(self, run: Any, names: list[str]) -> Results:
        """Measure and show one figure after the other; one that cannot run is said and left out."""
        results = []
        for figure in (self.figures[name] for name in names):
            try:
                with self.console.status(figure.title) as status:
                    run.say = status.update
                    rows = figure.measure(run)
            except CannotRun as problem:
                print(f"{figure.title}: {problem}", file=sys.stderr)
                continue
            results.append((figure, rows))
            report.show(self.console, figure, rows)
        return results

    def write(
        self, given: argparse.Namespace, machine: Mapping[str, str], options: str, results: Results
    ) -> int:
        """Where the arguments say; the exit status: 0 when all ran, whether or not targets are met."""
        if given.json:
            given.json.write_text(json.dumps(report.as_json(machine, results), indent=1))
        if given.markdown:
            report.write_markdown(given.markdown, machine, options, results, self.name)
        return 0 if len(results) == len(given.figures) else 2
