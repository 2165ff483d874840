"""Page, JSON or text, by what the visitor takes."""

from __future__ import annotations

import pytest

from lazycloud.router.accept import preferred

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),  # curl
        (BROWSER, "html"),
        ("application/json, text/plain, */*", "json"),  # axios
        ("application/json, text/javascript, */*; q=0.01", "json"),
        ("application/problem+json", "json"),
        ("application/json, text/html", "json"),
        ("text/html, application/json", "html"),
        ("text/html;q=0.5, application/json;q=0.9", "json"),
        ("text/plain;q=0.1, text/html;q=0.2", "html"),
        ("TEXT/HTML ; charset=utf-8 ; Q=0.3, text/plain;q=0.2", "html"),
        ("text/html;level=1;q=0.2, application/json;q=0.3", "json"),
        ("*/*, text/html;q=0.5", "text"),
        ("*/*, text/html", "html"),
        ("text/*", "text"),
        ("application/*", "json"),
    ],
)
def test_the_form_of_highest_quality_is_taken(accept: str, form: str) -> None:
    assert preferred(accept) == form


@pytest.mark.parametrize("accept", ["text/html;q=0", "text/html;q=0.000, */*", "text/html;q=0, image/*"])
def test_what_is_refused_is_not_given(accept: str) -> None:
    assert preferred(accept) == "text"


NONSENSE = ["image/png", ",;=", "text/html;q=nan;q=0", ";q=1", "ÿ/ÿ", "a" * 60_000, "," * 60_000]


@pytest.mark.parametrize("accept", NONSENSE, ids=lambda text: text[:12])
def test_nonsense_gets_an_answer_too(accept: str) -> None:
    assert preferred(accept) in ("text", "html")
