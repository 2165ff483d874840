"""What a fleet keeps in memory of deployments with which nothing happens."""

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.config import Config
from lazycloud.deployments.deployment import Failure
from lazycloud.deployments.fleet import KEPT, Fleet
from lazycloud.events import EventLog
from lazycloud.states import Cause, State
from lazycloud.store import Store
from lazycloud.workers.engine import Processes

APP: Any = SimpleNamespace(name="shop", production="", servers=())


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    state = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    state.open()
    events = EventLog(state.last_number(), state.write, state.read)
    events.start()
    fleet = Fleet(Config(tmp_path), events, state, Processes())
    fleet.apps["shop"] = APP
    yield fleet
    await events.close()
    state.close()


def commit(number: int) -> str:
    return f"{number:040x}"


async def test_only_some_of_those_with_which_nothing_happens_are_kept(fleet: Fleet) -> None:
    for number in range(10 * KEPT):
        fleet.get(APP, commit(number))
    gc.collect()
    known = [one.key.commit for one in fleet.known()]
    assert KEPT // 2 <= len(known) <= KEPT
    assert commit(10 * KEPT - 1) in known and commit(0) not in known


async def test_there_is_one_of_each_as_long_as_anybody_has_it(fleet: Fleet) -> None:
    held = fleet.get(APP, commit(0))
    for number in range(1, 3 * KEPT):
        fleet.get(APP, commit(number))
    assert held in fleet.known()
    assert fleet.get(APP, commit(0)) is held
    assert fleet.find(held.id) is held


async def test_one_that_was_forgotten_is_as_it_was_when_somebody_asks_again(fleet: Fleet) -> None:
    failed = fleet.get(APP, commit(0))
    failed.advance(Cause.ASKED)
    failed.advance(Cause.TURN_CAME)
    failed.advance(Cause.BROKE, Failure("build", "It did not build.", "Mend it.", ("a line",)))
    await fleet._events.flush()
    row = failed.row()
    del failed
    for number in range(1, 3 * KEPT):
        fleet.get(APP, commit(number))
    gc.collect()
    assert commit(0) not in [one.key.commit for one in fleet.known()]
    again = fleet.get(APP, commit(0))
    assert again.state is State.FAILED
    assert again.failure == Failure("build", "It did not build.", "Mend it.", ("a line",))
    assert {**again.row(), "changed": 0} == {**row, "changed": 0}


async def test_what_is_at_work_is_kept(fleet: Fleet) -> None:
    queued = fleet.get(APP, commit(0))
    queued.advance(Cause.ASKED)
    name = queued.id
    del queued
    for number in range(1, 3 * KEPT):
        fleet.get(APP, commit(number))
    gc.collect()
    assert fleet.find(name).state is State.QUEUED
