"""Which names a version or a snapshot may have. They become folders, so nothing else gets near a path."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from lazycloud.errors import BadInput

PRODUCTION = "production"
REHEARSAL = "rehearsal-"  # before a commit id: a promote is tried on it, and then it is dropped
_VERSION = re.compile(r"production|[0-9a-f]{7,64}|rehearsal-[0-9a-z][0-9a-z-]{0,100}")
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{12}-[0-9a-f]{8}")


def check_version(name: str) -> str:
    """The name, if a version may have it. Raises BadInput."""
    if not _VERSION.fullmatch(name):
        raise BadInput(
            f"{name[:80]!r} is no name of a version.",
            "Versions are named production, by a commit id (7 to 64 hexadecimal digits), or rehearsal-….",
        )
    return name


def check_snapshot(name: str) -> str:
    """The id, if a snapshot may have it. Raises BadInput."""
    if not _SNAPSHOT.fullmatch(name):
        raise BadInput(f"{name[:80]!r} is no id of a snapshot.", "Use an id that a snapshot was given.")
    return name


def new_snapshot(now: datetime | None = None) -> str:
    """An id that no other snapshot has; sorted, ids are in the order of time (UTC, microseconds)."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
