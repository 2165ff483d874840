"""Which workers sleep, and which go first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lazycloud.deployments.crew import JITTER, PAUSES, pause
from lazycloud.deployments.rest import Sleeper, available, first_to_go, idle


def sleeper(name: str, used: float, busy: bool = False, sockets: int = 0) -> Sleeper:
    return Sleeper(cast(Any, name), used, busy, sockets)


def names(found: list[Sleeper]) -> list[str]:
    return [cast(str, one.deployment) for one in found]


def test_who_was_not_used_for_a_while_sleeps_but_not_in_the_midst_of_an_answer() -> None:
    all_of_them = [sleeper("old", 10), sleeper("busy", 10, busy=True), sleeper("new", 30)]
    assert names(idle(all_of_them, before=20)) == ["old"]


def test_a_websocket_that_is_silent_does_not_keep_anybody_awake() -> None:
    assert names(idle([sleeper("silent", 10, sockets=3)], before=20)) == ["silent"]


def test_the_least_recently_used_goes_first_and_who_has_open_websockets_last() -> None:
    all_of_them = [
        sleeper("busy", 1, busy=True),
        sleeper("open", 5, sockets=1),
        sleeper("b", 9),
        sleeper("a", 7),
    ]
    first = first_to_go(all_of_them)
    assert first and names([first]) == ["a"]
    only_open = first_to_go([one for one in all_of_them if one.sockets or one.busy])
    assert only_open and names([only_open]) == ["open"]
    assert first_to_go([sleeper("busy", 1, busy=True)]) is None


def test_memory_that_could_be_had_is_read_and_a_great_deal_where_nobody_tells(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    assert available(file) > 1 << 60
    file.write_text("MemTotal:       24 kB\nMemAvailable:   12 kB\n")
    assert available(file) == 12 * 1024


@pytest.mark.parametrize("crashes", [1, 2, 3, 6, 100])
def test_pauses_grow_to_a_bound_and_differ_a_little(crashes: int) -> None:
    usual = PAUSES[min(crashes, len(PAUSES)) - 1]
    for _ in range(50):
        assert usual * (1 - JITTER) <= pause(crashes) <= usual * (1 + JITTER)
