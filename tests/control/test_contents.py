"""Data that go out as a file, and come in as one."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazycloud.config import Config
from lazycloud.control import contents
from lazycloud.control.contents import Contents, _opened
from lazycloud.data import tools
from lazycloud.errors import StepFailed


def test_only_a_file_is_sent(tmp_path: Path) -> None:
    """The process that wrote it had read a database of an app, and may be that app's by then."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").symlink_to("secret")
    with pytest.raises(StepFailed), _opened(tmp_path / "data"):
        pass
    (tmp_path / "data").unlink()
    os.mkfifo(tmp_path / "data")
    with pytest.raises(StepFailed), _opened(tmp_path / "data"):
        pass
    with _opened(tmp_path / "secret") as file:
        assert file.read() == b"secret"


async def test_what_comes_may_become_no_more_than_the_disk_can_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    async def import_(file: Path, place: Path, *, limits: Any, **rest: Any) -> tools.Imported:
        given.append(limits.disk)
        return tools.Imported("tar", ())

    async def fill(app: Any, version: str, fill: Any, size: int, who: str) -> None:
        await fill(tmp_path)

    async def pieces(size: int) -> Any:
        yield b"some"

    total, free = 100_000_000_000, 20_000_000_000
    monkeypatch.setattr(contents.tools, "import_", import_)
    monkeypatch.setattr(contents.shutil, "disk_usage", lambda place: SimpleNamespace(total=total, free=free))
    config, changes = Config(tmp_path), SimpleNamespace(fill=fill, demand_fillable=lambda app, version: None)
    place = tmp_path / "data"
    versions = SimpleNamespace(place=lambda version: place / version, exists=lambda version: True)
    versions.beside = SimpleNamespace(has=lambda name, *_: False)
    request: Any = SimpleNamespace(content_length=4, content=SimpleNamespace(iter_chunked=pieces))
    made: Any = Contents(config, None, changes, None, None)  # type: ignore[arg-type]
    await made.take_in(request, SimpleNamespace(versions=versions), "production", "tar", "Ada")
    assert given == [free - config.disk.reserve.of(total)]
