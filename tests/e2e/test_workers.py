"""restart, scale and stop --all against real servers, and ps as it tells of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from lazycloud.config import Config
from lazycloud.leftovers import stored
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server

BACKGROUND = "import time\nwhile True: time.sleep(0.1)\n"
pytestmark = pytest.mark.slow

FILES = {
    **counter("good"),
    "clock.py": BACKGROUND,
    "Procfile": "web: python app.py\nclock: python clock.py\n",
}


async def processes(server: Server) -> dict[str, int]:
    """Of production, by name."""
    rows = await server.api("ps")
    return {each["name"]: each["pid"] for row in rows if row["production"] for each in row["processes"]}


async def runs(server: Server, count: int) -> bool:
    """Whether it has so many workers, of all commits."""
    return sum(len(row["processes"]) for row in await server.api("ps")) == count


def kill_server(server: Server) -> None:
    """Parent, control and routers at once; workers go on."""
    processes = [psutil.Process(server.process.pid), *server.children().values(), *server.routers()]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # one is there twice
            process.kill()
    server.process.wait()


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def test_workers_are_scaled_and_restarted_without_a_request_lost(up: Up, checkout: Checkout) -> None:
    checkout.commit(FILES)
    server = up(checkout.path)
    assert (await server.get()).status == 200
    said = await server.verb("scale", "production", "web=2", "clock=1", folder=checkout.path)
    assert "2 × web, 1 × clock" in said
    before = await processes(server)
    assert set(before) == {"web.1", "web.2", "clock.1"}
    assert "2 web, 1 clock" in await server.verb("ps")
    answers: list[int] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            answers.append((await server.get()).status)

    asking = asyncio.create_task(ask())
    said = await server.verb("restart", folder=checkout.path)
    done.set()
    await asking
    assert "Restarted web.1, web.2, clock.1." in said
    after = await processes(server)
    assert set(after) == set(before) and not set(after.values()) & set(before.values())
    assert set(answers) == {200}


async def test_what_cannot_be_scaled_or_restarted_is_told(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("earlier"))
    checkout.commit(FILES)
    server = up(checkout.path)
    assert (await server.get()).status == 200
    for words, said, code in (
        (("scale", "production", "wbe=2"), "no process “wbe”", 2),
        (("scale", "production", "web=0"), "web=0 cannot be", 2),
        (("scale", "production", "web"), "is no number of workers", 2),
        (("scale", "nonsense", "web=1"), "nonsense", 1),
        (("restart", "HEAD~1"), "does not run", 1),
        (("stop",), "What is to be stopped?", 2),
        (("stop", "HEAD", "--all"), "What is to be stopped?", 2),
    ):
        assert said in await server.verb(*words, folder=checkout.path, code=code)
    examined = json.loads(server.cli("doctor", "--json", code=None))["findings"]
    assert {"git", "disk", "limits"} <= {one["what"] for one in examined}
    assert "ports" not in {one["what"] for one in examined}  # which are its own
    place = "/api/apps/shop/scale"
    for body in ("[]", "{}", '{"ref": "production"}', '{"ref": "production", "counts": {"web": "2"}}'):
        headers = {"Authorization": server.authorization, "Content-Type": "application/json"}
        assert (await server.post("lazycloud", body, place, **headers)).status == 422, body


async def test_ps_lists_what_sleeps_only_when_asked_and_production_always(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("good"))
    failing = checkout.commit({"app.py": "raise SystemExit('no')"})
    server = up(checkout.path, "--production", failing)
    await server.verb("deploy", "HEAD~1", folder=checkout.path)
    await server.verb("stop", "HEAD~1", folder=checkout.path)
    await server.until(lambda: down(server))
    shown = server.cli("ps")
    assert "production" in shown and "exit status 1" in shown and "stopped" not in shown, shown
    everything = server.json("ps", "--all")
    assert [row["production"] for row in everything] == [True, False]
    assert everything[1]["state"] == "stopped"
    assert everything[1]["processes"] == []
    assert everything[0]["last_end"]["how"] == "ended with exit status 1"
    assert not everything[0]["last_end"]["expected"]

    async def none_runs() -> bool:  # production is tried again and again meanwhile
        return await server.api("ps") == []

    await server.until(none_runs)
    assert (await server.get("lazycloud", "/api/ps?also=x", Authorization=server.authorization)).status == 422


async def down(server: Server) -> bool:
    return (await server.inspect("production"))["state"] in ("failed", "restarting")


async def test_ps_of_a_worker_that_is_not_ready_yet_counts_from_its_own_start(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit({"Procfile": "web: sleep 1000\n"})
    began = time.time()
    server = up(checkout.path)
    await server.until(lambda: has_worker(server))
    (row,) = await server.api("ps")
    assert row["state"] == "starting"
    assert began <= row["since"] <= time.time()
    assert 0 <= row["idle"] <= time.time() - began
    assert "production, starting" in server.cli("ps")


async def has_worker(server: Server) -> bool:
    return any(row["pid"] for row in await server.api("ps"))


def test_a_listing_of_an_app_that_is_not_there_is_refused(shared: Server) -> None:
    for verb in ("ps", "events"):
        assert "No app is called “nothere” here." in shared.cli(verb, "--app", "nothere", code=1)


async def test_stop_all_stops_previews_and_no_production(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("earlier"))
    checkout.commit(counter("good"))
    server = up(checkout.path)
    assert (await server.get()).status == 200
    for commit in ("HEAD", "HEAD~1"):
        await server.verb("deploy", commit, folder=checkout.path)
    assert "Stopped 2 previews." in await server.verb("stop", "--all")
    assert [row["production"] for row in await server.api("ps")] == [True]


@pytest.mark.parametrize("isolation", ["auto", "none"])
async def test_stop_all_ends_what_a_server_that_is_gone_has_left(
    up: Up, checkout: Checkout, isolation: str, tmp_path: Path
) -> None:
    forks = (
        "import subprocess, sys\nsubprocess.Popen(['setsid', 'sleep', '1000'])\n" + counter("good")["app.py"]
    )
    checkout.commit({**FILES, "app.py": forks})
    server = up(checkout.path, LAZYCLOUD_ISOLATION=isolation)
    assert (await server.get()).status == 200
    await server.verb("deploy", "HEAD", folder=checkout.path)
    await server.until(lambda: runs(server, 3))
    everything = psutil.Process(server.process.pid).children(recursive=True)
    kill_server(server)
    assert len(server.workers()) >= 3
    stranger = await asyncio.create_subprocess_exec(
        "sleep", "1000", env=os.environ | {"DATA_DIR": "/elsewhere/x"}
    )
    said = await server.verb("stop", "--all")
    assert re.search(r"Ended [23] workers", said), said  # one may not have been written down yet
    assert server.workers() == []
    assert list((server.home / "scratch").iterdir()) == []
    server.wait(lambda: not any(map(is_alive, everything)), "end of all that it had started")
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()
    assert "Ended 0 workers" in await server.verb("stop", "--all")
    again = up(checkout.path, LAZYCLOUD_ISOLATION=isolation)
    assert (await again.get()).status == 200


async def test_stop_all_leaves_a_pid_alone_that_is_somebody_elses(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("good"))
    server = up(checkout.path)
    assert (await server.get()).status == 200
    kill_server(server)
    for worker in server.workers():
        worker.kill()

    (record,) = stored(Config(home=server.home))
    assert record.pid > 0
    somebody = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    with sqlite3.connect(server.home / "state.sqlite") as state:
        (text,) = state.execute("SELECT worker FROM deployments WHERE worker LIKE '%pid%'").fetchone()
        changed = text.replace(f'"pid": {record.pid}', f'"pid": {somebody.pid}')
        assert changed != text
        state.execute("UPDATE deployments SET worker = ? WHERE worker = ?", (changed, text))
    assert "Ended 0 workers" in await server.verb("stop", "--all")
    assert somebody.returncode is None
    somebody.kill()
    await somebody.wait()


def test_stop_all_of_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    assert "is no home" in server.cli("stop", "--all", "--home", str(tmp_path / "nothing"), code=1)
    assert list((tmp_path / "nothing").iterdir()) == []
