"""A row's values, as JSON has them: see `shapes`. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEXT_SHOWN = 2000  # characters
EXACT = 1 << 53  # beyond it a page's numbers are not exact


@dataclass(frozen=True)
class Big:
    """A value that was read in pieces, and is known by its digest."""

    bytes: int
    sha256: str


def as_json(value: Any) -> Any:
    """A value of SQLite (bytes, str, int, float, None, Big)."""
    match value:
        case Big():
            return {"blob": value.bytes, "sha256": value.sha256}
        case bytes():
            return {"blob": len(value), "sha256": hashlib.sha256(value).hexdigest()}
        case str():
            return shortened(value)
        case int() if abs(value) > EXACT:
            return {"integer": str(value)}
        case float() if not math.isfinite(value):
            return {"real": str(value)}
        case _:
            return value


def row_as_json(names: Sequence[str], values: Sequence[Any]) -> Mapping[str, Any]:
    return {readable(name): as_json(value) for name, value in zip(names, values, strict=True)}


def readable(text: str) -> str:
    """Text that a database says is UTF-8, as that."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shortened(text: str, most: int = TEXT_SHOWN) -> Any:
    """Characters beyond `most` are left out; the digest is of all of it."""
    if len(text) <= most:
        return readable(text)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return {"text": readable(text[:most]), "length": len(text), "sha256": digest}
