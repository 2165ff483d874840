"""Notes what a worker imports, for those after it. Seen by the app in `sys.meta_path` only, and for a minute."""

from __future__ import annotations

import os
import sys
import time

SECONDS = 60.0  # what an app imports later, it imports seldom
LARGEST = 200000  # bytes of notes


class Recorder:
    """The first of the finders, which finds nothing. Opens its file for each line: the app has no file more open.

    Lines: the name of a module; `=NAME` for a variable that the app has set by itself since it began, `+PATH`
    for a folder that it put on `sys.path`, relative to its own if it lies there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._until = time.monotonic() + SECONDS
        self._noted: set[str] = set()
        self._variables = dict(os.environ)
        self._places = set(sys.path)
        self._folder = os.getcwd()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Asked by the import system. Whatever goes wrong here is not the app's trouble."""
        try:
            if time.monotonic() > self._until:
                sys.meta_path.remove(self)
            else:
                self._note([name, *self._changes()])
        except Exception:
            self._until = 0.0

    def _changes(self) -> list[str]:
        lines = []
        if self._variables != os.environ:
            now = dict(os.environ)
            names = {**self._variables, **now}
            lines = [f"={each}" for each in names if self._variables.get(each) != now.get(each)]
        return lines + [f"+{self._relative(each)}" for each in sys.path if each not in self._places]

    def _relative(self, place: str) -> str:
        inside = os.path.isabs(place) and f"{place}/".startswith(f"{self._folder}/")
        return os.path.relpath(place, self._folder) if inside else place

    def _note(self, lines: list[str]) -> None:
        new = [line for line in lines if line not in self._noted and "\n" not in line]
        if not new:
            return
        self._noted.update(new)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size > LARGEST:
                self._until = 0.0
            else:
                os.write(file, "".join(f"{line}\n" for line in new).encode("utf-8", "surrogateescape"))
        finally:
            os.close(file)
