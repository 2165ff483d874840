"""Waiting until something holds: a machine that others use may take its time, and who waits goes on at once."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = float(os.environ.get("LAZYCLOUD_TEST_PATIENCE", "60"))
"""Seconds in which whatever must come has come. pytest's own `timeout` is longer."""

PAUSE = 0.005


async def until(condition: Callable[[], T], what: str = "it", seconds: float = PATIENCE) -> T:
    """What `condition` gives as soon as that is true. `what` is said when it never is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        await asyncio.sleep(PAUSE)
    return found


def wait(condition: Callable[[], T], what: str = "it") -> T:
    """`until` for who has no event loop."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE:g} s"
        time.sleep(PAUSE)
    return found


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionError:
        return False
    return True
