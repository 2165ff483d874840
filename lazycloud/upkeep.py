"""How long data are kept that nobody uses, and where backups of them go: the table [data] of config.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lazycloud import spans
from lazycloud.allowance import read_amount
from lazycloud.blobs.store import BACKUPS, parse_store
from lazycloud.errors import BadInput

DAY = 86400.0


@dataclass(frozen=True)
class Upkeep:
    """`keep`: seconds after its last use that a version stays; `limit`: bytes of an app's data. 0 is no limit.

    `backup`: the URL of a store, "" for none; `backup_every`: seconds between two backups of what changed, and
    `backup_keep`: those for which one is kept, 0 for ever.
    """

    keep: float = 30 * DAY
    limit: int = 0
    backup: str = ""
    backup_every: float = 60.0
    backup_keep: float = 90 * DAY

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Upkeep:
        return cls(**data)


SETTINGS = ("keep", "limit", "backup", "backup_every", "backup_keep")
OFTENEST = 1.0  # seconds


def read_upkeep(table: Mapping[str, Any]) -> Upkeep:
    """The table [data]. Raises BadInput with the key that is wrong."""
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            advice = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [data] has no setting `{name}`.", advice)
    values: dict[str, Any] = {}
    for name in ("keep", "backup_keep"):
        if name in table:
            values[name] = _seconds(name, table[name])
    if "backup" in table:
        values["backup"] = _store(table["backup"])
    if "backup_every" in table:
        values["backup_every"] = max(OFTENEST, _seconds("backup_every", table["backup_every"]))
    if "limit" in table:
        amount = read_amount("data", "limit", table["limit"])
        if amount.percent:
            raise BadInput(
                "config.toml: [data] `limit` is of one app, and no share of the disk.",
                'Give a size such as "20 GB"; 0 for no limit.',
            )
        values["limit"] = amount.bytes
    return Upkeep(**values)


def _store(value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput("config.toml: [data] `backup` is the URL of a store.", f"Such as {BACKUPS.example}")
    return parse_store(value, BACKUPS) if value else ""


def _seconds(name: str, value: Any) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str):
        raise BadInput(
            f"config.toml: [data] `{name}` cannot be {value!r}.", f"{spans.EXAMPLE} 0 is for ever."
        )
    return spans.seconds(value, f"config.toml: [data] `{name}`") if value.strip() != "0" else 0.0
