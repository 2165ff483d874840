"""How much of a disk the server may take: the table [disk] of config.toml. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lazycloud.errors import BadInput

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|([KMGT]?)(i?)B?)", re.IGNORECASE)
_EXAMPLE = 'Give a size such as "20 GB", or a share of the disk such as "10%".'


@dataclass(frozen=True)
class Amount:
    """Bytes, or a share of the disk; of both, the smaller. Neither: nothing."""

    bytes: int = 0
    percent: float = 0

    def of(self, disk: int) -> int:
        """In bytes, on a disk of that size."""
        share = int(disk * self.percent / 100)
        return min(self.bytes, share) if self.bytes and share else self.bytes or share


@dataclass(frozen=True)
class Allowance:
    """`limit`: what all that can be made again may take; `reserve`: what is left free of the whole disk.

    `keep`: how many of the commits that were production before the present one are kept.
    """

    limit: Amount = Amount(percent=20)
    reserve: Amount = Amount(bytes=2_000_000_000, percent=5)
    keep: int = 5

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Allowance:
        return cls(Amount(**data["limit"]), Amount(**data["reserve"]), data["keep"])


def in_words(size: int) -> str:
    """Bytes for people: 1.2 GB, 340.0 MB, 8.3 kB, 12 B."""
    for unit, many in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= many:
            return f"{size / many:.1f} {unit}"
    return f"{size} B"


SETTINGS = ("limit", "reserve", "keep")


def read_allowance(table: Mapping[str, Any]) -> Allowance:
    """The table [disk]. Raises BadInput with the key that is wrong."""
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            advice = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [disk] has no setting `{name}`.", advice)
    values: dict[str, Any] = {
        name: read_amount("disk", name, table[name]) for name in SETTINGS[:2] if name in table
    }
    if values.get("limit") == Amount():
        raise BadInput("config.toml: [disk] `limit` must be more than 0.", _EXAMPLE)
    if "keep" in table:
        values["keep"] = _count(table["keep"])
    return Allowance(**values)


def read_amount(table: str, name: str, value: Any) -> Amount:
    """A size or a share, as a table of config.toml says it. Raises BadInput."""
    found = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip())
    if found is None:
        raise BadInput(f"config.toml: [{table}] `{name}` cannot be {value!r}.", _EXAMPLE)
    number, unit, prefix, binary = found.groups()
    if unit == "%":
        amount = Amount(percent=float(number))
    else:
        amount = Amount(
            int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " "))
        )
    if amount.percent > 100:
        raise BadInput(f"config.toml: [{table}] `{name}` is more than the whole.", _EXAMPLE)
    return amount


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadInput(f"config.toml: [disk] `keep` cannot be {value!r}.", "Give a whole number, 0 or more.")
    return value
