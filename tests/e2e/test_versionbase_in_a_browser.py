"""The to-do list of examples/, and the page of an app's documents, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from playwright.async_api import Page, expect

from lazycloud.versionbase.client import connect
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import INSTALLING, PATIENCE
from tests.e2e.test_browser import browser, page  # noqa: F401 - fixtures
from tests.ports import free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MADE = datetime(2026, 1, 31, 12, tzinfo=UTC)
TODO = Path(__file__).parents[2] / "examples" / "todo"


def todo(folder: Path, *steps: str) -> Path:
    """The example as its user has it: its folders copied over each other, and the client that a verb writes."""
    for step in steps:
        shutil.copytree(TODO / step, folder, dirs_exist_ok=True)
    command = [sys.executable, "-m", "lazycloud", "versionbase", "client", "python", "--to", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@contextmanager
def versionbase(store: Path) -> Iterator[str]:
    """`lazycloud versionbase serve`, alone; the owner's URL."""
    command = [sys.executable, "-m", "lazycloud", "versionbase", "serve", "--store", f"sqlite:///{store}"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--print-url"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            lines = (line.strip().partition("=") for line in process.stdout)
            yield next(url for name, _, url in lines if name == "VERSIONBASE_OWNER_URL")
        finally:
            process.terminate()
            process.wait(PATIENCE)


class App:
    """The to-do list, on the version of its name, for who has the owner's URL."""

    def __init__(self, folder: Path, name: str, owner: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.versionbase = owner.replace("//production:", f"//{quote(name)}:")
        self.address = f"http://127.0.0.1:{self.port}/"

    @contextmanager
    def running(self) -> Iterator[App]:
        told = {"VERSIONBASE_URL": self.versionbase, "PORT": str(self.port), "HOST": "127.0.0.1"}
        with subprocess.Popen(
            [sys.executable, "app.py"], cwd=self.folder, env=os.environ | told, stdout=subprocess.DEVNULL
        ) as process:
            try:
                yield self
            finally:
                process.terminate()
                process.wait(PATIENCE)

    async def answers(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with session.get(self.address + "tasks") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)


async def open_list(page: Page, address: str) -> Page:  # noqa: F811
    await page.goto(address)
    await expect(page.locator("#live")).to_have_text("Live")
    return page


async def add(page: Page, *texts: str) -> None:  # noqa: F811
    for text in texts:
        await page.get_by_label("A new task").fill(text)
        await page.keyboard.press("Enter")


async def shows(page: Page, *texts: str) -> None:  # noqa: F811
    """Until the list has these tasks, in this order."""
    await expect(page.locator("#tasks .text")).to_have_count(len(texts))
    for field, text in zip(await page.locator("#tasks .text").all(), texts, strict=True):
        await expect(field).to_have_value(text)


async def test_a_list_goes_on_where_it_was_when_its_app_was_away(
    tmp_path: Path,
    page: Page,  # noqa: F811
) -> None:
    with versionbase(tmp_path / "store.db") as owner:
        app = App(todo(tmp_path / "app", "1-list"), "production", owner)
        with app.running():
            await app.answers()
            await open_list(page, app.address)
            await add(page, "Buy milk")
            await shows(page, "Buy milk")
            await page.evaluate("window.same = true")
        await expect(page.locator("#live")).to_have_text("Connecting…")
        async with connect(owner, "production") as db:
            for text in ("Post the letter", "Pay the rent"):
                await db.collection("tasks").insert({"text": text, "done": False, "made": MADE})
        with app.running():
            await shows(page, "Buy milk", "Post the letter", "Pay the rent")
            await expect(page.locator("#live")).to_have_text("Live")
            assert await page.evaluate("window.same")


async def test_what_is_done_goes_and_what_the_schema_refuses_is_said(
    tmp_path: Path,
    page: Page,  # noqa: F811
) -> None:
    with versionbase(tmp_path / "store.db") as owner:
        app = App(todo(tmp_path / "app", "1-list"), "production", owner)
        with app.running():
            await app.answers()
            await open_list(page, app.address)
            await page.locator("[name=text]").evaluate("field => field.removeAttribute('maxlength')")
            await add(page, "x" * 501)
            await expect(page.get_by_role("alert")).to_contain_text("text")
            await expect(page.locator("[name=text]")).to_have_value("x" * 501)
            await add(page, "Buy milk", "Pay the <b>rent</b>")
            await shows(page, "Buy milk", "Pay the <b>rent</b>")
            await expect(page.get_by_role("alert")).to_be_hidden()
            await page.get_by_label("Done: Buy milk").check()
            await shows(page, "Pay the <b>rent</b>", "Buy milk")
            await page.get_by_role("button", name="Remove the one that is done").click()
            await shows(page, "Pay the <b>rent</b>")


def commit(checkout: Checkout, message: str, *steps: str) -> str:
    todo(checkout.path, *steps)
    return checkout.commit({}, message)


async def test_commits_side_by_side_have_each_its_data_and_a_page_shows_what_is_in_them(
    up: Up,
    checkout: Checkout,
    page: Page,  # noqa: F811
) -> None:
    first = commit(checkout, "Keep a list", "1-list")
    second = commit(checkout, "Give tasks a priority", "2-priority")
    server = up(checkout.path, "--production", first, **INSTALLING)
    assert (await server.get()).status == 200  # what follows is about pages, and waits for no install
    production, preview = (f"http://{server.host(label)}/" for label in ("", second[:10]))
    await open_list(page, production)
    await add(page, "Water the roses", "Sow the beans")
    await shows(page, "Water the roses", "Sow the beans")

    await server.verb("data", "snapshot", "production", "--name", "two-tasks", "--app", "shop")
    other, also, besides = [await page.context.new_page() for _ in range(3)]
    await open_list(other, preview)
    await shows(other, "Water the roses", "Sow the beans")
    await open_list(also, production)
    await open_list(besides, preview)
    await other.get_by_label("Priority: Sow the beans").select_option("now")
    await shows(besides, "Sow the beans", "Water the roses")
    await add(page, "Mend the boat")
    await shows(also, "Water the roses", "Sow the beans", "Mend the boat")
    await besides.get_by_label("Done: Water the roses").check()
    await expect(other.get_by_label("Done: Water the roses")).to_be_checked()
    await expect(page.get_by_label("Done: Water the roses")).not_to_be_checked()
    await shows(other, "Sow the beans", "Water the roses")

    await page.goto(server.login)
    await page.get_by_role("link", name="Data of shop").click()
    await page.get_by_role("link", name="Documents").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Documents of shop")
    await expect(page.locator("#facts")).to_contain_text("3 documents")
    await page.get_by_label("Filter").fill('doc.text.startsWith("Sow")')
    await page.keyboard.press("Enter")
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
    await page.get_by_label("Filter").fill("doc.text =! 1")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert").locator("pre")).to_contain_text("^")

    versions = page.get_by_role("combobox", name="Version")
    await versions.select_option(label="production@two-tasks")
    await expect(page.locator("#facts")).to_contain_text("2 documents")
    await versions.select_option(value=second)
    await page.get_by_label("Filter").fill('doc.priority == "now"')
    await page.get_by_role("button", name="Run").click()
    await expect(page.locator("#rows tbody tr")).to_have_count(1)
    await page.locator(".key").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator(".tree").first).to_contain_text("Sow the beans")
    await expect(dialog.locator(".past .members").first).to_contain_text("priority")
    await page.keyboard.press("Escape")

    await page.locator("#from").select_option(value="production")
    await page.locator("#to").select_option(value=second)
    await page.get_by_role("button", name="Compare", exact=True).click()
    difference = page.locator("#difference")
    await expect(difference.locator(".different")).to_have_count(3)
    await expect(difference.locator(".removed.whole")).to_contain_text("Mend the boat")

    text = await server.verb("token", "create", "guest", "--role", "viewer", "--json")
    guest = f"Bearer {json.loads(text)['token']}"
    place = "/api/apps/shop/versionbase"
    told = await server.get("lazycloud", f"{place}?point={second}", Authorization=guest)
    assert [one["documents"] for one in told.json["collections"]] == [2]
    for what in ("documents?", "document?key=k&", f"diff?a=production&b={second}&"):
        refused = await server.get("lazycloud", f"{place}/{what}collection=tasks", Authorization=guest)
        assert refused.status == 403, what
