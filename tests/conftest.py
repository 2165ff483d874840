"""Every coroutine of the tests runs on the event loop that the product runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.dockerd import Dockerd, dockerd_running
from tests.postgres import Postgres, postgres_running

os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # hundreds of servers are started: each would compile itself again


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.sharing import Files

    config.option.loadscopereorder = False  # in the order of `pytest_collection_modifyitems`
    return Files(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uses the container engine takes minutes, one after the other: it is begun before what runs beside it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.sharing import uses_engine

        items.sort(key=lambda item: not uses_engine(item.path))


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
