"""run and shell against a real server: streams, terminals, data, and that a command ends with who is at it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server

pytestmark = pytest.mark.slow

LAZYCLOUD = [sys.executable, "-m", "lazycloud"]


class Running:
    """`lazycloud run …` as a process, perhaps in a terminal."""

    def __init__(self, server: Server, folder: Path, *arguments: str, terminal: bool = False) -> None:
        self.seen = b""
        self.ours, theirs = pty.openpty() if terminal else (-1, -1)
        pipe = theirs if terminal else subprocess.PIPE
        if terminal:
            self.resize(24, 80)
            self.modes = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [*LAZYCLOUD, *arguments],
            cwd=folder,
            env=os.environ | {"LAZYCLOUD_HOME": str(server.home), "NO_COLOR": "1", "TERM": "xterm"},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        self.theirs = theirs

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def shows(self, text: str) -> str:
        """Until its terminal, or its output, does; what came up to there."""
        source = self.ours if self.ours >= 0 else self.process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([source], [], [], 0.1)[0]:
                data = os.read(source, 65536)
                assert data, self.seen
                self.seen += data
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def interrupt(self) -> None:
        """Ctrl-C three times; those that come at once are one, so that a busy machine may need more of them."""
        for pause in (0.2, 0.2, *[5.0] * 20):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(pause)
                return

    def status(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for descriptor in {self.ours, self.theirs} - {-1}:
            os.close(descriptor)


class Runner:
    """Begins commands in the app's folder; they are gone after the test."""

    def __init__(self, server: Server, checkout: Checkout) -> None:
        server.wait(lambda: "is ready" in server.output, "production")
        self.server, self.checkout, self.folder = server, checkout, checkout.path
        self.begun: list[Running] = []
        self.before: set[Path] = set()

    def scratch(self) -> set[Path]:
        return set((self.server.home / "scratch").glob("*"))

    def close(self) -> None:
        for running in self.begun:
            running.close()

    def __call__(self, *arguments: str, terminal: bool = False) -> Running:
        if not commands(self.server):
            self.before = self.scratch()
        self.begun.append(Running(self.server, self.folder, *arguments, terminal=terminal))
        return self.begun[-1]

    def done(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        running = self(*arguments)
        out, err = running.process.communicate(stdin, PATIENCE)
        return running.process.returncode, out.decode(), err.decode()


QUICK = {"lazycloud.toml": "[run]\ncommand = 'python app.py'\nstop_timeout = 0.5\n"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One server for all tests that leave it as it was, with a commit before production, which nobody has opened."""
    folder = tmp_path_factory.mktemp("run")
    checkout = Checkout(folder / "shop")
    checkout.commit(counter("earlier"))
    checkout.commit(counter("good", **QUICK, **{"note.txt": "here\n"}))
    server = Server(folder / "home", checkout.path).start()
    runner = Runner(server, checkout)
    yield runner
    runner.close()
    server.stop()
    assert not server.workers(), server.output


@pytest.fixture
def run_alone(up: Up, checkout: Checkout) -> Iterator[Runner]:
    """For those that end the server."""
    checkout.commit(counter("good", **QUICK))
    runner = Runner(up(checkout.path), checkout)
    yield runner
    runner.close()


def commands(server: Server) -> list[psutil.Process]:
    """What runs with an errand's folders: not the workers."""
    found = []
    for process in server.workers():
        with contextlib.suppress(psutil.Error):
            if "PORT" not in process.environ() and process.status() != "zombie":
                found.append(process)
    return found


def gone(run: Runner) -> None:
    """Of all commands nothing is left."""
    run.server.wait(lambda: not commands(run.server), "end of all commands")
    run.server.wait(lambda: run.scratch() <= run.before, "end of their temporary folders")


def test_a_command_runs_in_the_commits_release_environment_and_data(run: Runner) -> None:
    status, out, err = run.done("run", "HEAD", "--", "sh", "-c", "cat note.txt; env; echo wrong >&2; exit 3")
    head = run.checkout.git("rev-parse", "HEAD")
    environment = dict(line.split("=", 1) for line in out.splitlines()[1:] if "=" in line)
    assert (status, out.splitlines()[0], err.splitlines()[-1]) == (3, "here", "wrong")
    assert (environment["COMMIT_ID"], environment["LAZYCLOUD_VERSION"]) == (head, head)
    assert not any(name.startswith("LAZYCLOUD_HOME") or name == "PORT" for name in environment)
    running = [one["version"] for one in run.server.json("ps")]
    assert running == ["production"]  # it needs no worker, and starts none
    gone(run)


async def test_it_shares_its_data_with_the_worker_and_not_with_production(run: Runner) -> None:
    insert = "import os, sqlite3; db = sqlite3.connect(os.environ['DATABASE_URL'][10:]); "
    insert += "db.execute('INSERT INTO notes VALUES (?)', ('by hand',)); db.commit()"
    await run.server.verb("deploy", "HEAD", folder=run.folder)
    head = run.checkout.git("rev-parse", "HEAD")
    assert (await asyncio.to_thread(run.done, "run", "HEAD", "--", "python", "-c", insert))[0] == 0
    assert (await run.server.get(head[:10])).json["notes"] == ["by hand"]
    assert (await run.server.get()).json["notes"] == []
    status, _, err = await asyncio.to_thread(run.done, "run", "production", "--", "python", "-c", insert)
    assert (status, "data of production" in err, "--yes" in err) == (2, True, True)
    assert (await asyncio.to_thread(run.done, "run", "production", "-y", "--", "python", "-c", insert))[
        0
    ] == 0
    assert (await run.server.get()).json["notes"] == ["by hand"]


async def test_a_commit_that_was_never_built_is_built_and_not_started(run: Runner) -> None:
    earlier = run.checkout.git("rev-parse", "HEAD~1")
    status, out, err = await asyncio.to_thread(run.done, "run", "HEAD~1", "--", "echo", "$HOME is a word")
    assert (status, out) == (0, "$HOME is a word\n")
    assert "✓ source" in err
    known = await run.server.inspect(earlier)
    assert (known["state"], known["worker"], known["data"]["from"]) == ("stopped", None, "production")
    assert (await run.server.get(earlier[:10])).json["name"] == "earlier"


async def test_a_commit_that_does_not_start_can_be_looked_at_and_stays_failed(run: Runner) -> None:
    run.checkout.git("checkout", "-q", "-b", "broken")
    crashing = run.checkout.commit({**counter("crashing"), "app.py": "raise SystemExit('no')"})
    wrong = run.checkout.commit({"lazycloud.toml": "[build]\ncommand = 'echo broken; exit 1'\n"})
    run.checkout.git("checkout", "-q", "main")
    await run.server.verb("deploy", crashing, folder=run.folder, code=1)
    assert (await asyncio.to_thread(run.done, "run", crashing, "--", "cat", "app.py"))[1].startswith("raise")
    assert (await run.server.inspect(crashing))["state"] == "failed"
    status, out, err = await asyncio.to_thread(run.done, "run", wrong, "--", "true")
    assert (status, out) == (1, "")
    assert "broken" in err


def test_input_goes_through_whole_and_output_too(run: Runner) -> None:
    text = os.urandom(5_000_000)
    running = run("run", "HEAD", "--", "cat")
    assert running.process.communicate(text, PATIENCE)[0] == text
    assert run.done("run", "HEAD", "--", "cat") == (0, "", "")


def test_a_reader_that_stands_still_makes_the_command_wait(run: Runner) -> None:
    endless = 'while :; do n=$((n+1)); echo $n > "$DATA_DIR/count"; head -c 100000 /dev/zero; done'
    running = run("run", "HEAD", "--", endless)
    run.server.wait(lambda: list(run.server.home.glob("apps/shop/data/*/files/count")), "first lines")
    (count,) = run.server.home.glob("apps/shop/data/*/files/count")

    def stands() -> str:
        before = count.read_text()
        time.sleep(0.3)
        return before if before == count.read_text() else ""

    before = int(run.server.wait(stands, "standstill"))
    assert before < 100  # times 100 kB: what waits is bounded
    for _ in range(500):
        os.read(running.process.stdout.fileno(), 65536)
    run.server.wait(lambda: int(count.read_text() or 0) > before, "going on")
    running.close()
    gone(run)


def test_who_is_told_to_leave_leaves_though_nobody_reads(run: Runner) -> None:
    running = run("run", "HEAD", "--", "echo ready; trap '' INT; while :; do head -c 100000 /dev/zero; done")
    running.shows("ready")
    running.interrupt()
    assert running.status() == 130
    gone(run)


def test_what_a_command_uses_is_not_pruned(run: Runner) -> None:
    running = run("run", "HEAD~1", "--", "echo ready; read line; cat app.py")
    running.shows("ready")
    run.server.cli("prune", "--all")
    running.process.stdin.write(b"\n")
    running.process.stdin.flush()
    running.shows("earlier")
    assert running.status() == 0


def test_signals_reach_the_command_and_its_end_is_told(run: Runner) -> None:
    for number, status in ((signal.SIGINT, 7), (signal.SIGTERM, 128 + 15)):
        running = run("run", "HEAD", "--", "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done")
        running.shows("ready")
        running.process.send_signal(number)
        assert running.status() == status
    deaf = run("run", "HEAD", "--", "trap '' INT TERM; echo ready; while :; do sleep 0.1; done")
    deaf.shows("ready")
    deaf.interrupt()
    assert deaf.status() == 130
    gone(run)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_ends_when_who_is_at_it_has_gone(run: Runner, terminal: bool) -> None:
    running = run("run", "HEAD", "--", "(setsid sleep 1000 &); echo ready; sleep 1000", terminal=terminal)
    running.shows("ready")
    run.server.wait(lambda: len(commands(run.server)) >= 2, "its daemon")
    running.process.kill()
    gone(run)


def test_what_reads_the_output_may_leave(run: Runner) -> None:
    line = f"{' '.join(LAZYCLOUD)} run HEAD -- yes | head -2"
    environment = os.environ | {"LAZYCLOUD_HOME": str(run.server.home)}
    done = subprocess.run(
        line, shell=True, cwd=run.folder, env=environment, capture_output=True, timeout=PATIENCE
    )
    assert done.stdout == b"y\ny\n"
    gone(run)


def test_a_shell_is_a_terminal_of_the_right_size_and_ctrl_c_is_the_commands(run: Runner) -> None:
    shell = run("shell", "HEAD", terminal=True)
    assert re.search(r"shop [0-9a-f]{10}$", shell.shows(" $ "))
    shell.type("stty size; tty; echo $TERM\r")
    assert "24 80" in shell.shows("xterm\r\n")
    shell.resize(50, 132)
    os.killpg(shell.process.pid, signal.SIGWINCH)  # it is in no foreground of our terminal
    size = ""
    while "50 132" not in size:
        shell.type("stty size; echo so''me\r")
        size = shell.shows("some\r\n")
    shell.type("sleep 1000; echo an''other\r")
    run.server.wait(lambda: any(p.name() == "sleep" for p in commands(run.server)), "a foreground command")
    shell.type("\x03")
    shell.type("echo still he''re\r")
    shell.shows("still here")
    shell.type("exit 4\r")
    assert shell.status() == 4
    assert termios.tcgetattr(shell.theirs) == shell.modes
    gone(run)


def test_production_asks_in_a_terminal(run: Runner) -> None:
    refused = run("shell", "production", terminal=True)
    refused.shows("Go on? [y/N]")
    refused.type("n\n")
    assert refused.status() == 130
    agreed = run("run", "production", "--", "echo v=$LAZYCLOUD_VERSION", terminal=True)
    agreed.shows("Go on? [y/N]")
    agreed.type("y\n")
    agreed.shows("v=production")
    assert agreed.status() == 0


def test_another_machine_runs_one_with_the_token(run: Runner) -> None:
    token = run.server.authorization.split()[1]
    control = f"http://lazycloud.localhost:{run.server.port}"
    wrong = run.done("run", "HEAD", "--server", control, "--token", "wrong", "--", "true")
    assert wrong[0] == 1
    status, out, _ = run.done("run", "HEAD", "--server", control, "--token", token, "--", "cat", stdin=b"far")
    assert (status, out) == (0, "far")
    missing = run.done("run", "nonsense", "--server", control, "--token", token, "--", "true")
    assert (missing[0], "nonsense" in missing[2]) == (1, True)


def test_commands_end_with_the_server_that_is_stopped(run_alone: Runner) -> None:
    running = run_alone(
        "run", "HEAD", "--", "trap '' TERM HUP; echo ready; sleep 1000; sleep 1000", terminal=True
    )
    running.shows("ready")
    run_alone.server.stop()
    assert running.status() == 1
    assert not run_alone.server.workers()


def test_a_command_does_not_outlive_its_control(run_alone: Runner) -> None:
    for terminal in (False, True):
        running = run_alone(
            "run", "HEAD", "--", "trap '' TERM HUP; echo ready; sleep 1000; sleep 1000", terminal=terminal
        )
        running.shows("ready")
        run_alone.server.children()["control"].kill()
        assert running.status() == 1
        gone(run_alone)
        run_alone.server.wait(lambda: "control" in run_alone.server.children(), "another control")
    assert run_alone.done("run", "HEAD", "--", "echo", "again")[1] == "again\n"


async def test_what_a_client_sends_is_looked_at(run: Runner) -> None:
    url = f"http://127.0.0.1:{run.server.port}/api/apps/shop/run"
    headers = {"Host": run.server.host("lazycloud"), "Authorization": run.server.authorization}
    good = json.dumps({"command": "sleep 1000", "terminal": None})
    bad = [
        ["nonsense"],
        ["[]"],
        ['{"command": ""}'],
        ['{"shell": true, "command": ""}'],
        ['{"shell": "true"}'],
        ['{"command": "a\\u0000b"}'],
        ['{"command": "true", "terminal": {"size": ["a", 1], "kind": "x"}}'],
        [good, '{"signal": "KILL"}'],
        [good, '{"size": [1]}'],
        [good, '{"take": -1}'],
        [good, *([bytes(200_000)] * 6)],
    ]
    async with aiohttp.ClientSession(headers=headers) as session:
        for frames in bad:
            async with session.ws_connect(url, params={"ref": "production"}) as socket:
                await socket.send_str(frames[0])
                error = {}
                async for message in socket:
                    words = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
                    error = words.get("error") or error
                    for frame in frames[1:] if "began" in words else ():
                        await (
                            socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame)
                        )
                assert error.get("kind") == "bad input", frames
        async with session.get(url, params={"ref": "production"}) as answer:
            assert (answer.status, "websocket" in await answer.text()) == (422, True)
        async with session.get(url) as answer:
            assert answer.status == 422
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(
                url, params={"ref": "production"}, headers={"Origin": "http://evil.example"}
            )
    await asyncio.to_thread(gone, run)


async def test_who_ran_what_is_in_the_log(run: Runner) -> None:
    await asyncio.to_thread(run.done, "run", "HEAD", "--", "true")
    text = (await run.server.get("lazycloud", "/api/events", Authorization=run.server.authorization)).text
    events = [json.loads(line) for line in text.splitlines() if line]
    *_, started = [event for event in events if event["kind"] == "command_started"]
    *_, ended = [event for event in events if event["kind"] == "command_ended"]
    assert (started["command"], bool(started["who"])) == ("true", True)
    assert ended["how"] == "ended with exit status 0"


async def test_a_shell_is_called_one_in_the_log_whatever_it_is_started_by(run: Runner) -> None:
    assert await asyncio.to_thread(run.done, "shell", "HEAD", stdin=b"echo in a shell\n") == (
        0,
        "in a shell\n",
        "",
    )
    told = await run.server.verb("events", "--app", "shop")
    assert "runs “a shell” in " in told
    assert "PS1" not in told and "exec sh" not in told


async def test_viewers_are_not_told_what_was_run_and_run_nothing(run: Runner) -> None:
    await asyncio.to_thread(run.done, "run", "HEAD", "--", "echo", "a-secret")
    made = await run.server.post(
        "lazycloud", json.dumps({"name": "watcher", "role": "viewer"}), "/api/tokens",
        Authorization=run.server.authorization, Content_Type="application/json",
    )  # fmt: skip
    viewer = f"Bearer {made.json['token']}"
    told = (await run.server.get("lazycloud", "/api/events", Authorization=viewer)).text
    assert "runs a command in" in told
    assert "a-secret" not in told
    overview = (await run.server.get("lazycloud", "/api/overview", Authorization=viewer)).text
    assert "runs a command in" in overview
    assert "a-secret" not in overview
    refused = await run.server.get("lazycloud", "/api/apps/shop/run?ref=HEAD", Authorization=viewer)
    assert refused.status == 403
