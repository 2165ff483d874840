"""Whether a process is seen to move: with real ones, which are stopped and go on, or whose loop is stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from lazycloud.pulse import Pulse

PATIENCE = 60.0

BEATS = """
import asyncio, signal, sys, time
from lazycloud import pulse

async def main():
    pulse.EVERY = 0.01
    pulse.beat(int(sys.argv[1]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, time.sleep, 600)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Beating:
    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.pulse = Pulse(reading)
        command = [sys.executable, "-c", BEATS, str(writing)]
        self.process = subprocess.Popen(command, pass_fds=[writing])
        os.close(writing)

    def until(self, condition: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.pulse.missed()):
            assert time.monotonic() < deadline
            time.sleep(0.05)  # a look, and some beats

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pulse.close()


@pytest.fixture
def beating() -> Iterator[Beating]:
    made = Beating()
    try:
        yield made
    finally:
        made.close()


def test_looks_are_counted_before_the_first_beat_too() -> None:
    quiet, end = os.pipe()
    pulse = Pulse(quiet)
    assert [pulse.missed() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert not pulse.has_begun
    os.write(end, b".")
    assert [pulse.missed() for _ in range(3)] == [0, 1, 2]
    assert pulse.has_begun
    os.close(end)
    pulse.close()


def test_one_that_is_stopped_misses_beats_until_it_goes_on(beating: Beating) -> None:
    beating.until(lambda _: beating.pulse.has_begun)
    beating.process.send_signal(signal.SIGSTOP)
    beating.until(lambda missed: missed >= 5)
    beating.process.send_signal(signal.SIGCONT)
    beating.until(lambda missed: missed == 0)


def test_one_whose_loop_is_stuck_misses_beats(beating: Beating) -> None:
    beating.until(lambda _: beating.pulse.has_begun)
    beating.process.send_signal(signal.SIGUSR1)
    beating.until(lambda missed: missed >= 5)


def test_who_beats_goes_on_when_nobody_listens_any_more() -> None:
    one = Beating()
    try:
        one.until(lambda _: one.pulse.has_begun)
        process = psutil.Process(one.process.pid)
        held = process.num_fds()
        os.close(one.pulse.pipe)
        deadline = time.monotonic() + PATIENCE
        while process.num_fds() == held:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert one.process.poll() is None
    finally:
        one.process.kill()
        one.process.wait()
