"""Servers and repositories that go away with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.repository import Checkout, counter
from tests.e2e.server import Server

Up = Callable[..., Server]


@pytest.fixture(scope="module")
def shared_checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """What `shared` serves: one commit, the production. Others begin on branches of their own."""
    checkout = Checkout(tmp_path_factory.mktemp("shared") / "shop")
    checkout.commit(counter("good"))
    return checkout


@pytest.fixture(scope="module")
def shared(shared_checkout: Checkout) -> Iterator[Server]:
    """One server for all tests of a file that leave it as it was: to start one takes two seconds of a processor."""
    server = Server(shared_checkout.path.parent / "home", shared_checkout.path)
    try:
        yield server.start()
    finally:
        server.stop()
    assert not server.inmates(), server.output


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "shop")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Start a server: `up(path, …flags, home=…)`. It is stopped as Ctrl-C does, and must leave no worker."""
    servers: list[Server] = []

    def start(*arguments: str | Path, home: Path | None = None, **environment: str) -> Server:
        server = Server(home or tmp_path / "home", *arguments, environment=environment)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()
    for server in servers:
        assert not server.inmates(), server.output
