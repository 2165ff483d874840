"""What routers tell control is added up once, whoever of them comes, goes and comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.control.link import Activity, Answer, Ask, Link

from ..router.stage import until


class Router:
    """The other end of the line."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def connect(self, path: Path) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(path)
        self.say({"hello": {"pid": 1, "name": self.name}})

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def tell(self, deployment: str, **counts: Any) -> None:
        self.say({"activity": {deployment: counts}})

    async def heard(self) -> dict[str, Any]:
        return dict(json.loads(await self.reader.readline()))


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "link"


@pytest.fixture
async def link(path: Path) -> AsyncIterator[Link]:
    async def resolve(ask: Ask) -> Answer:
        return Answer.control("page", 1.0)

    link = Link(resolve, lambda: {"apps": {"a": "a.localhost"}, "domain": "localhost"}, drain_timeout=5)
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
