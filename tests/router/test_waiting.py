"""Lines 21, 22 and 24 of http.md, and the link: what is unknown, held, forgotten and counted."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.waiting import PATIENCE, until

from .stage import Conversation, fields, get, saying, sized, to_worker

CHROME = "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
LANDING = {"to": "control", "reason": "landing"}


async def test_a_request_is_held_until_control_answered_and_then_relayed_with_its_body(
    router, control, serve
) -> None:
    bodies = []

    async def handle(talk: Conversation) -> None:
        await talk.request()
        bodies.append(await talk.exactly(300_000))
        await talk.send(sized())

    worker = await serve(handle, host="elsewhere.localhost")
    wire = await router.connect()
    sending = asyncio.create_task(
        wire.send(
            b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
        )
    )
    ask = await control.wait_for("ask")
    assert (ask["host"], ask["intent"]) == ("app.localhost", "wait")
    control.answer(ask, to_worker(worker.address))
    assert (await wire.answer()).status == 200
    await sending
    assert bodies == [b"x" * 300_000]


async def test_the_body_of_a_held_request_is_not_read(router, control) -> None:
    wire = await router.connect()
    wire.writer.transport.set_write_buffer_limits(high=0)
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100000000\r\n\r\n")
    await control.wait_for("ask")
    before = router.rss()
    wire.writer.write(b"x" * 50_000_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await wire.writer.drain()
    assert router.rss() - before < 5_000_000


@pytest.mark.parametrize(
    ("raw", "intent"),
    [
        (get(Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document", User_Agent=CHROME), "navigate"),
        (get(Accept="text/html,*/*", User_Agent=CHROME), "navigate"),
        (get(path="/app.js", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script", User_Agent=CHROME), "wait"),
        (get(Sec_Fetch_Mode="cors", Sec_Fetch_Dest="empty", Accept="text/html", User_Agent=CHROME), "wait"),
        (get(Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe", User_Agent=CHROME), "wait"),
        (get(Accept="*/*", User_Agent="curl/8.5.0"), "wait"),
        (get(Accept="text/html", User_Agent=CHROME).replace(b"GET", b"POST"), "wait"),
        (get(Connection="Upgrade", Upgrade="websocket", Accept="text/html", User_Agent=CHROME), "wait"),
        (get(Accept="text/html", User_Agent=ROBOT), "robot"),
        (get(Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document", User_Agent=ROBOT), "robot"),
    ],
)
async def test_the_landing_page_is_only_for_a_browsers_top_level_get(
    router, control, raw: bytes, intent: str
) -> None:
    wire = await router.connect()
    await wire.send(raw)
    assert (await control.wait_for("ask"))["intent"] == intent


async def test_an_answer_that_is_not_to_be_kept_is_asked_for_again(router, control) -> None:
    for count in (1, 2):
        asking = asyncio.create_task(router.get())
        control.answer(await control.wait_for("ask", count), LANDING, keep=False)
        assert (await asking).body == b"control"
    assert fields(control.http.last, "lazycloud-reason") == ["landing"]


async def test_a_kept_answer_is_not_asked_for_again(router, control, serve) -> None:
    await serve(saying(sized()))
    for _ in range(5):
        assert (await router.get()).status == 200
    assert len(control.said("ask")) == 1


async def test_own_paths_go_to_control_whatever_the_route_says(router, control, serve) -> None:
    worker = await serve(saying(sized()))
    assert (await router.get()).body == b"hello"
    assert (await router.get(path="/.well-known/lazycloud/progress")).body == b"control"
    assert (await router.get("unknown.localhost", "/.well-known/lazycloud/log")).body == b"control"
    assert len(worker.heads) == len(control.said("ask")) == 1


async def test_over_the_bound_a_request_is_a_503_with_retry_after(start, control) -> None:
    control.apps = {"a": "a.localhost", "b": "b.localhost", "c": "c.localhost"}
    router = await start(held_max=3, held_app_max=2)
    await control.wait_for("hello")
    wires = [await router.connect() for _ in range(4)]
    await wires[0].send(get("a.localhost"))
    await wires[1].send(get("1234567.a.localhost"))
    await control.wait_for("ask", 2)
    answer = await router.get("feature.a.localhost")
    assert (answer.status, answer.field("lazycloud-answer")) == (503, "router")
    assert int(answer.field("retry-after") or 0) >= 5
    await wires[2].send(get("b.localhost"))
    await control.wait_for("ask", 3)
    assert (await router.get("c.localhost")).status == 503
    wires[0].close()
    await control.wait_for("leave")
    await wires[3].send(get("c.localhost"))
    await control.wait_for("ask", 4)


async def test_an_answer_for_some_seconds_is_asked_for_again_after_them(router, control) -> None:
    control.routes["nothing.localhost"] = {"to": "control", "reason": "page"}
    control.keep = 2.0
    for _ in range(3):
        assert (await router.get("nothing.localhost")).body == b"control"
    assert len(control.said("ask")) == 1
    async with asyncio.timeout(PATIENCE):
        while len(control.said("ask")) < 2:
            assert (await router.get("nothing.localhost")).body == b"control"


async def test_a_request_held_too_long_is_a_504_and_leaves(start, control) -> None:
    router = await start(held_timeout=0.2)
    answer = await router.get()
    assert answer.status == 504
    assert (await control.wait_for("leave"))["leave"] == control.said("ask")[0]["ask"]


async def test_fifty_held_requests_are_all_answered(router, control, serve) -> None:
    worker = await serve(saying(sized()), host="elsewhere.localhost")
    asking = [asyncio.create_task(router.get()) for _ in range(50)]
    await control.wait_for("ask", 50)
    for ask in control.said("ask"):
        control.answer(ask, to_worker(worker.address))
    assert [(await each).status for each in asking] == [200] * 50


async def test_forget_moves_new_requests_and_drained_waits_for_the_old_ones(router, control, serve) -> None:
    async def slow(talk: Conversation) -> None:
        await talk.request()
        await finish.wait()
        await talk.send(sized(b"old"))

    finish = asyncio.Event()
    old = await serve(slow, deployment="old")
    asking = asyncio.create_task(router.get())
    await until(lambda: old.heads)
    await serve(saying(sized(b"new")), deployment="new")
    control.say({"forget": "old", "drain": 12})
    await until_asked_anew(router, control)
    assert control.said("drained") == []
    finish.set()
    assert (await asking).body == b"old"
    assert await control.wait_for("drained") == {"drained": 12}


async def until_asked_anew(router, control) -> None:
    answer = await router.get()
    while answer.body != b"new":
        answer = await router.get()
    assert control.routes["app.localhost"]["deployment"] == "new"


async def test_drained_comes_at_once_when_nothing_is_in_flight(router, control, serve) -> None:
    await serve(saying(sized()))
    await router.get()
    control.say({"forget": "d1", "drain": 1})
    control.say({"forget": "never seen", "drain": 2})
    await control.wait_for("drained", 2)
    assert [each["drained"] for each in control.said("drained")] == [1, 2]


async def test_a_forgotten_workers_idle_connections_are_closed(router, control, serve) -> None:
    worker = await serve(saying(sized()))
    await router.get()
    control.say({"forget": "d1", "drain": None})
    await until(worker.connections[0].reader.at_eof)


async def test_an_open_websocket_does_not_keep_a_deployment_from_being_drained(
    router, control, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        await talk.rest()

    await serve(handle)
    wire = await router.connect()
    await wire.send(get(Connection="Upgrade", Upgrade="websocket"))
    assert (await wire.head()).startswith(b"HTTP/1.1 101")
    control.say({"forget": "d1", "drain": 3})
    assert await control.wait_for("drained") == {"drained": 3}


@pytest.mark.parametrize("words", [{"forget_hosts": ["app.localhost"]}, {"forget_all": True}])
async def test_forgotten_hosts_are_asked_for_again(router, control, serve, words) -> None:
    await serve(saying(sized()))
    await router.get()
    control.say({"unknown": "word"})
    control.say(words)
    control.say({"forget": "x", "drain": 1})
    await control.wait_for("drained")
    await router.get()
    assert len(control.said("ask")) == 2


async def test_activity_counts_requests_errors_and_bytes(router, control, serve) -> None:
    await serve(saying(sized(b"x" * 1000), sized(b"", status="500 Oops"), sized()))
    began = time.time()
    wire = await router.connect()
    for _ in range(3):
        await wire.send(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 500\r\n\r\n" + b"y" * 500)
        await wire.answer()
    await until(lambda: control.activity("d1").get("requests") == 3)
    seen = control.activity("d1")
    assert (seen["errors"], seen["open"], seen["sockets"]) == (1, 0, 0)
    assert 1500 < seen["received"] < 3500
    assert 1000 < seen["sent"] < 2000
    assert began - 2 < seen["last"] <= time.time()


async def test_errors_and_robots_are_not_activity(router, control, serve) -> None:
    await serve(saying(sized(b"", status="500 Oops"), sized()))
    await router.get()
    await router.get(User_Agent=ROBOT)
    await until(lambda: control.activity("d1").get("requests") == 2)
    assert control.activity("d1")["last"] == 0
    await router.get(User_Agent=CHROME)
    await until(lambda: control.activity("d1")["last"] > 0)


async def test_activity_is_told_only_when_it_changed_and_again_to_a_new_control(
    router, control, serve
) -> None:
    await serve(saying(sized()))
    await router.get()
    await until(lambda: control.activity("d1").get("requests") == 1)
    told = len(control.said("activity"))
    await serve(saying(sized()), host="b.localhost", deployment="d2")
    await router.get("b.localhost")
    await until(lambda: control.activity("d2").get("requests") == 1)
    assert all("d1" not in each["activity"] for each in control.said("activity")[told:])
    control.heard.clear()
    await control.stop()
    await control.start()
    await until(lambda: control.activity("d1") and control.activity("d2"))
