"""Who may what: the owner's token, login, Origin, and previews on a public address."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, Answer, Server

CONTROL = "lazycloud"


def cookie(answer: Answer, name: str) -> str:
    (found,) = [
        value.partition(";")[0]
        for value in answer.headers.getall("Set-Cookie")
        if value.startswith(f"{name}=")
    ]
    return found


async def login_link(server: Server) -> str:
    """A fresh one, as `lazycloud open --control` prints it; its path and query."""
    made = await server.post(
        CONTROL, "{}", "/api/login-link", Authorization=server.authorization, Content_Type="application/json"
    )
    return str(made.json["url"]).partition(f":{server.port}")[2]


async def log_in(server: Server, path: str = "") -> str:
    """By a link; the session cookie."""
    answer = await server.get(CONTROL, path or await login_link(server))
    assert answer.status == 303
    return cookie(answer, "lazycloud_session")


async def test_secrets_are_made_once_and_only_the_owner_can_read_them(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    for name in ("token", "key"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    for name in ("api", "control", "link"):
        assert stat.S_IMODE((server.home / "run" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700
    token = (server.home / "token").read_text()
    server.stop()
    again = up(home=server.home)
    assert (again.home / "token").read_text() == token
    secrets = [token.strip(), (again.home / "key").read_text().strip()]
    for process in again.children().values():
        line = " ".join(process.cmdline())
        assert not [secret for secret in secrets if secret in line]
        assert "preview_key" not in line  # any user of the machine can read a command line


async def test_the_api_needs_the_token_or_a_session(shared: Server) -> None:
    server = shared
    token = (server.home / "token").read_text().strip()
    assert (await server.get(CONTROL, "/api/apps")).status == 401
    assert (await server.get(CONTROL, "/api/apps", Authorization="Bearer wrong")).status == 401
    assert (await server.get(CONTROL, "/api/apps", Authorization=f"Bearer {token}")).json[0]["name"] == "shop"
    session = await log_in(server)
    assert (await server.get(CONTROL, "/api/apps", Cookie=session)).status == 200
    assert (await server.get(CONTROL, "/api/apps", Cookie=session + "0")).status == 401
    out = server.cli("ls", "--server", f"http://127.0.0.1:{server.port}", "--token", token, code=None)
    assert "Traceback" not in out


async def test_a_login_link_works_once(shared: Server) -> None:
    printed = shared.login.partition(f":{shared.port}")[2]
    assert await log_in(shared, printed)
    again = await shared.get(CONTROL, printed)
    assert again.status == 401
    assert "used before" in again.text
    fresh = re.search(r"http\S+", shared.cli("open", "--control", "--print"))[0]
    assert await log_in(shared, fresh.partition(f":{shared.port}")[2])


async def test_a_write_from_another_origin_is_refused(shared: Server, shared_checkout: Checkout) -> None:
    server, commit = shared, shared_checkout.git("rev-parse", "HEAD")
    session = await log_in(server)
    path, body = "/api/apps/shop/deploy", f'{{"ref": "{commit}"}}'
    mine = {"Cookie": session, "Content-Type": "application/json"}
    evil = await server.post(CONTROL, body, path, **mine, Origin=f"http://{server.host(commit)}")
    assert evil.status == 403
    assert (await server.post(CONTROL, body, path, **mine)).status == 403  # no browser, and yet a cookie
    own = {"Origin": f"http://{server.host(CONTROL)}"}
    form = await server.post(CONTROL, body, path, **mine | own | {"Content-Type": "text/plain"})
    assert form.status == 415  # what a form of any page can send
    assert (await server.post(CONTROL, body, path, **mine | own)).status == 202
    retry = "/.well-known/lazycloud/retry"
    assert (await server.post(commit, "", retry, Origin="http://evil.example")).status == 403
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": "http://evil.example"}
    assert (await server.get(CONTROL, "/api/follow", Cookie=session, **upgrade)).status == 403
    assert (await server.get(commit, "/.well-known/lazycloud/progress", **upgrade)).status == 403


async def test_what_routers_relay_is_never_taken_for_the_owner_s_socket(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, commit = shared, shared_checkout.git("rev-parse", "HEAD")
    for label in ("", commit, "nobody"):
        answer = await server.get(label, "/api/apps", Host=f"{label}.localhost" if label else "localhost")
        assert '"source"' not in answer.text
    assert (await server.get(CONTROL, "/api/apps", Lazycloud_Reason="page")).status == 401


@pytest.fixture(scope="module")
def public_checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("public") / "shop")
    checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    return checkout


@pytest.fixture(scope="module")
def public(public_checkout: Checkout) -> Iterator[Server]:
    """One for all tests, which change nothing of it."""
    home = public_checkout.path.parent / "home"
    server = Server(home, public_checkout.path, "--listen", "0.0.0.0:0")
    try:
        yield server.start()
    finally:
        server.stop()
    assert not server.inmates(), server.output


async def test_on_a_public_address_previews_need_a_login_and_production_does_not(
    public: Server, public_checkout: Checkout
) -> None:
    first = public_checkout.git("rev-parse", "HEAD~1")
    assert (await public.get()).json["name"] == "second"
    assert (await public.get(first)).status == 401
    to_login = await public.get(first, "/deep?q=1", **BROWSER)
    assert to_login.status == 303
    assert public.json("inspect", first, "--app", "shop")["state"] == "cold"
    session = await log_in(public)
    visit = to_login.headers["Location"].partition(f":{public.port}")[2]
    entry = await public.get(CONTROL, visit, Cookie=session, **BROWSER)
    assert entry.status == 303
    entered = await public.get(first, entry.headers["Location"].partition(f":{public.port}")[2], **BROWSER)
    assert (entered.status, entered.headers["Location"]) == (303, "/deep?q=1")
    preview = cookie(entered, "lazycloud_preview")
    seen = await public.get(first, "/deep?q=1", Cookie=f"{preview}; theirs=1")
    assert seen.json["path"] == "/deep?q=1"


async def test_strangers_learn_nothing_that_production_wrote(up: Up, checkout: Checkout) -> None:
    build = '[build]\ncommand = "echo s3cret-path; exit 1"\n'
    checkout.commit(counter("bad", **{"lazycloud.toml": build}))
    server = up(checkout.path, "--listen", "0.0.0.0:0")
    answer = await server.get()
    assert (answer.status, "ended with exit status 1" in answer.text) == (502, True)
    page = await server.get(**BROWSER)
    assert "Try again" in page.text
    progress = await server.get("", "/.well-known/lazycloud/log")
    assert progress.status == 401
    lines = [line for line in (answer.text + page.text).splitlines() if "s3cret-path" in line]
    assert all("echo s3cret-path; exit 1" in line for line in lines), lines


async def test_a_preview_s_cookie_is_worth_nothing_on_another_host(
    public: Server, public_checkout: Checkout
) -> None:
    first, second = (public_checkout.git("rev-parse", ref) for ref in ("HEAD~1", "HEAD"))
    session = await log_in(public)
    target = f"http%3A%2F%2F{first}.localhost%3A{public.port}%2F"
    entry = await public.get(CONTROL, f"/visit?to={target}", Cookie=session)
    ticket_path = entry.headers["Location"].partition(f":{public.port}")[2]
    assert (await public.get(second, ticket_path)).status == 401
    preview = cookie(await public.get(first, ticket_path), "lazycloud_preview")
    assert (await public.get(first, Cookie=preview)).status == 200
    assert (await public.get(second, Cookie=preview)).status == 401
    assert (await public.get(second, Cookie=session)).status == 401
    assert (await public.get(second, "/.well-known/lazycloud/log", Cookie=preview)).status == 401


async def test_a_program_shows_the_token_to_see_a_preview(public: Server, public_checkout: Checkout) -> None:
    first = public_checkout.git("rev-parse", "HEAD~1")
    token = (public.home / "token").read_text().strip()
    assert (await public.get(first, Lazycloud_Token="wrong")).status == 401
    assert (await public.get(first, Lazycloud_Token=token)).json["name"] == "first"


async def test_a_link_cannot_lead_to_another_site(public: Server) -> None:
    session = await log_in(public)
    for target in ("http://evil.example/", "https://evil.example", "//evil.example", "javascript:alert(1)"):
        answer = await public.get(CONTROL, f"/visit?to={target}", Cookie=session)
        assert answer.status == 404
        after_login = await public.get(CONTROL, f"/login?next={target}", Cookie=session)
        assert after_login.headers["Location"] == "/"


async def test_public_previews_are_public_when_somebody_said_so(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    server = up(checkout.path, "--listen", "0.0.0.0:0", "--public-previews")
    assert (await server.get(first)).json["name"] == "first"


async def test_on_a_loopback_address_a_login_keeps_apps_out_of_each_other_s_logs(
    up: Up, checkout: Checkout
) -> None:
    commit = checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    await server.get(commit)
    reserved = "/.well-known/lazycloud"
    for label in ("", commit):
        assert (await server.get(label, f"{reserved}/log")).status == 200  # whoever reaches it, an app too
    server.cli("previews", "shop", "login")
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    for label in ("", commit):
        assert (await server.get(label, f"{reserved}/log")).status == 401
        assert (await server.post(label, "", f"{reserved}/retry")).status == 401
        assert (await server.post(label, "", f"{reserved}/cancel")).status == 401
    assert (await server.get(commit, f"{reserved}/progress", **upgrade)).status == 401
    assert (await server.get(commit)).status == 401
    assert (await server.get()).status == 200


async def test_what_a_visitor_with_a_login_was_told_is_not_told_to_a_stranger(
    public: Server, public_checkout: Checkout
) -> None:
    public_checkout.git("branch", "secret-plan")
    server = public
    await server.told("secret-plan is now at")
    token = (server.home / "token").read_text().strip()
    assert (await server.get("secret-plam")).status == 401
    told = await server.get("secret-plam", **{"Lazycloud-Token": token})
    assert told.status == 404 and "secret-plan" in told.text
    stranger = await server.get("secret-plam")
    assert stranger.status == 401 and "secret-plan" not in stranger.text
