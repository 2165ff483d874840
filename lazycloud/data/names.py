"""Which names a version or a snapshot may have, and how people say which they mean.

Names of versions and ids of snapshots become folders, so nothing else gets near a path.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from lazycloud import spans
from lazycloud.errors import BadInput

PRODUCTION = "production"
REHEARSAL = "rehearsal-"  # before a commit id: a promote is tried on it, and then it is dropped
MIGRATION = "migration-"  # likewise: becomes production's data when its release command went well
PASSING = (REHEARSAL, MIGRATION)  # no version of these outlives the promote that it is made for
_VERSION = re.compile(r"production|[0-9a-f]{7,64}|(?:rehearsal|migration)-[0-9a-z][0-9a-z-]{0,100}")
WHYS = (
    "asked",
    "promote",
    "release",
    "restore",
    "timer",
    "fork",
)  # why there is a snapshot; the first by people
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")  # that people give to a snapshot
_AGO = "-ago"
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{12}-[0-9a-f]{8}")


def is_version(name: str) -> bool:
    """Whether a version may have that name."""
    return _VERSION.fullmatch(name) is not None


def check_version(name: str) -> str:
    """The name, if a version may have it. Raises BadInput."""
    if not is_version(name):
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


@dataclass(frozen=True)
class Point:
    """Which data somebody means: of a revision (or PRODUCTION), as they are now, or at one of the three others."""

    ref: str
    name: str = ""  # of a snapshot
    id: str = ""  # of a snapshot
    at: float = 0.0  # unix time: the last snapshot that is not younger

    @property
    def is_now(self) -> bool:
        return not (self.name or self.id or self.at)


def point(text: str, now: float) -> Point:
    """Of `REF`, `REF@NAME`, `REF@ID`, `REF@10min-ago`, `REF@2026-01-31T12:00` (UTC if it says no zone).

    REF is PRODUCTION when it is left out. Raises BadInput.
    """
    ref, separator, moment = text.rpartition("@") if "@" in text else (text, "", "")
    ref = ref or PRODUCTION
    if not separator:
        return Point(ref)
    if _SNAPSHOT.fullmatch(moment):
        return Point(ref, id=moment)
    if moment.endswith(_AGO):
        return Point(ref, at=now - spans.seconds(moment.removesuffix(_AGO), f"{text[:80]}: the time"))
    if (time := _time(moment)) is not None:
        return Point(ref, at=time)
    return Point(ref, name=check_name(moment))


def check_name(name: str) -> str:
    """The name, if people may give it to a snapshot. Raises BadInput."""
    taken = _SNAPSHOT.fullmatch(name) or name.endswith(_AGO) or _time(name) is not None
    if taken or not _NAME.fullmatch(name):
        raise BadInput(
            f"{name[:80]!r} is no name for a snapshot.",
            "Use up to 60 of a-z, 0-9, “.”, “_” and “-”, which do not read as a time.",
        )
    return name


def _time(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
