"""Who may see previews: everybody, who logs in, who has the password, and who was given a link."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from lazycloud.control.visits import GUESSES, GUESSES_SECONDS
from lazycloud.router.access import sign
from tests.e2e import test_accounts as accounts
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, Answer, Server
from tests.e2e.test_security import CONTROL, cookie, log_in

pytestmark = pytest.mark.slow

PASSWORD = "open sesame now"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DOOR = "/.well-known/lazycloud/password"


@pytest.fixture
def public(up: Up, checkout: Checkout) -> Server:
    checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    log = checkout.path.parent / "access.log"
    return up(checkout.path, "--listen", "0.0.0.0:0", "--access-log", log)


@pytest.fixture
def commits(checkout: Checkout) -> tuple[str, str]:
    return checkout.git("rev-parse", "HEAD~1"), checkout.git("rev-parse", "HEAD")


def set_previews(server: Server, mode: str, password: str = "", code: int = 0) -> str:
    """What the verb said."""
    done = subprocess.run(
        [sys.executable, "-m", "lazycloud", "previews", "shop", mode, "--home", str(server.home)],
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done
    return done.stdout + done.stderr


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


async def give(server: Server, label: str, password: str, **headers: str) -> Answer:
    return await server.post(label, f"password={password}&next=/deep%3Fq=1", DOOR, **FORM, **headers)


async def test_a_password_opens_one_host_and_another_password_ends_that(
    public: Server, commits: tuple[str, str]
) -> None:
    first, second = commits
    assert "has the password" in set_previews(public, "password", PASSWORD)
    page = await public.get(first, "/deep?q=1", **BROWSER)
    assert (page.status, page.headers["Cache-Control"]) == (401, "no-store")
    assert 'value="/deep?q=1"' in page.text and "script" not in page.text.replace("script-src", "")
    told = await public.get(first)
    assert (told.status, "needs a password" in told.text) == (401, True)

    wrong = await give(public, first, "open+sesame+then")
    assert (wrong.status, "Set-Cookie" in wrong.headers) == (401, False)
    assert "That is not the password" in wrong.text and 'value="/deep?q=1"' in wrong.text
    right = await give(public, first, PASSWORD.replace(" ", "+"))
    assert (right.status, right.headers["Location"]) == (303, "/deep?q=1")
    given = right.headers["Set-Cookie"]
    assert "HttpOnly" in given and "SameSite=Lax" in given and "Domain" not in given
    mine = cookie(right, "lazycloud_preview")
    assert (await public.get(first, Cookie=mine)).json["name"] == "first"
    assert (await public.get(second, Cookie=mine)).status == 401
    assert (await public.get(CONTROL, "/api/apps", Cookie=mine)).status == 401

    set_previews(public, "password", "another one entirely")
    assert (await public.get(first, Cookie=mine)).status == 401
    set_previews(public, "login")
    assert (await public.get(first, Cookie=mine)).status == 401
    assert (await give(public, first, "another+one+entirely")).status == 404
    set_previews(public, "public")
    assert (await public.get(first)).json["name"] == "first"
    set_previews(public, "login")
    assert (await public.get(first)).status == 401
    kept = (public.home / "state.sqlite").read_bytes()
    assert PASSWORD.encode() not in kept


async def test_who_guesses_is_stopped_and_others_are_not(public: Server, commits: tuple[str, str]) -> None:
    first, _ = commits
    set_previews(public, "password", PASSWORD)
    began, wrong = time.monotonic(), 0
    while (answer := await give(public, first, f"guess-{wrong}")).status == 401:
        wrong += 1
        assert wrong <= 11 + (time.monotonic() - began) * GUESSES / GUESSES_SECONDS
    assert answer.status == 429 and wrong >= GUESSES
    stopped = await give(public, first, PASSWORD.replace(" ", "+"))
    assert stopped.status == 429 and int(stopped.headers["Retry-After"]) > 0
    evil = {"Origin": "http://evil.example"}
    assert (await give(public, first, PASSWORD, **evil)).status == 403


async def test_who_has_a_login_comes_in_where_others_need_the_password(
    public: Server, commits: tuple[str, str]
) -> None:
    first, _ = commits
    set_previews(public, "password", PASSWORD)
    page = await public.get(first, "/deep", **BROWSER)
    visit = re.search(r'href="(http[^"]+/visit[^"]+)"', page.text)[1]
    session = await log_in(public)
    entry = await public.get(CONTROL, path_of(visit), Cookie=session, **BROWSER)
    entered = await public.get(first, path_of(entry.headers["Location"]), **BROWSER)
    mine = cookie(entered, "lazycloud_preview")
    assert (await public.get(first, Cookie=mine)).json["name"] == "first"
    assert (await public.get(first, Cookie=session)).status == 401


async def test_a_shared_link_opens_its_commit_until_it_is_taken_back(
    public: Server, commits: tuple[str, str], checkout: Checkout
) -> None:
    first, second = commits
    said = await public.verb("share", first, "--for", "2h", folder=checkout.path)
    url = re.search(r"http\S+", said)[0]
    assert f"{first[:10]}.localhost" in url
    opened = await public.get(first[:10], path_of(url), **BROWSER)
    assert (opened.status, opened.headers["Location"]) == (303, "/")
    assert opened.headers["Referrer-Policy"] == "no-referrer"
    age = int(re.search(r"Max-Age=(\d+)", opened.headers["Set-Cookie"])[1])
    assert 6600 < age <= 7200
    mine = cookie(opened, "lazycloud_preview")
    assert (await public.get(first[:10], Cookie=mine)).json["name"] == "first"
    environment = (await public.get(first[:10], Cookie=f"{mine}; theirs=1")).text
    assert mine.partition("=")[2] not in environment

    for label in (second[:10], "main", ""):
        elsewhere = await public.get(label, path_of(url), **BROWSER)
        assert (elsewhere.status, "Set-Cookie" in elsewhere.headers) == (404, False), label
    assert (await public.get(second[:10], Cookie=mine)).status == 401
    cut = await public.get(first[:10], path_of(url)[:-1], **BROWSER)
    assert (cut.status, "cut off" in cut.text) == (404, True)
    for path in ("cancel", "retry"):  # who was only given a link looks, and steers nothing
        assert (
            await public.post(first[:10], "", f"/.well-known/lazycloud/{path}", Cookie=mine)
        ).status == 401
    assert (await public.get(first[:10], "/.well-known/lazycloud/log", Cookie=mine)).status == 401

    (held,) = public.json("share", "ls", folder=checkout.path)
    assert (held["commit"], held["url"]) == (first, url)
    public.cli("share", "revoke", held["id"], folder=checkout.path)
    assert (await public.get(first[:10], Cookie=mine)).status == 401
    gone = await public.get(first[:10], path_of(url), **BROWSER)
    assert (gone.status, "taken back" in gone.text) == (410, True)
    assert public.json("share", "ls", folder=checkout.path) == []
    kinds = [event["kind"] for event in await events(public)]
    assert "share_made" in kinds and "share_revoked" in kinds
    assert url.partition("ticket=")[2] not in str(await events(public))
    logged = (checkout.path.parent / "access.log").read_text()
    assert "/share?ticket=..." in logged
    assert held["id"] not in logged and mine.partition("=")[2] not in logged


async def events(server: Server) -> list[dict[str, object]]:
    answer = await server.get(CONTROL, "/api/overview", Authorization=server.authorization)
    return list(answer.json["events"])


async def test_an_expired_link_says_so_and_its_cookie_ends_with_it(
    public: Server, commits: tuple[str, str], checkout: Checkout
) -> None:
    first, _ = commits
    key = (public.home / "key").read_text().strip().encode()
    (share,) = [public.json("share", first, folder=checkout.path)]
    preview_key = hmac.digest(key, b"preview", "sha256")
    past = int(time.time()) - 5
    old = sign(preview_key, f"{first[:10]}.localhost", f"s{share['id']}", past)
    assert (await public.get(first[:10], Cookie=f"lazycloud_preview={old}")).status == 401
    what = f"share|shop|{first[:10]}|{share['id']}|{past}"
    seal = hmac.new(hmac.digest(key, b"share", "sha256"), what.encode(), "sha256").hexdigest()
    expired = await public.get(
        first[:10], f"/.well-known/lazycloud/share?ticket={share['id']}.{past}.{seal}", **BROWSER
    )
    assert (expired.status, "has expired" in expired.text) == (410, True)


async def test_who_has_no_link_learns_no_names(public: Server, checkout: Checkout) -> None:
    checkout.git("branch", "secret-plan")
    for path in ("/.well-known/lazycloud/share?ticket=x", "/.well-known/lazycloud/share", DOOR):
        for label in ("secret-plam", "secret-plan"):
            answer = await public.get(label, path, **BROWSER)
            assert answer.status in (404, 405) and "secret-plan" not in answer.text.replace(label, ""), path


async def test_a_password_s_form_leads_to_no_other_site(public: Server, commits: tuple[str, str]) -> None:
    first, _ = commits
    set_previews(public, "password", PASSWORD)
    for path in (
        "//evil.example",
        "https://evil.example",
        "/%09/evil.example",
        "/a%0d%0aX-Evil:+1",
        "/%5Cevil",
    ):
        form = f"password={PASSWORD.replace(' ', '+')}&next={path}"
        answer = await public.post(first, form, DOOR, **FORM)
        assert (answer.status, answer.headers["Location"]) == (303, "/"), path


async def test_links_and_modes_outlive_a_restart(
    up: Up, public: Server, commits: tuple[str, str], checkout: Checkout
) -> None:
    first, _ = commits
    set_previews(public, "password", PASSWORD)
    share = public.json("share", first, folder=checkout.path)
    opened = cookie(await public.get(first[:10], path_of(share["url"])), "lazycloud_preview")
    known = cookie(await give(public, first[:10], PASSWORD.replace(" ", "+")), "lazycloud_preview")
    public.stop()
    again = up("--listen", "0.0.0.0:0", home=public.home)
    for mine in (opened, known):
        assert (await again.get(first[:10], Cookie=mine)).json["name"] == "first"
    assert "password" in again.cli("previews", "shop")


async def test_config_toml_has_the_last_word(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    home = checkout.path.parent / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[apps.shop]\nsource = "{checkout.path}"\npreviews = "login"\n')
    server = up(home=home)
    assert (await server.get(first)).status == 401  # although only this machine can reach it
    assert "config.toml" in set_previews(server, "public", code=1)
    assert (await server.get()).json["name"] == "first"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["share", "HEAD", "--for", "soon"], "no time"),
        (["share", "HEAD", "--for", "9999w"], "a year at most"),
        (["share", "HEAD", "--for", "0m"], "that is no time"),
        (["share", "revoke"], "Which link?"),
    ],
)
async def test_what_cannot_be_shared_is_said(
    shared: Server, shared_checkout: Checkout, arguments: list[str], told: str
) -> None:
    assert told in shared.cli(*arguments, folder=shared_checkout.path, code=2)


async def enter(server: Server, label: str, session: str) -> str:
    """As a browser that is logged in on the control page; the preview's cookie."""
    target = f"http%3A%2F%2F{server.host(label)}%2F"
    entry = await server.get(CONTROL, f"/visit?to={target}", Cookie=session, **BROWSER)
    assert entry.status == 303, entry
    return cookie(await server.get(label, path_of(entry.headers["Location"])), "lazycloud_preview")


async def test_what_opened_previews_ends_with_the_account_or_the_token(
    public: Server, commits: tuple[str, str]
) -> None:
    first, _ = commits
    await accounts.add(public, "ada", "viewer")
    session = cookie(await accounts.log_in(public, "ada", accounts.PASSWORD), "lazycloud_session")
    hers, owners = await enter(public, first, session), await enter(public, first, await log_in(public))
    program = await accounts.token(public, "e2e", previews=True)
    shown = {"Lazycloud-Token": program}
    assert (await public.get(first, Cookie=hers)).json["name"] == "first"
    assert (await public.get(first, **shown)).json["name"] == "first"
    assert program not in (await public.get(first, **shown)).text
    assert (await public.get(CONTROL, "/api/apps", Authorization=f"Bearer {program}")).status == 403
    own = "/.well-known/lazycloud"
    for steered in ("cancel", "retry"):
        assert (await public.post(first, "", f"{own}/{steered}", Cookie=hers)).status == 401  # a viewer
    assert (await public.get(first, f"{own}/log", Cookie=hers)).status == 401
    assert (await public.get(first, f"{own}/log", Cookie=owners)).status == 200
    assert (await public.post(first, "", f"{own}/cancel", Cookie=owners)).status == 200
    log = await public.get(CONTROL, "/api/events", Authorization=public.authorization)
    told = [json.loads(line) for line in log.text.splitlines() if line]
    assert ("owner", "cancel") in [(one["who"], one["what"]) for one in told if one["kind"] == "asked"]

    await accounts.ask(public, "/api/accounts/ada/remove", {}, Authorization=public.authorization)
    await accounts.ask(public, "/api/tokens/e2e/revoke", {}, Authorization=public.authorization)
    assert (await public.get(first, Cookie=hers)).status == 401
    assert (await public.get(first, **shown)).status == 401
    await accounts.add(public, "ada", "viewer")  # another person by that name
    assert (await public.get(first, Cookie=hers)).status == 401
    assert (await public.get(first, Cookie=owners)).json["name"] == "first"


async def test_who_follows_a_preview_s_page_is_told_no_more_once_they_may_not(
    public: Server, commits: tuple[str, str]
) -> None:
    first, _ = commits
    shown = {"Lazycloud-Token": await accounts.token(public, "e2e", role="developer")}
    host = public.host(first)
    url = f"http://127.0.0.1:{public.port}/.well-known/lazycloud/progress"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as client:
        socket = await client.ws_connect(url, headers={"Host": host, "Origin": f"http://{host}", **shown})
        assert (await socket.receive_json())["kind"] == "snapshot"
        await accounts.ask(public, "/api/tokens/e2e/revoke", {}, Authorization=public.authorization)
        while not socket.closed:
            await socket.receive()


async def test_a_token_of_one_app_opens_no_preview_of_another(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    first = checkout.commit(counter("first"))
    blog = Checkout(tmp_path / "blog")
    post = blog.commit(counter("post"))
    server = up(checkout.path, blog.path, "--listen", "0.0.0.0:0")
    program = {"Lazycloud-Token": await accounts.token(server, "e2e", app="blog", previews=True)}
    assert (await server.get(f"{post[:10]}.blog", **program)).json["name"] == "post"
    assert (await server.get(first[:10], **program)).status == 401
    reader = {"Authorization": f"Bearer {await accounts.token(server, 'reader', app='blog')}"}
    target = f"http%3A%2F%2F{server.host(first[:10])}%2F"
    assert (await server.get(CONTROL, f"/visit?to={target}", **reader)).status == 403
