"""Processes are killed and made to hang at random, and nothing that must hold ever fails to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.dockerd import Dockerd
from tests.e2e.chaos import BLOWS, ENGINE, WISHES, chaos, schedule
from tests.tools import needs

SEED = int(os.environ.get("LAZYCLOUD_CHAOS_SEED", "5"))
ENGINE_SEED = 58  # in 12 s it kills control once and the engine twice


def test_a_seed_says_what_is_done_and_when() -> None:
    acts = schedule(1, 300)
    assert {act.what for act in schedule(1, 300, BLOWS | ENGINE)} == {*BLOWS, *ENGINE, *WISHES}
    assert acts == schedule(1, 300) != schedule(2, 300)
    assert {act.what for act in acts} == {*BLOWS, *WISHES}
    assert acts == sorted(acts, key=lambda act: act.at)


@pytest.mark.slow
async def test_no_answer_is_wrong_and_nothing_is_lost_or_left_whatever_dies_or_hangs(tmp_path: Path) -> None:
    wrongs = await chaos(tmp_path, SEED, 25, print)
    assert not wrongs, "\n".join(wrongs)


@needs("dockerd", "docker")
@pytest.mark.slow
async def test_the_same_holds_in_containers_whose_engine_dies(tmp_path: Path, dockerd: Dockerd) -> None:
    wrongs = await chaos(tmp_path, ENGINE_SEED, 12, print, dockerd)
    assert not wrongs, "\n".join(wrongs)
