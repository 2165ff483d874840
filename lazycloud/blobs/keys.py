"""Who signs artifacts, and whose signature counts: Ed25519 keys."""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lazycloud.errors import BadInput

PREFIX = "ed25519:"
LENGTH = 32
SIGNATURE_LENGTH = 64


class SigningKey:
    """The key pair of a home. `public` is what others write into their configuration."""

    def __init__(self, private: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    @classmethod
    def of(cls, path: Path) -> SigningKey:
        """The one in that file, made at first: 32 random bytes in base64, mode 0600. Raises BadInput."""
        if not path.exists():
            _make(path)
        try:
            return cls(base64.b64decode(path.read_text().strip(), validate=True))
        except (ValueError, binascii.Error) as problem:
            raise BadInput(
                f"{path} holds no signing key: {problem}.",
                "Move it away, and a new one is made; others then have to trust that.",
            ) from problem

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def is_signed(message: bytes, signature: bytes, public: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_text(public: bytes) -> str:
    """How people see a public key, and write it into `[artifacts] trusted`."""
    return PREFIX + base64.b64encode(public).decode()


def parse_public(text: str) -> bytes:
    """Raises BadInput."""
    with suppress(ValueError, binascii.Error):
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        if text.startswith(PREFIX) and len(key) == LENGTH:
            return key
    raise BadInput(
        f"artifacts.trusted: “{text}” is no public key.",
        "Give what `lazycloud artifacts key` prints there: ed25519:…",
    )


def _make(path: Path) -> None:
    """Whole, or not there; of two who make it at once, the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    text = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        path.hardlink_to(aside)
    aside.unlink()
