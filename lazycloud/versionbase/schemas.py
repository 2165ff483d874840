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
from lazycloud.versionbase.problems import Invalid
from lazycloud.versionbase.values import Value

LONGEST = 64 << 10  # bytes of a schema
PATTERN = 1 << 20  # bytes of a compiled one
TOLD = 3  # problems of one document
SHOWN = 200  # characters of each


class Schema:
    """Raises BadInput for what is none, or refers to what is not in it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            if len(msgspec.json.encode(schema)) > LONGEST:
                raise BadInput(f"A schema has {LONGEST:,} bytes of JSON at most.")
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                validate_formats=True,
                offline=True,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as problem:
            said = str(getattr(problem, "message", problem)).partition("\n")[0]
            raise BadInput(f"This is no JSON Schema: {said[:SHOWN]}{_place(problem)}.") from None
        except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as problem:
            raise BadInput(f"This is no JSON Schema: {str(problem)[:SHOWN]}.") from None

    def check(self, document: Value) -> None:
        """Raises Invalid with the first of what is wrong, and where."""
        seen = _seen(document)
        if self._validator.is_valid(seen):
            return
        wrong = [
            f"{problem.message[:SHOWN]}{_place(problem)}"
            for problem in islice(self._validator.iter_errors(seen), TOLD)
        ]
        raise Invalid(f"The schema refuses it: {'; '.join(wrong)}.")


def _place(problem: Any) -> str:
    path = getattr(problem, "instance_path", ())
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f" (at `{shown[:SHOWN]}`)" if path else ""


def _seen(value: Value) -> Any:
    """As a schema sees it; the same object where it is so already."""
    if isinstance(value, dict):
        seen = {name: _seen(inner) for name, inner in value.items()}
        return seen if any(seen[name] is not inner for name, inner in value.items()) else value
    if isinstance(value, list):
        return [_seen(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value
    return value
