"""Lengths of time as people write them: 90s, 10min, 1h, 30d, 2w. Pure."""

from __future__ import annotations

import re

from lazycloud.errors import BadInput

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d|w)")
EXAMPLE = "Give a time such as 90s, 10min, 1h, 30d or 2w."


def seconds(text: str, what: str) -> float:
    """How long that is. Raises BadInput, in which `what` says where it was found."""
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise BadInput(f"{what} cannot be {text[:40]!r}.", EXAMPLE)
    return float(found[1]) * SECONDS[found[2]]
