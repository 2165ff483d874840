"""Who may see previews, by what control told the routers: which grants hold, and which tokens."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from lazycloud.router.access import sign

from .stage import GRANT, KEY, TOKEN, Conversation, fields, get, saying, sized

APPS = {"shop": "localhost", "blog": "blog.localhost"}


def cookie(host: str, grant: str, name: str = "lazycloud_preview") -> str:
    return f"{name}={sign(KEY, host, grant, int(time.time()) + 100)}"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_a_cookie_ends_with_its_grant_at_once_and_only_in_its_app(router, control, serve) -> None:
    control.apps = APPS
    control.access = {"grants": {"shop": ["l1", "s1"], "blog": ["l2"]}, "tokens": {}}
    await serve(saying(sized(b"shop")), host="a.localhost", login=True)
    await serve(saying(sized(b"blog")), host="a.blog.localhost", login=True)
    shared = cookie("a.localhost", "s1")
    assert (await router.get("a.localhost", Cookie=shared)).body == b"shop"
    assert (await router.get("a.blog.localhost", Cookie=cookie("a.blog.localhost", "l2"))).body == b"blog"
    for host, wrong in (("a.blog.localhost", "l1"), ("a.localhost", "l2"), ("a.localhost", "s2")):
        assert (await router.get(host, Cookie=cookie(host, wrong))).body == b"control"
    control.say({"access": {"grants": {"shop": ["l1"]}, "tokens": {}}})

    async def ended() -> bool:
        return (await router.get("a.localhost", Cookie=shared)).body == b"control"

    while not await ended():
        pass
    assert (await router.get("a.localhost", Cookie=cookie("a.localhost", "l1"))).body == b"shop"
    assert (await router.get("a.blog.localhost", Cookie=cookie("a.blog.localhost", "l2"))).body == b"control"


async def test_a_token_counts_for_its_app_until_it_expires_and_never_reaches_a_worker(
    router, control, serve
) -> None:
    control.apps = APPS
    expired = [time.time() - 1, ""]
    tokens = {sha256(TOKEN): [0, "shop"], sha256("for all"): [time.time() + 100, ""], sha256("old"): expired}
    control.access = {"grants": {}, "tokens": tokens}
    worker = await serve(saying(sized(b"shop")), host="a.localhost", login=True)
    await serve(saying(sized(b"blog")), host="a.blog.localhost", login=True)
    assert (await router.get("a.localhost", Lazycloud_Token=TOKEN)).body == b"shop"
    assert (await router.get("a.localhost", Lazycloud_Token="for all")).body == b"shop"
    assert all(not fields(head, "lazycloud-token") for head in worker.heads)
    assert (await router.get("a.blog.localhost", Lazycloud_Token=TOKEN)).body == b"control"
    assert (await router.get("a.blog.localhost", Lazycloud_Token="for all")).body == b"blog"
    assert (await router.get("a.localhost", Lazycloud_Token="old")).body == b"control"
    control.say({"access": {"grants": {}, "tokens": {}}})
    while (await router.get("a.localhost", Lazycloud_Token="for all")).body != b"control":
        pass
    assert (await router.get("a.localhost", Lazycloud_Token=TOKEN)).body == b"control"


async def test_what_came_before_control_had_told_who_may_see_is_asked_again(start, control, serve) -> None:
    worker = await serve(saying(sized(b"app")), login=True)
    route = control.routes.pop("app.localhost")
    told, control.access = control.access, {"grants": {}, "tokens": {}}
    router = await start()
    answer = asyncio.create_task(router.get(Cookie=cookie("app.localhost", GRANT)))
    ask = await control.wait_for("ask")
    assert ask["login"] is False
    control.say({"access": told})
    control.answer(ask, {"to": "control", "reason": "login"}, keep=False)
    again = await control.wait_for("ask", 2)
    assert again["login"] is True
    control.answer(again, route)
    assert (await answer).body == b"app"
    assert len(worker.heads) == 1


async def test_what_goes_on_ends_with_its_grant_and_nothing_else_does(router, control, serve) -> None:
    async def begin(talk: Conversation) -> None:
        head = await talk.request()
        if b"upgrade: websocket" in head.lower():
            await talk.send(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        else:
            await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await talk.send(b"begun")
        await talk.rest()

    await serve(begin, host="a.localhost", login=True)
    await serve(begin, host="open.localhost")
    websocket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": "x" * 22 + "=="}
    await control.wait_for("hello")
    control.say({"access": {"grants": {"": ["s1", "l1"]}, "tokens": {}}})
    asked = [
        get("a.localhost", Cookie=cookie("a.localhost", "s1")),
        get("a.localhost", Cookie=cookie("a.localhost", "s1"), **websocket),
        get("a.localhost", Cookie=cookie("a.localhost", "l1"), **websocket),
        get("open.localhost", **websocket),
    ]
    wires = [await router.connect() for _ in asked]
    for wire, raw in zip(wires, asked, strict=True):
        await wire.send(raw)
        await wire.head()
        assert await wire.exactly(5) == b"begun"
    control.say({"access": {"grants": {"": ["l1"]}, "tokens": {}}})
    for wire in wires[:2]:
        assert await wire.rest() == b""
    control.say({"access": {"grants": {"": ["l1"]}, "tokens": {}}})
    assert (await router.get("a.localhost")).body == b"control"
    for wire in wires[2:]:
        await wire.send(b"still there")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.read(1), 0.05)
        wire.close()


async def test_over_https_the_cookie_must_be_one_that_no_other_host_can_set(start, serve) -> None:
    router = await start(public_scheme="https")
    worker = await serve(saying(sized(b"app")), login=True)
    tossed = cookie("app.localhost", GRANT)
    own = cookie("app.localhost", GRANT, "__Host-lazycloud_preview")
    assert (await router.get(Cookie=tossed)).body == b"control"
    assert (await router.get(Cookie=f"{tossed}; {own}; a=b")).body == b"app"
    assert fields(worker.last, "cookie") == ["a=b"]


async def test_a_router_that_was_told_nothing_yet_lets_nobody_in(router, control, serve) -> None:
    control.access = {"grants": {}, "tokens": {}}
    await serve(saying(sized(b"app")), login=True)
    assert (await router.get(Cookie=cookie("app.localhost", GRANT))).body == b"control"
    assert (await router.get(Lazycloud_Token=TOKEN)).body == b"control"
