"""The control page against a scripted API: what it shows, what it asks for, and how it says no."""

from __future__ import annotations

import time

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from web_stage import CONTROL, IDS, Stage, commit, listed, overview

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def control(page: Page, stage: Stage) -> Page:
    stage.page = "control.html"
    stage.facts = CONTROL
    return page


def worker(**other: object) -> dict[str, object]:
    fact = {"deployment": "d2", "app": "guestbook", "commit": commit(IDS["other"]), "version": IDS["other"]}
    fact |= {"pid": 7, "memory": 61_400_000, "cpu": 3.42, "requests": 12873, "errors": 2, "last": None}
    return fact | {"since": time.time(), "address": "http://x.localhost:8000/", "production": False} | other


async def test_it_shows_production_commits_workers_and_events(control: Page, stage: Stage) -> None:
    told = [{"number": 7, "at": time.time(), "kind": "x", "app": "guestbook", "sentence": "3f2a is up."}]
    stage.overview = overview(running=[worker()], events=told)
    await control.goto(stage.address)
    await expect(control.locator(".production .address a")).to_have_attribute(
        "href", "http://localhost:8000/"
    )
    await expect(control.locator(".production")).to_contain_text("“colours”")
    await expect(control.locator(".commit")).to_have_count(2)
    await expect(control.locator(".commit .dot").nth(1)).to_have_attribute("data-state", "ready")
    await expect(control.locator(".worker dd")).to_have_text(["61 MB", "3.4 %", "12,873", "2"])
    await expect(control.locator(".events li")).to_contain_text("3f2a is up.")
    await until(lambda: stage.asked_after == ["7"])


async def test_production_is_not_said_to_sleep_when_its_preview_does(control: Page, stage: Stage) -> None:
    stage.overview = overview()
    stage.overview["apps"][0]["commits"][1]["state"] = "cold"
    await control.goto(stage.address)
    about = control.locator(".commit .about")
    await expect(about.nth(0)).to_contain_text("· asleep")
    await expect(about.nth(1)).to_contain_text("· preview asleep")


async def test_what_is_done_to_a_worker_is_never_broken_or_cut(control: Page, stage: Stage) -> None:
    stage.overview = overview(running=[worker(production=True, state="ready"), worker(state="ready")])
    for width in (1100, 1280, 390):
        await control.set_viewport_size({"width": width, "height": 800})
        await control.goto(stage.address)
        words = control.locator(".worker :is(button, .tag)")
        await expect(words).to_have_text(["production", "Restart", "Restart", "Stop"])
        for word in await words.all():
            one_line, whole = await word.evaluate(
                "e => [e.getClientRects()[0].height < 32, e.scrollWidth <= e.clientWidth]"
            )
            assert one_line and whole, (width, await word.text_content())


async def test_promoting_asks_for_a_reason_and_posts_it(control: Page, stage: Stage) -> None:
    await control.goto(stage.address)
    await control.get_by_role("button", name="Promote a1b2c3d4e5").click()
    await control.get_by_label("Why?").fill("blue is calm")
    await control.keyboard.press("Enter")
    await until(lambda: bool(stage.posts))
    body = {"commit": IDS["other"], "why": "blue is calm"}
    assert stage.posts == [("/api/apps/guestbook/promote", body, "cors")]
    await expect(control.locator(".toast")).to_contain_text("is production of guestbook")


async def test_a_promotion_that_was_thought_better_of_posts_nothing(control: Page, stage: Stage) -> None:
    await control.goto(stage.address)
    for leave in ("Cancel", "Escape"):
        await control.get_by_role("button", name="Promote a1b2c3d4e5").click()
        if leave == "Cancel":
            await control.get_by_role("button", name="Cancel").click()
        else:
            await control.keyboard.press("Escape")
        await expect(control.locator("#ask")).to_be_hidden()
    await control.get_by_role("button", name="Deploy a1b2c3d4e5").click()
    await until(lambda: stage.posts == [("/api/apps/guestbook/deploy", {"ref": IDS["other"]}, "cors")])


async def test_rolling_back_names_the_commit_that_comes_back(control: Page, stage: Stage) -> None:
    await control.goto(stage.address)
    await control.get_by_role("button", name="Roll back guestbook").click()
    await expect(control.locator("#ask-about")).to_contain_text("First page")
    await control.locator("#ask-yes").click()
    await until(lambda: stage.posts == [("/api/apps/guestbook/rollback", {}, "cors")])


async def test_workers_tell_how_they_fare_and_are_restarted(control: Page, stage: Stage) -> None:
    end = {
        "at": time.time() - 100,
        "process": "web.2",
        "pid": 3,
        "how": "was ended by SIGKILL",
        "expected": False,
    }
    names = [{"name": "web.1"}, {"name": "web.2"}]
    live = worker(state="ready", processes=names, restarts=2, last_end=end, pinned=True)
    first = worker(
        deployment="d1",
        state="ready",
        production=True,
        version="production",
        last_end=end | {"expected": True},
    )
    warm = worker(deployment="d3", state="ready", version="production")
    stage.overview = overview(running=[first, live, warm])
    await control.goto(stage.address)
    about = control.locator(".worker").nth(1)
    await expect(about).to_contain_text("web.1, web.2 · pinned · 2 restarts")
    await expect(about.locator(".wrong")).to_have_text("web.2 was ended by SIGKILL, 2 minutes ago")
    await expect(control.locator(".worker .wrong")).to_have_count(1)
    await expect(control.get_by_role("button", name="Restart")).to_have_count(2)
    await about.get_by_role("button", name="Restart").click()
    await expect(control.locator(".toast")).to_contain_text("Its workers are new.")
    await control.locator(".worker").nth(0).get_by_role("button", name="Restart").click()
    await until(lambda: len(stage.posts) == 2)
    place = "/api/apps/guestbook/restart"
    assert stage.posts == [(place, {"ref": IDS["other"]}, "cors"), (place, {"ref": "production"}, "cors")]


async def test_a_refusal_is_shown_with_its_advice(control: Page, stage: Stage) -> None:
    stage.overview = overview(running=[worker()])
    error = {"sentence": "A promotion is under way.", "advice": "Wait for it."}
    stage.error = (409, {"error": error})
    await control.goto(stage.address)
    await control.locator(".worker").get_by_role("button", name="Stop").click()
    await expect(control.get_by_role("alert")).to_contain_text("A promotion is under way. Wait for it.")
    assert stage.posts == [("/api/deployments/d2/stop", {}, "cors")]
    await expect(control.locator(".worker").get_by_role("button", name="Stop")).to_be_enabled()
    await control.get_by_role("button", name="Close").click()
    await expect(control.locator(".toast")).to_have_count(0)


async def test_events_are_shown_soon_and_a_burst_costs_one_fetch(control: Page, stage: Stage) -> None:
    await control.goto(stage.address)
    await until(lambda: bool(stage.asked_after))
    stage.overview["apps"][0]["commits"].insert(0, listed("c" * 40, "Brand new"))
    before = stage.fetches
    await stage.send(
        *({"number": n, "kind": "x", "app": "guestbook", "at": 1, "sentence": ""} for n in range(50))
    )
    await expect(control.locator(".commit").first).to_contain_text("Brand new")
    assert stage.fetches == before + 1

    await stage.drop()
    await until(lambda: len(stage.asked_after) == 2)
    assert stage.asked_after == ["0", "49"]


async def test_a_redraw_keeps_the_focus(control: Page, stage: Stage) -> None:
    await control.goto(stage.address)
    button = control.get_by_role("button", name="Promote a1b2c3d4e5")
    await button.focus()
    stage.overview["apps"][0]["commits"].insert(0, listed("c" * 40, "Brand new"))
    await stage.send({"number": 1, "kind": "x", "app": "guestbook", "at": 1, "sentence": ""})
    await expect(control.locator(".commit")).to_have_count(3)
    await expect(button).to_be_focused()


async def test_hostile_commits_and_names_are_text(control: Page, stage: Stage) -> None:
    hostile = "<img src=x onerror='window.hacked = 1'>"
    app = stage.overview["apps"][0]
    app |= {"name": "guest/../book", "source": hostile}
    app["commits"] = [listed(IDS["other"], hostile, refs=[hostile], state="failed", failure=hostile)]
    await control.goto(stage.address)
    await expect(control.locator(".commit .subject")).to_have_text(hostile)
    await control.get_by_role("button", name="Retry").click()
    await until(lambda: bool(stage.posts))
    assert stage.posts[0][0] == "/api/apps/guest/../book/deploy", "one segment, decoded by the server"
    assert await control.evaluate("window.hacked") is None


async def test_an_empty_server_tells_the_next_command(control: Page, stage: Stage) -> None:
    stage.overview = overview(apps=[])
    await control.goto(stage.address)
    await expect(control.locator("#apps")).to_contain_text("lazycloud up .")
    await expect(control.locator("#running")).to_contain_text("lazycloud open")
    await expect(control.locator("#events")).to_contain_text("git commit")


async def test_a_link_is_made_for_a_commit_and_handed_over(control: Page, stage: Stage) -> None:
    url = "http://a1b2c3d4e5.localhost:8000/.well-known/lazycloud/share?ticket=k"
    stage.answers["/api/apps/guestbook/share"] = {"url": url, "short": "a1b2c3d4e5"}
    await control.goto(stage.address)
    await control.get_by_role("button", name="Share a1b2c3d4e5").click()
    await expect(control.locator("#ask-about")).to_contain_text("Paint it blue")
    await control.locator("#ask-yes").click()
    await until(lambda: stage.posts == [("/api/apps/guestbook/share", {"ref": IDS["other"]}, "cors")])
    await expect(control.get_by_label("To copy")).to_have_value(url)
    await control.get_by_role("button", name="Done").click()


async def test_where_everybody_may_look_nothing_is_shared(control: Page, stage: Stage) -> None:
    stage.overview = overview()
    stage.overview["apps"][0]["previews"] = "public"
    await control.goto(stage.address)
    await expect(control.get_by_role("button", name="Promote a1b2c3d4e5")).to_be_visible()
    await expect(control.get_by_role("button", name="Share a1b2c3d4e5")).to_have_count(0)


async def test_a_strangers_pull_request_is_allowed_at_the_commit_that_is_shown(
    control: Page, stage: Stage
) -> None:
    pull = {"number": 7, "commit": "d" * 40, "title": "<b>Hello</b>", "author": "mallory", "at": time.time()}
    pull |= {"url": "https://forge.example/7", "waits": True, "allowed": "", "address": ""}
    known = pull | {"number": 8, "waits": False, "allowed": "e" * 40, "address": "http://e.localhost/"}
    stage.overview = overview()
    stage.overview["apps"][0]["pulls"] = [pull, known]
    await control.goto(stage.address)
    await expect(control.locator(".pulls li").first).to_contain_text("<b>Hello</b>")
    await expect(control.locator(".pulls").get_by_role("button")).to_have_count(1)
    await control.get_by_role("button", name="Allow pull request 7").click()
    await expect(control.locator("#ask-about")).to_contain_text("a stranger’s code")
    await control.locator("#ask-yes").click()
    path = "/api/apps/guestbook/pulls/7/allow"
    await until(lambda: stage.posts == [(path, {"commit": "d" * 40}, "cors")])
