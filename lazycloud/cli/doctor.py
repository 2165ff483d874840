"""`doctor`: what this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

EXAMINATION_SECONDS = 60.0
MARKS = {"broken": ("✗", "red"), "unsafe": ("!", "yellow"), "limited": ("–", "cyan"), "fine": ("✓", "green")}


@dataclass(frozen=True)
class Examination:
    """`findings` as the API gives them; `subject` says of what."""

    subject: str
    findings: list[dict[str, Any]]

    @property
    def is_broken(self) -> bool:
        return any(finding["weight"] == "broken" for finding in self.findings)


@click.command()
@as_json
@targeted
def doctor(target: Target, as_json: bool) -> int:
    """Say what this machine lacks, the most important first, and what to do.

    A server that runs is asked; else its settings are read, and the machine is looked at from here. The exit
    status is 1 if something that was asked for does not work.

    \b
    Example:
      lazycloud doctor
    """
    from lazycloud.cli.terminal import console, show_json

    examination = _examine(target)
    if as_json:
        show_json({"findings": examination.findings})
    else:
        for shown in _shown(examination):
            console().print(shown, soft_wrap=False)
    return 1 if examination.is_broken else 0


def _examine(target: Target) -> Examination:
    from lazycloud.cli.client import Refused, Unreachable

    try:
        answer = target.client().patient(EXAMINATION_SECONDS).get("/api/doctor")
        return Examination(f"the server of {answer['home']}", answer["findings"])
    except Unreachable:
        if target.server:
            raise
    except Refused as problem:
        if problem.status != 404:  # an older lazycloud serves, which has no such route
            raise
    return _here(target)


def _here(target: Target) -> Examination:
    """Without a server: by what its settings would be now."""
    from lazycloud.config import Config, load
    from lazycloud.doctor import examine
    from lazycloud.findings import Finding, Weight

    home, wrong = target.home_folder, []
    try:
        config = load({"home": home}, os.environ)
    except BadInput as problem:
        config = Config(home=home)
        wrong = [Finding(Weight.BROKEN, "settings", problem.sentence, problem.advice)]
    found = [*wrong, *examine(config, serves=False)]
    return Examination(f"{home}, where no server runs", [finding.as_dict() for finding in found])


def _shown(examination: Examination) -> Iterator[Any]:
    from rich.table import Table
    from rich.text import Text

    from lazycloud.cli.terminal import CONTROL, plain

    yield plain(f"Looked at for {examination.subject}", "dim")
    yield ""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in examination.findings:
        glyph, colour = MARKS.get(finding["weight"], ("?", ""))
        is_fine = finding["weight"] == "fine"
        said = Text(CONTROL.sub(" ", finding["sentence"]), "dim" if is_fine else "")
        if finding["advice"]:
            said.append("\n" + CONTROL.sub(" ", finding["advice"]), "dim")
        table.add_row(Text(glyph, colour), plain(finding["what"], "" if is_fine else colour), said)
    yield table
    yield ""
    yield _summary(examination)


def _summary(examination: Examination) -> Any:
    from lazycloud.cli.terminal import plain

    weights = [finding["weight"] for finding in examination.findings]
    if examination.is_broken:
        return plain(f"{_things(weights.count('broken'))} asked for and does not work.", "red")
    if unsafe := weights.count("unsafe"):
        return plain(f"All that was asked for works; {_things(unsafe)} not safe.", "yellow")
    return plain("All that was asked for works.", "green")


def _things(count: int) -> str:
    return "1 thing is" if count == 1 else f"{count} things are"
