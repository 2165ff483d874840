"""Passwords, which people think up: hashed by scrypt, slowly, in a thread, with what it took kept beside the hash."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets

from lazycloud.errors import BadInput

COST, BLOCK, LANES = 1 << 15, 8, 1  # 32 MiB and a tenth of a second, as OWASP has it for scrypt
LENGTH = 32  # bytes of a hash
SHORTEST, LONGEST = 10, 512  # letters
MEMORY_MOST = 256 << 20  # bytes: what a hash in the table may ask for
AT_ONCE = 2  # so that many logins at a time take 64 MiB and two threads, not all there is


class Passwords:
    """Hashes and compares, a few at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._nobody = ""

    async def hashed(self, password: str) -> str:
        """What is kept of it. Raises BadInput for one that is too short to be kept."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise BadInput(
                f"A password has {SHORTEST} to {LONGEST} letters; this one has {len(password)}.",
                "A few words in a row are easy to remember.",
            )
        async with self._turns:
            return await asyncio.to_thread(_hashed, password)

    async def fits(self, password: str, kept: str) -> bool:
        """Also where there is no such account or no password (`kept` is "") it takes as long."""
        if not self._nobody:
            self._nobody = await self.hashed(secrets.token_hex())
        async with self._turns:
            fits = await asyncio.to_thread(_fits, password[: LONGEST + 1], kept or self._nobody)
        return fits and bool(kept)


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, COST, BLOCK, LANES)
    return f"scrypt${COST}${BLOCK}${LANES}${_text(salt)}${_text(digest)}"


def _fits(password: str, kept: str) -> bool:
    name, cost, block, lanes, salt, digest = kept.split("$")
    assert name == "scrypt"
    found = _scrypt(password, base64.b64decode(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(found, base64.b64decode(digest))


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    text = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(text, salt=salt, n=cost, r=block, p=lanes, maxmem=MEMORY_MOST, dklen=LENGTH)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
