"""What the documents of a collection must be: JSON Schema, draft 2020-12.

To a schema, a datetime is a string of the format date-time, bytes are a string of base64 (`contentEncoding`), and a
decimal is a number. Formats are asserted. Nothing is fetched, and patterns are of the kind that takes linear time:
with neither lookaround nor backreferences.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from lazycloud.errors import BadInput
from lazycloud.versionbase import schema_cost, schema_words
from lazycloud.versionbase.problems import Invalid
from lazycloud.versionbase.values import Value

LONGEST = 64 << 10  # bytes of a schema
PATTERN = 1 << 20  # bytes of a compiled one
TOLD = 3  # problems of one document
SHOWN = 200  # characters of each
TELLING = (
    4 << 20
)  # bytes of schema times bytes of document: beyond, one problem is told. All are made to tell some


class Schema:
    """Raises BadInput for what is none, or refers to what is not in it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            written = msgspec.json.encode(schema)
            self._length = len(written)
            if self._length > LONGEST:
                raise BadInput(f"A schema has {LONGEST:,} bytes of JSON at most.")
            schema = msgspec.json.decode(written)  # as it will be read again
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                validate_formats=True,
                offline=True,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN),
            )
            schema_cost.check(schema)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as problem:
            raise BadInput(f"This is no JSON Schema: {_said(problem)}{_place(problem)}.") from None
        except (ValueError, TypeError, AttributeError, RecursionError, msgspec.MsgspecError) as problem:
            raise BadInput(f"This is no JSON Schema: {str(problem)[:SHOWN]}.") from None

    def check(self, document: Value) -> None:
        """Raises Invalid with the first of what is wrong, and where."""
        seen = _seen(document)
        if self._validator.is_valid(seen):
            return
        wrong = [f"{problem.message[:SHOWN]}{_place(problem)}" for problem in self._problems(seen)]
        raise Invalid(f"The schema refuses it: {'; '.join(wrong)}.")

    def _problems(self, seen: Any) -> list[jsonschema_rs.ValidationError]:
        """The first few, or the first."""
        if self._length * len(msgspec.json.encode(seen)) <= TELLING:
            return list(islice(self._validator.iter_errors(seen), TOLD))
        try:
            self._validator.validate(seen)
        except jsonschema_rs.ValidationError as problem:
            return [problem]
        return []


def _said(problem: Exception) -> str:
    """Of a schema that is none. Of a type that is none the words of the schema for schemas would tell nobody."""
    path = [*getattr(problem, "schema_path", ())]
    if path[-2:] == ["type", "anyOf"]:
        unknown = schema_words.unknown_type(getattr(problem, "instance", None))
        if isinstance(unknown, str):
            return schema_words.no_type(unknown)
    return str(getattr(problem, "message", problem)).partition("\n")[0][:SHOWN]


def _place(problem: Any) -> str:
    path = getattr(problem, "instance_path", ())
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f" (at `{shown[:SHOWN]}`)" if path else ""


_AS_IT_IS = frozenset((str, int, float, bool, type(None)))


def _seen(value: Value) -> Any:
    """As a schema sees it; the same object where it is so already."""
    kind = type(value)
    if kind is dict:
        if _AS_IT_IS.issuperset(map(type, value.values())):
            return value
        return {name: inner if type(inner) in _AS_IT_IS else _seen(inner) for name, inner in value.items()}
    if kind is list:
        if _AS_IT_IS.issuperset(map(type, value)):
            return value
        return [inner if type(inner) in _AS_IT_IS else _seen(inner) for inner in value]
    if kind is datetime:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if kind is bytes:
        return base64.b64encode(value).decode()
    if kind is Decimal:
        return int(value) if value == value.to_integral_value() else value
    return value
