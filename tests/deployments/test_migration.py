"""What a migration changes are production's data of now, whatever an earlier one has left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.data.names import MIGRATION, PRODUCTION
from lazycloud.data.versions import Versions
from lazycloud.deployments.migration import Migration
from lazycloud.deployments.steps import fresh
from lazycloud.errors import StepFailed
from lazycloud.events import MigrationRehearsed

NEW = "1" * 40


class Fleet:
    """Of one app, whose release command leaves a file."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.standstills: Any = SimpleNamespace(of=self._of, exempt=lambda deployment: None)

    @asynccontextmanager
    async def _of(self, app: str, version: str) -> AsyncIterator[None]:
        yield

    def get(self, app: Any, commit: str, version: str) -> Any:
        key = SimpleNamespace(version=version)
        return SimpleNamespace(key=key, released="", forked_at=None, steps=fresh())

    async def start(self, deployment: Any) -> None:
        version = deployment.key.version
        await self.versions.fork(version, PRODUCTION, deployment.forked_at)
        (self.versions.place(version) / "files" / "migrated").touch()
        deployment.released = "key"

    async def discard(self, deployment: Any) -> None:
        await self.versions.drop(deployment.key.version)


class Snapshots:
    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def take(self, app: Any, version: str, why: str, who: str) -> dict[str, str]:
        return {"id": (await self._versions.snapshot(version)).id}


@pytest.fixture
async def versions(tmp_path: Path) -> AsyncIterator[Versions]:
    versions = Versions(tmp_path / "data")
    await versions.fork(PRODUCTION, None)
    yield versions
    await versions.close()


def migration_of(versions: Versions, told: list[Any], schemas: Any = None) -> Migration:
    """Of a new commit."""
    fleet: Any = Fleet(versions)
    app: Any = SimpleNamespace(name="shop", versions=versions)
    commit: Any = SimpleNamespace(id=NEW, short=NEW[:10])
    candidate: Any = SimpleNamespace(released="")
    snapshots: Any = Snapshots(versions)
    events: Any = SimpleNamespace(append=told.append)
    return Migration(app, commit, candidate, "Ada", fleet, snapshots, schemas, events, fleet.start)


async def test_what_an_earlier_one_left_is_not_taken_for_the_data_of_now(versions: Versions) -> None:
    await versions.fork(f"{MIGRATION}{NEW}", PRODUCTION)  # its disk was full when it should have gone
    (versions.place(PRODUCTION) / "files" / "since").touch()
    migration = migration_of(versions, [])
    async with migration.carried_out():
        pass
    found = {place.name for place in (versions.place(PRODUCTION) / "files").iterdir()}
    assert found == {"since", "migrated"}
    assert versions.all() == [PRODUCTION]


async def test_what_cannot_be_told_of_a_rehearsal_ends_no_promote(versions: Versions) -> None:
    async def outline(app: Any, version: str) -> None:
        raise StepFailed("No connection is left.")

    told: list[MigrationRehearsed] = []
    await migration_of(versions, told, SimpleNamespace(outline=outline)).rehearse()
    assert told[0].changes == ["what it changes is not known (No connection is left)"]
    assert versions.all() == [PRODUCTION]
