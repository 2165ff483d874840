"""People and tokens against a scripted API: what is listed, asked for and shown once."""

from __future__ import annotations

import time

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from web_stage import CONTROL, OWNER, Json, Stage

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SECRET = "lc_" + "5" * 64


def account(name: str = "bob", **other: object) -> Json:
    fact: Json = {"name": name, "role": "developer", "disabled": False, "password": True, "tokens": []}
    return fact | {"created": time.time() - 90, "who": "ada", "sessions": 1, "seen": time.time()} | other


def token(name: str = "ci", **other: object) -> Json:
    fact: Json = {"name": name, "role": "developer", "app": "shop", "previews": False, "who": "ada"}
    return (
        fact | {"created": time.time(), "expires": time.time() + 9e6, "expired": False, "used": None} | other
    )


def browser(session_id: str = "s1", **other: object) -> Json:
    fact: Json = {"id": session_id, "name": "bob", "kind": "account", "agent": "Firefox", "client": "::1"}
    return fact | {"created": 1, "seen": time.time(), "expires": 9e9, "current": False} | other


@pytest_asyncio.fixture(loop_scope="session")
async def people(page: Page, stage: Stage) -> Page:
    stage.page, stage.facts = "people.html", OWNER | {"kind": "account"}
    stage.lists = {"accounts": [account()], "tokens": [token()], "apps": [{"name": "shop"}]}
    stage.lists["sessions"] = [browser(), browser("s2", name="ada", current=True)]
    return page


async def test_it_lists_people_tokens_and_browsers(people: Page, stage: Stage) -> None:
    stage.lists["accounts"].append(account("eve", disabled=True))
    await people.goto(stage.address)
    await expect(people.locator("#people .row")).to_have_count(2)
    await expect(people.get_by_label("Role of bob")).to_have_value("developer")
    await expect(people.locator("#people .off")).to_contain_text("eve")
    await expect(people.get_by_role("button", name="Link eve")).to_have_count(0)
    await expect(people.locator("#tokens .row")).to_contain_text("not used yet")
    await expect(people.locator("#sessions .tag")).to_have_text(["this one"])


async def test_a_token_is_shown_once_and_then_gone_from_the_page(people: Page, stage: Stage) -> None:
    stage.answers["/api/tokens"] = token("deploys") | {"token": SECRET}
    await people.goto(stage.address)
    form = people.locator('form[data-form="token"]')
    await form.get_by_label("Name").fill("deploys")
    await form.get_by_label("Of").select_option("shop")
    await form.get_by_label("Ends").select_option("never")
    await form.get_by_role("button", name="Make").click()
    await expect(people.locator("#secret")).to_have_text(SECRET)
    body = {"name": "deploys", "role": "developer", "app": "shop", "previews": False, "expires": None}
    assert stage.posts == [("/api/tokens", body, "cors")]
    await people.get_by_role("button", name="Done").click()
    await expect(people.locator("#secret")).to_be_hidden()
    await expect(form.get_by_label("Name")).to_have_value("")
    await expect(people.locator("#secret")).not_to_contain_text(SECRET)
    assert SECRET not in await people.content()


async def test_a_person_is_added_and_given_a_link(people: Page, stage: Stage) -> None:
    stage.answers |= {
        "/api/accounts": account("cat"),
        "/api/accounts/cat/link": {"url": "http://x/login?ticket=t"},
    }
    await people.goto(stage.address)
    form = people.locator('form[data-form="account"]')
    await form.get_by_label("Name").fill("cat")
    await people.keyboard.press("Enter")
    await expect(people.locator("#secret")).to_have_text("http://x/login?ticket=t")
    assert [post[:2] for post in stage.posts] == [
        ("/api/accounts", {"name": "cat", "role": "developer"}),
        ("/api/accounts/cat/link", {}),
    ]


async def test_what_takes_something_away_asks_first(people: Page, stage: Stage) -> None:
    await people.goto(stage.address)
    await people.get_by_role("button", name="Revoke ci").click()
    await people.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await people.get_by_role("button", name="Disable bob").click()
    await people.get_by_role("dialog").get_by_role("button", name="Disable").click()
    await until(lambda: bool(stage.posts))
    await people.get_by_label("Role of bob").select_option("viewer")
    await until(lambda: len(stage.posts) == 2)
    assert [post[:2] for post in stage.posts] == [
        ("/api/accounts/bob/set", {"disabled": True}),
        ("/api/accounts/bob/set", {"role": "viewer"}),
    ]


async def test_who_is_no_owner_sees_their_password_only_and_a_refusal_is_said(
    people: Page, stage: Stage
) -> None:
    stage.facts = OWNER | {"kind": "account", "role": "viewer"}
    await people.goto(stage.address)
    await expect(people.locator("h2:visible")).to_have_text(["Your password"])
    stage.error = (403, {"error": {"sentence": "That is not your password.", "advice": ""}})
    await people.get_by_label("A new one").fill("long enough for this")
    await people.get_by_role("button", name="Change").click()
    await expect(people.locator(".toast.bad")).to_contain_text("That is not your password.")


async def test_a_viewer_is_shown_no_button_on_the_control_page(page: Page, stage: Stage) -> None:
    stage.page, stage.facts = "control.html", CONTROL | {"role": "viewer"}
    await page.goto(stage.address)
    await expect(page.get_by_role("button", name="Promote a1b2c3d4e5")).to_be_visible()
    stage.overview["me"]["role"] = "viewer"
    await page.goto(stage.address)
    await expect(page.locator(".commit")).to_have_count(2)
    await expect(page.locator("main button")).to_have_count(0)
    await expect(page.locator(".who")).to_contain_text("viewer")
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
