"""A stage, a Chromium and a page that must not complain."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from web_stage import Stage, Watched

from tests.waiting import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)


@pytest_asyncio.fixture(loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    async with Stage().open() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    found = os.environ.get("LAZYCLOUD_TEST_CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("Chromium is not installed.")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found, args=flags)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    opened = await browser.new_context(reduced_motion="reduce")
    opened.set_default_timeout(1000 * PATIENCE)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext, stage: Stage) -> AsyncIterator[Page]:
    """A page that must not complain: about its policy, its scripts, or anything from elsewhere."""
    watched = Watched(await context.new_page(), stage.address)
    yield watched.page
    assert watched.complaints == []
