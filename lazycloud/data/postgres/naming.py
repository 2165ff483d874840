"""Names of databases, passwords of roles, and what is noted beside a database. Pure.

A database and its role have one name, `lazycloud_<owner>_<app>_<what>_<digest>`: `owner` is a digest of the server's
key and the app, by which ours are told from others'; `app` and `what` are cut, for people; `digest` is of the
whole, so that no two share a name.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum

MOST_BYTES = 63  # of a name in Postgres, which cuts what is longer
SHOWN = 14  # letters of the app and of what it is


class Kind(StrEnum):
    """What a database is."""

    VERSION = "version"
    SNAPSHOT = "snapshot"
    TEMPLATE = "template"  # a sealed copy of production
    SPARE = "spare"  # made of a template ahead, for the next fork
    MAKING = "making"  # nothing yet, or nothing any more


@dataclass(frozen=True)
class Facts:
    """Of a database. `at`: unix time that its contents are of; `lsn`: what the server had written by then, all of it
    is in it; `seconds`: what the dump took; `origin`: the template that a spare was made of."""

    kind: Kind
    version: str = ""
    snapshot: str = ""
    at: float = 0.0
    lsn: str = ""
    seconds: float = 0.0
    origin: str = ""
    swap: str = ""  # the version that changed places with another, and that one; until that holds

    def to_comment(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value})

    @classmethod
    def of_comment(cls, text: str | None) -> Facts:
        """Of one that we did not write, as of something half-made."""
        try:
            read = json.loads(text or "")
            return cls(**read | {"kind": Kind(read["kind"])})
        except (ValueError, TypeError, KeyError):
            return cls(Kind.MAKING)


@dataclass(frozen=True)
class Naming:
    """Of one app's databases. `key` is the server's own, and stays for as long as its data."""

    app: str
    key: bytes

    @property
    def prefix(self) -> str:
        """Of all names of this app, and of nobody else's."""
        return f"lazycloud_{self._digest('owner')}_"

    def version(self, version: str) -> str:
        return self._name(version, self._digest("version", version))

    def snapshot(self, version: str, snapshot: str) -> str:
        return self._name(f"at{snapshot}", self._digest("snapshot", version, snapshot))

    def new(self, kind: Kind) -> str:
        """One that nobody has."""
        return self._name(kind, secrets.token_hex(5))

    def is_half_made(self, name: str) -> bool:
        return name.startswith(self.prefix) and name.rsplit("_", 2)[1] == Kind.MAKING

    def password(self, role: str) -> str:
        """Of no use to whoever does not have the key; nothing need be kept of it."""
        return hmac.new(self.key, f"postgres password of {role}".encode(), "sha256").hexdigest()

    def _name(self, what: str, digest: str) -> str:
        return f"{self.prefix}{_shown(self.app)}_{_shown(what)}_{digest}"

    def _digest(self, *words: str) -> str:
        text = json.dumps([self.app, *words]).encode()
        return hmac.digest(self.key, text, hashlib.sha256).hex()[:10]


def _shown(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())[:SHOWN]
