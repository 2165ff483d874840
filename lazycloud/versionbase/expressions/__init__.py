"""Filters and maps of documents: expressions of CEL, the Common Expression Language (https://cel.dev).

Google's own parser and checker (cel-cpp, by cel-expr-python) read them: kept by the makers of the language, with
wheels for each Python and processor, and it hands out the syntax, by which an index is chosen. It could evaluate them
too, but it knows no decimals, takes seconds for some patterns, and 7.5 µs for
`doc.a == 3 && doc.tags.exists(t, t == "x")`, since every document has to be made its own; functions made of the
syntax take 1.4 µs. So the meaning is ours, and held against cel-cpp's by the tests. Others: cel-python takes 480 µs,
common-expression-language, in Rust, takes 17 µs and hands out no syntax.

syntax     the text, read
functions  what functions and operators mean for values
meaning    the syntax, made into functions
results    what a map gives, as a document may hold it
facts      what is true of each document that a filter can match: by that an index is chosen
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from lazycloud.errors import BadInput
from lazycloud.versionbase.expressions.facts import Restriction, restrictions
from lazycloud.versionbase.expressions.functions import STEPS, Failure, Steps
from lazycloud.versionbase.expressions.meaning import DOCUMENT, KEY, Frame, Names, meaning
from lazycloud.versionbase.expressions.results import is_made, kept
from lazycloud.versionbase.expressions.syntax import TOO_DEEP, parse
from lazycloud.versionbase.problems import TooCostly
from lazycloud.versionbase.values import Value

__all__ = ["Expression", "Restriction", "compile"]

Document = Mapping[str, Value]


class Expression:
    """Raises BadInput for what is none. `names` are those of its parameters."""

    def __init__(self, text: str, names: frozenset[str]) -> None:
        self._syntax, self.type = parse(text, names)
        self._names = sorted(names)
        places = {"key": KEY, "doc": DOCUMENT}
        for place, name in enumerate(self._names, DOCUMENT + 1):
            places[name] = place
        room = Names(places)
        try:
            self._meaning = meaning(self._syntax, room)
            self._is_made = is_made(self._syntax)
        except RecursionError:
            raise BadInput(TOO_DEEP) from None
        self._size = room.size

    def bind(self, params: Mapping[str, Value]) -> Callable[[str, Document], Value]:
        """What it gives for a key and a document; null where it has no value. Raises TooCostly."""
        frame, mean, is_made, steps = self._frame(params), self._meaning, self._is_made, Steps()

        def mapped(key: str, document: Document) -> Value:
            steps.left = STEPS
            frame[: DOCUMENT + 1] = steps, key, document
            try:
                found = mean(frame)
                return kept(found, steps) if is_made else found
            except Failure:
                return None
            except RecursionError:
                raise TooCostly(_DEEP) from None

        return mapped

    def test(self, params: Mapping[str, Value]) -> Callable[[str, Document], bool]:
        """Whether it is true; it is not where it has no value. Raises TooCostly.

        Raises BadInput at once for what never is a bool.
        """
        if self.type not in ("bool", "dyn"):
            raise BadInput(f"A filter is true or false; this one gives a {self.type}.")
        frame, mean, steps = self._frame(params), self._meaning, Steps()

        def tested(key: str, document: Document) -> bool:
            steps.left = STEPS
            frame[: DOCUMENT + 1] = steps, key, document
            try:
                return mean(frame) is True
            except Failure:
                return False
            except RecursionError:
                raise TooCostly(_DEEP) from None

        return tested

    def restrictions(self, params: Mapping[str, Value]) -> Iterable[Restriction]:
        """What is true of each document of which `test` says that it is."""
        return restrictions(self._syntax, params)

    def _frame(self, params: Mapping[str, Value]) -> Frame:
        frame: list[Any] = [None] * self._size
        for place, name in enumerate(self._names, DOCUMENT + 1):
            frame[place] = params[name]
        return frame


_DEEP = "The expression makes values that are nested too deep."


@lru_cache(200)  # the longest ones are some 0.5 MB each
def compile(text: str, names: frozenset[str]) -> Expression:  # noqa: A001 - the word for it
    """`Expression`, remembered."""
    return Expression(text, names)
