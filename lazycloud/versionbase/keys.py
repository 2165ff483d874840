"""Keys of a versionbase: made of one secret, so that none is stored. The owner's opens all, a version's it alone."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lazycloud.errors import BadInput

VARIABLE = "LAZYCLOUD_VERSIONBASE_SECRET"
SHORTEST = 32  # characters of a secret


@dataclass(frozen=True, repr=False)
class Keys:
    secret: bytes

    @property
    def owner(self) -> str:
        return self._key("owner")

    def version(self, name: str, birth: str) -> str:
        """Of the version that was made with that birth: one of the same name, made later, has another key."""
        return self._key(f"version\0{name}\0{birth}")

    def is_owner(self, key: str) -> bool:
        return _same(key, self.owner)

    def opens(self, key: str, name: str, birth: str) -> bool:
        return _same(key, self.version(name, birth))

    def _key(self, what: str) -> str:
        digest = hmac.digest(self.secret, what.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def made_of(text: str) -> Keys:
    """Raises BadInput for a secret that could be guessed."""
    if len(text.strip()) < SHORTEST:
        raise BadInput(
            f"The secret of the versionbase is shorter than {SHORTEST} characters.",
            "`openssl rand -hex 32` makes one.",
        )
    return Keys(text.strip().encode())


def from_file(path: Path) -> Keys:
    """Raises BadInput if it is not there, is too short, or can be read by others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor) as file:
            if os.fstat(descriptor).st_mode & 0o077:
                raise BadInput(f"Others may read the secret in {path}.", f"`chmod 600 {path}`")
            return made_of(file.read())
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"The secret in {path} cannot be read: {problem}.") from problem


def beside(database: Path) -> Keys:
    """Of a SQLite store: in a file beside it, which is made if there is none. Raises BadInput, OSError."""
    path = database.with_name(database.name + ".secret")
    if not path.exists():
        _make(path)
    return from_file(path)


def _make(path: Path) -> None:
    """It is there as a whole or not at all; of two that make one, the first has made it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
