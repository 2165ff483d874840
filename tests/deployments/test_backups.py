"""What a backup held, on its way into a version."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.deployments.backups import _Unfolded
from lazycloud.errors import StepFailed


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
