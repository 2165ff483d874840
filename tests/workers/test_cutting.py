"""Logs are cut as they are written, by a thread that nobody has to wake."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.workers.cutting import Cutter
from tests.waiting import until

MOST = 1_000_000


@pytest.fixture
def cutter() -> Iterator[Cutter]:
    made = Cutter()
    yield made
    made.close()
    assert "cut logs" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log"
    file.touch()
    return file


def write(log: Path, size: int = 3 * MOST) -> None:
    with log.open("ab", buffering=0) as file:
        file.write(b"x" * size)


def takes(log: Path) -> int:
    return log.stat().st_blocks * 512


async def test_what_is_too_much_goes_each_time_that_something_is_written(cutter: Cutter, log: Path) -> None:
    cutter.add(log, MOST)
    for _ in range(30):
        write(log)
        await until(lambda: takes(log) <= MOST)
    assert log.stat().st_size == 90 * MOST  # each byte that is left stays where it is


async def test_a_log_is_cut_as_long_as_one_of_its_writers_is_there(
    cutter: Cutter, log: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.touch()
    cutter.add(others, MOST)
    first, second = cutter.add(log, MOST), cutter.add(log, MOST)
    cutter.remove(first)
    write(log)
    await until(lambda: takes(log) <= MOST)
    cutter.remove(second)
    write(log)
    write(others)
    await until(lambda: takes(others) <= MOST)
    assert takes(log) > 3 * MOST


def test_one_that_is_not_there_is_left_to_the_watch(cutter: Cutter, tmp_path: Path) -> None:
    assert cutter.add(tmp_path / "none", MOST) == -1
    cutter.remove(-1)


def test_without_a_thread_it_does_nothing_and_keeps_nothing_open(
    cutter: Cutter, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert cutter.add(log, MOST) == -1
    cutter.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_inotify_it_does_nothing(cutter: Cutter, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    none: Any = SimpleNamespace(inotify_init1=lambda flags: -1)
    cutter._libc = none
    assert cutter.add(log, MOST) == -1
    assert "a few times a second only" in caplog.text
