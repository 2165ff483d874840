"""Which child of `lazycloud up` is told to hang, look by look: with real processes and pipes, and no time at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lazycloud.children import Child
from lazycloud.pulse import Pulse

SILENCE, FIRST = 3, 7
DEAF = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print(flush=True); signal.pause()"


class Watched:
    """A child that heeds no SIGHUP; `beat` is what its event loop would do."""

    def __init__(self) -> None:
        pulse, self._end = os.pipe()
        self.process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
        self.child = Child("router 1", process=self.process, pulse=Pulse(pulse))
        assert self.process.stdout
        self.process.stdout.readline()

    def beat(self) -> None:
        os.write(self._end, b".")

    def looks(self, count: int) -> list[str]:
        return [self.child.look(SILENCE, FIRST) for _ in range(count)]

    def close(self) -> None:
        self.child.send(signal.SIGKILL)
        self.child.ended(self.process.wait())
        self.process.stdout.close()
        os.close(self._end)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    try:
        yield made
    finally:
        made.close()


def test_a_start_may_take_long_and_not_for_ever(watched: Watched) -> None:
    assert watched.looks(FIRST - 1) == [""] * (FIRST - 1)
    assert watched.looks(1) == [f"it has not moved in its first {FIRST} s"]


def test_who_has_begun_to_beat_may_miss_fewer(watched: Watched) -> None:
    watched.looks(FIRST - 1)
    watched.beat()
    assert watched.looks(SILENCE) == [""] * SILENCE  # the first look finds the beat
    assert watched.looks(1) == [f"it has not moved for {SILENCE} s"]


def test_it_is_said_once_of_one_that_no_signal_ends(watched: Watched) -> None:
    watched.beat()
    assert [bool(said) for said in watched.looks(2 * SILENCE)] == [False, False, False, True, False, False]


def test_one_that_was_told_to_leave_is_ended_though_it_beats(watched: Watched) -> None:
    said = []
    watched.child.leave(5)
    for _ in range(3):
        watched.beat()
        said += watched.looks(1)
    watched.child.leave(5)  # by the next upgrade: that is no reason to stay
    for _ in range(3):
        watched.beat()
        said += watched.looks(1)
    assert said == ["", "", "", "", "it was told to leave, and is still there", ""]


def test_one_that_hangs_while_it_leaves_is_not_given_that_long(watched: Watched) -> None:
    watched.beat()
    watched.child.leave(1000)
    assert watched.looks(SILENCE + 1)[-1] == f"it has not moved for {SILENCE} s"


def test_one_whose_pulse_older_code_did_not_hand_over_is_only_told_to_leave(watched: Watched) -> None:
    child = Child("an old router", pid=watched.process.pid)
    assert [child.look(SILENCE, FIRST) for _ in range(20)] == [""] * 20
    child.leave(1)
    assert child.look(SILENCE, FIRST)
