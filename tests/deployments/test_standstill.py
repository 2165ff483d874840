"""Nothing runs on a version whose data are being changed, and whoever wanted it has it afterwards."""

from __future__ import annotations

import asyncio

import pytest

from lazycloud.errors import Conflict
from lazycloud.states import State
from tests.deployments.test_falls import COMMIT
from tests.deployments.test_starts import Stage, stage
from tests.waiting import PATIENCE, until

__all__ = ["stage"]
OTHER = "e" * 40


async def test_what_ran_is_stopped_and_runs_again_afterwards(stage: Stage) -> None:
    stage.app.production = COMMIT
    production = stage.fleet.get(stage.app, COMMIT, "production")
    assert await stage.fleet.running(production, PATIENCE)
    async with stage.fleet.standstills.of("shop", "production"):
        assert production.state is State.STOPPED
        waiting = asyncio.create_task(stage.fleet.running(production, PATIENCE))
        stage.fleet.ask(production, retry=True)
        await asyncio.sleep(0)
        assert production.state is State.STOPPED
    assert await waiting


async def test_one_may_run_while_the_others_stand_still(stage: Stage) -> None:
    stage.app.production = COMMIT
    production = stage.fleet.get(stage.app, COMMIT, "production")
    candidate = stage.fleet.get(stage.app, OTHER, "production")
    assert await stage.fleet.running(production, PATIENCE)
    async with stage.fleet.standstills.of("shop", "production"):
        stage.fleet.ask(production, retry=True)
        stage.fleet.standstills.exempt(candidate)
        assert await stage.fleet.running(candidate, float("inf"))
        stage.app.production = OTHER
    assert (production.state, candidate.state) == (State.STOPPED, State.READY)  # the pointer has moved on
    async with stage.fleet.standstills.of("shop", "production"):
        assert candidate.state is State.STOPPED  # it was exempt for that time only


async def test_a_preview_that_nobody_wanted_goes_on_sleeping(stage: Stage) -> None:
    preview = stage.fleet.get(stage.app, COMMIT)
    async with stage.fleet.standstills.of("shop", COMMIT):
        pass
    assert preview.state is State.COLD
    async with stage.fleet.standstills.of("shop", COMMIT):
        stage.fleet.ask(preview)
    await until(lambda: preview.state is State.READY)


async def test_whoever_has_a_command_on_the_data_is_not_disturbed(stage: Stage) -> None:
    preview = stage.fleet.get(stage.app, COMMIT)
    preview.errands["run"] = ()
    with pytest.raises(Conflict, match="lazycloud run"):
        async with stage.fleet.standstills.of("shop", COMMIT):
            pass
    preview.errands.clear()
    async with stage.fleet.standstills.of("shop", COMMIT):
        with pytest.raises(Conflict, match="changed already"):
            async with stage.fleet.standstills.of("shop", COMMIT):
                pass
    async with stage.fleet.standstills.of("shop", COMMIT):
        pass


async def test_what_a_worker_left_that_ended_by_itself_is_waited_for(stage: Stage) -> None:
    preview = stage.fleet.get(stage.app, COMMIT)
    preview.clearing = asyncio.create_task(asyncio.sleep(0.05))
    async with stage.fleet.standstills.of("shop", COMMIT):
        assert preview.clearing.done()
