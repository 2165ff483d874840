"""Edges where a deploy, a promote, a stop or a restart meet: whoever comes second is neither lost nor left over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, UNWALLED, Server
from tests.e2e.test_queue import changes
from tests.router.stage import Wire, get

DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """A test that fails leaves nothing to the next one."""
    yield
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(tmp_path) in process.environ().get("DATA_DIR", ""):
                process.kill()


async def new_control(server: Server) -> None:
    """Kill control, and wait for the next one to answer: by then it has seen to all that the last one left."""
    control = server.children()["control"]
    control.kill()

    def is_new() -> bool:
        with contextlib.suppress(psutil.Error):
            return server.children().get("control") not in (None, control)
        return False

    await asyncio.to_thread(server.wait, is_new, "new control")
    answers = partial(server.cli, "ps", "--json", code=None)
    await asyncio.to_thread(server.wait, lambda: answers().startswith("["), "answer of the new control")


async def started(server: Server, commit: str) -> None:
    """Until a commit has a worker, ready or not."""

    async def has_worker() -> bool:
        return commit in [row["commit"]["id"] for row in await server.api("ps")]

    await server.until(has_worker)


def slow_to_start(name: str, gate: Path) -> dict[str, str]:
    files = counter(name)
    wait = f"import os, time\nwhile not os.path.exists('{gate}'): time.sleep(0.05)\n"
    return {**files, "app.py": wait + files["app.py"], "lazycloud.toml": "[run]\nready_timeout = 600\n"}


def slow_to_end(gate: Path, app: str = "") -> dict[str, str]:
    """An app that ends only when the gate exists, once it is told to."""
    wait = (
        "import os, signal, time\n"
        "def end(*_):\n"
        f"    while not os.path.exists('{gate}'): time.sleep(0.05)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
    )
    settings = "[run]\nready_timeout = 2\nstop_timeout = 120\n" if app else "[run]\nstop_timeout = 120\n"
    files = counter("slow to end")
    return {**files, "app.py": wait + (app or files["app.py"]), "lazycloud.toml": settings}


def deaf(stop_timeout: int) -> dict[str, str]:
    """An app that does not hear SIGTERM, and is killed after that many seconds."""
    files = counter("deaf")
    settings = f"[run]\nstop_timeout = {stop_timeout}\n"
    return {**files, "app.py": DEAF + files["app.py"], "lazycloud.toml": settings}


def migrating(name: str, folder: Path, held: str) -> dict[str, str]:
    """An app whose migration notes in folder/told on which data it runs; on `held` it waits for folder/gate."""
    migration = (
        "import os, time\n"
        "version = os.environ['LAZYCLOUD_VERSION']\n"
        f"print(version, file=open('{folder}/told', 'a'), flush=True)\n"
        f"while version.startswith('{held}') and not os.path.exists('{folder}/gate'): time.sleep(0.05)\n"
    )
    return {
        **counter(name),
        "migrate.py": migration,
        "Procfile": "web: python app.py\nrelease: python migrate.py\n",
    }


def migrated(folder: Path) -> list[str]:
    """Versions on which a migration has begun, in turn."""
    told = folder / "told"
    return told.read_text().split() if told.exists() else []


async def promote_held(server: Server, checkout: Checkout, folder: Path, held: str) -> str:
    """Begin to promote a commit that is `migrating`, and wait until its migration is held on `held`."""
    new = checkout.commit(migrating("new", folder, held))
    await server.post("", "kept")
    body, path = f'{{"ref": "{new}"}}', "/api/apps/shop/promote"
    assert (await server.post("lazycloud", body, path, Authorization=server.authorization)).status == 202
    await asyncio.to_thread(
        server.wait, lambda: any(version.startswith(held) for version in migrated(folder)), "migration"
    )
    return new


async def test_a_request_to_a_commit_that_failed_before_a_restart_is_answered_at_once(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    bad = checkout.commit({**counter("bad"), "lazycloud.toml": '[build]\ncommand = "exit 1"\n'})
    server = up(checkout.path, "--production", good)
    assert (await server.get(bad)).status == 502
    server.stop()
    again = up(home=server.home)
    async with asyncio.timeout(PATIENCE):
        assert (await again.get(bad)).status == 502


async def test_a_commit_made_while_a_followed_one_is_promoted_is_promoted_too(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main", **UNWALLED)
    assert (await server.get()).json["name"] == "one"
    gate = tmp_path / "gate"
    two = checkout.commit(slow_to_start("two", gate))
    await started(server, two)
    three = checkout.commit(counter("three"))
    await server.told(f"main is now at {three[:10]}")
    gate.touch()
    await server.until(partial(server.named, "three"))


async def test_a_branch_that_moves_while_its_commit_starts_is_not_kept_on_the_old_one(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("production"))
    server = up(checkout.path, **UNWALLED)
    gate = tmp_path / "gate"
    checkout.git("checkout", "-q", "-b", "feature")
    old = checkout.commit(slow_to_start("old", gate))
    held = asyncio.create_task(server.get("feature"))
    await started(server, old)
    new = checkout.commit(counter("new"))
    await server.told(f"feature is now at {new[:10]}")
    gate.touch()
    await held
    assert (await server.get(new)).json["name"] == "new"
    assert (await server.get("feature")).json["name"] == "new"


async def test_an_after_command_that_cannot_be_run_does_not_take_the_app_down(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    long = "x" * 200_000  # more than the kernel takes as one argument
    bad = checkout.commit({**counter("after"), "lazycloud.toml": f'[run]\nafter = "{long}"\n'})
    server = up(checkout.path, "--production", good)
    await server.get(bad)

    async def is_over() -> bool:
        return (await server.inspect(bad))["steps"][-1]["state"] == "failed"

    await server.until(is_over)
    await server.get(good)  # a whole deploy later it still answers
    async with asyncio.timeout(PATIENCE):
        assert (await server.get(bad)).json["name"] == "after"


@pytest.mark.slow
async def test_a_stop_while_a_failed_worker_is_ended_leaves_no_process(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good, gate = checkout.commit(counter("good")), tmp_path / "gate"
    bad = checkout.commit(slow_to_end(gate, "time.sleep(600)\n"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    asking = asyncio.create_task(server.get(bad))

    async def is_past_its_deadline() -> bool:
        return "failed" in [step["state"] for step in (await server.inspect(bad))["steps"]]

    await server.until(is_past_its_deadline)
    asking.cancel()
    assert len(server.workers()) >= 2  # its end is waited for
    stopping = asyncio.create_task(asyncio.to_thread(server.stop))
    await server.told("Stopping")
    gate.touch()
    await stopping
    assert server.workers() == []


@pytest.mark.slow
async def test_a_worker_that_was_being_stopped_when_control_was_killed_is_ended(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    commit = checkout.commit(deaf(stop_timeout=6))
    server = up(checkout.path, "--production", good)
    assert (await server.get(commit)).status == 200
    (pid,) = [row["pid"] for row in await server.api("ps") if row["version"] == commit]
    stopping = asyncio.create_task(server.verb("stop", commit, folder=checkout.path, code=None))

    async def is_stopping() -> bool:
        return bool(await changes(server, commit, "stopping"))

    await server.until(is_stopping)
    await new_control(server)
    await stopping
    known = {row["pid"] for row in await server.api("ps")}
    assert pid in known or not psutil.pid_exists(pid)
    await asyncio.to_thread(server.wait, lambda: not psutil.pid_exists(pid), "end of the worker")


async def test_a_rehearsal_that_was_cut_off_is_thrown_away(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await promote_held(server, checkout, tmp_path, "rehearsal")
    await new_control(server)
    (tmp_path / "gate").touch()
    await server.get(good)  # a whole deploy later nothing of it has come back
    assert [row["version"] for row in await server.api("ps")] == ["production", good]
    assert not list(server.home.glob("apps/shop/data/rehearsal-*"))


async def test_a_promote_that_was_cut_off_leaves_nothing_running_on_productions_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await promote_held(server, checkout, tmp_path, "production")
    await new_control(server)
    await server.get(good)  # a whole deploy later it has not been begun again
    running = [one for one in server.workers() if "migrate.py" in " ".join(one.cmdline())]
    (tmp_path / "gate").touch()
    assert len(running) <= 1, "two migrations at once on production's data"
    assert migrated(tmp_path).count("production") == 1, "the migration was begun again, by nobody's wish"
    releases = await server.api("apps/shop/releases")
    assert {row["commit"]["id"] for row in await server.api("ps")} == {releases[0]["commit"]["id"]}


async def test_a_second_promote_rehearses_the_migration_again(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    new = await promote_held(server, checkout, tmp_path, "production")
    await new_control(server)
    (tmp_path / "gate").touch()
    await server.verb("promote", new, folder=checkout.path)
    assert migrated(tmp_path).count(f"rehearsal-{new}") == 2


async def test_ctrl_c_during_a_rehearsal_leaves_no_rehearsal_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await promote_held(server, checkout, tmp_path, "rehearsal")
    assert list(server.home.glob("apps/shop/data/rehearsal-*"))
    await asyncio.to_thread(server.stop)
    assert not list(server.home.glob("apps/shop/data/rehearsal-*"))


async def test_a_promote_that_was_cut_off_is_told_to_who_waits_for_it(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good = checkout.commit(counter("good"))
    new = checkout.commit(slow_to_start("new", tmp_path / "gate"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    await server.get()
    with server.going_on("promote", new, folder=checkout.path) as promoting:
        await started(server, new)
        await new_control(server)
        await asyncio.to_thread(promoting.wait, PATIENCE)
        assert promoting.returncode == 1


def test_ctrl_c_is_heard_while_a_repository_is_cloned(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        words = ["up", url, "--listen", "localhost:0", "--home", str(tmp_path / "home")]
        process = subprocess.Popen(
            [sys.executable, "-m", "lazycloud", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        connection, _ = silent.accept()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
            _, left = psutil.wait_procs(family, PATIENCE)
            assert left == []
        finally:
            connection.close()
            for one in (*family, process):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait()


async def test_ctrl_c_while_control_is_away_leaves_no_worker(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    server.children()["control"].kill()
    await asyncio.to_thread(server.stop)
    assert server.workers() == []


@contextlib.contextmanager
def person_at(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell of nobody's but a person's, and a program run from it with the DATA_DIR of an app."""
    script = f"sleep 600 & DATA_DIR={data} sleep 600; true"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as shell:
        try:
            yield shell
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


async def test_only_what_lazycloud_started_is_ended_when_control_comes_back(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    with person_at(server.home / "apps/shop/data/production/files") as shell:
        await asyncio.to_thread(server.wait, lambda: len(server.workers()) == 2, "person's program")
        await new_control(server)
        assert shell.poll() is None, "a person's shell who looks at the data was killed"


async def test_logs_f_follows_a_build_that_goes_on(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    good = checkout.commit(counter("good"))
    gate = tmp_path / "gate"
    script = f"echo first; while ! test -e {gate}; do sleep 0.1; done; echo 'and last'"
    slow = checkout.commit({**counter("slow"), "lazycloud.toml": f'[build]\ncommand = "{script}"\n'})
    server = up(checkout.path, "--production", good, **UNWALLED)
    asking = asyncio.create_task(server.get(slow))
    await server.reaches(slow, "building")
    lines: list[str] = []

    def shown(text: str) -> bool:
        return any(text in line and "echo" not in line for line in lines)

    with server.going_on("logs", "-f", slow, folder=checkout.path) as following:
        threading.Thread(target=lambda: lines.extend(following.stdout), daemon=True).start()
        await asyncio.to_thread(server.wait, lambda: shown("first"), "what was written before")
        gate.touch()
        await asyncio.to_thread(server.wait, lambda: shown("and last"), "what was written since")
    await asking


async def being_stopped(server: Server, checkout: Checkout, gate: Path) -> tuple[str, asyncio.Task[str]]:
    """A commit whose worker ends when the gate exists, and the stop that waits for it."""
    commit = checkout.commit(slow_to_end(gate))
    await server.get(commit)
    stopping = asyncio.create_task(server.verb("stop", commit, folder=checkout.path))
    await server.reaches(commit, "stopping")
    return commit, stopping


@pytest.mark.slow
async def test_a_page_opened_while_a_commit_stops_gets_it_started(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good, gate = checkout.commit(counter("good")), tmp_path / "gate"
    server = up(checkout.path, "--production", good, **UNWALLED)
    commit, stopping = await being_stopped(server, checkout, gate)
    assert (await server.get(commit, **BROWSER)).status == 503
    gate.touch()
    await stopping
    await server.reaches(commit, "ready")


@pytest.mark.slow
async def test_a_request_that_comes_while_its_commit_stops_waits_and_is_served(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    good, gate = checkout.commit(counter("good")), tmp_path / "gate"
    server = up(checkout.path, "--production", good, **UNWALLED)
    commit, stopping = await being_stopped(server, checkout, gate)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", server.port))
    await wire.send(get(server.host(commit)))
    await server.get("nobody")  # what came before it has been asked for, too
    gate.touch()
    await stopping
    answer = await wire.answer()
    wire.close()
    assert answer.status == 200, answer


async def test_stop_stops_although_a_request_is_held(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    good = checkout.commit(counter("good"))
    slow = checkout.commit(slow_to_start("slow", tmp_path / "gate"))
    server = up(checkout.path, "--production", good, **UNWALLED)
    held = asyncio.create_task(server.get(slow))
    await started(server, slow)
    await server.verb("stop", slow, folder=checkout.path)
    await held  # it is let go, and has not got it started again
    assert (await server.inspect(slow))["state"] == "stopped"


async def promoted_over_a_slow_request(
    up: Up, checkout: Checkout, gate: Path
) -> tuple[Server, asyncio.Task[object]]:
    """A server whose last promote is done but for one request to the commit before, which waits for the gate."""
    asked = gate.with_name("asked")
    slow = counter("first")
    slow["app.py"] = slow["app.py"].replace(
        "def do_GET(self):",
        "def do_GET(self):\n"
        "        import pathlib, time\n"
        f"        if self.path == '/slow': pathlib.Path('{asked}').touch()\n"
        f"        while self.path == '/slow' and not os.path.exists('{gate}'): time.sleep(0.05)",
    )
    first = checkout.commit(slow)
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first, **UNWALLED)
    waiting = asyncio.create_task(server.get("", "/slow"))
    await asyncio.to_thread(server.wait, asked.exists, "slow request")
    await server.verb("promote", second, folder=checkout.path)
    return server, waiting


async def test_a_rollback_is_taken_although_an_old_request_of_the_promote_before_goes_on(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    server, waiting = await promoted_over_a_slow_request(up, checkout, gate)
    try:
        said = await server.verb("rollback", folder=checkout.path, code=None)
        assert "under way" not in said
    finally:
        gate.touch()
        await waiting


async def test_a_candidate_is_not_stopped_by_the_promote_before_it(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate, start = tmp_path / "gate", tmp_path / "start"
    server, waiting = await promoted_over_a_slow_request(up, checkout, gate)
    second = checkout.git("rev-parse", "HEAD")
    third = checkout.commit(slow_to_start("third", start))
    promoting = asyncio.create_task(server.verb("promote", third, folder=checkout.path, code=None))
    await started(server, third)
    gate.touch()  # the old request ends, and what it held up goes on
    await waiting
    await server.get(second)  # a whole deploy later all of it is over
    start.touch()
    said = await promoting
    assert (await server.get()).json["name"] == "third", said


WRITES = """
def write(name):
    try:
        open(name, "w").write("changed")
    except PermissionError:
        return "refused"
    return "written"

NAME = [write("shared.txt"), write("own.txt"), open("shared.txt").read()]
"""


async def test_a_worker_cannot_change_what_releases_share(up: Up, checkout: Checkout) -> None:
    """The second commit's files are links to the first's; without walls, a new file can be written beside them."""
    files = counter("it", **{"shared.txt": "as committed"})
    files["app.py"] = files["app.py"].replace('NAME = "it"', WRITES)
    commits = [checkout.commit(files)]
    server = up(checkout.path, **UNWALLED)
    commits.append(checkout.commit({"other.txt": ""}))
    for commit in commits:
        answer = json.loads((await server.get(commit)).text)
        assert answer["name"] == ["refused", "written", "as committed"]
    inodes = [path.stat().st_ino for path in server.home.glob("apps/*/releases/*/tree/shared.txt")]
    assert len(inodes) == 2 and len(set(inodes)) == 1
