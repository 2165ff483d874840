"""Lines 14, 15 and 21 to 24 of http.md as far as control keeps them: who waits, who sees what, what is activity."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, UNWALLED, Answer, Server

FRAME = BROWSER | {"Sec-Fetch-Dest": "iframe"}
FETCH = BROWSER | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Apps of `slow` start when it exists."""
    return tmp_path / "gate"


def slow(name: str, gate: Path) -> dict[str, str]:
    wait = f"import os, time\nwhile not os.path.exists('{gate}'): time.sleep(0.05)\n"
    settings = "[run]\nready_timeout = 600\n"  # it starts when the test says so, however long that takes
    return {**counter(name), "app.py": wait + counter(name)["app.py"], "lazycloud.toml": settings}


def on_a_branch(checkout: Checkout, name: str, files: dict[str, str]) -> str:
    """A commit beside what is production."""
    checkout.git("checkout", "-q", "-b", name, "main")
    return checkout.commit(files)


async def held(server: Server, count: int, label: str) -> list[asyncio.Task[Answer]]:
    """So many requests for a commit that does not start; back when it is being started."""
    asking = [asyncio.create_task(server.get(label, f"/{number}")) for number in range(count)]
    await server.reaches(label or "production", "starting")
    return asking


async def test_a_visitor_who_leaves_does_not_cancel_the_deploy_that_others_wait_for(
    up: Up, checkout: Checkout, gate: Path, tmp_path: Path
) -> None:
    checkout.commit(counter("good"))
    commit = checkout.commit(slow("slow", gate))
    server = up(
        checkout.path, "--access-log", str(tmp_path / "access.log"), "--production", "HEAD~1", **UNWALLED
    )
    first, *others = await held(server, 5, commit)
    first.cancel()

    def left() -> bool:
        return '"status":499' in (tmp_path / "access.log").read_text().replace(" ", "")

    await asyncio.to_thread(server.wait, left, "499")
    gate.touch()
    assert {(await each).status for each in others} == {200}
    assert (await server.inspect(commit))["attempt"] == 1


async def test_the_landing_page_is_shown_to_a_browsers_window_only_also_when_it_comes_to_nothing(
    up: Up, checkout: Checkout, gate: Path
) -> None:
    good = checkout.commit(counter("good"))
    never = checkout.commit(slow("slow", gate))
    failing = checkout.commit({"app.py": "raise SystemExit('no')"})
    server = up(checkout.path, "--production", good, LAZYCLOUD_HOLD_TIMEOUT="1", **UNWALLED)
    for commit, status, landing in ((never, 504, 503), (failing, 502, 502)):
        shown = await server.get(commit, **BROWSER)
        assert shown.headers["Lazycloud-Answer"] == "landing"
        if commit == failing:
            await server.reaches(commit, "failed")
            shown = await server.get(commit, **BROWSER)
        assert (shown.status, shown.headers["Cache-Control"]) == (landing, "no-store")
        answers = await asyncio.gather(
            server.get(commit, **FRAME),
            server.get(commit, **FETCH),
            server.get(commit, "/app.css", Accept="text/css,*/*;q=0.1"),
            server.get(commit, Accept="application/json"),
            server.post(commit, "", **BROWSER),
            server.get(commit, Connection="Upgrade", Upgrade="websocket", Accept="text/html"),
        )
        for answer in answers:
            assert answer.status == status, answer
            assert answer.headers["Lazycloud-Answer"] != "landing", answer
            assert answer.headers["Cache-Control"] == "no-store"
        assert json.loads(answers[3].text)["error"]["status"] == status


async def test_whatever_lazycloud_says_itself_says_so_and_names_its_request(
    up: Up, checkout: Checkout, gate: Path
) -> None:
    good = checkout.commit(counter("good"))
    never = checkout.commit(slow("slow", gate))
    server = up(checkout.path, "--production", good, **UNWALLED)
    key = {"Authorization": server.authorization}
    for label, path, headers in (
        (never, "/", BROWSER),
        (never, "/.well-known/lazycloud/log", {}),
        (never, "/.well-known/lazycloud/nothing", {}),
        ("nothing-of-the-kind", "/", {}),
        ("lazycloud", "/", {}),
        ("lazycloud", "/login", {}),
        ("lazycloud", "/api/server", {}),
        ("lazycloud", "/api/server", key),
        ("lazycloud", "/api/events", key),
        ("lazycloud", "/visit?to=http://a/", key),
    ):
        answer = await server.get(label, path, X_Request_Id="mine-1", **headers)
        assert answer.headers.get("Lazycloud-Answer"), (label, path, answer)
        assert answer.headers.get("X-Request-Id") == "mine-1", (label, path, answer)
    assert "Lazycloud-Answer" not in (await server.get(good)).headers


async def test_the_held_requests_of_one_app_leave_room_for_those_of_another(
    up: Up, checkout: Checkout, gate: Path, tmp_path: Path
) -> None:
    """Over all routers, and whatever the bound is."""
    blog = Checkout(tmp_path / "blog")
    for repository, name in ((checkout, "shop"), (blog, "blog")):
        repository.commit(counter(name))
    shop, post = checkout.commit(slow("slow shop", gate)), blog.commit(slow("slow blog", gate))
    server = up(
        checkout.path, blog.path, "--routers", "2", "--builds", "6", LAZYCLOUD_HELD_MAX="4", **UNWALLED
    )
    flood = [asyncio.create_task(server.get(shop, f"/{number}")) for number in range(12)]
    refused = await first_done(flood, 10)
    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 5 for answer in refused)
    asking = asyncio.create_task(server.get(f"{post[:12]}.blog"))
    await server.reaches(post, "starting", "blog")
    assert not asking.done(), await asking
    gate.touch()
    assert (await asking).status == 200
    assert sorted(answer.status for answer in await asyncio.gather(*flood)) == [200] * 2 + [503] * 10


async def first_done(tasks: list[asyncio.Task[Answer]], count: int) -> list[Answer]:
    """What came of the first so many that ended."""
    async with asyncio.timeout(PATIENCE):
        while sum(task.done() for task in tasks) < count:
            await asyncio.wait(
                [task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
    return [task.result() for task in tasks if task.done()]


async def test_a_robot_starts_no_deploy_and_is_told_to_come_back_later(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, commit = shared, on_a_branch(shared_checkout, "robot", counter("one"))
    for headers in ({"Accept": "*/*"}, BROWSER):
        answer = await server.get(commit, User_Agent=GOOGLEBOT, **headers)
        assert (answer.status, answer.headers["Lazycloud-Answer"]) == (503, "busy")
        assert int(answer.headers["Retry-After"]) >= 60
    assert (await server.inspect(commit))["state"] == "cold"
    assert await server.named("good")
    assert (await server.get(User_Agent=GOOGLEBOT)).status == 200


async def test_a_robot_waits_like_others_for_what_is_being_started_anyway(
    up: Up, checkout: Checkout, gate: Path
) -> None:
    """Production that is started again, for one: nobody wants to be unlisted for that."""
    checkout.commit(slow("production", gate))
    server = up(checkout.path, **UNWALLED)
    (other,) = await held(server, 1, "")
    robot = asyncio.create_task(server.get(User_Agent=GOOGLEBOT))
    await asyncio.wait([robot], timeout=0.5)  # it is not refused meanwhile
    gate.touch()
    assert ((await robot).status, (await other).status) == (200, 200)


async def test_neither_a_probe_nor_a_landing_page_nor_a_tab_that_is_left_open_is_activity(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, good = shared, on_a_branch(shared_checkout, "visited", counter("visited"))
    probed = counter("probed", **{"lazycloud.toml": '[run]\nhealth = "/"\n'})
    commit = on_a_branch(shared_checkout, "probed", probed)
    assert (await server.get(commit, **BROWSER)).status == 503
    await server.reaches(commit, "ready")  # its health was asked for, and a page was shown
    assert (await server.get(good)).status == 200

    async def counts(deployment_of: str) -> tuple[int, bool]:
        rows = await server.api("ps")
        (row,) = [row for row in rows if row["commit"]["id"] == deployment_of == row["version"]]
        return row["requests"], bool(row["last"])

    async def told() -> bool:
        return await counts(good) == (1, True)  # so the routers have told

    await server.until(told)
    assert await counts(commit) == (0, False)
    await server.verb("stop", commit, folder=shared_checkout.path)
    address = f"http://127.0.0.1:{server.port}/.well-known/lazycloud/progress"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, headers={"Host": server.host(commit)}) as tab,
    ):
        assert json.loads(await tab.receive_str())["kind"] == "snapshot"
    assert (await server.inspect(commit))["state"] == "stopped"
