"""Who may see a preview: the cookie that says so, and tokens. Pure, and free of imports of ours.

Control signs the cookie; routers check it. It is good for one host and names the grant that it was given for: a
login, the app's password, a link that was shared. Control tells routers which grants hold, so that a cookie ends with
its grant. No cookie of lazycloud ever reaches a worker, whose code is not trusted with the visitor's right to
see other commits.
"""

from __future__ import annotations

import hashlib
import hmac
import re

PREVIEW_COOKIE = "lazycloud_preview"
SESSION_COOKIE = "lazycloud_session"
HOST_SESSION_COOKIE = f"__Host-{SESSION_COOKIE}"  # its name over https, where no other host can have set it
HOST_PREVIEW_COOKIE = f"__Host-{PREVIEW_COOKIE}"
SESSION_COOKIES = (HOST_SESSION_COOKIE, SESSION_COOKIE)

_OURS = frozenset(name.encode() for name in (HOST_PREVIEW_COOKIE, PREVIEW_COOKIE, *SESSION_COOKIES))
_COPIES = 4  # of one cookie that are looked at; a browser sends one per Path and Domain it has
_VALUE = re.compile(r"([0-9]{1,12})\.([a-z0-9]{1,40})\.([0-9a-f]{64})", re.ASCII)


def preview_cookie(secure: bool) -> str:
    """The cookie's name. An app of a neighbour host could set it here, but not over https."""
    return HOST_PREVIEW_COOKIE if secure else PREVIEW_COOKIE


def sign(key: bytes, host: str, grant: str, expiry: int) -> str:
    """The cookie's value for `host` (normalised), good until `expiry` (unix seconds) while the grant holds."""
    return f"{expiry}.{grant}.{_seal(key, host, grant, expiry)}"


def grant_of(key: bytes, host: str, value: str, now: float) -> str:
    """The grant that `value` was signed for with `key`; "" if not for `host`, expired, or for an empty key."""
    found = _VALUE.fullmatch(value)
    if not (key and found):
        return ""
    expiry, grant, seal = int(found[1]), found[2], found[3]
    genuine = hmac.compare_digest(_seal(key, host, grant, expiry), seal)
    return grant if genuine and now < expiry else ""


def token_sha256(token: bytes) -> str:
    """What a token is known by (hex)."""
    return hashlib.sha256(token).hexdigest()


def token_valid(token: bytes, sha256: str) -> bool:
    """Whether `token` hashes to `sha256` (hex). Never true for an empty hash."""
    return bool(sha256) and hmac.compare_digest(token_sha256(token), sha256.lower())


def previews(cookies: bytes, name: str) -> list[str]:
    """The values of the preview cookies called `name` in a Cookie header's value."""
    wanted = name.encode()
    pairs = (part.partition(b"=") for part in cookies.split(b";"))
    found = [value for each, _, value in pairs if each.strip() == wanted]
    return [value.strip().decode("latin-1") for value in found[:_COPIES]]


def for_worker(cookies: bytes) -> bytes:
    """A Cookie header's value without lazycloud's own cookies; the others are left byte for byte."""
    if b"lazycloud_" not in cookies:
        return cookies
    parts = cookies.split(b";")
    kept = [part for part in parts if part.partition(b"=")[0].strip() not in _OURS]
    return cookies if len(kept) == len(parts) else b";".join(kept).strip()


def _seal(key: bytes, host: str, grant: str, expiry: int) -> str:
    return hmac.new(key, f"{host}|{grant}|{expiry}".encode(), hashlib.sha256).hexdigest()
