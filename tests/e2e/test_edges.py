"""What a review found, each reproduced; a test here fails until its bug is mended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, Server

DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(120)\n"
RELEASE = {"Procfile": "web: python app.py\nrelease: python migrate.py\n"}
SLOW_MIGRATION = (
    "import os, time\n"
    "open(os.environ['DATA_DIR'] + '/began', 'a').write('x')\n"
    "while not os.path.exists('{gate}'): time.sleep(0.05)\n"
)


def using(folder: Path) -> list[psutil.Process]:
    """Processes that were given a DATA_DIR below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.environ().get("DATA_DIR", ""):
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    for process in using(tmp_path):
        with contextlib.suppress(psutil.Error):
            process.kill()


def new_control(server: Server) -> None:
    """Kill control, and wait for the next one to answer."""
    control = server.children()["control"]
    control.kill()
    psutil.wait_procs([control], 10)

    def is_new() -> bool:
        with contextlib.suppress(psutil.Error):
            return server.children().get("control") not in (None, control)
        return False

    server.wait(is_new, "new control")
    server.wait(lambda: server.cli("ps", "--json", code=None).startswith("["), "answer of the new control")


def slow_to_start(name: str, gate: Path) -> dict[str, str]:
    files = counter(name)
    wait = f"import os, time\nwhile not os.path.exists('{gate}'): time.sleep(0.05)\n"
    return {**files, "app.py": wait + files["app.py"]}


# 1
async def test_a_request_to_a_commit_that_failed_before_a_restart_is_answered_at_once(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    bad = checkout.commit({**counter("bad"), "lazycloud.toml": '[build]\ncommand = "exit 1"\n'})
    server = up(checkout.path, "--production", good)
    assert (await server.get(bad)).status == 502
    server.stop()
    again = up(home=server.home)
    async with asyncio.timeout(8):
        assert (await again.get(bad)).status == 502


# 2
async def test_a_commit_made_while_a_followed_one_is_promoted_is_promoted_too(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    gate = tmp_path / "gate"
    two = checkout.commit(slow_to_start("two", gate))
    await asyncio.to_thread(server.wait, lambda: any(two[:10] in str(row) for row in server.json("ps")), "candidate")
    checkout.commit(counter("three"))
    await asyncio.sleep(1.5)
    gate.touch()
    await server.until(partial(server.named, "three"), seconds=10)


# 3
async def test_a_branch_that_moves_while_its_commit_starts_is_not_kept_on_the_old_one(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("production"))
    server = up(checkout.path)
    gate = tmp_path / "gate"
    checkout.git("checkout", "-q", "-b", "feature")
    checkout.commit(slow_to_start("old", gate))
    held = asyncio.create_task(server.get("feature"))
    await asyncio.to_thread(server.wait, lambda: len(server.json("ps")) == 2, "start")
    new = checkout.commit(counter("new"))
    await asyncio.sleep(1.5)  # the server looks four times a second
    gate.touch()
    await held
    assert (await server.get(new)).json["name"] == "new"
    assert (await server.get("feature")).json["name"] == "new"


# 4
async def test_an_after_command_that_cannot_be_run_does_not_take_the_app_down(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    long = "x" * 200_000  # more than the kernel takes as one argument
    bad = checkout.commit({**counter("after"), "lazycloud.toml": f'[run]\nafter = "{long}"\n'})
    server = up(checkout.path, "--production", good)
    await server.get(bad)

    async def over() -> bool:
        steps = server.json("inspect", bad, folder=checkout.path)["steps"]
        return steps[-1]["state"] == "failed"

    await server.until(over)
    await asyncio.sleep(0.5)
    async with asyncio.timeout(8):
        assert (await server.get(bad)).json["name"] == "after"


# 5
async def test_a_stop_while_a_failed_worker_is_ended_leaves_no_process(up: Up, checkout: Checkout) -> None:
    good = checkout.commit(counter("good"))
    files = {"app.py": DEAF, "lazycloud.toml": "[run]\nready_timeout = 1\nstop_timeout = 8\n"}
    bad = checkout.commit({**counter("bad"), **files})
    server = up(checkout.path, "--production", good)
    asking = asyncio.create_task(server.get(bad))
    await asyncio.to_thread(server.wait, lambda: len(server.workers()) >= 2, "worker")
    await asyncio.sleep(3)  # past the deadline: its end is waited for
    asking.cancel()
    await asyncio.to_thread(server.stop)
    assert server.workers() == []


# 6
async def test_a_worker_that_was_being_stopped_when_control_was_killed_is_ended(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    files = counter("deaf")
    files["app.py"] = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + files["app.py"]
    deaf = checkout.commit({**files, "lazycloud.toml": "[run]\nstop_timeout = 20\n"})
    server = up(checkout.path, "--production", good)
    pid = (await server.get(deaf)).json["pid"]
    stopping = asyncio.create_task(
        asyncio.to_thread(server.cli, "stop", deaf, folder=checkout.path, code=None)
    )
    await asyncio.sleep(2)
    await asyncio.to_thread(new_control, server)
    await stopping
    known = {row["pid"] for row in server.json("ps")}
    assert pid in known or not psutil.pid_exists(pid)


async def cut_promote(server: Server, checkout: Checkout, commit: str, pattern: str) -> None:
    """Begin a promote, and kill control once its migration runs on a version."""
    promoting = asyncio.create_task(
        asyncio.to_thread(server.cli, "promote", commit, folder=checkout.path, code=None)
    )
    await asyncio.to_thread(server.wait, lambda: list(server.home.glob(f"apps/shop/data/{pattern}/files/began")), "migration")
    await asyncio.sleep(0.5)
    await asyncio.to_thread(new_control, server)
    await promoting
    await asyncio.sleep(3)


# 7
async def test_a_rehearsal_that_was_cut_off_is_thrown_away(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    good = checkout.commit(counter("good"))
    new = checkout.commit({**counter("new"), "migrate.py": SLOW_MIGRATION.format(gate=gate), **RELEASE})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    await cut_promote(server, checkout, new, "rehearsal-*")
    gate.touch()
    await asyncio.sleep(4)
    assert [row["version"] for row in server.json("ps")] == ["production"]
    assert not list(server.home.glob("apps/shop/data/rehearsal-*"))


# 8
async def test_a_promote_that_was_cut_off_leaves_nothing_running_on_productions_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    slow = (
        "import os, time\nopen(os.environ['DATA_DIR'] + '/began', 'a').write('x')\n"
        f"while os.environ['LAZYCLOUD_VERSION'] == 'production' and not os.path.exists('{gate}'):"
        " time.sleep(0.05)\n"
    )
    good = checkout.commit(counter("good"))
    new = checkout.commit({**counter("new"), "migrate.py": slow, **RELEASE})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    await cut_promote(server, checkout, new, "production")
    running = [p for p in server.workers() if "migrate.py" in " ".join(p.cmdline())]
    began = (server.home / "apps/shop/data/production/files/began").read_text()
    gate.touch()
    await asyncio.sleep(3)
    assert len(running) <= 1, "two migrations at once on production's data"
    assert began == "x", "the migration was begun again, by nobody's wish"
    releases = server.json("releases", folder=checkout.path)
    assert {row["commit"]["id"] for row in server.json("ps")} == {releases[0]["commit"]["id"]}


# 9
async def test_ctrl_c_during_a_rehearsal_leaves_no_rehearsal_data(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    good = checkout.commit(counter("good"))
    new = checkout.commit({**counter("new"), "migrate.py": SLOW_MIGRATION.format(gate=gate), **RELEASE})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    promoting = asyncio.create_task(
        asyncio.to_thread(server.cli, "promote", new, folder=checkout.path, code=None)
    )
    await asyncio.to_thread(server.wait, lambda: list(server.home.glob("apps/shop/data/rehearsal-*/files/began")), "rehearsal")
    await asyncio.to_thread(server.stop)
    await promoting
    assert not list(server.home.glob("apps/shop/data/rehearsal-*"))


# 10
async def test_a_commit_in_an_encoding_that_cannot_be_read_breaks_nothing_else(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    checkout.git("checkout", "-q", "-b", "hostile")
    checkout.git("-c", "i18n.commitEncoding=undefined", "commit", "-q", "--allow-empty", "-m", "x")
    await asyncio.sleep(1)
    checkout.git("checkout", "-q", "main")
    checkout.commit(counter("two"))
    assert "Traceback" not in server.cli("ls", "--app", "shop")
    await server.until(partial(server.named, "two"), seconds=8)


# 11
async def test_production_answers_although_its_commit_was_removed_from_the_repository(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("base"))
    checkout.commit(counter("gone"))
    server = up(checkout.path)
    assert (await server.get()).json["name"] == "gone"
    checkout.git("reset", "-q", "--hard", "HEAD~1")
    checkout.git("update-ref", "-d", "ORIG_HEAD")
    checkout.git("reflog", "expire", "--expire=now", "--all")
    checkout.git("gc", "-q", "--prune=now")
    assert (await server.get()).json["name"] == "gone"
    await asyncio.to_thread(new_control, server)
    assert (await server.get()).json["name"] == "gone"


# 12
def test_ctrl_c_is_heard_while_a_repository_is_cloned(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/x.git"
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lazycloud",
                "up",
                url,
                "--listen",
                "localhost:0",
                "--home",
                tmp_path / "h",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        connection, _ = deaf.accept()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
            psutil.wait_procs(family, 3)
            assert not [one for one in family if one.is_running()]
        finally:
            connection.close()
            for one in family:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.kill()
            process.wait()


# 13
async def test_a_reason_that_is_no_valid_text_does_not_stop_the_event_log(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.get()
    token = (server.home / "token").read_text().strip()
    await server.post(
        "lazycloud",
        '{"ref": "%s", "why": "\\ud800"}' % second,
        "/api/apps/shop/promote",
        Authorization=f"Bearer {token}",
    )
    await asyncio.sleep(5)
    server.cli("promote", second, "-m", "a good reason", folder=checkout.path)
    assert (await server.get()).json["name"] == "second"
    assert "event log cannot be written" not in server.output


# 14
async def test_an_app_named_in_the_file_and_on_the_command_line_is_served_once(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[apps.blog]\nsource = "{checkout.path}"\n')
    server = up(checkout.path, home=home)
    assert (await server.get()).json["name"] == "one"


# 15
async def test_a_branch_that_is_removed_names_nothing_any_more(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    checkout.git("branch", "feature")
    server = up(checkout.path)
    assert (await server.get("feature")).status == 200
    checkout.git("branch", "-D", "feature")
    await asyncio.sleep(1.5)
    assert (await server.get("feature")).status == 404


# 18
@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/api/apps", {"Authorization": "Bearer \udcff"}, None),
        ("/", {"Cookie": "lazycloud_session=1.\udcff"}, None),
        ("/visit?to=http://[", {}, None),
        ("/api/apps/shop/deploy", {"Origin": "http://["}, "{}"),
        ("/api/apps/shop/deploy", {"Content-Type": "application/json; charset=nope"}, "{}"),
        ("/api/apps/shop/deploy", {}, b"\xff"),
        ("/api/apps/shop/deploy", {}, "[" * 200_000),
        ("/login", {"Content-Type": "multipart/form-data"}, "x"),
    ],
)
async def test_what_nobody_should_send_is_no_bug_of_ours(
    up: Up, checkout: Checkout, path: str, headers: dict[str, str], body: str | bytes | None
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    token = (server.home / "token").read_text().strip()
    lines = {"Host": server.host("lazycloud"), "Authorization": f"Bearer {token}", **headers}
    data = body.encode() if isinstance(body, str) else body or b""
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nConnection: close\r\n"
    head += f"Content-Length: {len(data)}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), 10) as line:
            line.sendall(head.encode(errors="surrogateescape") + b"\r\n" + data)
            return b"".join(iter(lambda: line.recv(65536), b""))

    answer = await asyncio.to_thread(ask)
    assert not answer.startswith(b"HTTP/1.1 500"), answer[-300:]


# 19
async def test_logs_f_follows_a_build_that_goes_on(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    good = checkout.commit(counter("good"))
    gate = tmp_path / "gate"
    script = f"echo first; while ! test -e {gate}; do sleep 0.1; done; echo 'and last'; sleep 2"
    slow = checkout.commit({**counter("slow"), "lazycloud.toml": f'[build]\ncommand = "{script}"\n'})
    server = up(checkout.path, "--production", good)
    asking = asyncio.create_task(server.get(slow))
    await server.until(partial(_is_building, server, slow, checkout))
    following = subprocess.Popen(
        [sys.executable, "-m", "lazycloud", "logs", "-f", slow],
        cwd=checkout.path,
        env=os.environ | {"LAZYCLOUD_HOME": str(server.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    threading.Thread(target=lambda: lines.extend(following.stdout), daemon=True).start()
    await asyncio.sleep(2)
    gate.touch()
    await asking
    await asyncio.sleep(1)
    following.send_signal(signal.SIGINT)
    following.wait(10)
    time.sleep(0.2)
    assert any("and last" in line and "echo" not in line for line in lines), lines


async def _is_building(server: Server, commit: str, checkout: Checkout) -> bool:
    steps = server.json("inspect", commit, folder=checkout.path)["steps"]
    return steps[2]["state"] == "running"


# 20
async def test_a_commit_with_an_impossible_date_leaves_valid_json(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("one"))
    tree = checkout.git("rev-parse", "HEAD^{tree}")
    text = f"tree {tree}\nparent {first}\nauthor A <a@b> {'9' * 400} +0000\ncommitter A <a@b> 1 +0000\n\nx\n"
    path = checkout.path.parent / "object"
    path.write_text(text)
    commit = checkout.git("hash-object", "-t", "commit", "-w", "--literally", str(path))
    checkout.git("update-ref", "refs/heads/far", commit)
    server = up(checkout.path)
    token = (server.home / "token").read_text().strip()
    answer = await server.get("lazycloud", "/api/overview", Authorization=f"Bearer {token}")
    assert "Infinity" not in answer.text


# 21
async def test_a_repository_that_was_removed_is_said_to_be_missing(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    other = checkout.commit(counter("two"))
    server = up(checkout.path)
    await server.get()
    checkout.path.rename(checkout.path.with_name("moved"))
    answer = await server.get(other)
    assert "Install git" not in answer.text
    assert (await server.get("lazycloud", "/api/overview", Authorization="Bearer x")).status == 401


# 22
async def test_a_page_opened_while_a_commit_stops_gets_it_started(up: Up, checkout: Checkout) -> None:
    good = checkout.commit(counter("good"))
    files = counter("deaf")
    files["app.py"] = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + files["app.py"]
    deaf = checkout.commit({**files, "lazycloud.toml": "[run]\nstop_timeout = 3\n"})
    server = up(checkout.path, "--production", good)
    await server.get(deaf)
    stopping = asyncio.create_task(asyncio.to_thread(server.cli, "stop", deaf, folder=checkout.path))
    await asyncio.sleep(1)
    assert (await server.get(deaf, **BROWSER)).status == 503
    await stopping
    await asyncio.sleep(1)
    assert server.json("inspect", deaf, folder=checkout.path)["state"] != "stopped"


# 23
async def test_a_rollback_is_taken_although_an_old_request_of_the_promote_before_goes_on(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    slow = counter("first")
    slow["app.py"] = slow["app.py"].replace(
        "def do_GET(self):",
        f"def do_GET(self):\n        import time\n        while self.path == '/slow' and not os.path.exists('{gate}'): time.sleep(0.05)",
    )
    first = checkout.commit(slow)
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.get()
    waiting = asyncio.create_task(server.get("", "/slow"))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.cli, "promote", second, folder=checkout.path)
    try:
        said = await asyncio.to_thread(server.cli, "rollback", folder=checkout.path, code=None)
        assert "under way" not in said
    finally:
        gate.touch()
        await waiting


# 24
async def test_stop_stops_although_a_request_is_held(up: Up, checkout: Checkout, tmp_path: Path) -> None:
    good = checkout.commit(counter("good"))
    slow = checkout.commit(slow_to_start("slow", tmp_path / "gate"))
    server = up(checkout.path, "--production", good)
    held = asyncio.create_task(server.get(slow))
    await asyncio.to_thread(server.wait, lambda: len(server.json("ps")) == 2, "start")
    await asyncio.to_thread(server.cli, "stop", slow, folder=checkout.path)
    await asyncio.sleep(1)
    state = server.json("inspect", slow, folder=checkout.path)["state"]
    held.cancel()
    assert state == "stopped"


# 25
async def test_ctrl_c_while_control_is_away_leaves_no_worker(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    server.children()["control"].kill()
    await asyncio.to_thread(server.stop)
    assert server.workers() == []


# 26
async def test_a_request_that_comes_while_its_commit_stops_waits_and_is_served(
    up: Up, checkout: Checkout
) -> None:
    good = checkout.commit(counter("good"))
    files = counter("deaf")
    files["app.py"] = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + files["app.py"]
    deaf = checkout.commit({**files, "lazycloud.toml": "[run]\nstop_timeout = 3\n"})
    server = up(checkout.path, "--production", good)
    await server.get(deaf)
    stopping = asyncio.create_task(asyncio.to_thread(server.cli, "stop", deaf, folder=checkout.path))
    await asyncio.sleep(1)
    answer = await server.get(deaf)
    await stopping
    assert answer.status == 200, answer


# 27
async def test_a_candidate_is_not_stopped_by_the_promote_before_it(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate, start = tmp_path / "gate", tmp_path / "start"
    slow = counter("first")
    slow["app.py"] = slow["app.py"].replace(
        "def do_GET(self):",
        "def do_GET(self):\n        import time\n"
        f"        while self.path == '/slow' and not os.path.exists('{gate}'): time.sleep(0.05)",
    )
    first = checkout.commit(slow)
    second = checkout.commit(counter("second"))
    third = checkout.commit(slow_to_start("third", start))
    server = up(checkout.path, "--production", first)
    await server.get()
    waiting = asyncio.create_task(server.get("", "/slow"))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.cli, "promote", second, folder=checkout.path)
    promoting = asyncio.create_task(
        asyncio.to_thread(server.cli, "promote", third, folder=checkout.path, code=None)
    )
    await asyncio.sleep(3)
    gate.touch()  # the old request ends, and what it held up goes on
    await waiting
    await asyncio.sleep(2)
    start.touch()
    said = await promoting
    assert (await server.get()).json["name"] == "third", said


# 28
async def test_a_second_rehearsal_runs_the_migration_again(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    told, gate = tmp_path / "told", tmp_path / "gate"
    migration = (
        "import os, time\nversion = os.environ['LAZYCLOUD_VERSION']\n"
        f"print(version, file=open('{told}', 'a'), flush=True)\n"
        f"while version == 'production' and not os.path.exists('{gate}'): time.sleep(0.05)\n"
    )
    good = checkout.commit(counter("good"))
    new = checkout.commit({**counter("new"), "migrate.py": migration, **RELEASE})
    server = up(checkout.path, "--production", good)
    await server.post("", "kept")
    token = (server.home / "token").read_text().strip()
    path, body = "/api/apps/shop/promote", f'{{"ref": "{new}"}}'
    assert (await server.post("lazycloud", body, path, Authorization=f"Bearer {token}")).status == 202
    await asyncio.to_thread(
        server.wait, lambda: told.exists() and "production" in told.read_text(), "migration of production"
    )
    await asyncio.to_thread(new_control, server)
    gate.touch()
    await asyncio.sleep(1)
    await asyncio.to_thread(server.cli, "promote", new, folder=checkout.path)
    assert told.read_text().split().count(f"rehearsal-{new}") == 2


# 29
async def test_a_subject_that_is_no_valid_text_is_shown_and_promoted_for_good(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    for name, text in counter("two").items():
        (checkout.path / name).write_text(text)
    checkout.git("-c", "i18n.commitEncoding=utf-7", "commit", "-q", "-a", "-m", "+2AA-")
    await server.until(partial(server.named, "two"), seconds=10)
    commit = checkout.git("rev-parse", "HEAD")
    assert server.json("releases", "--app", "shop")[0]["commit"]["id"] == commit
    assert (await server.get(commit, **BROWSER)).status in (200, 503)


# 30
async def test_previews_behind_a_public_front_need_a_login(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://shop.example.com:{port}"
    server = up(checkout.path, "--public-url", url, "--listen", f"localhost:{port}")
    assert (await server.get(Host=f"shop.example.com:{port}")).status == 200
    assert (await server.get(Host=f"{first}.shop.example.com:{port}")).status == 401


# 31
async def test_only_what_lazycloud_started_is_ended_when_control_comes_back(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path)
    await server.get()
    data = server.home / "apps/shop/data/production/files"
    shell = subprocess.Popen(
        ["sh", "-c", f"sleep 60 & DATA_DIR={data} sleep 60; true"], start_new_session=True
    )
    try:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(new_control, server)
        await asyncio.sleep(1)
        assert shell.poll() is None, "a person's shell who looks at the data was killed"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


# 32
async def test_a_promote_that_was_cut_off_is_told_to_who_waits_for_it(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    good = checkout.commit(counter("good"))
    new = checkout.commit(slow_to_start("new", gate))
    server = up(checkout.path, "--production", good)
    await server.get()
    promoting = subprocess.Popen(
        [sys.executable, "-m", "lazycloud", "promote", new],
        cwd=checkout.path,
        env=os.environ | {"LAZYCLOUD_HOME": str(server.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await asyncio.to_thread(server.wait, lambda: len(server.workers()) == 2, "candidate")
        await asyncio.to_thread(new_control, server)
        await asyncio.to_thread(promoting.wait, 8)
        assert promoting.returncode == 1
    finally:
        promoting.kill()
        promoting.wait()
