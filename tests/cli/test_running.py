"""ps and ps --watch: what is shown in how much room, what keys do."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lazycloud.cli.running import COLUMNS, Rates, Watch, shown
from lazycloud.cli.terminal import console
from tests.waiting import PATIENCE, until

from .conftest import CommandLine, commit
from .server import ScriptedServer

PROCESS = {"pid": 1, "preloaded": False, "listens": "127.0.0.1:1", "serves": True, "restarts": 0, "ended": ""}


def entry(short: str = "3f2a9c1d0b", **more: Any) -> dict[str, Any]:
    return {
        "deployment": f"shop.{short}", "app": "shop", "commit": commit(short), "version": short * 4, "pid": 4711,
        "state": "ready", "processes": [{"name": "web.1", **PROCESS}], "memory": 25_300_000, "cpu": 3.2,
        "requests": 12, "errors": 1, "last": None, "since": 1_700_000_000, "idle": 75.0, "restarts": 2,
        "last_end": None, "pinned": False, "address": f"http://{short}.localhost:8000/", "production": False,
        **more,
    }  # fmt: skip


def lines(entries: list[dict[str, Any]], width: int = 10_000) -> list[str]:
    screen = console()
    screen.width = width
    with screen.capture() as capture:
        screen.print(shown(entries, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_row_tells_how_a_worker_fares() -> None:
    end = {
        "at": 1_700_000_000,
        "process": "web.2",
        "pid": 9,
        "how": "was ended by the memory limit",
        "expected": False,
    }
    both = [{"name": name, **PROCESS} for name in ("web.1", "web.2", "clock.1")]
    text = lines([entry(processes=both, last_end=end, pinned=True)])[1]
    for part in ("shop", "3f2a9c1d0b", "pinned", "2 web, 1 clock", "4711", "25.3 MB", "3 %", "12", "1 min"):
        assert part in text
    assert re.search(r"1 min +2 +web\.2 was ended by the memory limit, \d+ years? ago", text)


def test_an_older_server_and_what_has_no_worker_are_shown_too() -> None:
    old = {name: value for name, value in entry().items() if name not in (
        "state", "processes", "idle", "restarts", "last_end", "pinned")}  # fmt: skip
    assert "never" in lines([old])[1]
    down = entry(pid=None, processes=[], memory=0, cpu=0, idle=None, state="failed", failure="It broke.")
    assert "failed" in lines([down])[1]
    assert "It broke." in lines([down])[1]
    assert not re.search(r"\d %|\d k?B|\d (s|min|h|d)\b(?! ago)", lines([down])[1])  # nothing runs


def test_production_says_what_it_is_at_unless_it_is_ready() -> None:
    assert re.search(r"3f2a9c1d0b +production  ", lines([entry(production=True)])[1])
    assert "production, restarting" in lines([entry(production=True, state="restarting")])[1]
    assert "production, pinned, failed" in lines([entry(production=True, pinned=True, state="failed")])[1]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_columns_are_left_out_rather_than_cut(width: int) -> None:
    entries = [entry(), entry("aaaaaaaaaa", production=True)]
    text = lines(entries, width)
    assert all(len(line) <= width for line in text)
    assert all("…" not in line for line in text)
    assert all(one["commit"]["short"] in line for one, line in zip(entries, text[1:], strict=True))
    assert ("25.3 MB" in text[1]) == (width >= 40)


def test_a_rate_is_that_since_the_look_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now, rates = [100.0], Rates()
    monkeypatch.setattr("lazycloud.cli.running.time.monotonic", lambda: now[0])
    assert rates.add([entry(requests=10)])[0]["rate"] == 0
    now[0] += 2
    assert rates.add([entry(requests=30)])[0]["rate"] == 10
    now[0] += 2
    assert rates.add([entry(requests=5)])[0]["rate"] == 0  # its routers began anew


@pytest.mark.parametrize("height", [1, 4, 5, 24])
def test_a_small_terminal_shows_what_it_can(height: int) -> None:
    many = [entry(f"{number:010d}", memory=number) for number in range(30)]
    view = Watch(lambda: many, 1.0)
    view._look()
    for view.key in ("n", "m"):
        screen = console()
        with screen.capture() as capture:
            screen.print(view.view(80, height))
        text = capture.get().splitlines()
        assert len(text) <= max(height, 5)
        assert ("0000000029" in text[3]) == (view.key == "m")
        assert f"{30 - max(1, height - 4)} more" in text[-1]


def test_columns_have_names_of_their_own() -> None:
    named = [column.heading for column in COLUMNS if column.heading]
    assert len(set(named)) == len(named)


class Terminal:
    """A terminal with `lazycloud ps --watch` in it."""

    def __init__(self, process: asyncio.subprocess.Process, ours: int) -> None:
        self.process, self.ours, self.seen = process, ours, ""
        asyncio.get_running_loop().add_reader(ours, self._read)

    def _read(self) -> None:
        try:
            self.seen += os.read(self.ours, 65536).decode(errors="replace")
        except OSError:
            asyncio.get_running_loop().remove_reader(self.ours)

    def type(self, keys: str) -> None:
        self.seen = ""
        os.write(self.ours, keys.encode())

    async def shows(self, holds: Callable[[str], Any]) -> None:
        await until(lambda: holds(self.seen), f"what is looked for in {self.seen!r}")


@pytest.fixture
async def watching(lazycloud: CommandLine, server: ScriptedServer) -> AsyncIterator[Terminal]:
    heavy = entry("bbbbbbbbbb", memory=99_000_000, cpu=1.0, requests=1)
    server.answer("GET /api/ps", [entry("aaaaaaaaaa", production=True), heavy])
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 12, 90, 0, 0))
    modes = termios.tcgetattr(theirs)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lazycloud", "ps", "--watch", "--every", "0.3",
        cwd=lazycloud.folder, env=lazycloud.environment | {"TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    terminal = Terminal(process, ours)
    yield terminal
    if process.returncode is None:
        process.kill()
    await process.wait()
    asyncio.get_running_loop().remove_reader(ours)
    assert termios.tcgetattr(theirs) == modes
    os.close(ours)
    os.close(theirs)


def before(first: str, second: str) -> Callable[[str], bool]:
    """In the last whole screen."""

    def holds(seen: str) -> bool:
        screen = seen[: seen.rfind(" run, ")]
        screen = screen[screen.rfind(" run, ") :]
        return 0 <= screen.find(first) < screen.find(second)

    return holds


async def test_watch_sorts_by_keys_and_leaves_at_q(watching: Terminal, server: ScriptedServer) -> None:
    await watching.shows(before("aaaaaaaaaa", "bbbbbbbbbb"))
    assert "\x1b[?1049h" in watching.seen  # a screen of its own
    watching.type("m")
    await watching.shows(before("bbbbbbbbbb", "aaaaaaaaaa"))
    watching.type("c")
    await watching.shows(before("aaaaaaaaaa", "bbbbbbbbbb"))
    count = len(server.asked("GET /api/ps"))
    await watching.shows(lambda _: len(server.asked("GET /api/ps")) > count)
    watching.type("q")
    assert await asyncio.wait_for(watching.process.wait(), PATIENCE) == 0
    assert "\x1b[?1049l" in watching.seen
    assert server.asked("GET /api/ps")[0] == {"also": "down"}


async def test_watch_goes_on_without_its_server_and_ends_at_ctrl_c(
    watching: Terminal, server: ScriptedServer
) -> None:
    await watching.shows(lambda seen: "bbbbbbbbbb" in seen)
    await server.stop()
    await watching.shows(lambda seen: "No lazycloud server runs" in seen)
    watching.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(watching.process.wait(), PATIENCE) == 130


async def test_without_a_terminal_the_list_is_printed_again_and_again(
    lazycloud: CommandLine, server: ScriptedServer
) -> None:
    server.answer("GET /api/ps", [entry()])
    for flags, read in ((["--json"], json.loads), ([], str)):
        words = [sys.executable, "-m", "lazycloud", "ps", "--watch", "--every", "0.2", *flags]
        process = await lazycloud.start(*words)
        seen = [
            read((await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()) for _ in range(8)
        ]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 130
        if flags:
            assert all(rows[0]["commit"]["short"] == "3f2a9c1d0b" and "rate" in rows[0] for rows in seen)
        else:
            assert len([line for line in seen if " run, " in line]) == 2
            assert "\x1b" not in "".join(seen)


async def test_all_asks_for_what_sleeps(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/ps", [entry(pid=None, processes=[], state="stopped")])
    assert "stopped" in (await lazycloud("ps", "--all")).out
    assert server.asked("GET /api/ps") == [{"also": "all"}]
