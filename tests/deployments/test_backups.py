"""What a backup held, on its way into a version."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.data.backup.standing import Standing
from lazycloud.deployments.backups import Backups, _Unfolded
from lazycloud.errors import DiskFull, StepFailed
from lazycloud.events import BackupFailed
from lazycloud.upkeep import Upkeep


def unfolded(folder: Path, taking: asyncio.Event) -> tuple[_Unfolded, Path]:
    """And the version's folder. What is beside is taken when `taking` is set."""

    async def take(version: str, data: Path) -> None:
        await taking.wait()

    app: Any = SimpleNamespace(versions=SimpleNamespace(beside=SimpleNamespace(take=take)))
    made, place = _Unfolded(app, folder / "backup-1"), folder / "version"
    (made.target / "data" / "files").mkdir(parents=True)
    (made.target / "data" / "files" / "photo.jpg").write_bytes(b"pixels")
    place.mkdir()
    return made, place


async def test_what_has_begun_to_be_filled_is_all_there_though_who_asked_has_gone(tmp_path: Path) -> None:
    taking = asyncio.Event()
    made, place = unfolded(tmp_path, taking)
    filling = asyncio.create_task(made.fill(place))
    await asyncio.sleep(0)
    await made.close()
    taking.set()
    await filling
    assert (place / "files" / "photo.jpg").read_bytes() == b"pixels"
    assert not (tmp_path / "backup-1").exists()


async def test_what_was_given_up_before_is_filled_into_nothing(tmp_path: Path) -> None:
    made, place = unfolded(tmp_path, asyncio.Event())
    await made.close()
    assert not (tmp_path / "backup-1").exists()
    with pytest.raises(StepFailed, match="given up"):
        await made.fill(place)
    assert list(place.iterdir()) == []


FACTS = {"at": 90000.0, "id": "id", "name": "name", "seconds": 1.0, "size": 1, "note": "", "full": True}


def backups_of(home: Path, told: list[Any]) -> tuple[Backups, Any]:
    """With one app, that has a large database in layers."""
    config: Any = SimpleNamespace(home=home, data=Upkeep(backup="file:///x", backup_every=60))
    events: Any = SimpleNamespace(append=told.append)
    nothing: Any = None
    backups = Backups(config, nothing, events, nothing)
    backups.standing["shop"] = Standing(1.0, store="file:///x", full_at=86400.0, sound=("database.sqlite",))
    backups._tries["shop"].thinned = time.monotonic()
    there: Any = SimpleNamespace(exists=lambda version: True)
    return backups, SimpleNamespace(name="shop", versions=there)


async def test_what_is_read_as_a_whole_each_time_takes_a_tenth_of_the_time_at_the_most(
    tmp_path: Path,
) -> None:
    """A large database that is whole and never in layers: one that is not in WAL mode."""
    backups, app = backups_of(tmp_path, [])
    facts = FACTS | {"seconds": 300.0, "sound": ["data/database.sqlite"], "unlike": []}
    for was_asked, least, most in ((False, 2990, 3000), (True, 50, 60)):
        await backups._made(app, facts, (), was_asked)
        assert least < backups._tries["shop"].next - time.monotonic() <= most


async def test_where_there_is_no_room_for_a_whole_one_there_is_one_in_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, app = backups_of(tmp_path, [])
    made: list[bool] = []

    async def make(app: Any, store: str, again: Any, full: bool) -> dict[str, Any]:
        made.append(full)
        if full:
            raise DiskFull("The disk is full.")
        return FACTS | {"full": False, "unlike": [], "put_bytes": 1}

    monkeypatch.setattr(backups, "_make", make)
    for _ in range(2):  # and the next is not tried as a whole again at once
        await backups.make(app, "lazycloud")
    assert made == [True, False, False]
    assert not backups.standing["shop"].problem
    with pytest.raises(DiskFull):
        await backups.make(app, "somebody", full=True)
    assert backups.standing["shop"].problem and not backups.standing["shop"].begin_anew


async def test_that_layers_are_not_what_the_app_has_is_told_and_ends_them(tmp_path: Path) -> None:
    told: list[BackupFailed] = []
    backups, app = backups_of(tmp_path, told)
    facts = FACTS
    await backups._made(
        app,
        facts | {"sound": ["data/database.sqlite", "data/other"], "unlike": ["data/database.sqlite"]},
        (),
        True,
    )
    assert (
        "1970-01-02 00:00:00 UTC" in told[0].problem
        and "data/database.sqlite may be wrong" in told[0].problem
    )
    assert (backups.standing["shop"].sound, backups.standing["shop"].full_at) == (("other",), 90000.0)
    await backups._made(app, facts | {"full": False, "unlike": [], "name": "later"}, (), False)
    assert backups.standing["shop"].layered == "later" and backups.standing["shop"].full_at == 90000.0
