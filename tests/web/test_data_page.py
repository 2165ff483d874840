"""The page of an app's data against a scripted API: its picture, what it asks for, what it warns of."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from web_stage import DAY, FIRST, HOUR, IDS, OWNER, SECOND, Stage, production, snapshot, version

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PLACE = "/api/apps/guestbook/data"
HOSTILE = "<img src=x onerror='window.hacked = 1'>"


def difference(**other: Any) -> dict[str, Any]:
    table = {"name": "notes", "before": 1204, "after": 1230, "added": 30, "removed": 4, "changed": 2}
    before, after = "CREATE TABLE notes (text)", "CREATE TABLE notes (text, stars INT)"
    schema = {"kind": "table", "name": "notes", "change": "changed", "before": before, "after": after}
    database = {"name": "database.sqlite", "schema": [schema], "note": ""}
    database["tables"] = [table | {"rows": [], "more": False, "note": ""}]
    file = {"path": "files/cat.jpg", "change": "added", "before": None, "after": 182_000}
    return {"same": False, "databases": [database], "files": [file], "more": False} | other


def changed_rows(*rows: dict[str, Any], more: bool = False) -> dict[str, Any]:
    found = difference(files=[])
    found["databases"][0]["schema"] = []
    found["databases"][0]["tables"][0] |= {"rows": list(rows), "more": more}
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def data(page: Page, stage: Stage) -> Page:
    stage.page, stage.facts = "data.html", OWNER | {"app": "guestbook"}
    stage.differences = [difference()]
    return page


async def test_versions_are_lines_that_begin_where_they_were_forked(data: Page, stage: Stage) -> None:
    grandchild = version("c0ffee" + "1" * 34, DAY, IDS["other"])
    planned = version("dead10" + "2" * 34, HOUR, pending=True, bytes=0)
    stage.data["versions"] += [grandchild, planned]
    await data.goto(stage.address)
    items = data.locator(".version")
    await expect(items).to_have_count(4)
    names = await items.evaluate_all("all => all.map(each => each.dataset.version)")
    # The newest fork is next to its source, and what came of a version lies below it: no line crosses another.
    assert names == ["production", planned["name"], IDS["other"], grandchild["name"]]
    await expect(items.nth(2)).to_contain_text("48 MB · from production@before-import, 2 days ago")
    await expect(items.nth(1)).to_contain_text("not made yet")
    await expect(items.nth(2).locator(".dot")).to_have_attribute("data-state", "ready")
    await expect(items.nth(3)).to_contain_text("used 12 hours ago")
    branches = await data.locator("#picture .branch").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect()).map(({x, top, bottom}) => ({x, top, bottom}))"
    )
    assert len(branches) == 3
    lanes = await data.locator(".lane").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().bottom - 13)"
    )
    for end, start in ((1, 0), (2, 0), (3, 2)):
        assert any(
            abs(branch["top"] - lanes[start]) < 2 and abs(branch["bottom"] - lanes[end]) < 2
            for branch in branches
        ), (branches, lanes)
    named = await data.locator(".mark.named").first.bounding_box()
    forked_there = max(branches, key=lambda branch: branch["bottom"] - branch["top"])
    assert named and abs(named["x"] + named["width"] / 2 - forked_there["x"]) < 2


async def test_snapshots_are_marks_in_time_and_the_named_ones_have_their_names(
    data: Page, stage: Stage
) -> None:
    await data.goto(stage.address)
    await expect(data.locator(".marks .name")).to_have_text(["before-import"])
    await expect(data.locator(".mark")).to_have_count(2)
    places = await data.locator(".mark").evaluate_all(
        "all => all.map(each => [each.textContent, each.getBoundingClientRect().x])"
    )
    (tick, at_hour), (named, at_days) = sorted(places, key=lambda place: -place[1])
    assert tick == "before a promote, an hour ago"
    assert named == "before-import, 3 days ago"
    assert at_days < at_hour
    await data.locator(".mark").last.click()
    await expect(data.locator(".snapshot.now")).to_contain_text("before-import")


async def test_a_version_is_chosen_and_tells_what_it_is(data: Page, stage: Stage) -> None:
    await data.goto(stage.address)
    await expect(data.locator("#chosen h2")).to_contain_text("production")
    await expect(data.locator("#chosen .snapshot")).to_have_count(2)
    await data.locator(".pick").nth(1).click()
    await expect(data.locator("#chosen h2")).to_contain_text("Paint it blue")
    await expect(data.locator("#chosen dd")).to_have_text(
        ["live", "48 MB", "from production@before-import, 2 days ago", IDS["other"][:10]]
    )
    await expect(data.locator("#chosen h3")).to_have_text("No snapshot yet")
    await expect(data.locator("#about")).to_have_text(
        "2 versions · 2 snapshots · 96 MB · unused ones go after 30 days"
    )


async def test_a_snapshot_is_taken_with_a_name_or_without(data: Page, stage: Stage) -> None:
    await data.goto(stage.address)
    await data.get_by_role("button", name="Take a snapshot of production").click()
    await data.get_by_label("Name").fill("No Name")
    await data.locator("#ask-yes").click()
    assert await data.locator("#ask-text").evaluate("e => e.validity.patternMismatch")
    await data.get_by_label("Name").fill("before-sale")
    await data.keyboard.press("Enter")
    await until(
        lambda: stage.posts == [(f"{PLACE}/snapshot", {"ref": "production", "name": "before-sale"}, "cors")]
    )
    await expect(data.locator(".toast")).to_have_text("before-sale of production is taken.Close")


async def test_a_fork_says_from_which_moment_and_asks_for_which_commit(data: Page, stage: Stage) -> None:
    await data.goto(stage.address)
    await data.get_by_role("button", name="Fork before-import").click()
    await expect(data.locator("#ask-about")).to_contain_text("production at “before-import”, 3 days ago")
    await data.get_by_label("For which commit?").fill("feature-login")
    await data.locator("#ask-yes").click()
    body = {"from": f"production@{FIRST}", "to": "feature-login"}
    await until(lambda: stage.posts == [(f"{PLACE}/fork", body, "cors")])


async def test_a_restore_tells_what_is_lost_before_it_is_done(data: Page, stage: Stage) -> None:
    await data.goto(stage.address)
    await data.get_by_role("button", name="Restore before-import").click()
    await expect(data.locator("#ask-about")).to_contain_text(
        "Production goes back to what it was at “before-import”, 3 days ago."
    )
    await expect(data.locator("#ask-about")).to_contain_text("It stops for a moment")
    await expect(data.locator(".loss li")).to_have_text(
        [
            "table notes changes back",
            "notes: 30 new rows lost, 2 rows changed back, 4 removed rows back",
            "1 new file lost",
        ]
    )
    assert stage.compared == [{"a": f"production@{FIRST}", "b": "production"}]
    await data.keyboard.press("Escape")
    await expect(data.locator("#ask")).to_be_hidden()
    assert stage.posts == []
    stage.differences = [difference(same=True, databases=[], files=[])]
    await data.get_by_role("button", name="Restore before a promote").click()
    await expect(data.locator(".loss")).to_have_text("Nothing was written since: nothing is lost.")
    await data.locator("#ask-yes").click()
    await until(lambda: stage.posts == [(f"{PLACE}/restore", {"point": f"production@{SECOND}"}, "cors")])


async def test_a_restore_whose_loss_cannot_be_told_says_so(data: Page, stage: Stage) -> None:
    stage.error = (409, {"error": {"sentence": "It is being changed.", "advice": "Try again."}})
    await data.goto(stage.address)
    await data.get_by_role("button", name="Restore before-import").click()
    await expect(data.locator("#ask-more")).to_have_text(
        "What would be lost cannot be told: It is being changed. Try again."
    )
    await data.locator("#ask-yes").click()
    await expect(data.get_by_role("alert")).to_contain_text("It is being changed. Try again.")


async def test_previews_are_reset_and_removed_and_snapshots_forgotten(data: Page, stage: Stage) -> None:
    await data.goto(stage.address)
    await expect(data.locator("#chosen").get_by_role("button", name="Reset")).to_have_count(0)
    await data.get_by_role("button", name="Forget before-import").click()
    await data.locator("#ask-yes").click()
    await until(lambda: len(stage.posts) == 1)
    await data.locator(".pick").nth(1).click()
    for count, name in ((2, "Reset"), (3, "Remove")):
        await data.locator("#chosen").get_by_role("button", name=name).click()
        await data.locator("#ask-yes").click()
        await until(lambda count=count: len(stage.posts) == count)
    assert [post[:2] for post in stage.posts] == [
        (f"{PLACE}/forget", {"point": f"production@{FIRST}"}),
        (f"{PLACE}/reset", {"ref": IDS["other"]}),
        (f"{PLACE}/rm", {"ref": IDS["other"]}),
    ]


async def test_a_difference_shows_schema_counts_files_and_on_demand_the_rows(
    data: Page, stage: Stage
) -> None:
    row = {
        "id": 3,
        "text": "Hello",
        "size": {"integer": "9223372036854775807"},
        "photo": {"blob": 20_480, "sha256": "a"},
    }
    long = {"text": "x" * 2000, "length": 5000, "sha256": "b"}
    rows = changed_rows(
        {"change": "changed", "key": {"id": 3}, "before": row, "after": row | {"text": "Hello, all", "photo": None}},
        {"change": "removed", "key": {"id": 7}, "before": row | {"id": 7, "text": HOSTILE}, "after": None},
        {"change": "added", "key": {"id": 9}, "before": None, "after": row | {"id": 9, "text": long}},
        more=True,
    )  # fmt: skip
    stage.differences = [difference(), rows]
    await data.goto(stage.address)
    await data.get_by_role("button", name="Compare before-import with now").click()
    shown = data.locator("#difference")
    await expect(shown.locator("pre ins")).to_have_text(", stars INT")
    await expect(shown.locator("summary")).to_contain_text("1,204 → 1,230 rows")
    await expect(shown.locator(".tally")).to_have_text(["+30 added", "−4 removed", "±2 changed"])
    await expect(shown.locator(".files")).to_contain_text("files/cat.jpg182 kB")
    await expect(data.locator("#from")).to_have_value(f"production@{FIRST}")
    await shown.locator("summary").click()
    cells = shown.locator("tbody tr")
    await expect(cells).to_have_count(3)
    await expect(cells.nth(0).locator(".differs")).to_have_text(["Hello Hello, all", "20 kB null"])
    await expect(cells.nth(0)).to_contain_text("9223372036854775807")
    await expect(cells.nth(1)).to_contain_text(HOSTILE)
    await expect(cells.nth(2)).to_contain_text("… (5,000 letters)")
    await expect(shown).to_contain_text("The first 3; there are more.")
    points = {"a": f"production@{FIRST}", "b": "production"}
    assert stage.compared == [points, points | {"table": "notes", "rows": "50"}]
    assert await data.evaluate("window.hacked") is None


async def test_any_two_moments_can_be_compared_either_way(data: Page, stage: Stage) -> None:
    stage.differences = [difference(same=True, databases=[], files=[])]
    await data.goto(stage.address)
    await data.locator("#from").select_option(label="production@before-import")
    await data.locator("#to").select_option(value=IDS["other"])
    await data.get_by_role("button", name="Swap the two").click()
    await data.get_by_role("button", name="Compare", exact=True).click()
    await expect(data.locator("#difference")).to_contain_text("Nothing differs")
    assert stage.compared == [{"a": IDS["other"], "b": f"production@{FIRST}"}]
    await stage.send({"number": 1, "kind": "snapshot_taken", "app": "guestbook", "at": 1, "sentence": ""})
    await until(lambda: stage.fetches == 2)
    await expect(data.locator("#from")).to_have_value(IDS["other"])
    await expect(data.locator("#difference")).to_contain_text("Nothing differs")


async def test_what_a_role_may_not_is_not_offered(data: Page, stage: Stage) -> None:
    may = {"viewer": ["Compare", "Compare"]}
    may["developer"] = ["Take a snapshot", "Fork", "Compare", "Fork", "Compare", "Fork"]
    for role, offered in may.items():
        stage.facts = OWNER | {"app": "guestbook", "role": role}
        await data.goto(stage.address)
        await expect(data.locator("#chosen .snapshot")).to_have_count(2)
        await expect(data.locator("#chosen button")).to_have_text(offered)
        await data.locator("#chosen").get_by_role("button", name="Compare").first.click()
        await expect(data.locator(".tables")).to_contain_text("1,204 → 1,230 rows")
        await expect(data.locator("details")).to_have_count(0 if role == "viewer" else 1)
    await data.locator(".pick").nth(1).click()
    await expect(data.locator("#chosen button").last).to_have_text("Remove")


async def test_what_apps_and_commits_say_is_text(data: Page, stage: Stage) -> None:
    stage.data["versions"][1] |= {
        "subject": HOSTILE,
        "snapshots": [snapshot(FIRST, HOUR, HOSTILE, note=HOSTILE, who=HOSTILE)],
    }
    found = difference()
    found["databases"] = [
        {
            "name": HOSTILE,
            "note": HOSTILE,
            "schema": [
                {"kind": "table", "name": HOSTILE, "change": "added", "before": None, "after": HOSTILE}
            ],
            "tables": [
                {"name": HOSTILE, "before": 0, "after": 1, "added": 1, "removed": 0, "changed": 0}
                | {
                    "rows": [{"change": "added", "key": {}, "before": None, "after": {HOSTILE: HOSTILE}}],
                    "more": False,
                    "note": HOSTILE,
                }
            ],
        }
    ] * 2
    found["files"][0]["path"] = HOSTILE
    stage.differences = [found]
    await data.goto(stage.address)
    await data.locator(".pick").nth(1).click()
    await data.locator("#chosen").get_by_role("button", name="Compare").last.click()
    await data.locator("summary").first.click()
    await expect(data.locator("tbody td").nth(1)).to_have_text(HOSTILE)
    assert await data.evaluate("window.hacked") is None
    assert await data.locator("main img").count() == 0


async def test_forty_versions_are_few_until_all_are_asked_for(data: Page, stage: Stage) -> None:
    stage.data["versions"] += [version(f"{n:040x}", n * HOUR) for n in range(1, 39)]
    many = [snapshot(f"{n}", n * 60, why="timer") for n in range(200)]
    stage.data["versions"][0]["snapshots"] = many
    await data.goto(stage.address)
    await expect(data.locator(".version")).to_have_count(12)
    await data.get_by_role("button", name="Show all 40 versions").click()
    await expect(data.locator(".version")).to_have_count(40)
    await expect(data.locator("#picture .branch")).to_have_count(39)
    await expect(data.locator(".snapshot")).to_have_count(12)
    await data.get_by_role("button", name="Show all 200 snapshots of production").click()
    await expect(data.locator(".snapshot")).to_have_count(200)


async def test_an_app_that_never_ran_tells_the_next_command(data: Page, stage: Stage) -> None:
    stage.data["versions"] = []
    await data.goto(stage.address)
    await expect(data.locator("#lines")).to_contain_text("lazycloud open")
    await expect(data.locator("#chosen")).to_be_hidden()
    await expect(data.locator("#compare")).to_be_hidden()


async def test_odd_facts_are_drawn_all_the_same(data: Page, stage: Stage) -> None:
    """What comes of itself, of what is gone, of the future; what has no size or use."""
    one, other = "a" * 40, "b" * 40
    stage.data["versions"] = [
        version(one, HOUR, other), version(other, HOUR, one), version("c" * 40, -HOUR, "d" * 40, used=0, bytes=0),
        production(forked=0, used=0, source=""),
    ]  # fmt: skip
    await data.goto(stage.address)
    await expect(data.locator(".version")).to_have_count(4)
    drawn = await data.locator("#picture").inner_html()
    assert "NaN" not in drawn and "Infinity" not in drawn


async def test_the_picture_follows_the_width_of_the_page(data: Page, stage: Stage) -> None:
    for width in (1280, 390, 800):
        await data.set_viewport_size({"width": width, "height": 800})
        if width == 1280:
            await data.goto(stage.address)
        edge = await data.locator(".lane").first.evaluate("e => e.getBoundingClientRect().right - 9")
        await expect(data.locator(".line.end").first).to_be_visible()

        async def follows() -> bool:
            box = await data.locator(".line.end.main").bounding_box()
            return bool(box) and abs(box["x"] + box["width"] / 2 - edge) < 2  # noqa: B023

        for _ in range(100):
            if await follows():
                break
        assert await follows()
        assert await data.evaluate("document.documentElement.scrollWidth") == width
