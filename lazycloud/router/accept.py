"""What a visitor takes: a page, JSON or text. Pure; control asks it, too."""

from __future__ import annotations

import re
from typing import Literal

Form = Literal["text", "json", "html"]

# In the order in which they are given to who takes all alike: curl says */*.
_FORMS: dict[Form, tuple[str, ...]] = {
    "text": ("text/plain",),
    "json": ("application/json", "application/*+json"),
    "html": ("text/html", "application/xhtml+xml"),
}
_ACCEPT_MAX = 1024  # browsers send a tenth of it
_LINE = re.compile(rb"^accept:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)")
_JSON = re.compile(r"application/[^/]+\+json")  # such as application/problem+json


def named_in(raw: bytes) -> bytes:
    """The Accept header of a head that nobody could parse; empty when there is none."""
    found = _LINE.search(raw)
    return found[1] if found else b""


def preferred(accept: str) -> Form:
    """The form of highest quality; of equals, the one that is named, and named first (RFC 9110, 12.5.1).

    Text for who takes none of them: an error that cannot be shown is still to be read.
    """
    ranges = [_read(part) for part in accept[:_ACCEPT_MAX].lower().split(",")]
    worth = {form: max(_worth(name, ranges) for name in names) for form, names in _FORMS.items()}
    best = max(worth, key=worth.__getitem__)
    return best if worth[best][0] else "text"


def _read(part: str) -> tuple[str, float]:
    """A media range and its quality."""
    name, _, _ = part.partition(";")
    found = _QUALITY.search(part)
    name = name.strip()
    return ("application/*+json" if _JSON.fullmatch(name) else name), float(found[1]) if found else 1.0


def _worth(name: str, ranges: list[tuple[str, float]]) -> tuple[float, int, int]:
    """Quality of a media type, by the range that fits it best; how well that fits; how early it stands."""
    kind = name.partition("/")[0]
    for exactness, wanted in ((2, name), (1, f"{kind}/*"), (0, "*/*")):
        for place, (given, quality) in enumerate(ranges):
            if given == wanted:
                return quality, exactness, -place
    return 0.0, 0, 0
