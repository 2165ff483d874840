"""What routers tell control is added up once, whoever of them comes, goes and comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.control.link import Activity, Answer, Ask, Link
from tests.waiting import PATIENCE, until


class Router:
    """The other end of the line."""

    def __init__(self, name: str, **more: Any) -> None:
        self.hello = {"pid": 1, "name": name, **more}

    async def connect(self, path: Path) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(path)
        self.say({"hello": self.hello})

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def tell(self, deployment: str, **counts: Any) -> None:
        self.say({"activity": {deployment: counts}})

    async def heard(self) -> dict[str, Any]:
        return dict(json.loads(await self.reader.readline()))

    async def route(self, host: str) -> dict[str, Any]:
        """Where control says that `host` leads, which is then also told to the others."""
        self.say({"ask": 1, "host": host, "intent": "wait"})
        while "answer" not in (heard := await self.heard()):
            pass
        return dict(heard["route"])


class Routers:
    """Of two versions: `old` does not know that a deployment can move. Both have asked for a host of it."""

    def __init__(self) -> None:
        self.new, self.old = Router("new", moves=True), Router("old")

    async def connect(self, path: Path) -> None:
        for router in (self.new, self.old):
            await router.connect(path)
            assert (await router.route(f"{router.hello['name']}.localhost"))["deployment"] == "d"
        assert set((await self.new.heard())["learn"]) == {"old.localhost"}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "link"


@pytest.fixture
def refused() -> list[tuple[str, str]]:
    """What routers told of addresses at which nobody accepts."""
    return []


@pytest.fixture
async def link(path: Path, refused: list[tuple[str, str]]) -> AsyncIterator[Link]:
    async def resolve(ask: Ask) -> Answer:
        if ask.host.endswith(".a.localhost"):
            return Answer.control("page", 1.0)
        return Answer.worker("d", ["127.0.0.1:1", "127.0.0.1:2"], login=False, keep=True)

    apps = {"apps": {"a": "a.localhost"}, "domain": "localhost"}
    link = Link(resolve, lambda: apps, drain_timeout=PATIENCE, refused=lambda *told: refused.append(told))
    await link.start(path)
    yield link
    await link.close()


async def test_a_router_is_told_which_apps_there_are_and_how_long_an_answer_holds(
    link: Link, path: Path
) -> None:
    router = Router("one")
    await router.connect(path)
    assert await router.heard() == {"forget_all": True}
    assert await router.heard() == {"apps": {"a": "a.localhost"}, "domain": "localhost"}
    router.say({"ask": 1, "host": "x.a.localhost", "intent": "wait"})
    assert await router.heard() == {"answer": 1, "route": {"to": "control", "reason": "page"}, "keep": 1.0}


async def test_counts_of_all_routers_are_added_up(link: Link, path: Path) -> None:
    one, two = Router("one"), Router("two")
    await one.connect(path)
    await two.connect(path)
    one.tell("d", requests=3, errors=1, open=1, last=5.0, answers=[0, 2], failed={"502": 1}, latency=[2])
    two.tell(
        "d", requests=4, sockets=2, last=9.0, answers=[0, 1, 3], failed={"499": 1, "502": 2}, latency=[0, 4]
    )
    await until(lambda: link.activity("d").requests == 7)
    assert link.activity("d") == Activity(
        requests=7, errors=1, open=1, sockets=2, last=9.0,
        answers=[0, 3, 3], failed={"502": 3, "499": 1}, latency=[2, 4],
    )  # fmt: skip
    assert link.activity("unknown") == Activity()


async def test_a_router_that_lost_the_line_is_not_counted_twice(link: Link, path: Path) -> None:
    router = Router("one")
    await router.connect(path)
    router.tell("d", requests=3, open=2)
    await until(lambda: link.activity("d").requests == 3)
    router.writer.close()
    await until(lambda: link.activity("d").open == 0)
    assert link.activity("d").requests == 3
    await router.connect(path)
    router.tell("d", requests=5, open=1)
    await until(lambda: link.activity("d") == Activity(requests=5, open=1, answers=[], latency=[]))


async def test_one_that_is_back_before_its_old_line_is_noticed_as_gone_is_not_counted_twice(
    link: Link, path: Path
) -> None:
    before, after = Router("one"), Router("one")
    await before.connect(path)
    before.tell("d", requests=3)
    await until(lambda: link.activity("d").requests == 3)
    await after.connect(path)
    after.tell("d", requests=4)
    await until(lambda: link.activity("d").requests == 4)
    before.tell("d", requests=3)  # it was on its way
    before.writer.close()
    after.tell("e", requests=1)
    await until(lambda: link.activity("e").requests == 1)
    assert link.activity("d").requests == 4


async def test_counts_of_routers_that_are_gone_stay_however_many_there_were(link: Link, path: Path) -> None:
    for number in range(40):
        router = Router(str(number))
        await router.connect(path)
        router.tell("d", requests=1, latency=[1])
        await until(lambda so_far=number + 1: link.activity("d").requests == so_far)
        router.writer.close()
    assert link.activity("d").latency == [40]
    assert len(link._past) <= 18


async def test_what_a_newer_router_tells_besides_is_left_out(link: Link, path: Path) -> None:
    router = Router("newer")
    await router.connect(path)
    router.tell("d", requests=1, retries=5)
    await until(lambda: link.activity("d").requests == 1)


async def test_a_route_names_all_workers_and_the_first_for_routers_of_the_version_before(
    link: Link, path: Path
) -> None:
    router = Router("one")
    await router.connect(path)
    assert await router.route("x.localhost") == {
        "to": "worker",
        "deployment": "d",
        "address": "127.0.0.1:1",
        "addresses": ["127.0.0.1:1", "127.0.0.1:2"],
        "login": False,
    }


async def test_a_deployment_has_moved_when_all_routers_have_drained_those_that_know_the_word_or_not(
    link: Link, path: Path
) -> None:
    routers = Routers()
    await routers.connect(path)
    moving = asyncio.create_task(link.move("d", ["127.0.0.1:2", "127.0.0.1:3"]))
    moved = await routers.new.heard()
    assert moved == {"move": "d", "addresses": ["127.0.0.1:2", "127.0.0.1:3"], "drain": moved["drain"]}
    forgotten = await routers.old.heard()
    assert forgotten == {"forget": "d", "drain": forgotten["drain"]}
    routers.new.say({"drained": moved["drain"]})
    routers.new.tell("d", requests=1)
    await until(lambda: link.activity("d").requests == 1)
    assert not moving.done()
    routers.old.say({"drained": forgotten["drain"]})
    await moving
    later = Router("later", moves=True)
    await later.connect(path)
    learned = [await later.heard() for _ in range(3)][-1]["learn"]
    assert set(learned) == {"new.localhost", "old.localhost"}
    for route in learned.values():
        assert (route["address"], route["addresses"]) == ("127.0.0.1:2", ["127.0.0.1:2", "127.0.0.1:3"])


async def test_a_deployment_that_has_no_address_any_more_is_forgotten(link: Link, path: Path) -> None:
    routers = Routers()
    await routers.connect(path)
    moving = asyncio.create_task(link.move("d", []))
    for router in (routers.new, routers.old):
        assert (heard := await router.heard()).pop("drain")
        assert heard == {"forget": "d"}
        router.writer.close()
    await moving  # who is gone has nothing on its way
    later = Router("later", moves=True)
    await later.connect(path)
    assert await later.heard() == {"forget_all": True}
    assert "apps" in await later.heard()
    later.say({"ask": 1, "host": "x.a.localhost", "intent": "wait"})
    assert "answer" in await later.heard()  # there was nothing to learn


async def test_a_move_waits_for_no_router_longer_than_the_drain_timeout(path: Path) -> None:
    async def resolve(ask: Ask) -> Answer:
        return Answer.control("page")

    link = Link(resolve, lambda: {"apps": {}, "domain": "localhost"}, drain_timeout=0.05)
    await link.start(path)
    router = Router("hangs", moves=True)
    await router.connect(path)
    await until(lambda: any(each.moves for each in link._routers))
    async with asyncio.timeout(PATIENCE):
        await link.move("d", ["127.0.0.1:2"])
    await link.close()


async def test_what_a_router_tells_of_a_refusal_is_passed_on(
    link: Link, path: Path, refused: list[tuple[str, str]]
) -> None:
    router = Router("one")
    await router.connect(path)
    router.say({"refused": "127.0.0.1:2", "deployment": "d"})
    await until(lambda: refused == [("d", "127.0.0.1:2")])
