"""deploy, stop, promote, rollback: what they ask for, and how they follow it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

from .conftest import CommandLine, git
from .server import HANG, HANG_UP, ScriptedServer

ADDRESS = "http://3f2a9c1d0b.localhost:8000/"
FOLLOW = "/api/deployments/d1/follow"
PRODUCTION = "/api/apps/shop/production/follow"


def state(number: int, before: str, after: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "kind": "state_changed", "before": before, "after": after, "reason": "", **more}


def event(number: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "kind": kind, "attempt": 1, **more}


def finished(number: int, step: str, outcome: str = "done", note: str = "") -> dict[str, Any]:
    return event(number, "step_finished", step=step, outcome=outcome, seconds=1.5, note=note)


GOOD = [
    state(11, "cold", "queued", ahead=2, failure=None),
    state(12, "queued", "building", ahead=0, failure=None),
    event(13, "step_started", step="source"),
    finished(14, "source"),
    event(15, "step_started", step="build"),
    event(16, "output", step="build", text="compiling \x1b[31mred"),
    event(17, "output", step="build", text=" things\nhalf"),
    finished(18, "build", note="42 files"),
    finished(19, "release", "skipped"),
    state(20, "building", "starting", failure=None),
    state(21, "starting", "ready", failure=None),
]
FAILURE = {
    "step": "build",
    "sentence": "`make` ended with 2.",
    "advice": "Fix it.",
    "last": ["no rule", "sorry"],
}
BAD = [*GOOD[:5], finished(16, "build", "failed"), state(17, "building", "failed", failure=FAILURE)]


@pytest.fixture
def accepting(server: ScriptedServer) -> ScriptedServer:
    """A server that takes deploys, promotions and roll-backs; what follows is up to the test."""
    answer = {"deployment": "d1", "address": ADDRESS, "state": "queued", "number": 10}
    server.answer("POST /api/apps/shop/deploy", answer, 202)
    moved = {"deployment": "d1", "number": 10, "commit": "3f2a9c1d0b" * 4, "address": ADDRESS}
    server.answer("POST /api/apps/shop/promote", moved, 202)
    server.answer("POST /api/apps/shop/rollback", moved, 202)
    return server


async def test_deploy_shows_steps_and_output_and_ends_with_the_address(
    lazycloud: CommandLine, accepting: ScriptedServer, repository: Path
):
    accepting.stream(FOLLOW, GOOD)
    done = await lazycloud("deploy")
    assert (done.status, done.out) == (0, ADDRESS + "\n")
    assert done.err.splitlines() == [
        "Waiting; 2 deploys ahead.",
        "✓ source 1.5 s",
        "  compiling red things",
        "  half",
        "✓ build 1.5 s 42 files",
        "– release skipped",
    ]
    asked = {"ref": git(repository, "rev-parse", "HEAD"), "retry": True}
    assert accepting.asked("POST /api/apps/shop/deploy") == [asked]
    assert accepting.asked(f"GET {FOLLOW}") == [{"after": "10"}]


async def test_a_ref_is_resolved_where_the_repository_knows_it_and_sent_as_typed_elsewhere(
    lazycloud: CommandLine, accepting: ScriptedServer, repository: Path, tmp_path: Path
):
    for ref in ("HEAD~1", "feature-tea", "3f2a9c1"):
        await lazycloud("deploy", ref, "--detach")
    await lazycloud("deploy", "--detach", folder=tmp_path)
    await lazycloud("deploy", "--detach", "--", "--upload-pack=x")
    refs = [body["ref"] for body in accepting.asked("POST /api/apps/shop/deploy")]
    earlier = git(repository, "rev-parse", "HEAD~1")
    assert refs == [earlier, "feature-tea", "3f2a9c1", "main", "--upload-pack=x"]


async def test_a_failed_deploy_ends_with_last_lines_sentence_and_advice(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    accepting.stream(FOLLOW, BAD)
    done = await lazycloud("deploy")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-5:] == [
        "✗ build 1.5 s",
        "no rule",
        "sorry",
        "error: build: `make` ended with 2.",
        "Fix it.",
    ]


async def test_a_deploy_that_somebody_stops_is_a_failure(lazycloud: CommandLine, accepting: ScriptedServer):
    stopped = state(13, "building", "stopping", reason="told to stop", failure=None)
    accepting.stream(FOLLOW, [*GOOD[:2], stopped, HANG])
    done = await lazycloud("deploy")
    assert done.status == 1
    assert "error: The deploy was ended: told to stop." in done.err


async def test_the_end_of_an_earlier_worker_is_not_the_end_of_the_deploy(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    accepting.stream(FOLLOW, [state(11, "stopping", "stopped"), state(12, "stopped", "queued"), GOOD[-1]])
    assert (await lazycloud("deploy")).status == 0


async def test_a_lost_connection_is_resumed_after_the_last_event(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    accepting.stream(FOLLOW, [*GOOD[:4], HANG_UP], [], GOOD[4:])
    done = await lazycloud("deploy")
    assert (done.status, done.out) == (0, ADDRESS + "\n")
    assert [query["after"] for query in accepting.asked(f"GET {FOLLOW}")] == ["10", "14", "14"]


async def test_a_commit_that_is_up_already_is_not_followed(lazycloud: CommandLine, accepting: ScriptedServer):
    answer = {"deployment": "d1", "address": ADDRESS, "state": "ready", "number": 10}
    accepting.answer("POST /api/apps/shop/deploy", answer, 202)
    done = await lazycloud("deploy")
    assert (done.status, done.out) == (0, ADDRESS + "\n")


async def test_detached_it_waits_for_nothing(lazycloud: CommandLine, accepting: ScriptedServer):
    done = await lazycloud("deploy", "--detach")
    assert (done.status, done.out, done.err) == (0, ADDRESS + "\n", "")


async def test_as_json_it_prints_the_answer_and_each_event(lazycloud: CommandLine, accepting: ScriptedServer):
    accepting.stream(FOLLOW, BAD)
    done = await lazycloud("deploy", "--json")
    first, *events = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert first["address"] == ADDRESS
    assert events == BAD


async def test_ctrl_c_leaves_the_deploy_alone_and_says_so(lazycloud: CommandLine, accepting: ScriptedServer):
    accepting.stream(FOLLOW, [*GOOD[:4], HANG])
    process = await lazycloud.start(sys.executable, "-m", "lazycloud", "deploy")
    await asyncio.wait_for(accepting.hung.wait(), PATIENCE)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines()[-1] == f"The deploy goes on: {ADDRESS}"


async def test_in_a_terminal_the_steps_tick_and_output_scrolls_above_them(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    accepting.stream(FOLLOW, GOOD)
    screen = await lazycloud.in_a_terminal("deploy")
    for part in ("✓", "source", "build", "42 files", "things", ADDRESS):
        assert part in screen
    assert screen.rindex("things") < screen.rindex("42 files") < screen.rindex(ADDRESS)


async def test_in_a_terminal_a_promote_shows_the_steps_of_both_its_deploys(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    first = [{**one, "deployment": "rehearsal"} for one in GOOD[2:4]]
    second = [{**one, "deployment": "production"} for one in (*GOOD[2:3], finished(25, "source", "reused"))]
    promoted = event(30, "promoted", commit="3f2a9c1d0b" * 4, before="", who="Ada", why="")
    accepting.stream(PRODUCTION, [*first, *second, promoted])
    screen = await lazycloud.in_a_terminal("promote", "HEAD")
    assert screen.rindex("1.5 s") < screen.rindex("reused") < screen.rindex("is now 3f2a9c1d0b")


async def test_a_promote_says_which_of_its_deploys_is_the_rehearsal(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    acts = {
        "rehearsal-3f2a": "Rehearsal",
        "migration-3f2a": "On a fork that",
        "production": "Production’s new",
    }
    events = [{**one, "deployment": f"shop.3f2a.{name}"} for name in acts for one in GOOD[2:8]]
    promoted = event(30, "promoted", commit="3f2a9c1d0b" * 4, before="", who="Ada", why="")
    accepting.stream(PRODUCTION, [*events, promoted], [*events, promoted], [*events[12:], promoted])
    told = (await lazycloud("promote", "HEAD")).err
    screen = await lazycloud.in_a_terminal("promote", "HEAD")
    for said in (told, screen):
        places = [said.index(words) for words in acts.values()]
        assert places == sorted(places)
    for words in acts.values():
        assert told.count(words) == 1
    assert "Production’s new" not in (await lazycloud("promote", "HEAD")).err  # there is but this one


async def test_promote_follows_till_the_swap_and_not_only_till_it_is_ready(
    lazycloud: CommandLine, accepting: ScriptedServer, repository: Path
):
    promoted = event(30, "promoted", commit="3f2a9c1d0b" * 4, before="", who="Ada", why="tea")
    accepting.stream(PRODUCTION, [*GOOD, promoted])
    done = await lazycloud("promote", "HEAD", "-m", "tea")
    assert (done.status, done.out) == (0, "http://shop.localhost:8000/\n")
    assert done.err.splitlines()[-1] == "Production of shop is now 3f2a9c1d0b."
    body = {"ref": git(repository, "rev-parse", "HEAD"), "why": "tea"}
    assert accepting.asked("POST /api/apps/shop/promote") == [body]


async def test_a_failed_promote_says_why_and_shows_the_last_lines(
    lazycloud: CommandLine, accepting: ScriptedServer
):
    said = {"sentence": "3f2a9c1d0b did not become production of shop: no.", "advice": "Fix it."}
    accepting.stream(PRODUCTION, [*BAD, event(30, "promote_failed", commit="3f", **said)])
    done = await lazycloud("promote", "HEAD")
    assert done.status == 1
    assert done.err.splitlines()[-4:] == ["no rule", "sorry", f"error: {said['sentence']}", "Fix it."]


async def test_rollback_goes_to_the_one_before_or_a_named_one(
    lazycloud: CommandLine, accepting: ScriptedServer, repository: Path
):
    promoted = event(30, "promoted", commit="3f2a9c1d0b" * 4, before="", who="Ada", why="")
    accepting.stream(PRODUCTION, [promoted], [promoted])
    moved = "GET /api/apps/shop/data/moved"
    accepting.answer(moved, {"commit": "3f2a9c1d0b" * 4, "changes": [], "snapshot": None})
    done = await lazycloud("rollback")
    assert (done.status, done.err) == (0, "Production of shop is now 3f2a9c1d0b.\n")
    changes = {"changes": ["notes: stars was added"], "snapshot": "20260131T110000123456-0c1d2e3f"}
    accepting.answer(moved, {"commit": "3f2a9c1d0b" * 4, **changes})
    done = await lazycloud("rollback", "HEAD~1", "--why", "oops")
    assert done.status == 0
    assert "the schema of its data has moved:\n  notes: stars was added\n" in done.err
    assert done.err.endswith("lazycloud data restore production@20260131T110000123456-0c1d2e3f\n")
    bodies = accepting.asked("POST /api/apps/shop/rollback")
    assert bodies == [
        {"ref": None, "why": ""},
        {"ref": git(repository, "rev-parse", "HEAD~1"), "why": "oops"},
    ]


async def test_stop_says_whether_it_ran(lazycloud: CommandLine, server: ScriptedServer):
    server.answer("POST /api/apps/shop/stop", {"stopped": False, "deployment": None})
    done = await lazycloud("stop", "HEAD")
    assert (done.status, done.err) == (0, "It was not running.\n")
