"""The Python program that a command line runs, if it is one of its environment's Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lazycloud.workers.preload.unsuitable import Unsuitable
from lazycloud.workers.preload.words import split_words

HEAD = 4096  # bytes of a script in which its first lines are looked for
OPTIONS = frozenset({"-B", "-E", "-I", "-O", "-OO", "-P", "-s", "-u"})
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
# What installers write when the path is too long, or has spaces, for the kernel's #!
_LONG = re.compile(rb"#!/bin/sh\n'''exec' (?:\"([^\"\n]+)\"|'([^'\n]+)'|(\S+)) \"\$0\" \"\$@\"\n")
_SHORT = re.compile(rb"#!([^\s]+)[ \t]*\r?\n")


@dataclass(frozen=True)
class Invocation:
    """`arguments` is the whole line as the kernel gets it; of `module` and `script` one is given.

    `program` is the Python, as it is named; `rest` what follows the module or script; `name` the process' own,
    which the kernel takes from the file that is executed.
    """

    program: str
    arguments: tuple[str, ...]
    module: str | None
    script: str | None
    rest: tuple[str, ...]
    name: str
    options: tuple[str, ...] = ()  # Python's own, which its parent is started with


def find_invocation(command: str, environment: Mapping[str, str], folder: Path, venv: Path) -> Invocation:
    """What `command` runs in `folder`. Raises Unsuitable when it is not a program of the Python in `venv`."""
    words = split_words(command, environment)
    if words[:1] == ["exec"]:
        del words[0]
    if not words:
        raise Unsuitable("its command line is empty")
    program = _find(words[0], environment, folder)
    if program.parent == venv / "bin" and _PYTHON.fullmatch(program.name):
        return _python(str(program), words, environment, folder)
    python, name = _interpreter(program, venv)
    script = words[0] if "/" in words[0] else str(program)  # the kernel hands it over as it was found
    return Invocation(python, (python, script, *words[1:]), None, script, tuple(words[1:]), name)


def _find(word: str, environment: Mapping[str, str], folder: Path) -> Path:
    if "/" in word:
        found = folder / word
        if not found.is_file():
            raise Unsuitable(f"{word} is not there")
        return found
    place = shutil.which(word, path=environment.get("PATH", ""))
    if place is None:
        raise Unsuitable(f"{word} was not found on PATH")
    return Path(place)


def _python(program: str, words: list[str], environment: Mapping[str, str], folder: Path) -> Invocation:
    rest = words[1:]
    options = []
    while rest and rest[0] in OPTIONS:
        options.append(rest.pop(0))
    if environment.get("PYTHONUNBUFFERED") and not {"-E", "-I"} & {*options}:
        options = [option for option in options if option != "-u"]  # it is said already
    name = Path(program).name
    arguments = (words[0], *words[1:])
    if rest[:1] == ["-m"] and len(rest) > 1:
        return Invocation(program, arguments, rest[1], None, tuple(rest[2:]), name, tuple(options))
    if not rest or rest[0].startswith("-"):
        raise Unsuitable(f"`{' '.join(words[:2])}` is no script and no module")
    if not (folder / rest[0]).is_file():
        raise Unsuitable(f"{rest[0]} is no file")
    return Invocation(program, arguments, None, rest[0], tuple(rest[1:]), name, tuple(options))


def _interpreter(script: Path, venv: Path) -> tuple[str, str]:
    """The Python of the environment that a script names in its first line, and the name its process gets."""
    try:
        with script.open("rb") as file:
            head = file.read(HEAD)
    except OSError as problem:
        raise Unsuitable(f"{script.name} cannot be read: {problem.strerror}") from problem
    by_shell, found = _LONG.match(head), _LONG.match(head) or _SHORT.match(head)
    python = Path(next((group for group in found.groups() if group), b"").decode()) if found else Path()
    if python.parent != venv / "bin" or not _PYTHON.fullmatch(python.name):
        raise Unsuitable(f"{script.name} is no script of the environment's Python")
    return str(python), python.name if by_shell else script.name
