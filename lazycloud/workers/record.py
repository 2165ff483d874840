"""What must be remembered of a worker to find it again: a row of JSON in control's store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lazycloud.processes import Identity

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Record:
    """A worker as it can be adopted. `address` is "host:port", or "[host]:port"; times are seconds.

    `started` (clock ticks since boot) and `boot` tell its process from a later one with the same pid.
    `log_start` is the byte of the log at which this worker's own lines begin. `preloaded`: it is a
    fork of a process that had imported what it needs. `listens`: False for a background process; it has no port.
    `walled`: its process is bwrap's, the app is a child of that.
    `engine` is the name of what started it; of a container, `pid` is its first process, `container` the engine's id.
    `group` names its control group, "" for none; `limits` are those that it was started with, by name, and `data`
    the folders whose size they bound.
    `copied`: the engine keeps what it writes, and control copies that into the log.
    """

    pid: int
    started: int
    boot: str
    address: str
    log: str
    log_start: int = 0
    health: str | None = None
    health_interval: float = 10
    health_timeout: float = 5
    listens: bool = True
    health_host: str = "localhost"
    ready_timeout: float = 60
    stop_timeout: float = 10
    preloaded: bool = False
    walled: bool = False
    engine: str = "none"
    container: str = ""
    group: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    copied: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.started, self.boot)

    @property
    def log_path(self) -> Path:
        return Path(self.log)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Record:
        """Fields that another lazycloud wrote and this one does not know are left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        return cls(**values | {"data": tuple(values.get("data", ()))})
