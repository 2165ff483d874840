"""The pages as text: every word escaped, nothing fetched, nothing that their policy would refuse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from web_stage import PAGES, WEB, Stage, message, progress, show

HOSTILE = "</title><script>hacked()</script>\"'&"


@pytest.mark.parametrize("name", PAGES)
def test_it_stands_alone_and_stays_small(name: str) -> None:
    stage = Stage()
    show(stage, name)
    text = stage.render()
    assert len(text) < (64_000 if name in ("data", "documents") else 48_000)  # these draw
    assert not re.findall(r"""<(?:link|script|img)[^>]+(?:src|href)=["'](?!data:)""", text)
    assert not re.findall(r"""<[a-z]+[^>]*\s(?:style|on[a-z]+)=["']""", text), "the policy forbids them"
    assert all(
        'nonce="n"' in tag for tag in re.findall(r"<style[^>]*>|<script(?! type=\"application)[^>]*>", text)
    )


def test_messages_escape_every_word() -> None:
    stage = Stage()
    stage.page = "message.html"
    choice = {"href": f"http://x/{HOSTILE}", "label": HOSTILE, "about": HOSTILE}
    words = {"title": HOSTILE, "sentence": HOSTILE, "advice": HOSTILE, "code": HOSTILE, "request_id": HOSTILE}
    stage.facts = message(choices=[choice], **words)
    text = stage.render()
    assert "<script>" not in text
    assert text.count("&lt;script&gt;hacked()&lt;/script&gt;&#34;&#39;&amp;") == 9


def test_the_data_of_the_landing_page_cannot_end_its_script() -> None:
    stage = Stage()
    stage.facts["progress"] = progress(log=[{"step": "build", "text": HOSTILE}])
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", stage.render(), re.DOTALL)
    assert len(scripts) == 2
    assert "hacked" in scripts[0]
    assert "<" not in scripts[0]


@pytest.mark.parametrize("path", sorted((WEB / "static").iterdir()), ids=lambda path: path.name)
def test_included_files_cannot_end_the_element_they_stand_in(path: Path) -> None:
    text = path.read_text()
    assert "</script" not in text
    assert "</style" not in text
    assert "<!--" not in text
    assert not re.search(r"\{\{|\{%|\{#", text), "would be read as a template"
