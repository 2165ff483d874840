"""How long something is good for, as people write it: 30m, 12h, 7d, 4w."""

from __future__ import annotations

import re
import time

from lazycloud.errors import BadInput

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_lifetime(option: str, text: str) -> int:
    """Seconds. Raises BadInput, which names the option."""
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text.strip().lower())
    if not found or not int(found[1]):
        raise BadInput(f"{option} {text}: that is no time.", "Give one such as 30m, 12h, 7d or 4w.")
    return int(found[1]) * UNITS[found[2]]


def day(at: float | None, never: str = "never") -> str:
    """A moment to come, in this machine's time."""
    return never if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
