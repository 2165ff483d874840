from __future__ import annotations

import json

import pytest

from lazycloud.router.pages import Pages, Trouble

TROUBLE = Trouble(503, "No <room>.", "Try again.", retry_after=5)


def render(accept: bytes, head_only: bool = False) -> tuple[str, str]:
    raw = Pages().render(TROUBLE, accept, b"id<1>", head_only=head_only, connection=b"Connection: close")
    head, _, body = raw.decode().partition("\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (b"text/html,application/json;q=0.9", "text/html"),
        (b"application/json, text/html", "application/json"),
        (b"application/problem+json", "application/json"),
        (b"*/*", "text/plain"),
        (b"", "text/plain"),
    ],
)
def test_the_answer_is_a_page_or_json_or_text_by_accept(accept: bytes, kind: str) -> None:
    assert f"Content-Type: {kind}" in render(accept)[0]


def test_what_strangers_say_is_escaped_on_the_page() -> None:
    body = render(b"text/html")[1]
    assert "No &lt;room&gt;." in body
    assert "id&lt;1&gt;" in body
    assert "<room>" not in body
    assert "http" not in body.replace("http-equiv", "")  # nothing from outside


def test_json_names_status_sentence_and_request() -> None:
    error = json.loads(render(b"application/json")[1])["error"]
    assert (error["status"], error["sentence"], error["request_id"]) == (503, "No <room>.", "id<1>")


def test_every_own_answer_says_so_and_is_never_stored() -> None:
    head = render(b"")[0]
    assert "Lazycloud-Answer: router" in head
    assert "Cache-Control: no-store" in head
    assert "X-Request-Id: id<1>" in head


def test_retry_after_is_spread() -> None:
    waits = {
        line for _ in range(60) for line in render(b"")[0].split("\r\n") if line.startswith("Retry-After")
    }
    assert len(waits) > 2
    assert all(5 <= int(line.split()[1]) <= 10 for line in waits)


def test_head_gets_no_body_but_its_length() -> None:
    head, body = render(b"", head_only=True)
    assert body == ""
    assert "Content-Length: 0" not in head
