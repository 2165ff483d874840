"""A running server is replaced by what is installed and configured now, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, UNWALLED, Server
from tests.router.stage import Wire, get

APP = """
import asyncio, os, re, time

while not os.path.exists({flag!r}):
    time.sleep(0.02)
finish = asyncio.Event()

async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        path = head.split()[1]
        length = int(re.search(rb"content-length: (\\d+)|$", head, re.I)[1] or 0)
        if path == b"/socket":
            writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\n")
            writer.write(b"Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n")
            while data := await reader.read(65536):
                writer.write(data)
            return writer.close()
        if path == b"/download":
            writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
            while not finish.is_set():
                writer.write(b"5\\r\\nhello\\r\\n")
                await asyncio.sleep(0.05)
            writer.write(b"0\\r\\n\\r\\n")
            continue
        if path == b"/finish":
            finish.set()
        body = b"%d %d" % (os.getpid(), len(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))

async def main():
    async with await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def app(flag: Path) -> dict[str, str]:
    """Listens once the flag exists; echoes on /socket, sends on /download until somebody asks for /finish."""
    return {"app.py": APP.format(flag=str(flag)), "Procfile": "web: python app.py\n"}


def generation(server: Server) -> dict[str, int | str | list[int]]:
    return json.loads((server.home / "run/generation").read_text())


class Load:
    """Clients that ask all the time. `statuses` counts what they got; one that is cut or refused is an error."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[int] = Counter()
        self.connections = 0

    async def connect(self) -> Wire:
        self.connections += 1
        return Wire(*await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20))

    async def fresh(self) -> None:
        """A connection for each request."""
        while True:
            wire = await self.connect()
            await wire.send(get("localhost", "/fresh"))
            self.statuses[(await wire.answer()).status] += 1
            wire.close()

    async def kept(self, pause: float, raw: bytes) -> None:
        """One connection, as long as the server keeps it."""
        wire = await self.connect()
        while True:
            await wire.send(raw)
            answer = await wire.answer()
            self.statuses[answer.status] += 1
            if answer.field("connection") == "close":
                assert await wire.rest() == b""
                wire = await self.connect()
            await asyncio.sleep(pause)

    async def verbs(self, server: Server) -> None:
        """The command line, whose requests go to control's own socket."""
        while True:
            await server.verb("ps")

    @contextlib.asynccontextmanager
    async def going_on(self, server: Server) -> AsyncIterator[None]:
        """While the block runs; raises what a client met."""
        post = b"POST /kept HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        async with asyncio.TaskGroup() as group:
            clients = [self.fresh(), self.fresh(), self.kept(0.01, post), self.kept(0.4, post)]
            clients += [self.kept(pause, get("localhost", "/kept")) for pause in (0.0, 0.01, 0.3)]
            clients += [self.kept(0.1, get(server.host("lazycloud"), "/login")), self.verbs(server)]
            tasks = [group.create_task(client) for client in clients]
            yield
            for task in tasks:
                task.cancel()


async def opened(load: Load, raw: bytes) -> Wire:
    """A connection on which this was sent."""
    wire = await load.connect()
    await wire.send(raw)
    return wire


@pytest.mark.slow
async def test_two_upgrades_under_load_refuse_and_cut_nobody(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    here, later = tmp_path / "here", tmp_path / "later"
    here.touch()
    cold = checkout.commit(app(later))
    checkout.commit(app(here))
    server = up(checkout.path, "--routers", "2", **UNWALLED)  # its apps look at files of the test
    await server.get()
    before, workers = generation(server), {worker.pid for worker in server.workers()}
    load = Load(server.port)
    socket = await opened(load, get("localhost", "/socket", Connection="Upgrade", Upgrade="websocket"))
    await socket.head()
    download = await opened(load, get("localhost", "/download"))
    await download.head()
    upload = await opened(load, b"POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
    held = await opened(load, get(server.host(cold)))
    await server.reaches(cold, "starting")
    async with load.going_on(server):
        for attempt in (1, 2):
            await upload.send(b"x" * 25000)
            os.kill(server.process.pid, signal.SIGHUP)
            await server.until(lambda attempt=attempt: arrived(server, attempt))
            await socket.send(b"still here")
            assert await socket.exactly(10) == b"still here"
    after = generation(server)
    assert (after["failed"], after["pid"]) == (False, server.process.pid)
    assert not {before["control"], *before["routers"]} & {after["control"], *after["routers"]}
    assert load.statuses.keys() == {200}
    assert load.statuses.total() > 100
    later.touch()
    assert (await held.answer()).status == 200
    await upload.send(b"x" * 50000)
    assert (await upload.answer()).body.split()[1] == b"100000"
    assert (await server.get("", "/finish")).status == 200
    chunks, _ = await download.chunks()
    assert set(chunks) == {b"hello"}
    assert workers <= {worker.pid for worker in server.workers()}
    for wire in (socket, download, upload):
        wire.close()
    await server.until(lambda: routers_are(server, after["routers"]))


async def arrived(server: Server, attempt: int) -> bool:
    return generation(server)["attempt"] == attempt


async def routers_are(server: Server, pids: object) -> bool:
    """Those that were replaced have gone, as their last connection has."""
    return sorted(each.pid for each in server.routers()) == sorted(pids)


async def test_upgrade_says_what_was_replaced_and_reads_the_settings_again(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("app"))
    server = up(checkout.path)
    await server.get()
    before = generation(server)
    (server.home / "config.toml").write_text('routers = 3\n[router]\nbody_max = "10 B"\n')
    said = await server.verb("upgrade")
    assert "control and 3 routers were replaced" in said
    after = generation(server)
    assert len(after["routers"]) == 3
    assert "lazycloud is replaced" in server.cli("events")
    assert "lazycloud stopped" not in server.cli("events")
    assert (await server.post("", "x" * 11)).status == 413
    assert (await server.post("", "x" * 10)).status == 201
    for wrong in ("ruoters = 2\n", '[router]\nbody_max = "much"\n'):
        (server.home / "config.toml").write_text(wrong)
        said = await server.verb("upgrade", code=1)
        assert "Nothing was replaced." in said
    assert generation(server)["control"] == after["control"] != before["control"]
    assert (await server.get()).status == 200


async def test_code_that_does_not_load_replaces_nothing(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(counter("app"))
    code = tmp_path / "code"
    code.mkdir()
    server = up(checkout.path, PYTHONPATH=str(code))
    await server.get()
    before = generation(server)
    (code / "uvloop.py").write_text("raise ImportError('half installed')\n")
    said = await server.verb("upgrade", code=1)
    assert "Nothing was replaced. ImportError: half installed" in said
    assert generation(server)["control"] == before["control"]
    assert (await server.get()).status == 200


async def test_upgrade_without_a_server_says_so(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert "No lazycloud server runs on" in await server.verb("upgrade", code=1)
    assert "on its own machine" in await server.verb("--server", "http://example.com", "upgrade", code=2)


@pytest.mark.slow
async def test_a_killed_router_is_started_again_and_nobody_is_refused(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("app"))
    server = up(checkout.path, "--routers", "2")
    await server.get()
    waiting: Counter[str] = Counter()

    async def fresh() -> None:
        """Its own connection may be cut by the kill; none is refused, and the next one is served."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            wire = Wire(reader, writer)
            try:
                await wire.send(get("localhost"))
                waiting[str((await wire.answer()).status)] += 1
            except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
                waiting["cut"] += 1
            wire.close()

    clients = [asyncio.create_task(fresh()) for _ in range(4)]
    for _ in range(2):
        victim, other = server.routers()
        victim.kill()
        served = waiting["200"]
        await server.until(lambda victim=victim: replaced(server, victim))
        await server.until(lambda served=served: more(waiting, served + 50))
        assert other.is_running()
    for client in clients:
        client.cancel()
    done = await asyncio.gather(*clients, return_exceptions=True)
    assert [problem for problem in done if not isinstance(problem, asyncio.CancelledError)] == []
    assert waiting["cut"] <= 8  # those that the killed router was serving
    assert set(waiting) <= {"200", "cut"}


async def replaced(server: Server, victim: psutil.Process) -> bool:
    routers = server.routers()
    return len(routers) == 2 and victim not in routers


async def more(counts: Counter[str], wanted: int) -> bool:
    return counts["200"] >= wanted


async def test_connections_are_spread_over_the_routers(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("app"))
    server = up(checkout.path, "--routers", "2")
    await server.get()
    load = Load(server.port)
    wires = [await load.connect() for _ in range(64)]

    async def all_are_accepted() -> bool:
        return sum(connections(server).values()) >= 64

    await server.until(all_are_accepted)
    fewer, _ = sorted(connections(server).values())
    assert fewer >= 12  # by chance alone, less than once in a million
    for wire in wires:
        wire.close()


def connections(server: Server) -> dict[int, int]:
    """Accepted connections by router."""
    return {
        router.pid: len(
            [
                each
                for each in router.net_connections("tcp")
                if each.laddr.port == server.port and each.status == psutil.CONN_ESTABLISHED
            ]
        )
        for router in server.routers()
    }


async def test_a_route_that_one_router_learned_all_of_them_know_while_control_hangs(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("app"))
    server = up(checkout.path, "--routers", "2")
    await server.get()
    control = server.children()["control"]
    control.suspend()
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(20):
                assert (await server.get()).status == 200
    finally:
        control.resume()
    assert (await server.get("lazycloud", "/login")).status == 200


def test_the_end_of_its_terminal_is_a_stop_and_no_upgrade(checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(counter("app"))
    ours, terminal = os.openpty()
    server = Server(tmp_path / "home", checkout.path)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for number in (0, 1, 2):
            os.dup2(terminal, number)
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        arguments = [sys.executable, "-m", "lazycloud", "up", *server.arguments, "--home", str(server.home)]
        os.execv(sys.executable, arguments)
    os.close(terminal)
    server.wait(lambda: (server.home / "run/generation").exists(), "start")
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not server.workers()
