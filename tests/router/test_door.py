"""A router that runs out of file descriptors serves whom it accepted, and lets the others wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

from .stage import Conversation, Router, Wire, get, saying, sized

LIMIT = 96  # descriptors


async def test_more_clients_than_descriptors_wait_and_are_all_served(start, serve) -> None:
    router = await start(descriptors=LIMIT)
    await serve(saying(sized()))
    assert (await router.get()).status == 200

    async def one() -> int:
        wire = await router.connect()
        await asyncio.sleep(0)
        await wire.send(get())
        status = (await wire.answer()).status
        wire.close()
        return status

    statuses = await asyncio.gather(*(one() for _ in range(5 * LIMIT)))
    assert statuses == [200] * (5 * LIMIT)


async def test_requests_in_flight_keep_their_descriptors_and_others_wait_without_burning_the_processor(
    start, serve
) -> None:
    async def handle(talk: Conversation) -> None:
        while True:
            await talk.request()
            await finish.wait()
            await talk.send(sized(b"finished"))

    finish = asyncio.Event()
    router = await start(descriptors=LIMIT)
    worker = await serve(handle)
    wires = [await asked(router) for _ in range(2 * LIMIT)]
    await until(lambda: len(worker.heads) >= 20)
    await until(lambda: is_shut(router))
    process = psutil.Process(router.process.pid)
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(1)  # what is measured is the quiet of a second
    assert sum(process.cpu_times()[:2]) - before < 0.3
    assert len(worker.heads) < LIMIT / 2
    finish.set()
    answers = []
    for wire in wires:  # each makes room for others
        answers.append((await wire.answer()).body)
        wire.close()
    assert answers == [b"finished"] * (2 * LIMIT)


@pytest.mark.slow
async def test_connections_that_are_idle_do_not_shut_others_out(start, serve) -> None:
    router = await start(descriptors=LIMIT)
    await serve(saying(sized()))
    idle = [await router.connect() for _ in range(LIMIT // 2)]
    assert (await router.get()).status == 200
    for wire in idle:
        wire.close()


async def test_as_many_descriptors_are_used_as_the_process_may_have(start) -> None:
    router = await start(descriptors=LIMIT)
    limits = Path(f"/proc/{router.process.pid}/limits")
    await until(lambda: limits.read_text().partition("Max open files")[2].split()[0] == str(LIMIT))


async def asked(router: Router) -> Wire:
    wire = await router.connect()
    await wire.send(get())
    return wire


def is_shut(router: Router) -> bool:
    """Whether nobody accepts: the listening socket is not polled."""
    folder = Path(f"/proc/{router.process.pid}")
    listeners = [
        each
        for each in psutil.Process(router.process.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    polled = {
        int(line.split()[1])
        for path in (folder / "fdinfo").iterdir()
        for line in path.read_text().splitlines()
        if line.startswith("tfd:")
    }
    return not polled & {each.fd for each in listeners}
