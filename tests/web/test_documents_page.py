"""The page of an app's documents against a scripted API: what it asks for, what it shows, as text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from web_stage import FIRST, IDS, KEYS, OWNER, Stage, show

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = "<img src=x onerror='window.hacked = 1'>"
TASKS = {"point": "production", "collection": "tasks", "skip": "0"}


@pytest_asyncio.fixture(loop_scope="session")
async def documents(page: Page, stage: Stage) -> Page:
    show(stage, "documents")
    return page


async def open_tasks(page: Page, stage: Stage, point: str = "production") -> None:
    await page.goto(stage.address)
    await page.get_by_role("button", name="tasks").click()
    await expect(page.locator("#collection-name")).to_have_text("tasks")
    await until(lambda: ("/documents", TASKS | {"point": point}) in stage.questions)


async def test_each_kind_of_value_is_told_apart(documents: Page, stage: Stage) -> None:
    members = [
        ["nothing", None],
        ["flag", True],
        ["whole", {"integer": "9223372036854775807"}],
        ["real", {"real": "1.0"}],
        ["money", {"decimal": "1.10"}],
        ["made", {"datetime": "2026-11-01T12:00:00.000001Z"}],
        ["photo", {"bytes": 20_480, "begin": "89504e47"}],
        ["long", {"text": "x" * 200, "letters": 5000}],
        ["list", {"list": [1, "a"], "more": 3}],
        ["within", {"object": [["a", {"object": []}]]}],
    ]
    stage.documents["/documents"]["documents"] = [{"key": "k", "document": {"object": members}}]
    await open_tasks(documents, stage)
    await expect(documents.locator("#rows thead th")).to_have_text(["Key", *(name for name, _ in members)])
    cells = documents.locator("#rows tbody td")
    shown = ["null", "true", "9223372036854775807", "1.0", "1.10decimal", "2026-11-01 12:00:00", "20 kBbytes"]
    shown += ["x" * 200 + "… (5,000 letters)", '[1, "a", … 3 more]', "{a: {}}"]
    await expect(cells).to_have_text(shown)
    await expect(cells.nth(5).locator("time")).to_have_attribute("title", re.compile(r"12:00:00\.000001Z"))


async def test_a_member_that_few_have_has_no_column_of_its_own(documents: Page, stage: Stage) -> None:
    often = [[f"m{n}", n] for n in range(10)]
    stage.documents["/documents"]["documents"] = [
        {"key": "a", "document": {"object": [["seldom", 1], *often]}},
        {"key": "b", "document": {"object": often}},
    ]
    await open_tasks(documents, stage)
    await expect(documents.locator("#rows thead th")).to_have_text(["Key", *(f"m{n}" for n in range(10))])
    await expect(documents.locator("#rows")).to_contain_text("Open a document to see one more member.")


async def test_a_filter_is_run_and_is_in_the_address(documents: Page, stage: Stage) -> None:
    await open_tasks(documents, stage)
    stage.documents["/documents"] |= {
        "documents": [],
        "explain": {"scan": "index", "index": "made", "estimate": 3, "sorted": True},
    }
    await documents.get_by_label("Filter").fill("doc.done")
    await documents.get_by_label("Order").fill("made desc")
    await documents.keyboard.press("Enter")
    await expect(documents.locator("#rows")).to_have_text("No document is like that.")
    await expect(documents.locator("#explained")).to_have_text(
        "Used the index made: about 3 documents looked at · put in order afterwards"
    )
    asked = ("/documents", TASKS | {"filter": "doc.done", "order": "made desc"})
    assert stage.questions[-1] == asked
    await documents.reload()
    await expect(documents.get_by_label("Filter")).to_have_value("doc.done")
    await until(lambda: stage.questions.count(asked) == 2)
    await documents.go_back()
    await expect(documents.get_by_label("Filter")).to_have_value("")


async def test_what_is_wrong_with_a_filter_is_pointed_at(documents: Page, stage: Stage) -> None:
    await open_tasks(documents, stage)
    sentence = "The filter cannot be read.\n | doc.done =\n | ．........^\nEquality is ==."
    stage.refused["/documents"] = (422, {"error": {"sentence": sentence, "advice": ""}})
    await documents.get_by_label("Filter").fill("doc.done =")
    await documents.keyboard.press("Enter")
    alert = documents.get_by_role("alert")
    assert await alert.locator("pre").text_content() == "doc.done =\n　        ^"
    await expect(alert.locator("p")).to_have_text(["The filter cannot be read.", "Equality is ==."])
    await expect(documents.get_by_label("Filter")).to_have_attribute("aria-invalid", "true")
    await expect(documents.locator("#rows table")).to_be_visible()
    del stage.refused["/documents"]
    await documents.get_by_label("Filter").fill("doc.done")
    await documents.get_by_role("button", name="Run").click()
    await expect(documents.locator("#problem")).to_be_hidden()


async def test_pages_are_turned(documents: Page, stage: Stage) -> None:
    stage.documents["/documents"] |= {"more": True}
    await open_tasks(documents, stage)
    await expect(documents.locator("#range")).to_have_text("1–2")
    stage.documents["/documents"] |= {"more": False, "skip": 2}
    await documents.get_by_role("button", name="Next").click()
    await until(lambda: stage.questions[-1] == ("/documents", TASKS | {"skip": "2"}))
    await expect(documents.locator("#range")).to_have_text("3–4")
    await expect(documents.get_by_role("button", name="Next")).to_be_hidden()
    await documents.get_by_role("button", name="Previous").click()
    await until(lambda: stage.questions[-1] == ("/documents", TASKS))


async def test_a_document_opens_with_its_history(documents: Page, stage: Stage) -> None:
    await open_tasks(documents, stage)
    await documents.get_by_role("button", name=f"Open {KEYS[0]}").click()
    dialog = documents.get_by_role("dialog")
    await expect(dialog.locator("#document-key")).to_have_text(KEYS[0])
    await expect(dialog.locator(".tree").first).to_contain_text("price1.10decimal")
    past = dialog.locator(".past > li")
    await expect(past).to_have_count(2)
    await expect(past.nth(0)).to_contain_text("sequence 12")
    await expect(past.nth(0).locator(".members")).to_have_text("done false true")
    await expect(past.nth(1)).to_contain_text("put there")
    before = len(stage.questions)
    assert stage.questions[-1] == (
        "/document",
        {"point": "production", "collection": "tasks", "key": KEYS[0]},
    )
    await documents.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(documents.get_by_role("button", name=f"Open {KEYS[0]}")).to_be_focused()
    await expect(documents).not_to_have_url(re.compile("key="))
    assert len(stage.questions) == before  # what was there is not asked for again
    await documents.go_back()
    await expect(dialog).to_be_visible()


async def test_another_version_is_looked_at(documents: Page, stage: Stage) -> None:
    await open_tasks(documents, stage)
    await documents.get_by_role("combobox", name="Version").select_option(value=f"production@{FIRST}")
    await until(lambda: stage.questions[-1] == ("/documents", TASKS | {"point": f"production@{FIRST}"}))
    stage.refused[""] = (404, {"error": {"sentence": "It has no versionbase.", "advice": ""}})
    await documents.get_by_role("combobox", name="Version").select_option(value=IDS["other"])
    await expect(documents.locator("#collections")).to_have_text("It has no versionbase.")
    await expect(documents.locator("#collection")).to_be_hidden()


async def test_only_versions_that_have_documents_are_offered(documents: Page, stage: Stage) -> None:
    stage.data["versions"][0]["documents"] = False
    await open_tasks(documents, stage, IDS["other"])
    options = documents.get_by_role("combobox", name="Version").locator("option")
    await expect(options).to_have_text([f"{IDS['other'][:10]}, now"])
    await expect(documents.locator("#compare")).to_be_hidden()
    show(stage, "data")
    await documents.goto(stage.address)
    await expect(documents.get_by_role("link", name="Documents")).to_be_visible()
    stage.data["versions"][1]["documents"] = False
    await documents.reload()
    await expect(documents.locator(".version")).to_have_count(2)
    await expect(documents.get_by_role("link", name="Documents")).to_be_hidden()


async def test_two_versions_are_compared(documents: Page, stage: Stage) -> None:
    await documents.goto(stage.address)
    await documents.locator("#from").select_option(value=f"production@{FIRST}")
    await documents.locator("#to").select_option(value=IDS["other"])
    await documents.get_by_role("button", name="Compare", exact=True).click()
    shown = documents.locator("#difference")
    await expect(shown.locator("h3")).to_have_text(["tasks", "people"])
    await expect(shown.locator(".members")).to_have_text("done false true")
    await expect(shown.locator(".whole.removed")).to_have_text('{name: "Ada"}')
    assert stage.questions[-1] == ("/diff", {"a": f"production@{FIRST}", "b": IDS["other"]})
    stage.documents["/diff"]["differences"] = []
    await documents.get_by_role("combobox", name="in", exact=True).select_option("people")
    await documents.get_by_role("button", name="Swap the two").click()
    await documents.get_by_role("button", name="Compare", exact=True).click()
    await expect(shown).to_contain_text("Nothing differs")
    turned = {"a": IDS["other"], "b": f"production@{FIRST}", "collection": "people"}
    assert stage.questions[-1] == ("/diff", turned)


async def test_a_viewer_sees_what_there_is_and_no_document(documents: Page, stage: Stage) -> None:
    stage.facts = OWNER | {"app": "guestbook", "role": "viewer"}
    await documents.goto(stage.address)
    await documents.get_by_role("button", name="tasks").click()
    await expect(documents.locator("#facts")).to_have_text("1,204 documents · 1 index")
    await documents.get_by_text("Schema").click()
    await expect(documents.locator("#shape pre")).to_contain_text('"type": "object"')
    await expect(documents.locator("#reading")).to_be_hidden()
    await expect(documents.locator("#compare")).to_be_hidden()
    assert {what for what, _ in stage.questions} == {""}


async def test_whatever_documents_say_is_text(documents: Page, stage: Stage) -> None:
    tricky: list[Any] = [["__proto__", HOSTILE], ["constructor", {"object": [["__proto__", HOSTILE]]}]]
    tricky += [[HOSTILE, {"list": [HOSTILE]}], [{"text": HOSTILE, "letters": 900}, HOSTILE]]
    index = {"name": HOSTILE, "path": HOSTILE, "unique": True, "state": "building"}
    collection = {"name": HOSTILE, "documents": 1, "indexes": [index], "schema": {HOSTILE: HOSTILE}}
    change = {"change": "changed", "members": [{"path": [HOSTILE, "__proto__"], "old": HOSTILE, "new": None}]}
    document = {"key": HOSTILE, "document": {"object": tricky}}
    stage.documents = {
        "": {"collections": [collection]},
        "/documents": stage.documents["/documents"] | {"documents": [document]},
        "/document": document | {"history": [{"sequence": 1, "at": HOSTILE, **change}], "more": True},
        "/diff": {"differences": [{"collection": HOSTILE, "key": HOSTILE, **change}], "more": True, "late": True},
    }  # fmt: skip
    await documents.goto(stage.address)
    await expect(documents.locator("#rows tbody td").first).to_have_text(HOSTILE)
    await documents.get_by_role("button", name="Compare", exact=True).click()
    await expect(documents.locator("#difference .members")).to_contain_text(HOSTILE)
    await documents.locator(".key").click()
    await expect(documents.locator(".tree").first).to_contain_text("__proto__")
    assert await documents.evaluate("window.hacked") is None
    assert await documents.locator("main img, dialog img").count() == 0
    assert await documents.evaluate("({}).polluted") is None


async def test_an_open_document_can_be_read_in_either_scheme_and_fits_a_phone(
    documents: Page, stage: Stage
) -> None:
    from test_every_page import CONTRAST, UNNAMED

    stage.documents["/document"]["document"]["object"].append(["long", "unbroken" * 60])
    for scheme in ("light", "dark"):
        await documents.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await documents.set_viewport_size({"width": 360, "height": 740})
        await documents.goto(f"{stage.address}/#collection=tasks&key={KEYS[0]}")
        await expect(documents.locator(".past > li")).to_have_count(2)
        assert await documents.evaluate(CONTRAST) == []
        assert await documents.evaluate(UNNAMED) == []
        assert await documents.evaluate("document.documentElement.scrollWidth") == 360
        assert await documents.locator("#document").evaluate("e => e.scrollWidth <= e.clientWidth")
        await documents.goto("about:blank")
