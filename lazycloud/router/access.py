"""Who may see a preview: the cookie that says so, and the API token. Pure, and free of imports of ours.

Control signs the cookie after a login; routers check it. No cookie of lazycloud ever reaches a worker,
whose code is not trusted with the visitor's right to see other commits.
"""

from __future__ import annotations

import hashlib
import hmac

PREVIEW_COOKIE = "lazycloud_preview"
SESSION_COOKIE = "lazycloud_session"
HOST_SESSION_COOKIE = f"__Host-{SESSION_COOKIE}"  # its name over https
SESSION_COOKIES = (HOST_SESSION_COOKIE, SESSION_COOKIE)

_OURS = frozenset(name.encode() for name in (PREVIEW_COOKIE, *SESSION_COOKIES))
_COPIES = 4  # of one cookie that are looked at; a browser sends one per Path and Domain it has


def sign(key: bytes, host: str, expiry: int) -> str:
    """The preview cookie's value for `host` (normalised), good until `expiry` (unix seconds)."""
    return f"{expiry}.{_seal(key, host, expiry)}"


def valid(key: bytes, host: str, value: str, now: float) -> bool:
    """Whether `value` was signed with `key` for `host` and has not expired. Never true for an empty key."""
    expiry, dot, seal = value.partition(".")
    if not (key and dot and expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
        return False
    expected = _seal(key, host, int(expiry)).encode()
    return hmac.compare_digest(expected, seal.encode()) and now < int(expiry)


def token_valid(token: bytes, token_sha256: str) -> bool:
    """Whether `token` hashes to `token_sha256` (hex). Never true for an empty hash."""
    digest = hashlib.sha256(token).hexdigest()
    return bool(token_sha256) and hmac.compare_digest(digest, token_sha256.lower())


def previews(cookies: bytes) -> list[str]:
    """The values of preview cookies in a Cookie header's value."""
    pairs = (part.partition(b"=") for part in cookies.split(b";"))
    found = [value for name, _, value in pairs if name.strip() == PREVIEW_COOKIE.encode()]
    return [value.strip().decode("latin-1") for value in found[:_COPIES]]


def for_worker(cookies: bytes) -> bytes:
    """A Cookie header's value without lazycloud's own cookies; the others are left byte for byte."""
    if b"lazycloud_" not in cookies:
        return cookies
    parts = cookies.split(b";")
    kept = [part for part in parts if part.partition(b"=")[0].strip() not in _OURS]
    return cookies if len(kept) == len(parts) else b";".join(kept).strip()


def _seal(key: bytes, host: str, expiry: int) -> str:
    return hmac.new(key, f"{host}|{expiry}".encode(), hashlib.sha256).hexdigest()
