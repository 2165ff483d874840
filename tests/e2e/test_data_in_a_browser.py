"""The page of an app's data, in a real browser on a real server."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, Server
from tests.e2e.test_browser import browser, page  # noqa: F401 - fixtures

pytestmark = pytest.mark.browser


async def test_a_snapshot_is_taken_forked_and_restored_on_the_page(
    up: Up,
    checkout: Checkout,
    page: Page,  # noqa: F811
) -> None:
    first = checkout.commit(counter("first"), "The first")
    second = checkout.commit(counter("second"), "The second")
    server = up(checkout.path, "--production", first)
    await server.post("", "kept")
    assert (await server.get(second)).json["notes"] == ["kept"]
    await page.goto(server.login)
    await page.get_by_role("link", name="Data of shop").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Data of shop")
    await expect(page.locator(".version")).to_have_count(2)
    await page.get_by_role("button", name="Take a snapshot of production").click()
    await page.get_by_label("Name").fill("before-import")
    await page.locator("#ask-yes").click()
    await expect(page.locator(".marks .name")).to_have_text("before-import")

    await server.post("", "imported by mistake")
    await page.get_by_role("button", name="Fork before-import").click()
    await page.get_by_label("For which commit?").fill(second[:10])
    await page.locator("#ask-yes").click()
    await expect(page.get_by_role("alert")).to_contain_text("has data already")
    await page.get_by_role("button", name="The second").click()
    await page.get_by_role("button", name=f"Remove data of {second[:10]}").click()
    await page.locator("#ask-yes").click()
    await expect(page.locator(".version")).to_have_count(1)
    await page.get_by_role("button", name="Fork before-import").click()
    await page.get_by_label("For which commit?").fill(second[:10])
    await page.locator("#ask-yes").click()
    await expect(page.locator(".version").nth(1)).to_contain_text("not made yet")
    assert (await server.get(second)).json["notes"] == ["kept"]
    await expect(page.locator(".version").nth(1)).to_contain_text("from production@before-import")

    await page.get_by_role("button", name="The first").click()
    await page.get_by_role("button", name="Compare before-import with now").click()
    await expect(page.locator(".tables")).to_contain_text("1 → 2 rows")
    await page.locator("summary").click()
    await expect(page.locator("tr.added")).to_contain_text("imported by mistake")
    await page.get_by_role("button", name="Restore before-import").click()
    await expect(page.locator(".loss")).to_have_text("notes: 1 new row lost")
    await page.locator("#ask-yes").click()
    await expect(page.locator(".toast").last).to_contain_text("production is what it was")
    assert (await server.get()).json["notes"] == ["kept"]
    await expect(page.locator("#chosen .snapshot").first).to_contain_text("before a restore")


async def test_the_pages_are_for_who_may_see_that_app(shared: Server) -> None:
    server = shared
    for what in ("data", "documents"):
        asked = await server.get("lazycloud", f"/apps/shop/{what}", **BROWSER)
        assert asked.headers["Lazycloud-Answer"] == "login"
        unknown = await server.get("lazycloud", f"/apps/nothing/{what}", **BROWSER)
        assert unknown.headers["Lazycloud-Answer"] == "login"
        let_in = {**BROWSER, "Authorization": server.authorization}
        seen = await server.get("lazycloud", f"/apps/shop/{what}", **let_in)
        assert (seen.status, seen.headers["Lazycloud-Answer"]) == (200, what)
        missing = await server.get("lazycloud", f"/apps/nothing/{what}", **let_in)
        assert missing.status == 404
        assert "No app is called" in missing.text
    none = await server.get("lazycloud", "/api/apps/shop/versionbase", Authorization=server.authorization)
    assert none.status == 404
