"""Which workers sleep, and which go first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lazycloud.allowance import Amount
from lazycloud.config import Config
from lazycloud.deployments.crew import JITTER, PAUSES, pause
from lazycloud.deployments.deployment import Key
from lazycloud.deployments.rest import Rest, Sleeper, available, first_to_go, idle
from lazycloud.errors import Busy
from lazycloud.states import Cause, State
from lazycloud.workforce import Workforce
from tests.waiting import PATIENCE, until


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


class Named:
    """As deployments are: each is only itself."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class House:
    """In place of a fleet, of which two may run: one that runs, and is in use or may sleep, and some that wish to."""

    def __init__(self, in_use: bool) -> None:
        self.runs = self.one("a", state=State.READY, workers=["its worker"])
        self.all = [self.runs]
        self.slept: list[Any] = []
        self.may_sleep = asyncio.Event()
        self.in_use = in_use

    def one(self, commit: str, version: str = "", **values: Any) -> Any:
        about = {
            "state": State.BUILDING,
            "workers": [],
            "is_deploying": True,
            "ready_at": 1.0,
            "asked_at": 1.0,
        }
        key = Key("shop", commit, version or commit)
        return Named(key=key, id=key.id, **about | values)

    def wishes(self, commit: str, version: str = "") -> Any:
        one = self.one(commit, version)
        self.all.append(one)
        return one

    def known(self) -> list[Any]:
        return self.all

    def is_production(self, one: Any) -> bool:
        return bool(one.key.is_production)

    async def stop(self, one: Any, cause: Cause) -> None:
        self.slept.append(one)
        await self.may_sleep.wait()
        one.workers, one.state = [], State.STOPPED

    def rest(self, most: int = 1, reserve: int = 0) -> Rest:
        config = Config(
            Path("/nowhere"), workers=replace(Workforce(), max=most, reserve=Amount(bytes=reserve))
        )
        traffic = SimpleNamespace(open=int(self.in_use), sockets=0, last=0.0)
        store: Any = SimpleNamespace(rows=lambda table: [])
        return Rest(config, cast(Any, self), store, lambda name: traffic)


def say(text: str) -> None: ...


@pytest.mark.parametrize("version", ["production", "rehearsal-b"])
async def test_production_and_its_rehearsal_are_let_in_when_all_that_run_are_in_use(version: str) -> None:
    house = House(in_use=True)
    rest = house.rest()
    async with asyncio.timeout(PATIENCE):
        await rest.make_place(house.wishes("b", version), say)
    await rest.close()
    assert not house.slept


async def test_a_preview_is_refused_when_all_that_run_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazycloud.deployments.rest.PATIENCE", 0.0)
    house = House(in_use=True)
    with pytest.raises(Busy):
        await house.rest().make_place(house.wishes("b"), say)


@pytest.mark.parametrize("short_of", ["places", "memory"])
async def test_production_does_not_wait_for_those_that_are_put_to_sleep_meanwhile(short_of: str) -> None:
    house = House(in_use=False)
    rest = house.rest() if short_of == "places" else house.rest(most=0, reserve=1 << 61)
    await asyncio.wait_for(rest.make_place(house.wishes("b", "production"), say), PATIENCE)
    await until(lambda: house.slept)
    assert house.slept == [house.runs] and house.runs.workers  # it takes its time
    await rest.close()
