"""Commands that people run: how many at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lazycloud.config import Config
from lazycloud.deployments.deployment import Deployment, Key
from lazycloud.deployments.errands import MOST, Errands
from lazycloud.deployments.fleet import Fleet
from lazycloud.errors import Busy, StepFailed
from lazycloud.events import EventLog


class Full:
    """A fleet whose machine has run out of something."""

    async def deploy_of(self, deployment: Deployment, scratch: Path) -> Any:
        raise OSError(24, "Too many open files")

    def let_servers_rest(self, deployment: Deployment) -> None:
        """It has none."""


async def test_more_commands_than_there_is_room_for_are_refused_and_count_no_longer_when_they_fail(
    tmp_path: Path,
) -> None:
    events = EventLog(0, lambda batch: None, lambda after, limit: [])
    deployment = Deployment(Key("shop", "3f2a", "3f2a"), events, tmp_path)
    errands = Errands(Config(home=tmp_path), cast(Fleet, Full()), events)
    for _ in range(MOST + 1):
        with pytest.raises(StepFailed, match="Too many open files"):
            async with errands.begin(deployment, "true", None, "Ada"):
                pass
    errands._waiting = MOST
    with pytest.raises(Busy, match=f"{MOST} commands run already"):
        async with errands.begin(deployment, "true", None, "Ada"):
            pass
    assert deployment.errands == {}
