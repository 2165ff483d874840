"""The answers that the router makes itself, in all their forms."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from lazycloud.router import troubles
from lazycloud.router.pages import Pages, Trouble

ALL = [
    *(each for each in vars(troubles).values() if isinstance(each, Trouble)),
    troubles.malformed("it has no Host"),
    troubles.malformed("it expects something else than 100-continue", 417),
    troubles.malformed_body("a chunk has no size"),
    troubles.misunderstood("its Content-Length is not one number"),
    troubles.wrong_route("'nowhere'"),
]
TROUBLE = Trouble(503, "No <room>.", "Try <again>.", retry_after=5, kind="no_room")


def render(
    accept: bytes, trouble: Trouble = TROUBLE, *, head_only: bool = False, again: bool = False
) -> tuple[str, str]:
    raw = Pages().render(
        trouble, accept, b"id<1>", head_only=head_only, connection=b"Connection: close", again=again
    )
    head, _, body = raw.decode().partition("\r\n\r\n")
    return head, body


def field(head: str, name: str) -> str:
    return re.findall(rf"(?m)^{name}: (.*?)\r?$", head)[0]


@pytest.mark.parametrize("trouble", ALL, ids=lambda each: each.kind)
def test_each_trouble_says_what_happened_whose_fault_it_is_and_what_to_do(trouble: Trouble) -> None:
    error = json.loads(render(b"application/json", trouble)[1])["error"]
    assert error["status"] == trouble.status
    assert error["sentence"].endswith(".")
    assert error["advice"].endswith(".")
    assert error["kind"]
    assert error["fault"] == {4: "request", 5: error["fault"]}[trouble.status // 100]
    head, page = render(b"text/html", trouble)
    assert head.startswith(f"HTTP/1.1 {trouble.status} ")
    assert page.count("the trouble is here") + page.count("not ready yet") == 1
    assert len(page) < 8 * 1024
    assert f"{trouble.status} " in render(b"", trouble)[1]


def test_no_two_troubles_have_the_same_kind_or_sentence() -> None:
    assert len({each.kind for each in ALL}) == len({each.sentence for each in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (b"text/html,application/json;q=0.9", "text/html; charset=utf-8"),
        (b"application/problem+json", "application/json"),
        (b"*/*", "text/plain; charset=utf-8"),
        (b"\xff\x00,;", "text/plain; charset=utf-8"),
    ],
)
def test_the_answer_is_a_page_or_json_or_text_by_accept(accept: bytes, kind: str) -> None:
    assert field(render(accept)[0], "Content-Type") == kind


def test_what_strangers_say_is_escaped_on_the_page() -> None:
    body = render(b"text/html")[1]
    assert "No &lt;room&gt;." in body
    assert "Try &lt;again&gt;." in body
    assert "id&lt;1&gt;" in body
    assert "<room>" not in body


def test_a_page_asks_for_nothing_from_outside_and_runs_no_script() -> None:
    head, body = render(b"text/html", again=True)
    assert (
        re.findall(r"""(?:src|href)=["'](?!data:|["'])|url\(|@import|<script|\son[a-z]+=|\sstyle=""", body)
        == []
    )
    style = re.findall(r"<style>(.*?)</style>", body, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = field(head, "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy


def test_json_is_for_programs() -> None:
    head, body = render(b"application/json")
    assert json.loads(body) == {
        "error": {
            "status": 503,
            "kind": "no_room",
            "fault": "lazycloud",
            "sentence": "No <room>.",
            "advice": "Try <again>.",
            "request_id": "id<1>",
            "retry_after": int(field(head, "Retry-After")),
        }
    }


def test_text_is_for_a_terminal() -> None:
    assert render(b"*/*")[1] == "503 Service Unavailable\nNo <room>. Try <again>.\nrequest id<1>\n"


def test_every_own_answer_says_so_and_is_never_stored() -> None:
    head = render(b"")[0]
    assert field(head, "Lazycloud-Answer") == "router"
    assert field(head, "Cache-Control") == "no-store"
    assert field(head, "X-Request-Id") == "id<1>"


@pytest.mark.parametrize("accept", [b"text/html", b"application/json", b"*/*"])
def test_an_answer_to_head_has_the_length_and_no_body(accept: bytes) -> None:
    head, body = render(accept, troubles.CUT, head_only=True)
    assert body == ""
    assert int(field(head, "Content-Length")) == len(render(accept, troubles.CUT)[1].encode())


def test_retry_after_is_spread() -> None:
    waits = {int(field(render(b"")[0], "Retry-After")) for _ in range(60)}
    assert len(waits) > 2
    assert min(waits) >= 5
    assert max(waits) <= 10


def test_a_page_loads_itself_again_when_it_may_and_after_the_time_it_names() -> None:
    head, body = render(b"text/html", again=True)
    wait = field(head, "Retry-After")
    assert f'http-equiv="refresh" content="{wait}"' in body
    assert f"in {wait} seconds" in body
    assert '<a href="">Try again</a>' in body


def test_a_page_offers_no_second_try_of_what_was_no_get() -> None:
    body = render(b"text/html")[1]
    assert "refresh" not in body
    assert "<a " not in body


def test_a_page_never_loads_itself_again_for_the_same_answer() -> None:
    assert "refresh" not in render(b"text/html", troubles.SLOW, again=True)[1]
    assert "<a " not in render(b"text/html", troubles.LONG_HEAD, again=True)[1]
