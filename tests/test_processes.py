"""Processes: run to the end, known again, ended as a group."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.errors import StepFailed
from lazycloud.processes import (
    LAST_LINES,
    CommandFailed,
    Ending,
    Identity,
    end_group,
    ending_in_words,
    identify,
    is_running,
    members,
    run,
)
from tests.waiting import PATIENCE, until

ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


class Heard:
    """An Output that can be waited on."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, text: str) -> None:
        self.text += text


def spawn(*command: str) -> Identity:
    process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    process.returncode = 0  # Ending reaps it
    identity = identify(process.pid)
    assert identity
    return identity


def watched(identity: Identity) -> Ending:
    ending = Ending(identity)
    ending.watch()
    return ending


async def test_output_is_passed_on_while_the_command_runs(tmp_path: Path) -> None:
    heard = Heard()
    command = "echo first; while [ ! -e go ]; do sleep 0.01; done; echo second"
    running = asyncio.create_task(run(command, tmp_path, ENVIRONMENT, heard, PATIENCE))
    await until(lambda: heard.text == "first\n")
    (tmp_path / "go").touch()
    await running
    assert heard.text == "first\nsecond\n"


async def test_a_command_gets_the_environment_it_is_given_and_no_more(tmp_path: Path) -> None:
    heard = Heard()
    await run(["/usr/bin/env"], tmp_path, {"ONE": "1"}, heard, PATIENCE)
    assert heard.text == "ONE=1\n"


async def test_a_failure_has_the_status_and_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as failed:
        await run("seq 100; printf 'no newline' >&2; exit 3", tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    assert failed.value.ended_with == 3
    assert "ended with exit status 3" in str(failed.value)
    assert len(failed.value.last) == LAST_LINES
    assert failed.value.last[-2:] == ("100", "no newline")


async def test_a_signal_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="was ended by SIGKILL"):
        await run("kill -KILL $$", tmp_path, ENVIRONMENT, Heard(), PATIENCE)


@pytest.mark.parametrize("command", ["no-such-program --flag", ["no-such-program", "--flag"]])
async def test_an_unknown_command_is_said_to_be_unknown(tmp_path: Path, command: str | list[str]) -> None:
    with pytest.raises(CommandFailed, match=r"`no-such-program --flag` was not found") as failed:
        await run(command, tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    assert failed.value.ended_with == 127


@pytest.mark.parametrize("niceness", [0, 5])
async def test_a_file_that_is_no_program_is_said_to_be_none(tmp_path: Path, niceness: int) -> None:
    (tmp_path / "notes.txt").write_text("not a program")
    with pytest.raises(CommandFailed, match="could not be run") as failed:
        await run([str(tmp_path / "notes.txt")], tmp_path, ENVIRONMENT, Heard(), 10, niceness)
    assert failed.value.ended_with == 126


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group by session")
async def test_a_kind_command_comes_after_the_processes_of_other_sessions(tmp_path: Path) -> None:
    heard = Heard()
    waits = "until grep -q 'nice 7$' /proc/self/autogroup; do :; done; nice"
    await run(waits, tmp_path, ENVIRONMENT, heard, 5, niceness=7)
    assert heard.text == "7\n"


async def test_a_folder_that_is_missing_is_not_taken_for_a_missing_command(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"its folder .*gone is not there"):
        await run(["true"], tmp_path / "gone", ENVIRONMENT, Heard(), PATIENCE)


async def test_output_that_is_not_utf_8_is_replaced_and_cut_characters_are_joined(tmp_path: Path) -> None:
    heard = Heard()
    writes = r"printf '\303'; sleep 0.2; printf '\251 \377\n'"
    await run(writes, tmp_path, ENVIRONMENT, heard, PATIENCE)
    assert heard.text == "é �\n"


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    heard, before = Heard(), time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s") as failed:
        await run("sleep 600 & echo $! $$; wait", tmp_path, ENVIRONMENT, heard, 0.5)
    assert failed.value.ended_with is None
    assert time.monotonic() - before < PATIENCE / 2
    await until(lambda: not any(identify(int(pid)) for pid in heard.text.split()))


async def test_files_of_other_threads_stay_open_when_commands_end(tmp_path: Path) -> None:
    """They are given the numbers of descriptors that are closed just then."""
    is_over = threading.Event()

    def use_files() -> int:
        count = 0
        while not is_over.is_set():
            file = os.memfd_create("mine")
            os.write(file, b"mine")
            os.close(file)
            count += 1
        return count

    using = [asyncio.create_task(asyncio.to_thread(use_files)) for _ in range(3)]
    try:
        for _ in range(200):
            await run("echo", tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    finally:
        is_over.set()
    assert all(await asyncio.gather(*using))


async def test_cancelling_kills_the_whole_group(tmp_path: Path) -> None:
    heard = Heard()
    running = asyncio.create_task(run("sleep 600 & echo $! $$; wait", tmp_path, ENVIRONMENT, heard, PATIENCE))
    await until(lambda: heard.text.endswith("\n"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not any(identify(int(pid)) for pid in heard.text.split()))


async def test_a_child_left_in_the_background_is_ended_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    heard, before = Heard(), time.monotonic()
    await run("sleep 600 & echo $!", tmp_path, ENVIRONMENT, heard, PATIENCE)
    assert time.monotonic() - before < PATIENCE / 2
    await until(lambda: identify(int(heard.text)) is None)


async def test_a_daemon_that_holds_the_pipe_does_not_hold_up_the_end(tmp_path: Path) -> None:
    heard, before = Heard(), time.monotonic()
    await run("setsid sleep 600 & echo $!", tmp_path, ENVIRONMENT, heard, PATIENCE)
    assert time.monotonic() - before < PATIENCE / 2
    os.kill(int(heard.text), signal.SIGKILL)


async def test_a_command_that_closes_its_output_early_is_waited_for(tmp_path: Path) -> None:
    await run("exec >&- 2>&-; sleep 0.3; touch done", tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    assert (tmp_path / "done").exists()


async def test_output_that_cannot_be_kept_fails_the_command(tmp_path: Path) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await run("echo; sleep 600", tmp_path, ENVIRONMENT, full, PATIENCE)


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def open_now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await run("true", tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    before = open_now()
    for command in ("true", "exit 1", "setsid sleep 2 &", "no-such-program"):
        with contextlib.suppress(CommandFailed):
            await run(command, tmp_path, ENVIRONMENT, Heard(), PATIENCE)
    await until(lambda: open_now() <= before)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit status 0"),
        (3, "ended with exit status 3"),
        (126, "could not be run (exit status 126)"),
        (127, "was not found (exit status 127)"),
        (-15, "was ended by SIGTERM"),
        (-64, "was ended by SIGRTMAX"),
        (-40, "was ended by signal 40"),
    ],
)
def test_a_status_is_said_in_words(status: int, words: str) -> None:
    assert ending_in_words(status) == words


async def test_the_end_of_a_child_has_its_status() -> None:
    ending = watched(spawn("/bin/sh", "-c", "sleep 0.1; exit 7"))
    assert await asyncio.wait_for(ending.wait(), PATIENCE) == 7
    assert ending.over


async def test_the_end_of_an_adopted_process_is_seen_without_a_status() -> None:
    found = subprocess.run(  # noqa: ASYNC221 - over in a moment
        [
            sys.executable,
            "-c",
            "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=-3, stderr=-3).pid)",
        ],
        check=True,
        capture_output=True,
    )
    identity = identify(int(found.stdout))
    assert identity
    ending = watched(identity)
    assert not ending.look()
    os.kill(identity.pid, signal.SIGKILL)
    assert await asyncio.wait_for(ending.wait(), PATIENCE) is None


async def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    identity = spawn("sleep", "600")
    for other in (replace(identity, started=identity.started - 1), replace(identity, boot="another")):
        assert not is_running(other)
        ending = watched(other)
        assert ending.over
        await end_group(ending, [(signal.SIGTERM, 1)])
    assert is_running(identity)
    await end_group(watched(identity), [])
    assert not is_running(identity)


async def test_an_end_is_seen_before_the_loop_is_told() -> None:
    ending = watched(spawn("sleep", "600"))
    os.kill(ending.identity.pid, signal.SIGKILL)
    while is_running(ending.identity):
        time.sleep(0.001)  # noqa: ASYNC251 - the loop is not to run meanwhile
    assert not ending.over
    assert ending.look()
    assert ending.status == -signal.SIGKILL


async def test_members_of_a_group_are_given_time_after_their_leader_ended(tmp_path: Path) -> None:
    done = tmp_path / "done"
    child = f"trap 'sleep 0.4; touch {done}; exit' TERM; echo > {tmp_path}/up; while :; do sleep 0.05; done"
    identity = spawn("/bin/sh", "-c", '/bin/sh -c "$0" & wait', child)
    await until((tmp_path / "up").exists)
    await end_group(watched(identity), [(signal.SIGTERM, PATIENCE)])
    assert done.exists()
    assert not list(members(identity.pid))


async def test_what_ignores_term_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    up = tmp_path / "up"
    ending = watched(spawn("/bin/sh", "-c", f"trap '' TERM; touch {up}; while :; do sleep 1; done"))
    await until(up.exists)
    before = time.monotonic()
    await end_group(ending, [(signal.SIGTERM, 0.3)])
    assert 0.3 <= time.monotonic() - before < PATIENCE / 2
    assert ending.status == -signal.SIGKILL
    await end_group(ending, [(signal.SIGTERM, 0.3)])


async def test_another_group_of_the_same_session_is_ended_too() -> None:
    script = "import os, time\nif os.fork() == 0: os.setpgid(0, 0)\ntime.sleep(600)"
    identity = spawn(sys.executable, "-c", script)

    def moved() -> bool:
        return any(os.getpgid(pid) == pid != identity.pid for pid in members(identity.pid))

    await until(moved)
    await end_group(watched(identity), [(signal.SIGTERM, 0.2)])
    assert not list(members(identity.pid))
