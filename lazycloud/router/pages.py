"""The answers that the router makes itself: a page, JSON or text, by Accept; each names its request."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from string import Template

import lazycloud
from lazycloud.router.accept import preferred

_PHRASES = {413: "Content Too Large", 414: "URI Too Long"}  # RFC 9110 renamed them
_HEADLINES = {
    400: "That makes no sense here",
    408: "It did not all arrive",
    413: "That is too large",
    414: "That address is too long",
    417: "That cannot be promised",
    431: "Too much in the headers",
    502: "The app did not answer",
    503: "In a moment",
    504: "It takes too long",
}
# How the three that a request passes are: fine, to blame, not yet there, or unknown.
_PATHS = {
    "request": ("bad", "ok", "idle"),
    "lazycloud": ("ok", "bad", "idle"),
    "app": ("ok", "ok", "bad"),
}
_SPOKEN = {"ok": "fine", "bad": "the trouble is here", "late": "not ready yet", "idle": "not asked"}
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no other answer. `retry_after` in seconds; it is spread, so that not all come back at once.

    `kind` is a word for programs and the access log. `fault`: request, app or lazycloud; by the status if not given.
    """

    status: int
    sentence: str
    advice: str = ""
    retry_after: int | None = None
    kind: str = ""
    fault: str = ""

    @property
    def title(self) -> str:
        return _PHRASES.get(self.status) or HTTPStatus(self.status).phrase

    @property
    def word(self) -> str:
        """Its kind; of a trouble that was given none, its title as one word."""
        return self.kind or self.title.lower().replace(" ", "_")

    @property
    def whose(self) -> str:
        if self.status < 500:
            return self.fault or "request"
        return self.fault or ("app" if self.status in (502, 504) else "lazycloud")


_process = b"%016x" % random.getrandbits(64)
_numbers = count(random.getrandbits(48))


def new_request_id() -> bytes:
    """A name for a request that brought none: 32 hex digits, half of them the process's own, half counted."""
    return _process + b"%016x" % next(_numbers)


class Pages:
    """Renders troubles. Reads its template once."""

    def __init__(self) -> None:
        text = _find("pages/router-error.html").read_text()
        self._template = Template(text)
        self._policy = (
            f"default-src 'none'; style-src '{_digest(text)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        )

    def render(
        self,
        trouble: Trouble,
        accept: bytes,
        request_id: bytes,
        *,
        head_only: bool,
        connection: bytes,
        again: bool = False,
    ) -> bytes:
        """A whole answer. `connection` is a header line or empty; `again`: a page may offer to load itself anew."""
        name = request_id.decode("latin-1")
        wait = None if trouble.retry_after is None else _spread(trouble.retry_after)
        form = preferred(accept.decode("latin-1"))
        if form == "html":
            kind, body = "text/html; charset=utf-8", self._page(trouble, name, wait, again)
        elif form == "json":
            kind, body = "application/json", _json(trouble, name, wait)
        else:
            kind, body = "text/plain; charset=utf-8", _text(trouble, name)
        content = body.encode()
        lines = [
            f"HTTP/1.1 {trouble.status} {trouble.title}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(content)}",
            "Cache-Control: no-store",
            "Lazycloud-Answer: router",
            "X-Content-Type-Options: nosniff",
            f"X-Request-Id: {name}",
        ]
        if form == "html":
            lines.append(f"Content-Security-Policy: {self._policy}")
        if wait is not None:
            lines.append(f"Retry-After: {wait}")
        if connection:
            lines.append(connection.decode())
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        return head if head_only else head + content

    def _page(self, trouble: Trouble, request_id: str, wait: int | None, again: bool) -> str:
        request, ours, app = _path(trouble)
        words = {
            "status": str(trouble.status),
            "title": trouble.title,
            "headline": _HEADLINES.get(trouble.status, trouble.title),
            "sentence": trouble.sentence,
            "advice": trouble.advice,
            "request_id": request_id,
            "mood": _mood(trouble),
            "request": request,
            "lazycloud": ours,
            "app": app,
            "request_is": _SPOKEN[request],
            "lazycloud_is": _SPOKEN[ours],
            "app_is": _SPOKEN[app],
        }
        escaped = {key: html.escape(value) for key, value in words.items()}
        return self._template.substitute(
            escaped, refresh=_refresh(wait, again), again=_again(trouble, wait, again)
        )


def _path(trouble: Trouble) -> tuple[str, ...]:
    path = _PATHS[trouble.whose]
    return tuple("late" if state == "bad" else state for state in path) if trouble.status == 503 else path


def _mood(trouble: Trouble) -> str:
    if trouble.status < 500:
        return "awake"
    return "asleep" if trouble.status == 503 else "rainy"


def _refresh(wait: int | None, again: bool) -> str:
    return f'<meta http-equiv="refresh" content="{wait}">\n' if wait is not None and again else ""


def _again(trouble: Trouble, wait: int | None, again: bool) -> str:
    """A link to the page itself, where that may help."""
    if not again or trouble.status < 500:
        return ""
    by_itself = f" <span>This page does so by itself in {wait} seconds.</span>" if wait is not None else ""
    return f'<p class="again"><a href="">Try again</a>{by_itself}</p>\n  '


def _json(trouble: Trouble, request_id: str, wait: int | None) -> str:
    error: dict[str, object] = {
        "status": trouble.status,
        "kind": trouble.word,
        "fault": trouble.whose,
        "sentence": trouble.sentence,
        "advice": trouble.advice,
        "request_id": request_id,
    }
    if wait is not None:
        error["retry_after"] = wait
    return json.dumps({"error": error}, ensure_ascii=False) + "\n"


def _text(trouble: Trouble, request_id: str) -> str:
    said = f"{trouble.sentence} {trouble.advice}".rstrip()
    return f"{trouble.status} {trouble.title}\n{said}\nrequest {request_id}\n"


def _digest(page: str) -> str:
    """What a policy says to allow the page's one style, and no other."""
    found = _STYLE.search(page)
    assert found is not None
    return "sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()


def _spread(seconds: int) -> int:
    return seconds + random.randint(0, max(1, seconds))  # noqa: S311 - not a secret


def _find(name: str) -> Path:
    package = Path(lazycloud.__file__).parent
    folder = package / "web"
    return (folder if folder.is_dir() else package.parent / "web") / name
