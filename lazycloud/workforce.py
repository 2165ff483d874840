"""How many workers a server keeps, and what each may use: the table [workers] of config.toml. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from lazycloud.allowance import Amount, read_amount
from lazycloud.errors import BadInput


@dataclass(frozen=True)
class Limits:
    """Of one worker, with all its processes together. Bytes, `cpu` in cores; 0 is no limit.

    `files` are open files of each process; `disk` is what its version's data may take, `log` what is kept of
    what it writes.
    """

    memory: int = 0
    cpu: float = 0.0
    processes: int = 1024
    files: int = 16_384
    disk: int = 0
    log: int = 32_000_000

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Limits:
        """Fields that another lazycloud wrote and this one does not know are left out."""
        return cls(**{one.name: stored[one.name] for one in fields(cls) if one.name in stored})


@dataclass(frozen=True)
class Workforce:
    """`max`: workers that live at a time, 0 for no limit; `reserve`: memory that is kept free for all else.

    `idle_after`: seconds without a visitor after which a preview is put to sleep, 0 for never.
    """

    max: int = 0
    reserve: Amount = field(default_factory=lambda: Amount(bytes=1_000_000_000, percent=10))
    idle_after: float = 900.0
    limits: Limits = Limits()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workforce:
        return cls(**{**data, "reserve": Amount(**data["reserve"]), "limits": Limits(**data["limits"])})


_LIMITS = {one.name: one.type for one in fields(Limits)}
SETTINGS = ("max", "reserve", "idle_after", *_LIMITS)


def read_workforce(table: Mapping[str, Any], machine: int = 0) -> Workforce:
    """The table [workers]. Raises BadInput with the key that is wrong.

    `machine`: bytes of memory that it has; a worker for which nothing is said may take all but the reserve.
    """
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            advice = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [workers] has no setting `{name}`.", advice)
    values: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for name, value in table.items():
        if name == "reserve":
            values[name] = read_amount("workers", name, value)
        elif name in ("memory", "disk", "log"):
            limits[name] = read_amount("workers", name, value).bytes
        elif name in _LIMITS:
            limits[name] = _number(name, value, whole=name != "cpu")
        else:
            values[name] = _number(name, value, whole=name == "max")
    if "memory" not in limits and machine:
        reserve = values.get("reserve", Workforce().reserve)
        limits["memory"] = max(0, machine - reserve.of(machine))
    return Workforce(**values, limits=Limits(**limits))


def _number(name: str, value: Any, whole: bool) -> Any:
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and value >= 0
    if not right:
        kind = "a whole number" if whole else "a number"
        raise BadInput(
            f"config.toml: [workers] `{name}` cannot be {value!r}.", f"Give {kind}, 0 for no limit."
        )
    return value
