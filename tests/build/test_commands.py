"""What a command of a build may use, and what it may not leave behind."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.build.commands import run_tool
from lazycloud.build.limits import Limits
from lazycloud.errors import StepFailed
from lazycloud.processes import identify
from tests.waiting import PATIENCE, until


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    made = tmp_path / "made"
    made.mkdir()
    return Limits(4 * PATIENCE, makes=made, homes=tmp_path / "homes")


async def said_by(command: str, limits: Limits, **environment: str) -> str:
    said: list[str] = []
    assert limits.makes and limits.homes
    homes = {"HOME": str(limits.homes), "TMPDIR": str(limits.homes / "tmp")}
    variables = {"PATH": os.environ["PATH"], **homes, **environment}
    await run_tool(command, limits.makes, variables, said.append, limits, "The build failed")
    return "".join(said)


async def gone(pid: int) -> None:
    await until(lambda: identify(pid) is None, "its end")


async def test_each_command_has_a_home_of_its_own_that_goes_with_it(limits: Limits) -> None:
    command = 'touch "$HOME/mine" "$(mktemp)" && echo $HOME $TMPDIR && ls $HOME'
    first, second = await asyncio.gather(said_by(command, limits), said_by(command, limits))
    assert first.endswith("\nmine\n") and second.endswith("\nmine\n")
    assert len({*first.split(), *second.split()}) == 5
    assert limits.homes and list(limits.homes.iterdir()) == []


async def test_a_home_that_the_app_sets_itself_stays(limits: Limits) -> None:
    assert await said_by("echo $HOME", limits, HOME="/app") == "/app\n"


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("home", [{}, {"HOME": "/app"}])
async def test_a_daemon_of_a_build_dies_with_it(limits: Limits, home: dict[str, str]) -> None:
    said = await said_by(f"{sys.executable} -c '{DAEMON}'", limits, **home)
    await gone(int(said))


async def test_a_cancelled_build_leaves_no_process_and_no_folder(limits: Limits) -> None:
    said: list[str] = []
    assert limits.makes and limits.homes
    homes = {"PATH": os.environ["PATH"], "HOME": str(limits.homes)}
    command = f"{sys.executable} -c '{DAEMON}'; sleep 600"
    running = asyncio.create_task(run_tool(command, limits.makes, homes, said.append, limits, "It failed"))
    await until(lambda: "".join(said).endswith("\n"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(int("".join(said)))
    assert list(limits.homes.iterdir()) == []


async def test_what_takes_too_much_memory_is_ended_and_told_why(limits: Limits) -> None:
    greedy = f"setsid {sys.executable} -c 'import time; x = b\"x\" * 200_000_000; time.sleep(600)'"
    with pytest.raises(StepFailed) as failed:
        await said_by(greedy, replace(limits, memory=100_000_000))
    assert failed.value.sentence == (
        "The build failed. It was ended because it took more memory than the limit of 100 MB."
    )
    assert "`build_memory`" in failed.value.advice


async def test_pages_that_processes_share_count_once(limits: Limits) -> None:
    forks = "import os\nx = b'x' * 60_000_000\nfor _ in range(4): os.fork()\nopen(str(os.getpid()), 'w')\n"
    waits = "import time, os\nwhile len(os.listdir()) < 16: time.sleep(0.01)\ntime.sleep(0.6)"
    await said_by(f'{sys.executable} -c "{forks}{waits}"', replace(limits, memory=400_000_000))


async def test_what_writes_too_much_is_ended_and_told_why(limits: Limits) -> None:
    assert limits.makes
    (limits.makes / "before").write_bytes(b"x" * 30_000_000)
    await said_by("sleep 0.6; ln before after", replace(limits, disk=20_000_000))
    with pytest.raises(StepFailed, match=r"wrote more than the limit of 20 MB.*`build_disk`"):
        await said_by(
            'sleep 1.5; head -c 30000000 /dev/zero > "$TMPDIR/big"; sleep 600',  # after the first look
            replace(limits, disk=20_000_000),
        )


async def test_the_servers_time_is_the_longest_that_a_command_has(limits: Limits) -> None:
    with pytest.raises(StepFailed, match=r"took too long.*It was ended after 0.5 s"):
        await said_by("sleep 600", replace(limits, seconds=0.5).of(900, limits.makes or Path()))
