"""How long data are kept that nobody uses, and how much of them: the table [data] of config.toml. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lazycloud import spans
from lazycloud.allowance import read_amount
from lazycloud.errors import BadInput

DAY = 86400.0


@dataclass(frozen=True)
class Upkeep:
    """`keep`: seconds after its last use that a version stays; `limit`: bytes of an app's data. 0 is no limit."""

    keep: float = 30 * DAY
    limit: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Upkeep:
        return cls(data["keep"], data["limit"])


SETTINGS = ("keep", "limit")


def read_upkeep(table: Mapping[str, Any]) -> Upkeep:
    """The table [data]. Raises BadInput with the key that is wrong."""
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            advice = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [data] has no setting `{name}`.", advice)
    values: dict[str, Any] = {}
    if "keep" in table:
        values["keep"] = _seconds(table["keep"])
    if "limit" in table:
        amount = read_amount("data", "limit", table["limit"])
        if amount.percent:
            raise BadInput(
                "config.toml: [data] `limit` is of one app, and no share of the disk.",
                'Give a size such as "20 GB"; 0 for no limit.',
            )
        values["limit"] = amount.bytes
    return Upkeep(**values)


def _seconds(value: Any) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        raise BadInput(f"config.toml: [data] `keep` cannot be {value!r}.", f"{spans.EXAMPLE} 0 is for ever.")
    return spans.seconds(value, "config.toml: [data] `keep`") if value.strip() != "0" else 0.0
