"""The two secrets of a home folder, and what is made of them: seals, the keys of routers, what the owner shows."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Keys:
    """`token` is the owner's, `key` signs. Both are what `secret` made."""

    token: str
    key: bytes

    @classmethod
    def of(cls, token_file: Path, key_file: Path) -> Keys:
        """Read, or made at the first start. Raises OSError."""
        return cls(secret(token_file), secret(key_file).encode())

    @property
    def preview_key(self) -> bytes:
        return hmac.digest(self.key, b"preview", "sha256")

    @property
    def token_sha256(self) -> str:
        return sha256(self.token)

    def is_token(self, text: str) -> bool:
        return bool(text) and hmac.compare_digest(as_bytes(text), self.token.encode())

    def seal(self, what: str, seconds: float) -> str:
        """Says that we said `what`, for so long."""
        expiry = int(time.time() + seconds)
        return f"{expiry}.{self._sign(f'{what}|{expiry}')}"

    def is_seal(self, what: str, text: str) -> bool:
        expiry, _, signature = text.partition(".")
        if not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12):
            return False
        genuine = hmac.compare_digest(as_bytes(signature), self._sign(f"{what}|{expiry}").encode())
        return genuine and int(expiry) > time.time()

    def _sign(self, what: str) -> str:
        return hmac.new(self.key, what.encode(), "sha256").hexdigest()


def as_bytes(text: str) -> bytes:
    """What came as a header, whatever bytes it had."""
    return text.encode("utf-8", "surrogateescape")


def sha256(text: str) -> str:
    """How a secret of 256 random bits is kept: a slow hash is for what people think up, and can be guessed."""
    return hashlib.sha256(as_bytes(text)).hexdigest()


def secret(path: Path) -> str:
    """The secret in a file of the home folder, made at first: 32 random bytes, mode 0600."""
    try:
        if text := path.read_text().strip():
            return text
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = secrets.token_urlsafe(32)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    return text
