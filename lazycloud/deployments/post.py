"""One place for a worker of a deployment, such as “web.1” or “clock.1”, and who holds it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lazycloud.workers.record import Record
from lazycloud.workers.worker import Worker

WEB = "web"  # the kind that requests go to


class Post:
    """`ended`: how its last worker ended, to follow its name in a sentence; `since`: unix time of its start."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = name.rpartition(".")[0]
        self.worker: Worker | None = None
        self.serves = False  # its worker is ready
        self.since = 0.0
        self.restarts = 0  # by us, after an end or a hang
        self.crashes = 0  # ends soon after a start, one after the other
        self.misses = 0  # health checks that failed, one after the other
        self.ended = ""

    def __repr__(self) -> str:
        return f"<Post {self.name} {self.worker or 'empty'} restarts {self.restarts}>"

    @property
    def is_web(self) -> bool:
        return self.kind == WEB

    def hold(self, worker: Worker) -> None:
        """Put a worker there; it does not serve yet."""
        self.worker, self.serves, self.since = worker, False, time.time()
        self.misses = 0

    def clear(self, how: str) -> None:
        self.worker, self.serves, self.ended = None, False, how

    def row(self) -> dict[str, Any]:
        record = self.worker.record.as_dict() if self.worker else None
        return {"worker": record, "restarts": self.restarts, "ended": self.ended, "since": self.since}

    @classmethod
    def from_row(cls, name: str, row: Mapping[str, Any]) -> Post:
        """Without its worker, who is still to be found."""
        post = cls(name)
        post.restarts, post.ended, post.since = row["restarts"], row["ended"], row["since"]
        return post


def rows_of(stored: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Posts by name as a deployment's row has them; earlier lazyclouds wrote the record of the only worker."""
    if not stored:
        return {}
    if "pid" in stored:
        return {f"{WEB}.1": {"worker": dict(stored), "restarts": 0, "ended": "", "since": 0.0}}
    return {name: dict(row) for name, row in stored.items()}


def record_in(row: Mapping[str, Any]) -> Record | None:
    return Record.from_dict(row["worker"]) if row["worker"] else None


def names(counts: Mapping[str, int]) -> list[str]:
    """The posts for so many workers of each kind."""
    return [f"{kind}.{number}" for kind, count in counts.items() for number in range(1, count + 1)]
