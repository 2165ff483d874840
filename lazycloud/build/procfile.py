"""Procfile: process names and their commands, as Heroku defined it."""

from __future__ import annotations

import re

from lazycloud.errors import BadInput

NAME = "Procfile"
_LINE = re.compile(r"\s*([A-Za-z0-9_-]+)\s*:(.*)")


def parse_procfile(text: str) -> dict[str, str]:
    """Commands by name, in their order. Raises BadInput for a line that is none, and for a name given twice."""
    commands: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, command = _parse_line(number, line)
        if name in commands:
            sentence = f"{NAME}: `{name}` is on line {lines[name]} and again on line {number}."
            raise BadInput(sentence, "Keep one of them, or give the other another name.")
        commands[name], lines[name] = command, number
    return commands


def _parse_line(number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line.rstrip("\r"))
    if match is None:
        sentence = f"{NAME}: line {number} has no name and colon: {line.strip()[:60]!r}."
        raise BadInput(sentence, "Write a name, a colon and a command: web: gunicorn app:app")
    command = match[2].strip()
    if not command or "\0" in command:
        raise BadInput(
            f"{NAME}: line {number} has no command for `{match[1]}`.", "Write it behind the colon."
        )
    return match[1], command
