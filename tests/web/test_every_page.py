"""What holds for each page: its words are escaped, it stands alone, and anybody can use it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect
from web_stage import FIRST, LONG, PAGES, Stage, listed, overview, show, snapshot, version

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

UNNAMED = """() => [...document.querySelectorAll(
        'button, a, input:not([type=hidden]):not([hidden]), progress, dialog, [role=region]')]
    .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()
        || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent.trim()
        || e.closest('dialog:not([open])')))
    .map(e => e.outerHTML)"""
CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgb = colours => { canvas.clearRect(0, 0, 1, 1);
        for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const poor = [];
    for (const e of document.querySelectorAll('body *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
        if (e.closest('script, noscript, svg, dialog:not([open])')) continue;
        const under = [];
        for (let at = e; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
        const [a, b] = [rgb([...under, getComputedStyle(e).color]), rgb(under)].map(light).sort((x, y) => y - x);
        if ((a + .05) / (b + .05) < 4.5) poor.push([e.className, e.textContent, (a + .05) / (b + .05)]);
    }
    return poor;
}"""


async def open_page(page: Page, stage: Stage, name: str) -> None:
    show(stage, name)
    await page.goto(stage.address)
    if stage.page in ("landing.html", "control.html", "data.html"):
        await until(lambda: bool(stage.asked_after))
    if stage.page == "documents.html":
        await expect(page.locator("#rows table")).to_be_visible()


@pytest.mark.parametrize("name", PAGES)
async def test_it_has_one_heading_and_every_control_a_name(page: Page, stage: Stage, name: str) -> None:
    await open_page(page, stage, name)
    await expect(page.locator("h1")).to_have_count(1)
    await expect(page.locator("main")).to_have_count(1)
    assert await page.evaluate(UNNAMED) == []
    assert await page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("name", PAGES)
async def test_it_fits_a_narrow_phone(page: Page, stage: Stage, name: str) -> None:
    stage.overview = overview()
    stage.overview["apps"][0]["commits"].append(
        listed("d" * 40, LONG, refs=[LONG], state="failed", failure=LONG)
    )
    taken = [snapshot(FIRST, 60, LONG, note=LONG, who=LONG)]
    stage.data["versions"].append(version("e" * 40, 600, subject=LONG, snapshots=taken))
    await page.set_viewport_size({"width": 360, "height": 740})
    await open_page(page, stage, name)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
async def test_its_words_can_be_read_in_either_scheme(
    page: Page, stage: Stage, name: str, scheme: Any
) -> None:
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await open_page(page, stage, name)
    assert await page.evaluate(CONTRAST) == []


async def test_the_way_in_posts_the_token_and_where_to_go_next(page: Page, stage: Stage) -> None:
    show(stage, "login")
    stage.facts |= {"next": '/apps?"x"', "error": "", "account": ""}
    await page.goto(stage.address)
    await expect(page.get_by_label("Account")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.type("secret")
    await page.keyboard.press("Enter")
    form = {"next": '/apps?"x"', "account": "", "token": "secret"}
    await until(lambda: stage.posts == [("/login", form, "navigate")])
