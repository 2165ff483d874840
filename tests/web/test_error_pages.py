"""The router's own pages in a browser: they stand alone, anybody can use them, and they lead back to the app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, Route, expect
from test_every_page import CONTRAST, UNNAMED
from web_stage import Watched

from lazycloud.router import troubles
from lazycloud.router.pages import Pages, Trouble
from tests.router.stage import Control, Router

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

ADDRESS = "http://shop.localhost"
REQUEST = "5f0c6e1d2b3a49788796a5b4c3d2e1f0"
LONG = Trouble(502, "It said " + "wwwww" * 60 + ".", "x" * 300, kind="long")
SHOWN = [troubles.CUT, troubles.NO_CONTROL, troubles.LONG_HEAD, troubles.SLOW, LONG]


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page that must not complain: about its policy, or anything from elsewhere."""
    watched = Watched(await context.new_page(), ADDRESS)
    yield watched.page
    assert watched.complaints == []


async def show(page: Page, trouble: Trouble) -> None:
    """Opens the page as the router sends it, headers and all."""
    raw = Pages().render(trouble, b"text/html", REQUEST.encode(), head_only=False, connection=b"", again=True)
    head, _, body = raw.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])

    async def serve(route: Route) -> None:
        await route.fulfill(status=trouble.status, headers=headers, body=body)

    await page.route("**/*", serve)
    await page.goto(ADDRESS)


@pytest.mark.parametrize("trouble", SHOWN, ids=lambda each: each.kind)
async def test_it_is_styled_named_and_fits_a_narrow_phone(page: Page, trouble: Trouble) -> None:
    await page.set_viewport_size({"width": 320, "height": 640})
    await show(page, trouble)
    await expect(page.locator("h1")).to_have_count(1)
    await expect(page.get_by_text(trouble.sentence)).to_be_visible()
    assert await page.evaluate(UNNAMED) == []
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    assert await page.evaluate("getComputedStyle(document.querySelector('ol')).display") == "flex"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("trouble", SHOWN[:3], ids=lambda each: each.kind)
async def test_its_words_can_be_read_in_either_scheme(page: Page, trouble: Trouble, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await show(page, trouble)
    assert await page.evaluate(CONTRAST) == []


async def test_it_says_where_the_trouble_is_to_who_cannot_see_it(page: Page) -> None:
    await show(page, troubles.CUT)
    way = page.get_by_role("list", name="Where the trouble is").get_by_role("listitem")
    assert await way.all_text_contents() == [
        "Your request: fine",
        "lazycloud: fine",
        "The app: the trouble is here",
    ]


async def test_a_click_selects_the_whole_request_id(page: Page) -> None:
    await show(page, troubles.CUT)
    await page.get_by_text(REQUEST).click()
    assert await page.evaluate("getSelection().toString()") == REQUEST


async def test_a_second_try_leads_to_the_same_address_as_soon_as_it_is_served(
    page: Page, tmp_path: Path
) -> None:
    control = Control(tmp_path)
    await control.start()
    await control.http.stop()
    control.http_path.unlink(missing_ok=True)
    router = Router(control)
    await router.start(link_wait=0.1)
    try:
        await page.route("**/*", lambda route: route.continue_())
        address = f"{ADDRESS}:{router.port}/.well-known/lazycloud/x?y=1"
        await page.goto(address)
        await expect(page.locator("h1")).to_have_text("In a moment")
        assert await page.locator("meta[http-equiv=refresh]").count() == 1
        await control.http.start(control.http_path)
        await page.get_by_role("link", name="Try again").click()
        await expect(page.locator("body")).to_have_text("control")
        assert page.url == address
    finally:
        await router.stop()
        await control.stop()
