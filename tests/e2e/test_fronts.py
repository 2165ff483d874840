"""Behind Caddy, nginx and HAProxy, each as docs/behind-a-proxy.md sets it up: what a visitor gets and an app sees."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from http.cookies import SimpleCookie

import aiohttp
import pytest
from playwright.async_api import async_playwright, expect

from tests.e2e.fronts import DOMAIN, PROXIES, STRANGER, VISITOR, Front, Site, running, seen
from tests.e2e.server import BROWSER, PATIENCE
from tests.e2e.test_browser import CHROMIUM
from tests.tools import needs

pytestmark = [pytest.mark.fronts, needs("caddy", "nginx", "haproxy", "curl", "openssl")]

TEN_MEGABYTES = b"0123456789abcdef" * 655_360
ASK = "/.well-known/lazycloud/tls-ask"
MADE_UP = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "6",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.example",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;host=evil.example",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    site.server.start()
    yield site
    site.server.stop()
    assert not site.server.workers(), site.server.output


@pytest.fixture(scope="module", params=["caddy", "nginx", "haproxy"])
def front(site: Site, request: pytest.FixtureRequest) -> Iterator[Front]:
    with running(site, request.param) as front:
        yield front


def log_in(site: Site) -> str:
    """A fresh link that logs in, once."""
    return re.search(r"http\S+", site.server.cli("open", "--control", "--print"))[0]


def test_the_app_sees_the_visitor_s_address_scheme_and_host_and_nothing_that_was_made_up(
    front: Front,
) -> None:
    made_up = [word for name, value in MADE_UP.items() for word in ("-H", f"{name}: {value}")]
    headers = front.seen("/", *made_up)["headers"]
    assert headers["x-forwarded-for"] == f"{VISITOR}, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == headers["host"] == front.host()
    assert "6.6.6.6" not in str(headers) and "evil" not in str(headers)
    assert "x-forwarded-port" not in headers


def test_visitors_speak_http_2(front: Front) -> None:
    said = front.fetch("/", "-o", "/dev/null", "-w", "%{http_version} %{response_code}")
    assert said == b"2 200"


async def test_plain_http_leads_to_https(front: Front) -> None:
    async with (
        front.visitor() as visitor,
        visitor.get(front.url(path="/deep?q=1", scheme="http"), allow_redirects=False) as answer,
    ):
        assert answer.status in (301, 308)
        assert re.fullmatch(rf"https://{DOMAIN}(:\d+)?/deep\?q=1", answer.headers["Location"])


def test_a_path_arrives_byte_for_byte(front: Front) -> None:
    path = "/a//b;c%2Fd/%7Euser/./caf%C3%A9?q=%2F&r=a+b;&empty="
    assert front.seen(path)["path"] == path


def test_large_cookies_pass(front: Front) -> None:
    cookies = "; ".join(f"c{number}={'x' * 4000}" for number in range(5))
    assert front.seen("/", "-H", f"Cookie: {cookies}")["headers"]["cookie"] == cookies


def test_ten_megabytes_come_down_and_go_up_whole(front: Front) -> None:
    assert front.fetch("/download") == TEN_MEGABYTES
    body = front.site.folder / "body"
    body.write_bytes(TEN_MEGABYTES)
    assert front.fetch("/upload", "-T", str(body)).decode() == hashlib.sha256(TEN_MEGABYTES).hexdigest()


def test_events_arrive_when_they_are_sent(front: Front) -> None:
    with front.curl("/events") as stream:
        assert stream.stdout.readline() == b"data: first\n"
        front.fetch("/more")
        assert stream.stdout.read() == b"\ndata: second\n\n"


async def test_a_websocket_of_the_app_echoes(front: Front) -> None:
    async with (
        front.visitor() as visitor,
        visitor.ws_connect(front.url(path="/echo", scheme="wss")) as socket,
    ):
        for message in ("a word", "x" * 100_000):
            await socket.send_str(message)
            assert (await socket.receive_str(timeout=PATIENCE)) == message


async def test_the_cookies_of_a_login_are_secure_and_lead_to_a_preview(front: Front) -> None:
    preview = front.url("v1-0", "/deep?q=1")
    async with front.visitor() as visitor:
        async with visitor.get(log_in(front.site), allow_redirects=False) as answer:
            assert_secure(answer, "__Host-lazycloud_session")
        async with visitor.get(preview, headers=BROWSER) as answer:
            assert str(answer.url) == preview
            entered = next(one for one in answer.history if "__Host-lazycloud_preview" in one.cookies)
            assert_secure(entered, "__Host-lazycloud_preview")
        async with visitor.get(preview) as answer:
            assert seen(await answer.text())["path"] == "/deep?q=1"


def assert_secure(answer: aiohttp.ClientResponse, name: str) -> None:
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[name]
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")


@pytest.mark.browser
async def test_a_browser_logs_in_and_sees_a_cold_commit_turn_into_the_app(front: Front) -> None:
    gate = front.site.cold(front.name)
    here = f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1, MAP *.{DOMAIN} 127.0.0.1"
    assert CHROMIUM, "no Chromium on PATH: install one, or name it in LAZYCLOUD_TEST_CHROMIUM"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", here],
            timeout=PATIENCE * 1000,
        )
        page = await browser.new_page(ignore_https_errors=True)
        page.set_default_timeout(PATIENCE * 1000)
        told: list[str] = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda text: told.append(str(text))))
        await page.goto(log_in(front.site))
        await page.goto(front.url(front.name, "/deep?q=1"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text(f"The {front.name}")
        await expect(page.get_by_text("compiling").last).to_be_visible()
        gate.touch()
        await expect(page.get_by_role("heading", level=1)).to_have_text(front.name)
        assert page.url == front.url(front.name, "/deep?q=1")
        assert any('"ready"' in text for text in told)
        await browser.close()


@pytest.mark.parametrize("front", ["caddy-wildcard"], indirect=True)
async def test_caddy_serves_with_a_wildcard_certificate_that_it_was_given(front: Front) -> None:
    headers = front.seen("/", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=6.6.6.6")["headers"]
    assert headers["x-forwarded-for"] == f"{VISITOR}, 127.0.0.1"
    assert (headers["x-forwarded-proto"], headers["host"]) == ("https", front.host())
    assert "forwarded" not in headers
    assert await front.has_certificate(f"anything.{DOMAIN}")


@pytest.mark.parametrize("front", ["caddy"], indirect=True)
async def test_caddy_gets_a_certificate_for_names_that_lead_somewhere_and_for_no_other(front: Front) -> None:
    front.site.cold("asked-for")
    commit = front.site.checkout.git("rev-parse", "asked-for")
    for label in ("lazycloud", "asked-for", commit[:7], "v1-0--shop"):
        assert await front.has_certificate(f"{label}.{DOMAIN}"), label
    assert await front.has_certificate(DOMAIN)
    for name in (f"nobody.{DOMAIN}", f"fffffff.{DOMAIN}", f"a.main.{DOMAIN}", "example.org"):
        assert not await front.has_certificate(name), name
    assert (front.site.server.json("inspect", commit, "--app", "shop"))["state"] == "cold"


@pytest.mark.parametrize("front", ["nginx"], indirect=True)
async def test_only_the_front_itself_is_told_which_names_lead_somewhere(front: Front) -> None:
    question = f"{ASK}?domain=main.{DOMAIN}"
    directly = f"http://127.0.0.1:{front.site.direct}{question}"
    for address, status in (("127.0.0.1", 200), (STRANGER, 403)):
        async with front.visitor(address) as someone, someone.get(directly) as answer:
            assert answer.status == status
    for address in (VISITOR, "127.0.0.1"):
        async with front.visitor(address) as someone, someone.get(front.url(path=question)) as answer:
            assert answer.status == 403


async def test_who_comes_past_the_front_is_not_believed(site: Site) -> None:
    url = f"http://127.0.0.1:{site.direct}/"
    connector = aiohttp.TCPConnector(local_addr=(STRANGER, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers={**MADE_UP, "Host": DOMAIN}) as answer,
    ):
        headers = seen(await answer.text())["headers"]
    assert headers["x-forwarded-for"] == STRANGER
    assert headers["x-forwarded-host"] == DOMAIN
    assert "6.6.6.6" not in str(headers) and "evil" not in str(headers)


def test_the_documentation_shows_what_is_tested() -> None:
    text = (PROXIES.parent / "behind-a-proxy.md").read_text()
    for path in PROXIES.iterdir():
        assert f"\n{path.read_text()}```" in text, f"it does not show {path.name} as it is"
