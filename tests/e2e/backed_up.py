"""A backup, and what an app wrote: back in the same home, and in a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import Server


async def comes_back(
    up: Up, checkout: Checkout, tmp_path: Path, notes: Callable[[Server], Awaitable[list[str]]]
) -> None:
    """What the app of the checkout, which keeps what is posted to it, has been told before the backup."""
    (tmp_path / "store").mkdir()
    server = up(checkout.path)
    await server.post("", "kept")
    url = f"file://{tmp_path}/store"
    await server.verb("data", "backup", "--to", url, folder=checkout.path)
    await server.post("", "late")
    await server.verb("data", "restore-from", url, "--yes", folder=checkout.path)
    assert await notes(server) == ["kept"]
    key = server.json("data", "backup", "--list", "--to", url)["key"]
    new = up(checkout.path, home=tmp_path / "new")
    assert await notes(new) == []
    await new.verb("data", "restore-from", url, "--signed-by", key, "--yes", "--app", "shop")
    assert await notes(new) == ["kept"]
