"""The answers that the router makes itself: a page, JSON or text, by Accept; each names its request."""

from __future__ import annotations

import html
import json
import random
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from string import Template

import lazycloud


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no other answer. `retry_after` in seconds; it is spread, so that not all come back at once."""

    status: int
    sentence: str
    advice: str = ""
    retry_after: int | None = None

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase


def new_request_id() -> bytes:
    """A name for a request that brought none: 32 hex digits."""
    return b"%032x" % random.getrandbits(128)


class Pages:
    """Renders troubles. Reads its template once."""

    def __init__(self) -> None:
        self._template = Template(_find("pages/router-error.html").read_text())

    def render(
        self, trouble: Trouble, accept: bytes, request_id: bytes, *, head_only: bool, connection: bytes
    ) -> bytes:
        """A whole answer. `connection` is a header line or empty."""
        kind, body = self._body(trouble, accept, request_id.decode("latin-1"))
        lines = [
            f"HTTP/1.1 {trouble.status} {trouble.title}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Lazycloud-Answer: router",
            "X-Content-Type-Options: nosniff",
            f"X-Request-Id: {request_id.decode('latin-1')}",
        ]
        if trouble.retry_after is not None:
            lines.append(f"Retry-After: {_spread(trouble.retry_after)}")
        if connection:
            lines.append(connection.decode())
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        return head if head_only else head + body

    def _body(self, trouble: Trouble, accept: bytes, request_id: str) -> tuple[str, bytes]:
        kind = _preferred(accept.lower())
        if kind == "html":
            return "text/html; charset=utf-8", self._page(trouble, request_id).encode()
        if kind == "json":
            return "application/json", (
                json.dumps(_json(trouble, request_id), ensure_ascii=False) + "\n"
            ).encode()
        text = f"{trouble.status} {trouble.title}\n{trouble.sentence} {trouble.advice}".rstrip()
        return "text/plain; charset=utf-8", f"{text}\nrequest {request_id}\n".encode()

    def _page(self, trouble: Trouble, request_id: str) -> str:
        words = {
            "status": str(trouble.status),
            "title": trouble.title,
            "sentence": trouble.sentence,
            "advice": trouble.advice,
            "request_id": request_id,
        }
        return self._template.substitute({key: html.escape(value) for key, value in words.items()})


def _json(trouble: Trouble, request_id: str) -> dict[str, object]:
    about = {"kind": trouble.title.lower(), "sentence": trouble.sentence, "advice": trouble.advice}
    return {"error": {"status": trouble.status, **about, "request_id": request_id}}


def _preferred(accept: bytes) -> str:
    """Of a page and JSON the one named first; text for who names neither."""
    places = {"html": accept.find(b"text/html"), "json": accept.find(b"json")}
    named = {kind: at for kind, at in places.items() if at >= 0}
    return min(named, key=named.__getitem__) if named else "text"


def _spread(seconds: int) -> int:
    return seconds + random.randint(0, max(1, seconds))  # noqa: S311 - not a secret


def _find(name: str) -> Path:
    package = Path(lazycloud.__file__).parent
    folder = package / "web"
    return (folder if folder.is_dir() else package.parent / "web") / name
