"""Lines 21 to 24 of http.md, the clauses that test_waiting.py leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import websockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from tests.waiting import until

from .stage import Conversation, get, saying, sized, to_worker
from .test_upgrades import open_websocket
from .test_waiting import CHROME, LANDING


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "text/html, */*; q=0.01", "X_Requested_With": "XMLHttpRequest"},
        {"Accept": "text/html", "Sec_Fetch_Mode": "same-origin", "Sec_Fetch_Dest": "empty"},
        {"Accept": "image/avif,image/webp,*/*"},
        {"Accept": "text/css,*/*;q=0.1"},
        {"Accept": "text/event-stream"},
        {"Accept": "application/json"},
        {},
    ],
)
async def test_what_a_page_fetches_is_held_also_where_browsers_say_little(
    router, control, headers: dict[str, str]
) -> None:
    """Over plain http to other names than localhost they send no Sec-Fetch-*."""
    wire = await router.connect()
    await wire.send(get(User_Agent=CHROME, **headers))
    assert (await control.wait_for("ask"))["intent"] == "wait"


async def test_retry_after_differs_from_one_refused_request_to_the_next(start, control) -> None:
    router = await start(held_max=1)
    held = await router.connect()
    await held.send(get())
    await control.wait_for("ask")
    waits = {int((await router.get()).field("retry-after") or 0) for _ in range(30)}
    assert len(waits) > 1
    assert min(waits) >= 5
    assert max(waits) <= 10


async def test_an_app_that_holds_all_it_may_takes_no_place_from_another(start, control, serve) -> None:
    control.apps = {"a": "a.localhost", "b": "b.localhost"}
    router = await start(held_max=20, held_app_max=5)
    await control.wait_for("hello")
    flood = [await router.connect() for _ in range(30)]
    for number, wire in enumerate(flood):
        await wire.send(get(f"{number:07x}.a.localhost"))
    await control.wait_for("ask", 5)
    asking = [asyncio.create_task(router.get("b.localhost")) for _ in range(5)]
    await control.wait_for("ask", 10)
    worker = await serve(saying(sized()), host="elsewhere.localhost")
    asked = [ask for ask in control.said("ask") if ask["host"] == "b.localhost"]
    assert len(asked) == 5
    for ask in asked:
        control.answer(ask, to_worker(worker.address))
    assert [(await each).status for each in asking] == [200] * 5


async def test_who_asked_before_the_apps_were_known_takes_a_place_of_its_app(start, control) -> None:
    router = await start(held_max=20, held_app_max=2)
    await control.wait_for("hello")
    early = [await router.connect() for _ in range(2)]
    for wire in early:
        await wire.send(get("a.localhost"))
    await control.wait_for("ask", 2)
    control.say({"apps": {"a": "a.localhost"}, "domain": "localhost"})
    control.routes["no-app.example.org"] = {"to": "control", "reason": "page"}
    assert (await router.get("no-app.example.org")).body == b"control"
    assert (await router.get("a.localhost")).status == 503


async def test_which_agents_are_robots_is_a_setting_and_a_robot_is_served_what_runs(
    start, control, serve
) -> None:
    router = await start(robots=["mirror"])
    wire = await router.connect()
    await wire.send(get("cold.localhost", User_Agent="Mirror/1.0"))
    assert (await control.wait_for("ask"))["intent"] == "robot"
    await serve(saying(sized()))
    assert (await router.get(User_Agent="Mirror/1.0")).status == 200
    other = await router.connect()
    await other.send(get("other.localhost", User_Agent="Googlebot/2.1"))
    await control.wait_for("ask", 3)
    assert control.said("ask")[2]["intent"] == "wait"


async def test_a_request_in_flight_is_told_while_it_is(router, control, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await finish.wait()
        await talk.send(sized())

    finish = asyncio.Event()
    await serve(handle)
    asking = asyncio.create_task(router.get())
    await until(lambda: control.activity("d1").get("open") == 1)
    finish.set()
    await asking
    await until(lambda: control.activity("d1").get("open") == 0)


async def test_what_control_shows_is_no_activity_of_any_deployment(router, control, serve) -> None:
    for count in (1, 2):
        asking = asyncio.create_task(router.get(Accept="text/html", User_Agent=CHROME))
        control.answer(await control.wait_for("ask", count), LANDING, keep=False)
        assert (await asking).body == b"control"
    assert (await router.get(path="/.well-known/lazycloud/progress")).body == b"control"
    await serve(saying(sized()), host="b.localhost", deployment="d2")
    await router.get("b.localhost")
    await until(lambda: control.activity("d2").get("requests") == 1)
    assert {name for each in control.said("activity") for name in each["activity"]} == {"d2"}


@pytest.fixture
async def pinging(control) -> AsyncIterator[list[int]]:
    """A websocket worker that says nothing and pings all the time; a pong adds to the list."""
    pongs: list[int] = []

    async def handle(connection: ServerConnection) -> None:
        try:
            while True:
                await (await connection.ping())
                pongs.append(1)
                await asyncio.sleep(0.01)
        except websockets.ConnectionClosed:
            pass

    async with serve_websocket(handle, "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        control.routes["app.localhost"] = to_worker(f"127.0.0.1:{port}")
        yield pongs


async def test_a_websocket_that_only_pings_is_no_activity(router, control, pinging) -> None:
    async with open_websocket(router) as socket:
        await until(lambda: len(pinging) > 10 and control.activity("d1").get("sockets") == 1)
        opened, seen = control.activity("d1")["last"], len(pinging)
        await until(lambda: len(pinging) > seen + 30)
        assert control.activity("d1")["last"] == opened
        await socket.send("here I am")
        await until(lambda: control.activity("d1")["last"] > opened)
