"""Commands that somebody is at: their streams, their terminal, their end, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from lazycloud.errors import StepFailed
from lazycloud.walls.sandbox import Sandbox, missing
from lazycloud.walls.view import View
from lazycloud.workers.engine import Processes, Sandboxed
from lazycloud.workers.errand import STDERR, STDOUT, Errand, Terminal
from tests.waiting import PATIENCE, until
from tests.workers.conftest import launch

Spawn = Callable[..., Awaitable[Errand]]
TERMINAL = Terminal(24, 80, "xterm-256color")


@pytest.fixture(params=["none", "sandbox"])
async def spawn(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Spawn]:
    walls, view, made = request.param == "sandbox", None, []
    if walls:
        if why := missing():
            pytest.skip(why)
        view = View(tmp_path.parent, (), (tmp_path,), scratch=tmp_path)
    engine = Sandboxed(Sandbox(tmp_path.parent, {})) if walls else Processes()

    async def begin(command: str, terminal: Terminal | None = None) -> Errand:
        made.append(await engine.spawn(launch(tmp_path, command, view=view), command, terminal))
        return made[-1]

    yield begin
    for errand in made:
        await errand.end()
        errand.close()
    await engine.close()
    await until(lambda: started_with(tmp_path) == [])


def started_with(tmp_path: Path) -> list[int]:
    """Processes that have this test's HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(tmp_path) and process.status() != "zombie":
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def all_of(errand: Errand) -> dict[int, bytes]:
    written = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(PATIENCE):
        while (piece := await errand.read(65536))[0]:
            written[piece[0]] += piece[1]
    return written


async def reads(errand: Errand, text: bytes) -> bytes:
    """Until that was written."""
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while text not in seen:
            number, data = await errand.read(65536)
            assert number, seen
            seen += data
    return seen


async def test_output_errors_and_status_are_told_apart(spawn: Spawn) -> None:
    errand = await spawn("echo out; echo wrong >&2; exit 3")
    assert await all_of(errand) == {STDOUT: b"out\n", STDERR: b"wrong\n"}
    assert await errand.ended() == 3


async def test_input_of_any_size_goes_through_and_ends(spawn: Spawn) -> None:
    errand = await spawn("sha256sum; wc -c")
    text = os.urandom(3_000_000)
    writing = asyncio.create_task(errand.write(text))
    await writing
    errand.close_input()
    assert (await all_of(errand))[STDOUT].endswith(b"-\n0\n")
    assert await errand.ended() == 0


async def test_who_is_not_read_waits_and_who_does_not_read_makes_wait(spawn: Spawn, tmp_path: Path) -> None:
    await spawn("while :; do echo $((n+=1)) > count; head -c 10000 /dev/zero; done")
    await until((tmp_path / "count").exists)

    async def stands() -> bool:
        before = (tmp_path / "count").read_text()
        await asyncio.sleep(0.2)
        return before == (tmp_path / "count").read_text()

    async with asyncio.timeout(PATIENCE):
        while not await stands():
            pass
    deaf = await spawn("sleep 1000")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(deaf.write(bytes(1_000_000)), 0.2)


async def test_input_that_nobody_reads_any_more_holds_up_nothing_else(spawn: Spawn) -> None:
    errand = await spawn("exec <&-; echo closed; sleep 1; echo more")
    await reads(errand, b"closed")
    writing = asyncio.create_task(errand.write(bytes(1_000_000)))
    await reads(errand, b"more")
    assert await errand.ended() == 0
    await errand.end()
    await asyncio.wait_for(writing, PATIENCE)


async def test_a_signal_reaches_the_app_and_its_end_is_told(spawn: Spawn) -> None:
    errand = await spawn("echo ready; exec sleep 1000")
    await reads(errand, b"ready")
    errand.signal(signal.SIGINT)
    assert await errand.ended() == -signal.SIGINT
    errand.signal(signal.SIGINT)  # nobody is there


async def test_a_command_that_is_not_there_says_so_as_a_shell_does(spawn: Spawn) -> None:
    errand = await spawn("no-such-program --now")
    assert b"not found" in (await all_of(errand))[STDERR]
    assert await errand.ended() == 127


async def test_a_folder_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    given = dataclasses.replace(launch(tmp_path, "true"), folder=tmp_path / "gone")
    for terminal in (None, TERMINAL):
        with pytest.raises(StepFailed, match="could not be run"):
            await Processes().spawn(given, "true", terminal)


async def test_a_terminal_is_one(spawn: Spawn) -> None:
    errand = await spawn(
        'tty; stty size; echo "$TERM"; test -t 0 && test -t 1 && test -t 2 && echo all', TERMINAL
    )
    lines = (await all_of(errand))[STDOUT].decode().split("\r\n")
    assert lines[0].startswith("/dev/pts/") or lines[0] == "/dev/console"  # as walls have it
    assert lines[1:] == ["24 80", "xterm-256color", "all", ""]
    assert await errand.ended() == 0


async def test_a_terminal_passes_keys_sizes_and_ctrl_c_on(spawn: Spawn) -> None:
    errand = await spawn(
        "trap 'stty size' WINCH; echo ready; while :; do read line && echo got $line; done", TERMINAL
    )
    await reads(errand, b"ready")
    await errand.write(b"hello\r")
    await reads(errand, b"got hello")
    errand.resize(50, 132)
    await errand.write(b"\r")  # the shell runs its trap when `read` returns
    await reads(errand, b"50 132")
    await errand.write(b"\x03")
    assert await errand.ended() in (-signal.SIGINT, 130)


async def test_a_shell_has_job_control(spawn: Spawn, tmp_path: Path) -> None:
    errand = await spawn("exec bash --norc --noprofile -i", TERMINAL)
    await errand.write(b"sleep 1000\r")
    await until(
        lambda: ["sleep", "1000"] in [psutil.Process(pid).cmdline() for pid in started_with(tmp_path)]
    )
    await errand.write(b"\x1a")  # Ctrl-Z
    assert b"no job control" not in await reads(errand, b"Stopped")
    await errand.write(b"exit 7\rexit 7\r")  # bash is told twice while jobs are stopped
    assert await errand.ended() == 7


@pytest.mark.parametrize("terminal", [None, TERMINAL])
async def test_nothing_is_left_of_a_command_and_its_daemons(
    spawn: Spawn, terminal: Terminal | None, tmp_path: Path
) -> None:
    errand = await spawn(
        "trap '' HUP; (setsid sleep 1000 &) ; (setsid sh -c 'sleep 1000; :' &) ; echo begun; nohup sleep 1000",
        terminal,
    )
    await reads(errand, b"begun")
    await until(lambda: len(started_with(tmp_path)) >= 4)
    await asyncio.wait_for(errand.end(), PATIENCE)
    assert started_with(tmp_path) == []
    await all_of(errand)
    await errand.end()


async def test_an_interactive_shell_that_heeds_no_term_is_hung_up(spawn: Spawn) -> None:
    errand = await spawn("exec bash --norc --noprofile -i", TERMINAL)
    await reads(errand, b"bash-")
    async with asyncio.timeout(PATIENCE):
        await errand.end()
    assert await errand.ended() == -signal.SIGHUP


async def test_what_was_written_before_the_end_can_be_read(spawn: Spawn) -> None:
    errand = await spawn("echo last words; exit 1")
    assert await errand.ended() == 1
    await errand.end()
    assert (await all_of(errand))[STDOUT] == b"last words\n"
