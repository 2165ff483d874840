"""Fixtures: a control, routers and workers, all real; see stage.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .stage import Control, Conversation, Router, Server, to_worker
from .trial import Trial


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    control = Control(tmp_path)
    await control.start()
    yield control
    await control.stop()


@pytest.fixture
async def start(control: Control) -> AsyncIterator[Callable[..., Awaitable[Router]]]:
    """Starts routers with settings of the test's own."""
    routers: list[Router] = []

    async def start_router(**settings: Any) -> Router:
        router = Router(control)
        await router.start(**settings)
        routers.append(router)
        return router

    yield start_router
    for router in routers:
        await router.stop()


@pytest.fixture
async def router(start: Callable[..., Awaitable[Router]]) -> Router:
    return await start()


@pytest.fixture
async def serve(control: Control) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Starts workers, and tells control that a host leads there."""
    servers: list[Server] = []

    async def start_server(
        handle: Callable[[Conversation], Awaitable[None]],
        host: str = "app.localhost",
        deployment: str = "d1",
        ip: str = "127.0.0.1",
        **route: Any,
    ) -> Server:
        server = Server(handle)
        await server.start(host=ip)
        servers.append(server)
        control.routes[host] = to_worker(server.address, deployment, **route)
        return server

    yield start_server
    for server in servers:
        await server.stop()


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    """One router for the many cases of a table, or of a fuzzer."""
    trial = Trial()
    trial.run(trial.start())
    yield trial
    trial.run(trial.stop())
    trial.close()


@pytest.fixture(scope="module")
def peers(trial: Trial) -> Iterator[list[Any]]:
    """The servers that one might run behind it."""
    from .peers import all_peers  # they are many, and few tests need them

    peers = all_peers()
    for peer in peers:
        trial.run(peer.start())
    yield peers
    for peer in peers:
        trial.run(peer.stop())
