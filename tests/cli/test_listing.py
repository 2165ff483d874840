"""ls, ps, releases, inspect, open, logs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

from .conftest import CommandLine, app, commit, git
from .server import HANG, HANG_UP, ScriptedServer

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def entry(subject: str = "Sell tea", **more: Any) -> dict[str, Any]:
    return {
        "commit": commit(subject=subject),
        "refs": ["main", "tag v1"],
        "state": "ready",
        "address": "http://3f2a9c1d0b.localhost:8000/",
        "deployment": "d1",
        "is_production": True,
        "failure": None,
        **more,
    }


async def test_ls_shows_commits_in_full_where_stdout_is_no_terminal(
    lazycloud: CommandLine, server: ScriptedServer
):
    subject = "Sell tea, coffee and [bold]all other[/bold] things that people drink in the afternoon " * 3
    server.answer("GET /api/apps/shop/commits", [entry(subject)])
    done = await lazycloud("ls", "--count", "7")
    assert server.asked("GET /api/apps/shop/commits") == [{"count": "7"}]
    line = done.out.splitlines()[1]
    for part in (
        "●",
        "3f2a9c1d0b",
        "production main, tag v1",
        subject.strip(),
        "http://3f2a9c1d0b.localhost:8000/",
    ):
        assert part in line
    assert "\x1b" not in done.out


async def test_a_commit_cannot_send_escapes_to_the_terminal(lazycloud: CommandLine, server: ScriptedServer):
    server.answer("GET /api/apps/shop/commits", [entry("Sell" + ESCAPE + " tea")])
    done = await lazycloud("ls")
    assert "\x1b" not in done.out
    assert "\x07" not in done.out
    assert "Sell" in done.out


async def test_ls_prints_what_the_api_answers_as_json(lazycloud: CommandLine, server: ScriptedServer):
    server.answer("GET /api/apps/shop/commits", [entry()])
    assert json.loads((await lazycloud("ls", "--json")).out) == [entry()]


async def test_ls_lists_the_apps_where_none_is_meant(
    lazycloud: CommandLine, server: ScriptedServer, tmp_path: Path
):
    production = {"commit": commit(), "state": "ready", "address": "x", "since": 1, "who": "Ada", "why": ""}
    apps = [app("blog", "/srv/blog"), app("wiki", "/srv/wiki") | {"production": production}]
    server.answer("GET /api/apps", apps)
    done = await lazycloud("ls", folder=tmp_path)
    assert done.status == 0
    assert "blog" in done.out
    assert "3f2a9c1d0b  Sell tea" in done.out
    assert json.loads((await lazycloud("ls", "--json", folder=tmp_path)).out) == apps


async def test_ps_lists_what_runs_and_says_when_nothing_does(lazycloud: CommandLine, server: ScriptedServer):
    running = {
        "deployment": "d1", "app": "shop", "commit": commit(), "version": "production", "pid": 4711,
        "memory": 25_300_000, "cpu": 3.2, "requests": 12, "errors": 1, "last": None, "since": 1_700_000_000,
        "address": "http://shop.localhost:8000/", "production": True,
    }  # fmt: skip
    server.answer("GET /api/ps", [running])
    done = await lazycloud("ps")
    for part in ("shop", "4711", "25.3 MB", "3 %", "never", "http://shop.localhost:8000/"):
        assert part in done.out
    server.answer("GET /api/ps", [])
    assert "Nothing runs" in (await lazycloud("ps", "--app", "shop")).err
    assert (await lazycloud("ps", "--json")).out == "[]\n"
    down = {"also": "down"}
    assert server.asked("GET /api/ps") == [down, {"app": "shop"} | down, down]


async def test_releases_tell_who_and_why(lazycloud: CommandLine, server: ScriptedServer):
    release = {
        "commit": commit(),
        "at": 1_700_000_000,
        "who": "Ada",
        "why": "it is tea time",
        "current": True,
    }
    server.answer("GET /api/apps/shop/releases", [release])
    done = await lazycloud("releases")
    for part in ("●", "3f2a9c1d0b", "Ada", "it is tea time"):
        assert part in done.out


def inspection() -> dict[str, Any]:
    step = {"name": "build", "state": "failed", "seconds": 1.25, "note": "in a hurry"}
    failure = {"step": "build", "sentence": "`make` ended with 2.", "advice": "Fix it.", "last": ["no rule"]}
    stage = {
        "name": "dependencies", "kind": "python", "key": "4f1c2d3e5a6b7c8d", "inputs": {"file uv.lock": "abc"},
        "there": True, "outcome": "reused", "seconds": 3.2, "made": 1_700_000_000, "used": 1_700_000_001,
    }  # fmt: skip
    return {
        "stages": [stage],
        "commit": commit(), "refs": ["main"], "address": "http://3f2a9c1d0b.localhost:8000/", "state": "failed",
        "attempt": 2, "is_production": False, "deployment": "d1", "version": "3f2a", "steps": [step],
        "failure": failure, "run": "gunicorn app:app", "found": ["Found a Procfile."], "release": None,
        "data": {"version": "3f2a", "from": "production", "bytes": 8192, "forked": 1_700_000_000},
        "worker": None,
    }  # fmt: skip


async def test_inspect_shows_steps_data_and_what_went_wrong(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path
):
    server.answer("GET /api/apps/shop/inspect", inspection())
    done = await lazycloud("inspect", "HEAD~1")
    assert server.asked("GET /api/apps/shop/inspect") == [{"ref": git(repository, "rev-parse", "HEAD~1")}]
    for part in (
        "Sell tea",
        "build",
        "1.2 s",
        "no rule",
        "`make` ended with 2.",
        "8.2 kB",
        "gunicorn app:app",
        "dependencies (python)",
        "4f1c2d3e5a6b",
        "reused; made",
        "file uv.lock  abc",
    ):
        assert part in done.out


async def test_inspect_of_two_commits_shows_which_inputs_differ(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path
):
    stages = [
        {"name": "source", "kind": "", "keys": ["a", "b"], "same": False, "deploy": "run",
         "differences": [{"input": "tree", "values": ["1234", "5678"]}]},
        {"name": "dependencies", "kind": "node", "keys": ["c", "c"], "same": True, "deploy": "reuse",
         "differences": []},
    ]  # fmt: skip
    server.answer("GET /api/apps/shop/compare", {"commits": [commit(), commit()], "stages": stages})
    done = await lazycloud("inspect", "HEAD~1", "HEAD")
    ids = [git(repository, "rev-parse", name) for name in ("HEAD~1", "HEAD")]
    assert server.asked("GET /api/apps/shop/compare") == [{"from": ids[0], "to": ids[1]}]
    for part in (
        "tree",
        "1234",
        "5678",
        "a deploy of B has to do it",
        "dependencies (node)",
        "and a deploy reuses it",
    ):
        assert part in done.out


async def test_inspect_of_a_running_commit_shows_its_worker(lazycloud: CommandLine, server: ScriptedServer):
    worker = {"pid": 1, "address": "127.0.0.1:20001", "memory": 1e9, "cpu": None, "since": 1, "log": "/x/log"}
    answer = inspection() | {"worker": worker, "failure": None, "steps": [], "data": None, "run": None}
    server.answer("GET /api/apps/shop/inspect", answer)
    done = await lazycloud("inspect", "main")
    for part in ("pid 1 at 127.0.0.1:20001", "1.0 GB", "/x/log"):
        assert part in done.out


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("production", "ready, production"),
        ("3f2a", "ready as a preview; the commit is production, too"),
    ],
)
async def test_inspect_tells_production_from_the_preview_of_its_commit(
    lazycloud: CommandLine, server: ScriptedServer, version: str, told: str
):
    answer = inspection() | {"state": "ready", "failure": None, "is_production": True, "version": version}
    server.answer("GET /api/apps/shop/inspect", answer)
    state = [line for line in (await lazycloud("inspect", "main")).out.splitlines() if "state" in line]
    assert [line.split(maxsplit=1)[1].strip() for line in state] == [told]


async def test_open_prints_the_address_of_production_a_commit_or_the_control_page(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.answer("GET /api/apps/shop/inspect", inspection())
    server.answer("POST /api/login-link", {"url": "http://lazycloud.localhost:8000/login?once=1"})
    assert (await lazycloud("open")).out == "http://shop.localhost:8000/\n"
    assert (await lazycloud("open", "main")).out == "http://3f2a9c1d0b.localhost:8000/\n"
    assert (await lazycloud("open", "--control")).out == "http://lazycloud.localhost:8000/login?once=1\n"
    assert (await lazycloud("open", "--control", "main")).status == 2


async def test_in_a_terminal_open_opens_the_browser_unless_it_is_only_to_print(
    lazycloud: CommandLine, server: ScriptedServer, tmp_path: Path
):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f"#!/bin/sh\necho \"$1\" >> '{opened}'\n")
    browser.chmod(0o755)
    lazycloud.environment["BROWSER"] = f"{browser} %s"
    assert "http://shop.localhost:8000/" in await lazycloud.in_a_terminal("open", "--print")
    assert not opened.exists()
    await lazycloud.in_a_terminal("open")
    assert opened.read_text() == "http://shop.localhost:8000/\n"


async def test_in_a_narrow_terminal_the_subject_is_cut_and_never_the_address(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.answer("GET /api/apps/shop/commits", [entry("Sell tea, and all else that people like " * 5)])
    lazycloud.environment["COLUMNS"] = "100"
    screen = await lazycloud.in_a_terminal("ls")
    line = screen.splitlines()[1]
    assert "…" in line
    assert "http://3f2a9c1d0b.localhost:8000/" in line


async def test_logs_print_each_line_and_keep_the_terminal_safe(
    lazycloud: CommandLine, server: ScriptedServer
):
    entries = [
        {"source": "build", "step": "build", "text": "compiled\n"},
        {"source": "worker", "text": f"GET / \x1b[32m200\x1b[0m{ESCAPE}\nGET /tea 404"},
    ]
    server.stream("/api/apps/shop/logs", entries, entries)
    done = await lazycloud("logs", "-n", "5")
    assert done.out == "compiled\nGET / 200]0;owned\nGET /tea 404\n"
    assert [json.loads(line) for line in (await lazycloud("logs", "--json")).out.splitlines()] == entries
    assert server.asked("GET /api/apps/shop/logs") == [{"lines": "5"}, {"lines": "200"}]


@pytest.mark.parametrize("flag", ["-f", "--follow"])
async def test_logs_come_as_they_are_written_until_ctrl_c(
    lazycloud: CommandLine, server: ScriptedServer, flag: str
):
    server.stream("/api/apps/shop/logs", [{"source": "worker", "text": "one"}, HANG])
    process = await lazycloud.start(sys.executable, "-m", "lazycloud", "logs", flag)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"one\n"
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, err) == (130, b"")
    assert server.asked("GET /api/apps/shop/logs")[0]["follow"] == "1"


async def test_logs_of_a_server_that_goes_away_end_with_a_sentence(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.stream("/api/apps/shop/logs", [{"source": "worker", "text": "one"}, HANG_UP])
    done = await lazycloud("logs", "-f")
    assert (done.status, done.out) == (1, "one\n")
    assert "The server ended the log." in done.err


async def test_a_reader_that_has_enough_causes_no_traceback(lazycloud: CommandLine, server: ScriptedServer):
    server.stream("/api/apps/shop/logs", [{"source": "worker", "text": f"line {n}"} for n in range(20_000)])
    done = await lazycloud.run("sh", "-c", f"{sys.executable} -m lazycloud logs | head -n 1")
    assert done.out == "line 0\n"
    assert "Traceback" not in done.err
