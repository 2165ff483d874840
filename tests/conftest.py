"""Every coroutine of the tests runs on the event loop that the product runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.dockerd import Dockerd, dockerd_running
from tests.postgres import Postgres, postgres_running


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """One container engine for all tests that leave it as it was."""
    with dockerd_running() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One Postgres server for all tests that leave it running, and drop what they make."""
    with postgres_running() as running:
        yield running


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
