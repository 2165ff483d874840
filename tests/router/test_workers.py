"""Several workers behind one route: who gets a request, and how requests leave one that is to be stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from lazycloud.router.activity import Count
from tests.waiting import until

from .stage import Control, Conversation, Router, Server, Wire, get, sized, to_workers

HANDSHAKE = get(Connection="Upgrade", Upgrade="websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Worker(Server):
    """Answers with its name, for /slow once `finish` is set, and accepts websockets."""

    def __init__(self, name: bytes) -> None:
        super().__init__(self._talk)
        self._name = name
        self.finish = asyncio.Event()

    async def _talk(self, talk: Conversation) -> None:
        while head := await talk.request():
            if b"Upgrade: websocket" in head:
                await talk.send(SWITCHED)
                await talk.rest()
                return
            if b" /slow " in head:
                await self.finish.wait()
            await talk.send(sized(self._name))


@pytest.fixture
async def workers() -> AsyncIterator[list[Worker]]:
    workers = [Worker(name) for name in (b"a", b"b", b"c")]
    for worker in workers:
        await worker.start()
    yield workers
    for worker in workers:
        await worker.stop()


@pytest.fixture
def lead(control: Control) -> Callable[..., None]:
    """Says where app.localhost leads when it is asked for."""

    def to(*workers: Worker | str) -> None:
        control.routes["app.localhost"] = to_workers([address_of(worker) for worker in workers])

    return to


def address_of(worker: Worker | str) -> str:
    return worker if isinstance(worker, str) else worker.address


async def move(control: Control, name: str, *workers: Worker | str) -> None:
    """Returns when the router knows; `name` is what it says when it has drained."""
    addresses = [address_of(worker) for worker in workers]
    control.say({"move": "d1", "addresses": addresses, "drain": name})
    control.say({"forget": "unknown", "drain": f"{name} is known"})
    await until(lambda: f"{name} is known" in drained(control))


def drained(control: Control) -> list[str]:
    return [message["drained"] for message in control.said("drained")]


async def who(router: Router, times: int) -> list[bytes]:
    return [(await router.get()).body for _ in range(times)]


async def slow(router: Router) -> Wire:
    wire = await router.connect()
    await wire.send(get(path="/slow"))
    return wire


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


async def test_workers_with_equally_much_to_do_get_requests_in_turn(router, workers, lead) -> None:
    lead(*workers)
    said = await who(router, 9)
    assert sorted(said[:3]) == [b"a", b"b", b"c"]
    assert said == said[:3] * 3


async def test_the_worker_with_the_fewest_requests_in_flight_gets_the_next(router, workers, lead) -> None:
    lead(*workers)
    waiting = [await slow(router) for _ in range(2)]
    await until(lambda: sum(len(worker.heads) for worker in workers) == 2)
    (free,) = [worker for worker in workers if not worker.heads]
    assert set(await who(router, 5)) == {free._name}
    for worker in workers:
        worker.finish.set()
    for wire in waiting:
        await wire.answer()
    assert set(await who(router, 3)) == {b"a", b"b", b"c"}


async def test_an_open_websocket_is_in_flight_until_it_ends(router, workers, lead) -> None:
    one, two, _ = workers
    lead(one, two)
    wire = await router.connect()
    await wire.send(HANDSHAKE)
    await wire.head()
    (busy,) = [worker for worker in (one, two) if worker.heads]
    assert set(await who(router, 4)) == {b"a", b"b"} - {busy._name}
    wire.close()
    await until(busy.connections[0].reader.at_eof)
    assert set(await who(router, 4)) == {b"a", b"b"}


async def test_a_request_goes_past_a_worker_that_refuses_and_control_is_told(
    router, control, workers, lead, nobody
) -> None:
    lead(nobody, workers[0], workers[1])
    assert set(await who(router, 8)) == {b"a", b"b"}
    assert await control.wait_for("refused") == {"refused": nobody, "deployment": "d1"}
    assert len(control.said("refused")) == 1  # others were chosen first from then on
    assert len(control.said("ask")) == 1
    body = b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5\r\n\r\nhello"
    await move(control, "moved", nobody.replace("127.0.0.1", "127.0.0.2"), workers[2])
    assert [(await router.ask(body)).body for _ in range(2)] == [b"c", b"c"]


async def test_when_all_workers_refuse_control_is_asked_and_nobody_is_there_only_then(
    router, control, workers, lead, nobody
) -> None:
    other = nobody.replace("127.0.0.1", "127.0.0.2")
    lead(nobody, other)
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")
    assert len(control.said("ask")) == 2
    assert control.said("ask")[1]["dead"] in (nobody, other)
    lead(nobody, workers[0])
    assert (await router.get()).body == b"a"


async def test_a_moved_deployment_is_drained_when_its_other_workers_have_no_request(
    router, control, workers, lead
) -> None:
    one, two, three = workers
    lead(one)
    waiting = await slow(router)
    await until(lambda: one.heads)
    lead(one, two)  # should it be asked again
    await move(control, "one more", one, two)
    assert "one more" in drained(control)
    assert await who(router, 1) == [b"b"]
    await move(control, "one goes", two, three)
    assert set(await who(router, 4)) == {b"b", b"c"}
    assert "one goes" not in drained(control)
    one.finish.set()
    assert (await waiting.answer()).body == b"a"
    await until(lambda: "one goes" in drained(control))
    await until(one.connections[0].reader.at_eof)  # nothing is kept idle there
    assert len(control.said("ask")) == 1
    await until(lambda: control.activity("d1").get("open") == 0)


async def test_requests_at_the_workers_that_stay_do_not_hold_up_a_move(
    router, control, workers, lead
) -> None:
    one, two, _ = workers
    lead(one, two)
    waiting = [await slow(router) for _ in range(2)]
    await until(lambda: one.heads and two.heads)
    await move(control, "one stays", one)
    two_more = [await slow(router) for _ in range(2)]
    await until(lambda: len(one.heads) == 3)
    assert "one stays" not in drained(control)
    two.finish.set()
    await until(lambda: "one stays" in drained(control))
    one.finish.set()
    for wire in waiting + two_more:
        await wire.answer()


async def test_to_move_to_no_address_is_to_forget(router, control, workers, lead) -> None:
    lead(workers[0])
    assert await who(router, 1) == [b"a"]
    lead(workers[1])
    await move(control, "away")
    assert await who(router, 1) == [b"b"]
    assert len(control.said("ask")) == 2


async def test_a_request_that_is_refused_goes_where_its_deployment_has_moved_meanwhile(
    start: Callable[..., Awaitable[Router]], control, workers, lead
) -> None:
    with socket.socket() as full:  # its backlog is full: who connects there has to wait
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()):
            router = await start(connect_timeout=2)  # till then it has to have moved
            lead(address)
            asking = asyncio.create_task(router.get())
            await until(lambda: control.said("ask"))
            await move(control, "moved", workers[0])
            assert (await asking).body == b"a"
    await until(lambda: "moved" in drained(control))


async def test_addresses_of_the_version_before_are_understood(router, control, workers) -> None:
    control.routes["app.localhost"] = {"to": "worker", "deployment": "d1", "address": workers[0].address}
    assert await who(router, 2) == [b"a", b"a"]
    await control.wait_for("hello")
    assert control.said("hello")[0]["hello"]["moves"] is True


def test_a_worker_that_is_gone_is_not_remembered() -> None:
    count = Count()
    for number in range(100):
        load = count.choose((f"127.0.0.1:{number}", "127.0.0.1:1000"), (), 0.0)
    load.open = 1
    assert len(count.loads) == 2
    assert count.choose(("127.0.0.1:2000",), (), 0.0).address == "127.0.0.1:2000"
    assert set(count.loads) == {load.address, "127.0.0.1:2000"}


def test_one_that_refused_is_chosen_again_after_a_while_or_when_there_is_no_other() -> None:
    count, both = Count(), ("127.0.0.1:1", "127.0.0.1:2")
    count.choose(both, (), 0.0)
    one, two = count.loads.values()
    one.refused(10.0)
    two.open = 3
    assert {count.choose(both, (), 11.0) for _ in range(3)} == {two}
    assert {count.choose(both, (), 60.0) for _ in range(3)} == {one}
    assert {count.choose(both, (one.address,), 60.0) for _ in range(3)} == {two}
    assert count.choose((one.address,), (one.address,), 11.0) is one
