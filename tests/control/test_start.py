"""Control's loop goes on while it starts: its parent ends one that does not move."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from lazycloud.config import Config
from lazycloud.control.process import Control
from lazycloud.errors import LazycloudError
from tests.waiting import until


async def test_the_loop_goes_on_while_the_tables_of_an_older_control_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def change() -> None:
        begun.set()
        assert may_end.wait(60)
        raise LazycloudError("The state was written by a newer lazycloud.")

    control = Control(Config(tmp_path), {})
    monkeypatch.setattr(control._store, "open", change)
    starting = asyncio.create_task(control.start())
    await until(begun.is_set)
    assert not starting.done()
    may_end.set()
    with pytest.raises(LazycloudError, match="newer lazycloud"):
        await starting
