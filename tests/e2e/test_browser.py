"""What people see, in a real browser on a real server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, UNWALLED

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE * 1000)

CHROMIUM = (
    os.environ.get("LAZYCLOUD_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)
# The build goes on when the test says so, through a file that only this test's repository names.
SLOW_BUILD = (
    '[build]\ncommand = "echo compiling; until [ -e {gate} ]; do sleep 0.05; done; echo done-$((40+2))"\n'
)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM, "no Chromium on PATH: install one, or name it in LAZYCLOUD_TEST_CHROMIUM"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            timeout=PATIENCE * 1000,
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    page = await context.new_page()
    page.problems = []
    page.on("pageerror", lambda problem: page.problems.append(str(problem)))
    yield page
    assert page.problems == []


async def test_a_cold_commit_shows_its_steps_then_the_app_at_its_deep_path(
    up: Up, checkout: Checkout, page: Page
) -> None:
    gate = checkout.path.parent / "gate"
    cold = checkout.commit(
        counter("cold", **{"lazycloud.toml": SLOW_BUILD.format(gate=gate)}), "Paint it blue"
    )
    checkout.commit(counter("head", **{"lazycloud.toml": ""}))
    server = up(checkout.path, **UNWALLED)
    await page.goto(f"http://{cold[:10]}.localhost:{server.port}/deep/path?q=1#part")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Paint it blue")
    await expect(page.get_by_text("compiling").last).to_be_visible()
    await expect(page.get_by_text("done-42")).to_have_count(0)
    other = await page.context.new_page()
    await other.goto(f"http://{cold[:10]}.localhost:{server.port}/other")
    await expect(other.get_by_text("compiling").last).to_be_visible()
    gate.touch()
    await expect(page.get_by_role("heading", level=1)).to_have_text("cold")
    await expect(page.locator("p")).to_have_text("/deep/path?q=1")
    assert page.url.endswith("/deep/path?q=1#part")
    await expect(other.locator("p")).to_have_text("/other")
    seen = server.json("inspect", cold, "--app", "shop")
    assert seen["attempt"] == 1


async def test_a_failing_commit_shows_its_log_and_tries_again_when_told(
    up: Up, checkout: Checkout, page: Page
) -> None:
    good = checkout.commit(counter("good"))
    marker = checkout.path.parent / "mended"
    build = f'[build]\ncommand = "echo looking for it; test -e {marker}"\n'
    bad = checkout.commit(counter("mended", **{"lazycloud.toml": build}))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await page.goto(f"http://{bad[:10]}.localhost:{server.port}/")
    await expect(page.get_by_text("ended with exit status 1").first).to_be_visible()
    await expect(page.get_by_text("looking for it").first).to_be_visible()
    marker.touch()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("mended")


async def test_a_page_whose_server_restarts_goes_on_where_it_was(
    up: Up, checkout: Checkout, page: Page
) -> None:
    gate = checkout.path.parent / "gate"
    cold = checkout.commit(counter("cold", **{"lazycloud.toml": SLOW_BUILD.format(gate=gate)}))
    checkout.commit(counter("head", **{"lazycloud.toml": ""}))
    server = up(checkout.path, **UNWALLED)
    await page.goto(f"http://{cold[:10]}.localhost:{server.port}/")
    await expect(page.get_by_text("compiling").last).to_be_visible()
    server.children()["control"].kill()
    gate.touch()
    await expect(page.get_by_role("heading", level=1)).to_have_text("cold")


async def test_a_login_asked_for_by_a_preview_leads_back_to_it(
    up: Up, checkout: Checkout, page: Page
) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    server = up(checkout.path, "--listen", "0.0.0.0:0")
    await page.goto(f"http://{first[:10]}.localhost:{server.port}/deep?x=1")
    await page.get_by_label("token", exact=False).fill((server.home / "token").read_text())
    await page.keyboard.press("Enter")
    await expect(page.locator("p").first).to_have_text("/deep?x=1")


async def test_the_control_page_logs_in_by_its_link_and_promotes(
    up: Up, checkout: Checkout, page: Page
) -> None:
    first = checkout.commit(counter("first"), "The first commit")
    checkout.commit(counter("second"), "The second commit")
    server = up(checkout.path)
    await page.goto(f"http://lazycloud.localhost:{server.port}/")
    await expect(page.get_by_label("token", exact=False)).to_be_visible()
    await page.goto(server.login)
    await expect(page.get_by_text("The second commit").first).to_be_visible()
    await expect(page.get_by_text("The first commit").first).to_be_visible()
    await page.get_by_role("button", name="Promote").first.click()
    await page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    await server.until(lambda: server.named("first"))
    assert (await server.get()).json["environment"]["COMMIT_ID"] == first


@pytest.mark.slow
async def test_a_page_of_a_preview_does_nothing_with_the_login_of_who_looks_at_it(
    up: Up, checkout: Checkout
) -> None:
    """On a real domain a preview's host and control's are one site for a browser: cookies go along."""
    commit = checkout.commit(counter("evil"))
    server = up(checkout.path, "--domain", "shop.test")
    control = f"http://lazycloud.shop.test:{server.port}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.test 127.0.0.1"],
            timeout=PATIENCE * 1000,
        )
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        page = await context.new_page()
        await page.goto(server.login)
        await expect(page.get_by_text("Running")).to_be_visible()
        await page.goto(f"http://{commit[:10]}.shop.test:{server.port}/")
        await expect(page.get_by_role("heading", level=1)).to_have_text("evil")
        await page.evaluate(
            """async (control) => {
                const send = (path, type, body) => fetch(control + path, {
                    method: 'POST', mode: 'no-cors', credentials: 'include', headers: {'Content-Type': type}, body});
                await send('/api/apps/shop/promote', 'text/plain', '{"ref": "HEAD"}');
                await send('/api/tokens', 'text/plain', '{"name": "evil", "role": "owner"}');
                await send('/logout', 'application/x-www-form-urlencoded', '');
                await send('/login', 'application/x-www-form-urlencoded', 'token=x');
                await new Promise(done => {
                    const socket = new WebSocket(control.replace('http', 'ws') + '/api/follow');
                    socket.onclose = socket.onopen = done;
                });
            }""",
            control,
        )
        form = f'<form method="post" action="{control}/logout"><button>Win a prize</button></form>'
        await page.evaluate("form => document.body.innerHTML = form", form)
        await page.get_by_role("button").click()
        await expect(page.get_by_text("it belongs to another site")).to_be_visible()
        await page.goto(control)
        await expect(page.get_by_text("Running")).to_be_visible()
        await browser.close()
    events = (
        await server.request(
            "GET",
            "",
            "/api/events",
            {
                "Host": f"lazycloud.shop.test:{server.port}",
                "Authorization": server.authorization,
            },
        )
    ).text
    kinds = [json.loads(line)["kind"] for line in events.splitlines()]
    assert not {"asked", "token_changed", "logged_out", "login_failed"} & set(kinds)
    assert kinds.count("logged_in") == 1
