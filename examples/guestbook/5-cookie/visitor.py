"""Remembers which entries a visitor gave a heart, in a cookie that only we can write."""

import hashlib
import hmac
import os
from http.cookies import SimpleCookie

KEY = os.environ["GUESTBOOK_KEY"].encode()


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
