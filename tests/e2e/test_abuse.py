"""Apps that take all they can get: the neighbours go on, the culprit is named, and nothing of it is left.

Each of them has its limits, and the tests look that those are there before they ask for the abuse.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lazycloud.walls.groups import Groups
from lazycloud.walls.ports import missing
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server

MB = 1_000_000
GREEDY = (Path(__file__).parents[1] / "apps" / "greedy.py").read_text()
SETTINGS = """
[workers]
memory = "150 MB"
processes = 100
disk = "60 MB"
log = "4 MB"
"""
HOSTILE = """
import http.server, json, os, socket

def attempt(what, host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.settimeout(60)
        try:
            getattr(one, what)((host, port))
        except OSError as problem:
            return problem.strerror
        return "done"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([attempt(*one) for one in json.loads(bytes.fromhex(self.path[1:]))]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


class Abuse:
    """A server with a well-behaved production, `neighbour`, and a greedy commit, both of which answer."""

    def __init__(self, server: Server, greedy: str) -> None:
        self.server = server
        self.greedy = greedy
        self.groups = Groups(server.home)
        self.parts = {one.pid for one in psutil.Process(server.process.pid).children()}

    async def quiet(self) -> float:
        """The neighbour's usual seconds for an answer, the median."""
        return statistics.median([await self._once() for _ in range(20)])

    async def neighbour_during(self, path: str) -> tuple[float, float]:
        """Ask for abuse, and the neighbour all the while; its median and its longest time until nothing is left.

        The culprit may be started again by then, in another group.
        """
        held = self.groups_of(self.greedy)
        assert held
        abuse = asyncio.create_task(self.server.get(self.greedy, path))
        took = []
        async with asyncio.timeout(2 * PATIENCE):
            while any(place.exists() for place in held):
                took.append(await self._once())
        abuse.cancel()
        await asyncio.gather(abuse, return_exceptions=True)
        return statistics.median(took or [0.0]), max(took, default=0.0)

    async def culprit(self) -> Any:
        return await self.server.inspect(self.greedy)

    def held(self) -> None:
        """Without its limits nobody is to be let loose."""
        assert set(self.groups.bases) >= {"memory", "pids", "cpu"}
        assert len(self.groups_of(self.greedy)) == len(set(self.groups.bases.values()))

    def groups_of(self, commit: str) -> list[Path]:
        bases = set(self.groups.bases.values())
        return [place for base in bases for place in base.glob(f"shop-{commit[:30]}*/")]

    async def _once(self) -> float:
        began = time.monotonic()
        answer = await self.server.get()
        assert answer.status == 200 and answer.json["name"] == "neighbour"
        return time.monotonic() - began


@pytest.fixture
async def abuse(
    up: Up, checkout: Checkout, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Abuse]:
    """With the walls that are usual here, or those of the fixture's parameter."""
    if set(Groups(tmp_path / "home", purpose="test").bases) < {"memory", "pids", "cpu"}:
        pytest.skip("no control groups can be made here")
    Groups(tmp_path / "home", purpose="test").close()
    neighbour = checkout.commit(counter("neighbour"))
    greedy = checkout.commit({"app.py": GREEDY, "Procfile": "web: python app.py\n"})
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(SETTINGS)
    walls = {"LAZYCLOUD_ISOLATION": getattr(request, "param", "auto")}
    server = up(checkout.path, "--production", neighbour, **walls)
    made = Abuse(server, greedy)
    assert await server.named("neighbour")
    assert (await server.get(greedy, "/")).text == "well"
    made.held()
    yield made
    bases = list(made.groups.bases.values())
    assert {one.pid for one in psutil.Process(server.process.pid).children()} >= made.parts
    server.stop()
    assert not any(base.exists() for base in bases)


def fair(median: float, longest: float, quiet: float) -> None:
    """Generous, for machines that do other things too: a neighbour that starves waits as long as the abuse lasts."""
    assert median < max(20 * quiet, 2)
    assert longest < PATIENCE / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/memory", "it reached its limit of memory (150 MB)"),
        ("/fork", "it went on forking at its limit of 100 processes"),
        ("/disk", "its data took more than the limit of disk (60 MB)"),
    ],
)
async def test_who_takes_too_much_is_ended_and_named_and_hurts_nobody(
    abuse: Abuse, path: str, why: str
) -> None:
    quiet = await abuse.quiet()
    median, longest = await abuse.neighbour_during(path)
    fair(median, longest, quiet)
    await abuse.server.told(f"was ended because {why}")
    if path == "/disk":
        await who_fills_its_data_is_told_how_to_go_on(abuse)
    assert await abuse.server.named("neighbour")


async def who_fills_its_data_is_told_how_to_go_on(abuse: Abuse) -> None:
    """What is full is as full for the next worker: it is started again only when somebody asks for that."""
    server, words = abuse.server, ["--app", "shop"]

    async def has_failed(attempt: int) -> bool:
        found = await abuse.culprit()
        assert found["attempt"] <= attempt
        return found["attempt"] == attempt and found["state"] == "failed"

    await server.until(lambda: has_failed(1))
    failure = (await abuse.culprit())["failure"]
    assert "its data took more than the limit of disk (60 MB)" in failure["sentence"]
    short = abuse.greedy[:10]
    assert f"`lazycloud run {short} -- rm …`" in failure["advice"]
    assert f"`lazycloud data reset {short}`" in failure["advice"]
    assert "`disk` under [workers]" in failure["advice"]
    assert (await server.get(abuse.greedy, "/")).status >= 500  # a visit is no reason to try again
    await server.verb("deploy", abuse.greedy, *words, code=None)
    await server.until(lambda: has_failed(2))
    await server.verb("run", abuse.greedy, *words, "--", "sh", "-c", "rm $DATA_DIR/filler")
    await server.verb("deploy", abuse.greedy, *words)
    assert (await server.get(abuse.greedy, "/")).text == "well"


@pytest.mark.slow
async def test_who_writes_without_end_fills_no_disk_and_hurts_nobody(abuse: Abuse) -> None:
    quiet, server = await abuse.quiet(), abuse.server
    (log,) = (server.home / "apps" / "shop" / "logs").glob(f"*{abuse.greedy}*worker*")
    await server.get(abuse.greedy, "/log")
    took, takes, most, began = [], [], 0, time.monotonic()
    async with asyncio.timeout(3 * PATIENCE):  # a slow disk takes its time
        while log.stat().st_size < max(
            250 * MB, 3 * most
        ):  # how much goes by between two looks, the disk says
            took.append(await abuse._once())
            takes.append(log.stat().st_blocks * 512)
            most = max(most, takes[-1])
    rate = log.stat().st_size / (time.monotonic() - began)
    assert statistics.median(takes) < 4 * MB + 0.06 * rate  # bytes; by a look each quarter of a second, 0.125
    fair(statistics.median(took), max(took), quiet)
    assert (await server.get(abuse.greedy, "/")).text == "well"
    await server.verb("stop", abuse.greedy, "--app", "shop")
    server.wait(lambda: log.stat().st_blocks * 512 <= 4 * MB, "end of the flood")
    shown = await server.verb("logs", abuse.greedy, "--app", "shop")
    assert "a line that says nothing" in shown and "\0" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("abuse", ["none"], indirect=True)  # a sandbox takes its processes along anyway
async def test_daemons_of_a_worker_end_with_it_also_when_control_was_killed(abuse: Abuse) -> None:
    server = abuse.server
    daemon = int((await server.get(abuse.greedy, "/daemon")).text)
    assert psutil.pid_exists(daemon)
    control = server.children()["control"]
    greedy = [one for one in server.workers() if one.environ().get("COMMIT_ID") == abuse.greedy]
    (worker,) = [one for one in greedy if one.pid != daemon]
    control.kill()
    worker.kill()
    await asyncio.to_thread(control.wait, PATIENCE)

    async def is_gone() -> bool:
        return not psutil.pid_exists(daemon)

    await server.until(is_gone)
    assert await server.named("neighbour")
    abuse.parts = {one.pid for one in psutil.Process(server.process.pid).children()}


@pytest.mark.slow
async def test_a_hostile_app_uses_no_port_of_others(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    groups = Groups(tmp_path, purpose="test")
    why = missing(groups)
    groups.close()
    if why:
        pytest.skip(f"no wall between ports: {why}")
    neighbour = checkout.commit(counter("neighbour"))
    hostile = checkout.commit({"app.py": HOSTILE, "Procfile": "web: python app.py\n"})
    server = up(checkout.path, "--production", neighbour)
    port = int((await server.get()).json["environment"]["PORT"])
    hosts = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0")
    wanted: list[tuple[str, str, int]] = [("connect", host, port) for host in hosts]
    wanted += [
        ("bind", host, one) for host in ("127.0.0.1", "0.0.0.0") for one in (port, port + 1, server.port)
    ]
    assert await attempts(server, hostile, *wanted) == ["Operation not permitted"] * len(wanted)
    assert await attempts(server, hostile, ("connect", "127.0.0.1", server.port)) == ["done"]


async def attempts(server: Server, hostile: str, *wanted: tuple[str, str, int]) -> Any:
    return (await server.get(hostile, "/" + json.dumps(wanted).encode().hex())).json
