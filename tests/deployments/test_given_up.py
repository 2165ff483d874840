"""Which data a preview gives up when its first release command fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.data.versions import Versions
from lazycloud.deployments.deploy import Deploy
from lazycloud.errors import StepFailed
from lazycloud.processes import unheard

COMMIT = "c" * 40


@pytest.mark.parametrize("has_snapshot", [False, True])
async def test_a_fresh_fork_and_nothing_that_people_have_come_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_snapshot: bool
) -> None:
    versions = Versions(tmp_path / "data")
    await versions.fork(COMMIT, None)
    if has_snapshot:  # as before each restore, after which no release command is known to have run
        await versions.snapshot(COMMIT)
    key = SimpleNamespace(version=COMMIT, is_production=False)
    deployment = SimpleNamespace(key=key, released="")
    given: Any = SimpleNamespace(app=SimpleNamespace(versions=versions), deployment=deployment)

    async def fails(*_: Any) -> None:
        raise StepFailed("The release command ended with exit status 1.")

    async def drop_data(why: str, again: bool) -> None:
        await versions.drop(COMMIT)

    given._command, given.drop_data = fails, drop_data
    release: Any = None
    with pytest.raises(StepFailed):
        await Deploy._run_on_data(given, release, "false", unheard)
    assert versions.exists(COMMIT) is has_snapshot
    assert bool(versions.snapshots(COMMIT)) is has_snapshot
    await versions.close()
