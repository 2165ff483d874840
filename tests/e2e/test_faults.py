"""Processes that are killed or hang under steady load, in a whole server with two routers.

Every request ends in its answer or in a clean error with a reason, and control's counts are what the clients counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import PATIENCE, UNWALLED, Server
from tests.router.load import Load

APP = """
import asyncio, os

NOTE = os.open("{seen}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def handle(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            path = head.split(b" ")[1]
            if path == b"/pid":
                body = b"%d" % os.getpid()
            else:
                _, kind, number = path.split(b"/")
                if kind == b"echo":
                    await reader.readexactly(len(number))
                os.write(NOTE, number + b"\\n")
                body = (number + b" ") * (200_000 // (len(number) + 1) + 1 if kind == b"big" else 1)
                body = body[:200_000]
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()

async def main():
    server = await asyncio.start_server(handle, os.environ["HOST"], int(os.environ["PORT"]))
    await server.serve_forever()

asyncio.run(main())
"""
"""Answers what `Load` asks, and notes each number that it saw in a file."""

CLEAN = {"200", "cut", "502 router"}  # what a worker's death may do to what was on its way to it


def files(seen: Path) -> dict[str, str]:
    return {"app.py": APP.replace("{seen}", str(seen)), "Procfile": "web: python app.py\n"}


def routers(server: Server) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "lazycloud.router" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def more(load: Load, count: int = 100) -> None:
    """Until that many more requests were answered."""
    enough = load.counts["200"] + count
    async with asyncio.timeout(PATIENCE):
        while load.counts["200"] < enough:
            await asyncio.sleep(0.01)


async def counted(server: Server) -> dict[str, tuple[int, int]]:
    """Requests and errors by version, as control knows them."""
    return {row["version"]: (row["requests"], row["errors"]) for row in await server.api("ps")}


async def equal(server: Server, loads: dict[str, Load]) -> None:
    """Until control's counts are the clients'; what control itself answered never went to a worker."""
    for version, load in loads.items():
        ours = {what: count for what, count in load.counts.items() if "control" not in what}
        failed = sum(count for what, count in ours.items() if what == "cut" or what[0] == "5")
        wanted = (sum(ours.values()) + 1, failed)

        async def told(version: str = version, wanted: tuple[int, int] = wanted) -> bool:
            return (await counted(server)).get(version) == wanted

        try:
            await server.until(told)
        except TimeoutError:
            pytest.fail(f"{version}: control has {await counted(server)}, the clients {wanted}: {load}")


async def replaced(server: Server, name: str, old: psutil.Process) -> None:
    """Until another process has its place."""

    def is_new() -> bool:
        with contextlib.suppress(psutil.Error):
            return server.children().get(name) not in (None, old)
        return False

    await asyncio.to_thread(server.wait, is_new, f"new {name}")


@pytest.mark.slow
async def test_whatever_is_killed_under_load_every_request_is_answered_or_accounted_for(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    preview = checkout.commit(files(seen))
    checkout.commit({"more.txt": "production"})
    server = up(checkout.path, "--routers", "2", **UNWALLED)
    assert (await server.get(path="/pid")).status == 200
    (pid,) = {worker.pid for worker in server.workers()}
    await server.get(preview, "/pid")
    production, beside = Load(server.port, server.host()), Load(server.port, server.host(preview))
    async with production.going_on(), beside.going_on(3):
        await more(production)
        await a_hanging_worker(pid, production, beside)
        assert set(production.counts + beside.counts) == {"200"}
        await a_killed_worker(pid, production, beside)
        at = len(production.outcomes)
        await a_killed_control(server, production, beside)
        assert set(production.since(at)) == {"200"}
    assert set(production.counts) <= CLEAN, production
    assert set(beside.counts) == {"200"}
    await equal(server, {"production": production, preview: beside})
    told = Counter(int(number) for number in seen.read_text().split())
    for each in production.outcomes + beside.outcomes:
        assert told[each.ask.number] <= (2 if each.ask.idempotent else 1)
        assert told[each.ask.number] or each.what != "200"


async def a_hanging_worker(pid: int, load: Load, beside: Load) -> None:
    """Its requests wait; others' go on."""
    psutil.Process(pid).send_signal(signal.SIGSTOP)
    await more(beside)
    psutil.Process(pid).send_signal(signal.SIGCONT)
    await more(load)


async def a_killed_worker(pid: int, load: Load, beside: Load) -> None:
    """What was on its way fails at once; what comes after waits for the next worker."""
    at = len(load.outcomes)
    psutil.Process(pid).kill()
    await more(load)
    await more(beside)
    failed = [each.what for each in load.outcomes[at:] if each.what != "200"]
    # One a client; and one more that the kernel let connect just before the worker's socket was closed.
    assert len(failed) <= 12, failed


async def a_killed_control(server: Server, load: Load, beside: Load) -> None:
    """Nobody notices."""
    control = server.children()["control"]
    control.kill()
    await more(load)
    await replaced(server, "control", control)

    async def answers() -> bool:
        return (await server.get("lazycloud", "/login")).status == 200

    await server.until(answers)
    await more(load)
    await more(beside)


@pytest.mark.slow
async def test_a_router_that_is_killed_under_load_loses_only_what_it_was_at(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(files(tmp_path / "seen"))
    server = up(checkout.path, "--routers", "2", **UNWALLED)
    await server.get(path="/pid")
    load = Load(server.port, server.host())
    async with load.going_on():
        await more(load, 300)
        told = await requests(server)
        at = len(load.outcomes)
        routers(server)[0].kill()
        await more(load, 200)
        await asyncio.to_thread(server.wait, lambda: len(routers(server)) == 2, "new router")
        after = len(load.outcomes)
        await more(load, 200)
    assert set(load.since(after)) == {"200"}
    assert set(load.counts) <= {"200", "cut", "closed"}, load
    failed = load.counts["cut"] + load.counts["closed"]
    assert failed <= 6, load  # one a client
    # Of what it had done and not told, at most its last second, nobody knows.
    least, most = told + len(load.outcomes) - at - failed, len(load.outcomes) + 1

    async def rest_is_told() -> bool:
        return least <= await requests(server) <= most

    await server.until(rest_is_told)


async def requests(server: Server) -> int:
    """Production's, as control knows them."""
    return (await counted(server))["production"][0]
