"""What opens a preview, as a browser keeps it: over https, in Chromium, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from tests.certificates import Authority
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE
from tests.e2e.test_browser import CHROMIUM
from tests.e2e.test_previews import PASSWORD, set_previews

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DOMAIN = "clouds.test"
# The app shows what cookies it was sent, and tries to give its neighbours one.
TELLTALE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = ("NAME sees " + (self.headers["Cookie"] or "no cookie")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        for name in ("lazycloud_preview", "__Host-lazycloud_preview", "lazycloud_session"):
            self.send_header("Set-Cookie", name + "=tossed; Domain=clouds.test; Path=/; Secure")
        self.send_header("Set-Cookie", "mine=1")
        self.end_headers()
        self.wfile.write(text)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def telltale(name: str) -> dict[str, str]:
    return counter(name) | {"app.py": TELLTALE.replace("NAME", name)}


@pytest.fixture
async def context() -> AsyncIterator[BrowserContext]:
    """JavaScript is off: all of this works without."""
    assert CHROMIUM, "no Chromium on PATH: install one, or name it in LAZYCLOUD_TEST_CHROMIUM"
    flags = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1"]
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=flags, timeout=PATIENCE * 1000
        )
        context = await browser.new_context(ignore_https_errors=True, java_script_enabled=False)
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        await browser.close()


async def test_a_browser_keeps_each_cookie_to_its_own_host(
    up: Up, checkout: Checkout, tmp_path: Path, context: BrowserContext
) -> None:
    first, second = checkout.commit(telltale("first")), checkout.commit(telltale("second"))
    cert, key = Authority(tmp_path).issue(DOMAIN, f"*.{DOMAIN}")
    tls = ["--listen", "127.0.0.1:0", "--domain", DOMAIN, "--tls-cert", cert, "--tls-key", key]
    server = up(checkout.path, *tls)
    set_previews(server, "password", PASSWORD)
    for commit in (first, second):  # what follows is about cookies, and waits for no start
        await server.verb("deploy", commit, folder=checkout.path)
    page = await context.new_page()
    host = f"{first[:10]}.{DOMAIN}"

    await page.goto(f"https://{host}:{server.port}/deep?q=1")
    await expect(page.get_by_role("heading")).to_contain_text("door")
    await page.get_by_label("Password").fill("not the right one")
    await page.get_by_role("button").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button").click()
    await expect(page.get_by_text("first sees")).to_contain_text("no cookie")
    assert page.url == f"https://{host}:{server.port}/deep?q=1"

    ours = [one for one in await context.cookies() if "lazycloud" in one["name"] and one["value"] != "tossed"]
    (mine,) = ours
    assert (mine["name"], mine["domain"]) == ("__Host-lazycloud_preview", host)
    assert mine["secure"] and mine["httpOnly"] and mine["sameSite"] == "Lax"

    # What the first app set for its neighbours neither opens them nor keeps anybody out.
    await page.reload()
    await expect(page.get_by_text("first sees mine=1")).to_have_text("first sees mine=1")
    await page.goto(f"https://{second[:10]}.{DOMAIN}:{server.port}/")
    await expect(page.get_by_role("heading")).to_contain_text("door")
    share = server.json("share", second, folder=checkout.path)
    await page.goto(share["url"])
    assert page.url == f"https://{second[:10]}.{DOMAIN}:{server.port}/"
    await expect(page.get_by_text("second sees no cookie")).to_be_visible()

    # The session of the control page goes nowhere else.
    await page.goto(server.login)
    assert page.url == f"https://lazycloud.{DOMAIN}:{server.port}/"
    for commit, name in ((first, "first"), (second, "second")):
        await page.goto(f"https://{commit[:10]}.{DOMAIN}:{server.port}/")
        assert "session" not in await page.inner_text("body")
        await expect(page.get_by_text(f"{name} sees mine=1")).to_be_visible()
    server.cli("share", "revoke", "--all", folder=checkout.path)
    await page.goto(f"https://{second[:10]}.{DOMAIN}:{server.port}/")
    await expect(page.get_by_role("heading")).to_contain_text("door")
    await page.get_by_role("link", name="Log in instead").click()
    await expect(page.get_by_text("second sees mine=1")).to_be_visible()
