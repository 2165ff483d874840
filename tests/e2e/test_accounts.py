"""Who may what on control: accounts, tokens, roles, sessions, and what the event log says of it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import math
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from lazycloud.control.api import Api
from lazycloud.control.doors import Doors
from lazycloud.control.identity import Role
from lazycloud.control.people import People
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Answer, Server
from tests.e2e.test_security import CONTROL, cookie
from tests.ports import free_port

PASSWORD = "correct horse battery"
COOKIE = "lazycloud_session"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("accounts") / "shop")
    checkout.commit(counter("one"))
    checkout.commit(counter("two"))
    return checkout


@pytest.fixture(scope="module")
def server(repository: Checkout) -> Iterator[Server]:
    """One for all that need none of their own: names differ, and each logs in from an address of its own."""
    server = Server(repository.path.parent / "home", repository.path, "--trust-proxy", "127.0.0.1")
    try:
        yield server.start()
    finally:
        server.stop()


async def token(server: Server, name: str, role: str = "viewer", **more: Any) -> str:
    """A new token's text."""
    body = {"name": name, "role": role} | more
    made = await ask(server, "/api/tokens", body, Authorization=server.authorization)
    assert made.status == 201, made
    return str(made.json["token"])


async def add(server: Server, name: str, role: str, password: str = PASSWORD) -> None:
    body = {"name": name, "role": role, "password": password}
    assert (await ask(server, "/api/accounts", body, Authorization=server.authorization)).status == 201


def own(server: Server) -> dict[str, str]:
    """What the control page itself sends with a write."""
    return {"Origin": f"http://{server.host(CONTROL)}", "Content-Type": "application/json"}


async def ask(server: Server, path: str, body: Any = None, **headers: str) -> Answer:
    if body is None:
        return await server.get(CONTROL, path, **headers)
    return await server.post(CONTROL, json.dumps(body), path, **own(server) | headers)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def log_in(server: Server, account: str, password: str, **headers: str) -> Answer:
    form = {"account": account, "token": password, "next": "/"}
    client = f"198.51.100.{zlib.crc32(account.encode()) % 250}"
    headers = {"Origin": f"http://{server.host(CONTROL)}", "X-Forwarded-For": client} | headers
    return await server.request("POST", CONTROL, "/login", headers=headers, data=form)


async def session(server: Server, account: str, password: str = PASSWORD) -> dict[str, str]:
    answer = await log_in(server, account, password)
    assert answer.status == 200, answer
    return {"Cookie": cookie(answer, COOKIE)}


async def facts(server: Server, *kinds: str) -> list[dict[str, Any]]:
    text = (await server.get(CONTROL, "/api/events", Authorization=server.authorization)).text
    told = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [fact for fact in told if fact["kind"] in kinds]


def sentence(answer: Answer) -> str:
    return answer.json["error"]["sentence"]


async def test_a_role_may_what_it_may_and_the_refusal_says_what_it_would_take(server: Server) -> None:
    viewer, developer = await token(server, "watcher"), await token(server, "ci", "developer")
    assert re.fullmatch(r"lc_[0-9a-f]{64}", developer)
    assert (await ask(server, "/api/ps", **bearer(viewer))).status == 200
    refused = await ask(server, "/api/apps/shop/deploy", {"ref": "HEAD~1"}, **bearer(viewer))
    assert refused.status == 403
    assert sentence(refused) == "This needs the role developer; “watcher” is a viewer."
    assert (await ask(server, "/api/apps/shop/logs", **bearer(viewer))).status == 403
    assert (await ask(server, "/api/apps/shop/logs", **bearer(developer))).status == 200
    assert (await ask(server, "/api/apps/shop/deploy", {"ref": "HEAD~1"}, **bearer(developer))).status == 202
    production = await ask(server, "/api/apps/shop/run?ref=production", **bearer(developer))
    assert sentence(production) == "This needs the role owner; “ci” is a developer."
    assert (
        await ask(server, "/api/apps/shop/run?ref=HEAD", **bearer(developer))
    ).status == 422  # no websocket
    refused = await ask(server, "/api/tokens", {"name": "mine", "role": "owner"}, **bearer(developer))
    assert sentence(refused) == "This needs the role owner; “ci” is a developer."
    (told,) = [fact for fact in await facts(server, "refused") if fact["who"] == "watcher"][:1]
    assert (told["what"], told["app"]) == ("deploy", "shop")


async def test_every_route_refuses_who_is_less_than_it_needs(server: Server) -> None:
    """The table is what the routes say; here each is asked by each who may not."""
    ranks = {
        "": {},
        **{role: bearer(await token(server, f"a-{role}", role)) for role in ("viewer", "developer")},
    }
    asked = 0
    for method, path, name, needed in (*Api.ROUTES, *People.ROUTES, *Doors.ROUTES):
        place = path.format(app="shop", deployment="shop.x", name="nobody", number=1)
        for role, headers in ranks.items():
            if role and Role.read(role) >= needed:
                continue
            answer = await ask(server, place, None if method == "GET" else {}, **headers)
            assert answer.status == (403 if role else 401), (name, role, answer)
            asked += 1
    assert asked >= 60


async def test_a_token_ends_when_it_is_revoked_or_its_time_is_over_and_only_its_hash_is_kept(
    server: Server,
) -> None:
    text = await token(server, "short")
    me = {"name": "short", "role": "viewer", "kind": "token", "app": None}
    assert (await ask(server, "/api/me", **bearer(text))).json == me
    assert (await ask(server, "/api/me", **bearer(text[:-1] + "x"))).status == 401
    assert text.encode() not in b"".join(path.read_bytes() for path in server.home.glob("state.sqlite*"))
    server.cli("token", "revoke", "short")
    assert (await ask(server, "/api/me", **bearer(text))).status == 401
    seconds = 1.0
    while True:  # on a busy machine a second may be over before the token is shown
        ends = time.time() + seconds
        brief = await token(server, "brief", expires=ends)
        seen = await ask(server, "/api/me", **bearer(brief))
        if seen.status == 200 or seconds > PATIENCE:
            break
        assert time.time() >= ends, seen
        seconds *= 4
    assert seen.status == 200

    async def is_over() -> bool:
        return (await ask(server, "/api/me", **bearer(brief))).status == 401

    await server.until(is_over)
    assert re.search(r"brief .*, over", server.cli("token", "ls"))
    again = await token(server, "brief")  # the name is free again, and what had it is worth nothing still
    assert [(await ask(server, "/api/me", **bearer(one))).status for one in (brief, again)] == [401, 200]


async def test_a_token_for_previews_opens_no_api_and_logs_nobody_in(server: Server) -> None:
    text = await token(server, "e2e", previews=True)
    refused = await ask(server, "/api/me", **bearer(text))
    assert (refused.status, sentence(refused)) == (403, "“e2e” only opens previews.")
    assert (await ask(server, "/", **bearer(text))).status == 403
    assert (await log_in(server, "", text)).status == 422


async def test_a_person_logs_in_with_a_password_and_out_on_the_server(server: Server) -> None:
    await add(server, "ada", "developer")
    wrong = await log_in(server, "ada", "wrong")
    assert wrong.status == 401 and "not the password, or there is no such account" in wrong.text
    assert "no such account" in (await log_in(server, "nobody", PASSWORD)).text
    mine = await session(server, " Ada ")
    assert (await ask(server, "/api/me", **mine)).json["name"] == "ada"
    assert (await ask(server, "/api/apps/shop/pin", {"ref": "HEAD"}, **mine)).status == 200
    assert (await ask(server, "/logout", {}, **mine)).status == 303
    assert (await ask(server, "/api/me", **mine)).status == 401
    logged = [fact for fact in await facts(server, "logged_in", "logged_out") if fact["who"] == "ada"]
    assert [fact["kind"] for fact in logged] == ["logged_in", "logged_out"]


async def test_whatever_changes_of_an_account_ends_its_sessions_and_links(server: Server) -> None:
    owner = {"Authorization": server.authorization}
    for number, change in enumerate(({"role": "viewer"}, {"disabled": True}, {"password": ""}, None)):
        name = f"changed{number}"
        await add(server, name, "developer")
        mine = await session(server, name)
        link = (await ask(server, f"/api/accounts/{name}/link", {}, **owner)).json["url"]
        path = f"/api/accounts/{name}/{'set' if change else 'remove'}"
        assert (await ask(server, path, change or {}, **owner)).json["ended"] == 1
        assert (await ask(server, "/api/me", **mine)).status == 401
        assert (await server.get(CONTROL, link.partition(f":{server.port}")[2])).status == 401
        assert (await log_in(server, name, PASSWORD)).status == (200 if number == 0 else 401)


async def test_a_link_logs_one_person_in_once_and_who_only_looks_does_not_use_it_up(server: Server) -> None:
    added = server.cli("account", "add", "bob", "--role", "viewer")
    path = re.search(r"/login\?ticket=\S+", added)[0]
    assert (await server.request("HEAD", CONTROL, path)).status == 405
    asked = await server.get(CONTROL, path, **{"Sec-Fetch-Site": "cross-site"})
    assert asked.status == 200 and "Log in as bob?" in asked.text and "Set-Cookie" not in asked.headers
    mine = {"Cookie": cookie(await server.get(CONTROL, path), COOKIE)}
    assert (await ask(server, "/api/me", **mine)).json["name"] == "bob"
    assert (await server.get(CONTROL, path)).status == 401


async def test_a_person_changes_the_password_who_knows_it_and_other_browsers_are_logged_out(
    server: Server,
) -> None:
    await add(server, "cat", "viewer")
    mine, other = await session(server, "cat"), await session(server, "cat")
    change = {"password": "another password", "before": "x"}
    assert (await ask(server, "/api/me/password", change, **mine)).status == 403
    assert (await ask(server, "/api/me/password", change | {"before": PASSWORD}, **mine)).status == 200
    assert [(await ask(server, "/api/me", **one)).status for one in (mine, other)] == [200, 401]
    assert (await log_in(server, "cat", PASSWORD)).status == 401
    assert (await log_in(server, "cat", "another password")).status == 200


async def test_sessions_are_listed_and_ended(server: Server) -> None:
    await add(server, "dan", "developer")
    both = [await session(server, "dan"), await session(server, "dan")]
    listed = server.json("account", "sessions", "dan")
    assert len(listed) == 2 and all(one["client"].startswith("198.51.100.") for one in listed)
    server.cli("account", "logout", "--session", listed[0]["id"])
    assert sorted([(await ask(server, "/api/me", **one)).status for one in both]) == [200, 401]
    server.cli("account", "logout", "dan")
    assert [(await ask(server, "/api/me", **one)).status for one in both] == [401, 401]


async def test_who_follows_events_is_told_no_more_once_they_may_not(server: Server) -> None:
    await add(server, "hal", "developer")
    mine = await session(server, "hal")
    text = await token(server, "follower")
    host = {"Host": server.host(CONTROL)}
    base = f"http://127.0.0.1:{server.port}/api"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as client:
        lines = await client.get(f"{base}/events?follow=1", headers=host | bearer(text))
        socket = await client.ws_connect(f"{base}/follow", headers=host | mine | own(server))
        server.cli("token", "revoke", "follower")
        server.cli("account", "logout", "hal")
        with contextlib.suppress(aiohttp.ClientError):
            await lines.read()
        while not socket.closed:
            await socket.receive()
    kept = [one for one in await facts(server, "logged_out") if one["account"] == "hal"]
    assert kept and lines.connection is None


async def test_guesses_are_slowed_down_and_the_owner_is_never_locked_out(server: Server) -> None:
    await add(server, "eve", "owner")
    away = {"X-Forwarded-For": "203.0.113.77"}
    began = time.monotonic()
    guesses = [asyncio.create_task(log_in(server, "eve", f"wrong {number}")) for number in range(20)]
    guesses += [asyncio.create_task(log_in(server, "eve", PASSWORD, **where)) for where in ({}, away)]
    seen = await asyncio.wait_for(ask(server, "/api/apps", Authorization=server.authorization), PATIENCE)
    assert seen.status == 200
    answers = [await guess for guess in guesses]
    late = [answer for answer in answers if answer.status == 429]
    let_in = [
        answer for answer in answers if answer.status == 200
    ]  # if a wait was over just then: all begins anew
    # Some at once, and then one after ever longer waits.
    most = (8 + math.log2(1 + time.monotonic() - began)) * (1 + len(let_in))
    assert len(late) >= len(answers) - most
    assert {401, 429} <= {answer.status for answer in answers} <= {200, 401, 429}
    assert int(late[0].headers["Retry-After"]) >= 1 and "Too many attempts: wait" in late[0].text
    assert "eve" in server.cli("account", "ls")
    link = server.cli("open", "--control", "--print").strip()
    assert (await server.get(CONTROL, link.partition(f":{server.port}")[2])).status == 303
    failed = [fact for fact in await facts(server, "login_failed") if fact["account"] == "eve"]
    assert 1 <= len(failed) <= most


async def test_behind_a_front_guesses_are_counted_by_the_address_that_it_vouches_for(server: Server) -> None:
    for number in range(30):  # what a client writes itself stands before what the front adds
        forged = {"X-Forwarded-For": f"10.0.0.{number}, 203.0.113.9"}
        last = await log_in(server, "", "wrong", **forged)
        if (
            last.status == 429
        ):  # the sixth wrong one begins a wait of a second, and each one after it a longer one
            break
    assert last.status == 429
    assert (await log_in(server, "", "wrong", **{"X-Forwarded-For": "203.0.113.10"})).status == 401
    clients = {fact["client"] for fact in await facts(server, "login_failed")}
    assert {"203.0.113.9", "203.0.113.10"} <= clients and not any(one.startswith("10.") for one in clients)


async def test_a_form_of_another_site_logs_nobody_in_or_out(server: Server) -> None:
    text = (server.home / "token").read_text().strip()
    for origin in ("http://evil.example", "null", f"http://x.localhost:{server.port}"):
        assert (await log_in(server, "", text, Origin=origin)).status == 403
    form = {"token": text, "next": "/"}
    assert (await server.request("POST", CONTROL, "/login", data=form)).status == 403
    mine = await session(server, "", text)
    assert (await server.post(CONTROL, "", "/logout", **mine, Origin="http://evil.example")).status == 403
    assert (await ask(server, "/api/me", **mine)).json["kind"] == "owner"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert (await server.get(CONTROL, "/api/follow", **mine, **upgrade)).status == 403


async def test_a_new_login_is_a_new_session_and_ends_the_one_that_the_browser_had(server: Server) -> None:
    await add(server, "fay", "viewer")
    first = await session(server, "fay")
    second = {"Cookie": cookie(await log_in(server, "fay", PASSWORD, **first), COOKIE)}
    assert second != first
    assert [(await ask(server, "/api/me", **one)).status for one in (first, second)] == [401, 200]
    planted = {"Cookie": f"{COOKIE}=planted"}
    assert cookie(await log_in(server, "fay", PASSWORD, **planted), COOKIE) != planted["Cookie"]


async def test_every_command_is_in_the_event_log_with_who_gave_it(
    server: Server, repository: Checkout
) -> None:
    commit = repository.git("rev-parse", "HEAD~1")
    deployer = bearer(await token(server, "deployer", "developer"))
    await ask(server, "/api/apps/shop/deploy", {"ref": commit}, **deployer)
    await add(server, "gus", "owner")
    mine = await session(server, "gus")
    await ask(server, "/api/apps/shop/pin", {"ref": commit}, **mine)
    await ask(server, "/api/prune", {"dry_run": True}, **mine)
    server.cli("stop", commit, "--app", "shop")
    told = {(fact["who"], fact["what"], fact["target"]) for fact in await facts(server, "asked")}
    assert {
        ("deployer", "deploy", commit),
        ("gus", "pin", commit),
        ("gus", "prune", ""),
        (getpass.getuser(), "stop", commit),
        ("owner", "create token", "deployer"),
        ("owner", "add account", "gus"),
    } <= told
    said = server.cli("events", "--who", "gus", "-n", "500")
    assert f"gus: pin {commit[:10]} of shop" in said and "deployer" not in said
    assert len(server.cli("events", "-n", "3", "--json").splitlines()) == 3
    retry = await server.post(commit, "", "/.well-known/lazycloud/retry")
    assert retry.status == 202
    (visitor,) = [fact for fact in await facts(server, "asked") if fact["what"] == "retry"]
    assert (visitor["who"], visitor["target"]) == ("a visitor of its page", commit[:10])
    named = {"Lazycloud-Token": await token(server, "e2e-retry", previews=True)}
    assert (await server.post(commit, "", "/.well-known/lazycloud/retry", **named)).status == 202
    assert [fact["who"] for fact in await facts(server, "asked") if fact["what"] == "retry"][
        -1
    ] == "e2e-retry"
    assert [fact["who"] for fact in await facts(server, "commit_pinned") if fact["commit"] == commit][
        -1
    ] == "gus"
    seen = (await ask(server, "/api/events", **bearer(await token(server, "looker")))).text
    kinds = {json.loads(line)["kind"] for line in seen.splitlines()}
    assert "asked" in kinds and not kinds & {"logged_in", "account_changed", "token_changed", "refused"}


async def test_what_cannot_be_right_is_said(server: Server) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("accounts", {"name": "Ada Lovelace", "role": "viewer"}, "is no name"),
        ("accounts", {"name": "owner", "role": "viewer"}, "the server itself"),
        ("accounts", {"name": "xyz", "role": "king"}, "“king” is no role"),
        ("accounts", {"name": "xyz", "role": "viewer", "password": "short"}, "10 to 512 letters"),
        ("accounts", {"name": "xyz", "role": "viewer", "password": 5}, "must be a text"),
        ("accounts/nobody/set", {"role": "viewer"}, "There is no account “nobody”"),
        ("accounts/nobody/link", {}, "There is no account “nobody”"),
        ("tokens", {"name": "xyz", "role": "viewer", "app": "blog"}, "blog"),
        ("tokens", {"name": "xyz", "role": "viewer", "expires": True}, "must be a time to come"),
        ("tokens", {"name": "xyz", "role": "viewer", "expires": 5}, "must be a time to come"),
        ("tokens/nobody/revoke", {}, "There is no token “nobody”"),
        ("sessions/end", {}, "Which?"),
        ("sessions/end", {"session": "0"}, "There is no such session"),
        ("login-link", {}, ""),
    ]
    for path, body, said in wrong[:-1]:
        answer = await ask(server, f"/api/{path}", body, Authorization=server.authorization)
        assert answer.status in (404, 422) and said in sentence(answer), (path, body, answer)
    robot = bearer(await token(server, "robot", "owner"))
    assert "A token is no person" in sentence(await ask(server, "/api/login-link", {}, **robot))


async def test_the_command_line_elsewhere_acts_as_its_token_and_says_what_it_may_not(server: Server) -> None:
    made = server.cli("token", "create", "away", "--role", "viewer", "--expires", "30d", "--app", "shop")
    assert "“away” is a viewer of shop, until 20" in made
    text = re.search(r"lc_\w+", made)[0]
    away = ("--server", f"http://lazycloud.localhost:{server.port}", "--token", text)
    assert "production" in server.cli("ls", *away)
    said = server.cli("deploy", "HEAD", *away, "--app", "shop", code=1)
    assert "This needs the role developer; “away” is a viewer." in said
    said = server.cli("ls", *away[:3], "lc_" + "0" * 64, code=1)
    assert "This token is not one of this server, or it has ended." in said
    assert "There is a token “away” already" in server.cli("token", "create", "away", "--previews", code=1)
    assert "Give --role" in server.cli("token", "create", "y", code=2)
    assert "no time" in server.cli("token", "create", "y", "--role", "viewer", "--expires", "soon", code=2)
    assert "What is to change?" in server.cli("account", "set", "nobody", code=2)


@pytest.mark.slow
async def test_what_was_given_outlives_a_restart_and_a_database_of_before_gets_the_tables(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    text, owner_text = await token(server, "kept"), (server.home / "token").read_text().strip()
    assert server.json("token", "ls")[0]["used"] is None
    await ask(server, "/api/me", **bearer(text))
    await add(server, "ada", "viewer")
    mine, owner = await session(server, "ada"), await session(server, "", owner_text)
    server.stop()
    (server.home / "token").unlink()
    again = up(home=server.home)
    assert [(await ask(again, "/api/me", **one)).status for one in (mine, owner)] == [200, 401]
    assert (await ask(again, "/api/me", **bearer(owner_text))).status == 401
    used = again.json("token", "ls")[0]["used"]
    assert used and used < time.time()
    assert (await ask(again, "/api/me", **bearer(text))).status == 200
    again.stop()
    with sqlite3.connect(server.home / "state.sqlite") as database:
        for table in ("accounts", "tokens", "sessions"):
            database.execute(f"DROP TABLE {table}")
    older = up(home=server.home)
    await add(older, "ada", "viewer")
    assert (await ask(older, "/api/apps", **await session(older, "ada"))).json[0]["name"] == "shop"


async def test_a_token_of_one_app_sees_and_does_nothing_of_another_and_a_viewer_sees_no_output(
    up: Up, checkout: Checkout
) -> None:
    other = Checkout(checkout.path.parent / "blog")
    bad = other.commit(counter("bad", **{"lazycloud.toml": '[build]\ncommand = "echo s3cret; exit 1"\n'}))
    other.commit(counter("post", **{"lazycloud.toml": ""}))
    checkout.commit(counter("one"))
    server = up(f"blog={other.path}", checkout.path)
    server.cli("deploy", bad, "--app", "blog", code=1)
    mine = bearer(await token(server, "ci", "developer", app="shop"))
    assert [app["name"] for app in (await ask(server, "/api/apps", **mine)).json] == ["shop"]
    overview = (await ask(server, "/api/overview", **mine)).json
    assert [app["name"] for app in overview["apps"]] == ["shop"] and overview["me"]["app"] == "shop"
    assert {event["app"] for event in overview["events"]} == {"shop"}
    refused = await ask(server, "/api/apps/blog/commits", **mine)
    assert (refused.status, sentence(refused)) == (403, "“ci” is for the app shop, not for blog.")
    assert (await ask(server, "/api/ps?app=blog", **mine)).status == 403
    told = (await ask(server, "/api/events", **mine)).text
    assert {json.loads(line)["app"] for line in told.splitlines()} == {"shop"}
    whole = await ask(server, "/api/disk", **mine)
    assert sentence(whole) == "“ci” is for the app shop, and this is about the whole server."
    seen = await ask(server, f"/api/apps/blog/inspect?ref={bad}", Authorization=server.authorization)
    deployment = seen.json["deployment"]
    assert (await ask(server, f"/api/deployments/{deployment}/stop", {}, **mine)).status == 403
    form = {"repository": str(other.path / ".git"), "origin": "", "commit": bad, "ref": "refs/heads/main"}
    hook = await server.request("POST", CONTROL, "/api/announce", headers=mine, data=form)
    assert hook.status == 403
    for role, knows in (("viewer", False), ("developer", True)):
        theirs = bearer(await token(server, f"a-{role}", role))
        seen = await ask(server, f"/api/apps/blog/inspect?ref={bad}", **theirs)
        assert ("s3cret" in seen.json["failure"]["last"]) is knows and seen.json["failure"]["sentence"]
        events = [json.loads(line) for line in (await ask(server, "/api/events", **theirs)).text.splitlines()]
        failures = [fact["failure"]["last"] for fact in events if fact.get("failure")]
        assert failures and any("s3cret" in last for last in failures) is knows


async def test_over_https_the_cookie_is_one_that_no_other_host_can_plant(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    port = free_port()
    front = f"shop.example:{port}"
    server = up(checkout.path, "--listen", f"127.0.0.1:{port}", "--public-url", f"https://{front}")
    host = {"Host": f"lazycloud.{front}", "Origin": f"https://lazycloud.{front}"}
    text = (server.home / "token").read_text().strip()
    answer = await server.request("POST", CONTROL, "/login", headers=host, data={"token": text})
    (line,) = [each for each in answer.headers.getall("Set-Cookie") if "session" in each]
    assert line.startswith("__Host-lazycloud_session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in line.split(";")}
    assert "Domain" not in line
    value = line.partition("=")[2].partition(";")[0]
    for name, status in (("__Host-lazycloud_session", 200), ("lazycloud_session", 401)):
        headers = host | {"Cookie": f"{name}={value}"}
        assert (await server.request("GET", CONTROL, "/api/me", headers=headers)).status == status
    beside = {"Host": front, "Cookie": f"__Host-lazycloud_session={value}; theirs=1"}
    assert value not in (await server.request("GET", "", "/", headers=beside)).text
