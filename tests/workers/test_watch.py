"""The watch goes on, whatever it meets."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lazycloud.workers import watch
from lazycloud.workers.bounds import Bound
from lazycloud.workers.record import Record
from lazycloud.workers.usage import Usage
from lazycloud.workforce import Limits
from tests.waiting import PATIENCE


class Big:
    """A worker whose data take more than they may."""

    record = Record(1, 1, "", "127.0.0.1:1", "", data=("/nowhere",))
    bound = Bound(Limits(memory=0, processes=0, disk=1))
    is_running = True

    def __init__(self) -> None:
        self.excess = asyncio.get_running_loop().create_future()

    def usage(self) -> Usage:
        raise AssertionError("no limit asks for that")

    def end_because(self, excess: watch.Excess) -> None:
        self.excess.set_result(excess)
        self.is_running = False


@pytest.mark.parametrize("trouble", [subprocess.TimeoutExpired("du", 60), ValueError("what du never says")])
async def test_one_look_that_fails_is_not_the_last(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [trouble, 100]

    def taken(places: Any) -> int:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return cast(int, answer)

    for name in ("PAUSE", "SIZE_PAUSE"):
        monkeypatch.setattr(watch, name, 0.001)
    monkeypatch.setattr(watch, "taken", taken)
    worker, over_all = Big(), watch.Watch()
    over_all.add(worker)
    async with asyncio.timeout(PATIENCE):
        assert "its data took more than" in (await worker.excess).words
    await over_all.close()


@pytest.mark.parametrize("stays", [True, False])
async def test_only_data_that_are_too_large_by_themselves_are_too_large_for_the_next_worker(
    stays: bool, tmp_path: Path
) -> None:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    for place in (data, scratch):
        place.mkdir()
    (data if stays else scratch).joinpath("much").write_bytes(bytes(200_000))
    worker, over_all = Big(), watch.Watch()
    worker.record = replace(Big.record, data=(str(data), str(scratch)))
    worker.bound = Bound(Limits(memory=0, processes=0, disk=100_000))
    over_all.add(worker)
    async with asyncio.timeout(PATIENCE):
        excess = await worker.excess
    await over_all.close()
    what = "its data" if stays else "its data and temporary files"
    assert excess == watch.Excess(f"{what} took more than the limit of disk (100,000 bytes)", stays)


def test_who_writes_faster_than_it_can_be_cut_is_ended_unless_nobody_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FLOOD", 1_000_000)
    monkeypatch.setattr(watch, "LOOKED", PATIENCE)
    file = tmp_path / "log"
    worker: Any = SimpleNamespace(
        record=replace(Big.record, log=str(file)), bound=Bound(Limits(log=1_000_000)), is_running=True
    )
    look = watch.Look(worker)

    def write(size: int) -> None:
        with file.open("ab") as opened:
            opened.write(b"x" * size)

    write(10_000_000)  # while control was away
    assert look.log() == ""
    write(1_500_000)
    assert look.log() == ""
    write(10_000_000)
    assert look.log() == "it wrote its log faster than that could be cut to its limit (1 MB)"
    assert file.stat().st_blocks * 512 <= 1_000_000
