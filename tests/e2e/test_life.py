"""The life of workers in a whole server: several of one commit, crashes, hangs, sleep, background processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server

CLOCK = """
import os, signal, sys, time
place = os.path.join(os.environ["DATA_DIR"], "clock")
with open(place, "a") as file:
    file.write(f"begin {os.getpid()} {os.environ['COMMIT_ID']} {os.environ.get('PORT')}\\n")
def end(*_):
    with open(place, "a") as file:
        file.write(f"end {os.getpid()} {os.environ['COMMIT_ID']}\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(60)
"""
"""A background process that notes when it begins and ends."""

HEALTHY = '[run]\nhealth = "/"\nhealth_interval = 0.1\nhealth_timeout = 2\nstop_timeout = 1\n'


async def process(server: Server) -> int:
    """Production's pid, as the machine has it."""
    row = await row_of(server, production=True)
    return row["processes"][0]["pid"]


async def row_of(server: Server, **wanted: Any) -> dict[str, Any]:
    rows = [
        row for row in await server.api("ps") if all(row[name] == value for name, value in wanted.items())
    ]
    return rows[0] if rows else {}


async def test_two_workers_share_the_requests_and_one_that_is_killed_is_replaced(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one", **{"lazycloud.toml": "[run]\nworkers = 2\n"}))
    server = up(checkout.path)
    assert (await server.get()).status == 200
    row = await row_of(server, production=True)
    assert [one["name"] for one in row["processes"]] == ["web.1", "web.2"]
    seen: set[str] = set()

    async def both_serve() -> bool:
        seen.add((await server.get()).json["environment"]["LAZYCLOUD_WORKER"])
        return seen == {"web.1", "web.2"}

    await server.until(both_serve)
    killed = psutil.Process(row["processes"][0]["pid"])
    killed.kill()
    killed.wait(PATIENCE)
    answers = [await server.get() for _ in range(10)]
    assert {answer.status for answer in answers} == {200}  # the other one goes on

    async def is_mended() -> bool:
        now = await row_of(server, production=True)
        return len(now["processes"]) == 2 and now["restarts"] == 1

    await server.until(is_mended)
    (first,) = [one for one in (await row_of(server, production=True))["processes"] if one["name"] == "web.1"]
    assert "SIGKILL" in first["ended"]
    assert (await row_of(server, production=True))["state"] == "ready"


async def test_production_whose_only_worker_is_killed_is_there_again_and_says_so(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    killed = psutil.Process(await process(server))
    killed.kill()
    killed.wait(PATIENCE)
    assert (await server.get()).status == 200
    row = await row_of(server, production=True)
    assert row["restarts"] == 1 and "SIGKILL" in row["last_end"]["how"]
    assert await process(server) != killed.pid


async def test_a_preview_that_crashes_again_and_again_is_left_alone_and_says_why(
    up: Up, checkout: Checkout
) -> None:
    dying = counter("dying")
    dying["app.py"] = dying["app.py"].replace(
        "def do_POST(self):", "def do_POST(self):\n        print('the end is near', flush=True); os._exit(3)"
    )
    bad = checkout.commit(dying)
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good)
    assert (await server.get(bad)).status == 200

    async def is_given_up() -> bool:
        """Each time it is there again it is asked to end."""
        assert (await server.post(bad, "x")).status == 502
        return (await server.inspect(bad))["state"] == "failed"

    await server.until(is_given_up)
    failure = (await server.inspect(bad))["failure"]
    assert "4 times in a row" in failure["sentence"] and "exit status 3" in failure["sentence"]
    answer = await server.get(bad)
    assert answer.status == 502 and "exit status 3" in answer.text and "the end is near" in answer.text
    starts = [one for one in await events(server, "worker_started") if bad in one["deployment"]]
    assert len(starts) == 4
    assert await server.named("good")  # production never noticed


async def events(server: Server, kind: str) -> list[dict[str, Any]]:
    answer = await server.get("lazycloud", "/api/events", Authorization=server.authorization)
    told = [json.loads(line) for line in answer.text.splitlines() if line]
    return [event for event in told if event["kind"] == kind]


async def test_a_worker_that_hangs_is_replaced_before_it_is_stopped(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one", **{"lazycloud.toml": HEALTHY}))
    server = up(checkout.path)
    await server.get()
    before = await process(server)
    hung = psutil.Process(before)
    for one in [hung, *hung.children(recursive=True)]:
        one.suspend()

    async def is_replaced() -> bool:
        row = await row_of(server, production=True)
        return bool(row) and row["processes"][0]["pid"] != before and row["state"] == "ready"

    await server.until(is_replaced)
    assert (await server.get()).status == 200
    assert not any(one["after"] == "restarting" for one in await events(server, "state_changed"))
    await asyncio.to_thread(server.wait, lambda: not psutil.pid_exists(before), "end of the one that hung")
    told = [one["sentence"] for one in await events(server, "worker_unhealthy")]
    assert told and "did not answer within 2 s" in told[0]


async def test_an_idle_preview_sleeps_and_wakes_with_its_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("[workers]\nidle_after = 1\n")
    preview = checkout.commit(counter("preview"))
    checkout.commit(counter("production"))
    server = up(checkout.path)
    await server.post(preview, "kept")
    await server.reaches(preview, "stopped")
    (slept,) = [one for one in await events(server, "state_changed") if "visited" in one["reason"]]
    assert preview in slept["deployment"]
    assert (await server.get(preview)).json["notes"] == ["kept"]
    assert (await row_of(server, production=True))["state"] == "ready"


async def test_no_more_than_the_most_live_at_a_time_and_the_pinned_and_production_stay(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("[workers]\nmax = 3\n")
    commits = [checkout.commit(counter(f"c{number}")) for number in range(5)]
    server = up(checkout.path)
    await server.get()
    server.cli("pin", commits[0], folder=checkout.path)
    for commit in commits[:-1]:
        assert (await server.get(commit)).status == 200
        assert len(await server.api("ps")) <= 3
    live = {row["version"] for row in await server.api("ps")}
    assert live == {"production", commits[0], commits[3]}


async def test_background_processes_run_for_production_only_and_never_twice(
    up: Up, checkout: Checkout
) -> None:
    files = {"clock.py": CLOCK, "Procfile": "web: python app.py\nclock: python clock.py\n"}
    first = checkout.commit(counter("first") | files)
    second = checkout.commit(counter("second") | files)
    checkout.git("checkout", "-q", first)
    server = up(checkout.path, "--production", first)
    await server.get()
    await server.get(second)
    preview = await row_of(server, version=second)
    assert [one["name"] for one in preview["processes"]] == ["web.1"]

    def notes() -> list[list[str]]:
        (place,) = server.home.glob("apps/*/data/production/files/clock")
        return [line.split() for line in place.read_text().splitlines()]

    await asyncio.to_thread(
        server.wait, lambda: list(server.home.glob("apps/*/data/production/files/clock")), "clock"
    )
    server.cli("promote", second, folder=checkout.path)
    await asyncio.to_thread(server.wait, lambda: len(notes()) == 3, "the new clock")
    assert [(line[0], line[2]) for line in notes()] == [("begin", first), ("end", first), ("begin", second)]
    assert notes()[0][3] == "None"  # no PORT

    async def has_both() -> bool:
        row = await row_of(server, production=True)
        return [one["name"] for one in row["processes"]] == ["web.1", "clock.1"]

    await server.until(has_both)
    row = await row_of(server, production=True)
    (clock,) = [one for one in row["processes"] if one["name"] == "clock.1"]
    os.kill(clock["pid"], signal.SIGKILL)

    async def is_mended() -> bool:
        now = (await row_of(server, production=True))["processes"]
        return any(one["name"] == "clock.1" and one["pid"] != clock["pid"] for one in now)

    await server.until(is_mended)
    assert (await row_of(server, production=True))["state"] == "ready"


async def test_requests_wait_for_production_while_its_background_process_runs_on(
    up: Up, checkout: Checkout
) -> None:
    files = {"clock.py": CLOCK, "Procfile": "web: python app.py\nclock: python clock.py\n"}
    checkout.commit(counter("one") | files)
    server = up(checkout.path)

    async def processes() -> dict[str, int]:
        row = await row_of(server, production=True)
        return {one["name"]: one["pid"] for one in row["processes"]} if row else {}

    async def has_both() -> bool:
        return len(await processes()) == 2

    await server.get()
    await server.until(has_both)
    before = await processes()
    web = psutil.Process(before["web.1"])
    web.kill()
    web.wait(PATIENCE)
    assert (await server.get()).status == 200
    await server.until(has_both)
    after = await processes()
    assert after["clock.1"] == before["clock.1"] and after["web.1"] != before["web.1"]


async def test_what_ended_while_control_was_away_is_said_and_stored(up: Up, checkout: Checkout) -> None:
    preview = checkout.commit(counter("preview"))
    checkout.commit(counter("production"))
    server = up(checkout.path)
    await server.get(preview)
    row = await row_of(server, version=preview)
    pid = row["processes"][0]["pid"]

    def stored() -> tuple[str, str]:
        """State and workers."""
        with contextlib.closing(sqlite3.connect(server.home / "state.sqlite")) as database:
            query = "SELECT state, worker FROM deployments WHERE id = ?"
            return database.execute(query, (row["deployment"],)).fetchone()

    assert str(pid) in stored()[1]
    control = server.children()["control"]
    control.suspend()
    psutil.Process(pid).kill()
    control.kill()

    async def is_said() -> bool:
        try:
            now = await server.inspect(preview)
        except (ValueError, KeyError):
            return False
        return now["state"] == "stopped"

    await server.until(is_said)
    assert stored()[0] == "stopped" and str(pid) not in stored()[1]
    told = [one["sentence"] for one in await events(server, "worker_ended")]
    assert any("ended while lazycloud was away" in sentence for sentence in told)
    assert (await server.get(preview)).status == 200


async def test_a_deploy_that_fails_leaves_no_temporary_files(up: Up, checkout: Checkout) -> None:
    write = "import os, sys; open(os.environ['TMPDIR'] + '/big', 'w').write('x'); sys.exit(3)\n"
    bad = checkout.commit({"app.py": write, "Procfile": "web: python app.py\n"})
    checkout.commit(counter("good"))
    server = up(checkout.path)
    await server.get(bad)
    await server.reaches(bad, "failed")
    assert not list((server.home / "scratch").glob("*/big"))
