"""Remembers which entries a visitor gave a heart, in a cookie that only we can write."""

import hashlib
import hmac
import os
import secrets
from http.cookies import SimpleCookie
from pathlib import Path


def key():
    """Made at the first start, and kept with the data."""
    file = Path(os.environ.get("DATA_DIR", ".")) / "cookie.key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_bytes()


KEY = key()


def sign(text):
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


def cookie(entries):
    text = ".".join(sorted(entries, key=int))
    return f"hearts={text}-{sign(text)}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax"


def hearts(headers):
    """The ids in the visitor's cookie; none when it is not from us."""
    cookies = SimpleCookie(headers.get("Cookie", ""))
    text, _, signature = cookies["hearts"].value.partition("-") if "hearts" in cookies else ("", "", "")
    return set(text.split(".")) if text and hmac.compare_digest(signature, sign(text)) else set()
