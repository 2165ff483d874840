"""SQL as text: names quoted, statements compared. Pure."""

from __future__ import annotations

import re

# Quoted text and comments are taken whole: white space in them means something.
_PARTS = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]
      | --[^\n]*(?:\n|$) | /\*.*?(?:\*/|$)
      | \s* ([(),]) \s* | (\s+)""",
    re.VERBOSE | re.DOTALL,
)


def quoted(name: str) -> str:
    """A name of a table or a column, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def in_schema(schema: str, name: str) -> str:
    """How a table of Postgres is told: with its schema, if that is not public."""
    return name if schema in ("public", "-") else f"{schema}.{name}"


def normal(statement: str) -> str:
    """The same for statements that differ in white space only."""
    return _PARTS.sub(_plain, statement).strip()


def _plain(match: re.Match[str]) -> str:
    if match[1]:
        return match[1]
    return " " if match[2] else match[0]
