"""A command line read as `/bin/sh` reads it, for the simple ones: words, quotes, $NAME and ${NAME}. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lazycloud.workers.preload.unsuitable import Unsuitable

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_SPECIAL = frozenset("|&;<>()`\n*?[]{}~#!=%^")
_INERT = frozenset("=%^]")  # special to some shell at the start of a word only
_IN_QUOTES_ESCAPED = frozenset('$`"\\')
_SPLIT_OR_MATCHED = re.compile(r"[\s*?\[\\]")


def split_words(command: str, environment: Mapping[str, str]) -> list[str]:
    """The words of a command line, variables replaced. Raises Unsuitable for all that takes a real shell."""
    return _Reader(command, environment).words()


class _Reader:
    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._text = command.strip()
        self._environment = environment
        self._at = 0
        self._word: str | None = None  # None between two words

    def words(self) -> list[str]:
        found = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in " \t":
                self._at += 1
                if self._word is not None:
                    found.append(self._word)
                self._word = None
            else:
                self._read(character)
        return found if self._word is None else [*found, self._word]

    def _read(self, character: str) -> None:
        if character == "'":
            self._single()
        elif character == '"':
            self._double()
        elif character == "$":
            self._bare_variable()
        elif character == "\\":
            self._escaped()
        elif character in _SPECIAL and not (character in _INERT and self._word is not None):
            raise Unsuitable(f"its command line needs a shell for {character!r}")
        else:
            self._add(character)
            self._at += 1

    def _add(self, text: str) -> None:
        self._word = (self._word or "") + text

    def _single(self) -> None:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise Unsuitable("its command line has a quote without an end")
        self._add(self._text[self._at + 1 : end])
        self._at = end + 1

    def _double(self) -> None:
        self._add("")
        self._at += 1
        while (character := self._text[self._at : self._at + 1]) != '"':
            if not character:
                raise Unsuitable("its command line has a quote without an end")
            if character == "`":
                raise Unsuitable("its command line needs a shell for '`'")
            if character == "$":
                self._add(self._variable())
            elif character == "\\" and self._text[self._at + 1 : self._at + 2] in _IN_QUOTES_ESCAPED:
                self._escaped()
            else:
                self._add(character)
                self._at += 1
        self._at += 1

    def _escaped(self) -> None:
        if self._at + 1 >= len(self._text) or self._text[self._at + 1] == "\n":
            raise Unsuitable("its command line ends with a backslash")
        self._add(self._text[self._at + 1])
        self._at += 2

    def _bare_variable(self) -> None:
        """Outside of quotes a value is split and matched with file names, and none makes no word."""
        value = self._variable()
        if _SPLIT_OR_MATCHED.search(value):
            raise Unsuitable("its command line has a variable of several words outside of quotes")
        if value:
            self._add(value)

    def _variable(self) -> str:
        found = _VARIABLE.match(self._text, self._at)
        if found is None:
            raise Unsuitable("its command line needs a shell for '$'")
        self._at = found.end()
        return self._environment.get(found[1] or found[2], "")
