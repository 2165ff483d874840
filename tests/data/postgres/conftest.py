"""A provider on a real server, for a role that may make databases and roles and is no superuser."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from lazycloud.data.postgres.provider import Postgres as Provider
from lazycloud.data.postgres.server import Server
from tests.postgres import ADMIN, SUPERUSER, Postgres

ONE, OTHER = "a" * 40, "b" * 40


@pytest.fixture
async def open_provider(postgres: Postgres) -> AsyncIterator[Callable[..., Provider]]:
    """Opens one of an app that only this test has; a second time, as the next process would."""
    key, opened = secrets.token_bytes(32), []

    def opening(app: str = "shop", user: str = ADMIN) -> Provider:
        opened.append(Provider(Server(postgres.url(user)), app, key))
        return opened[-1]

    yield opening
    for provider in opened:
        await provider.close()
    for provider in opened:
        await provider.remove()
    assert not [name for name in postgres.databases() if name.startswith("lazycloud_")]
    assert not [name for name in postgres.roles() if name.startswith("lazycloud_")]


@pytest.fixture
def provider(open_provider: Callable[..., Provider]) -> Provider:
    return open_provider()


@pytest.fixture(params=[ADMIN, SUPERUSER])
def either(request: pytest.FixtureRequest, open_provider: Callable[..., Provider]) -> Provider:
    """As a role that is no superuser, and as one that is."""
    return open_provider(user=request.param)


async def connected(provider: Provider, version: str) -> psycopg.Connection[tuple[object, ...]]:
    """As an app of that version does."""
    return psycopg.connect((await provider.environment(version))["DATABASE_URL"], autocommit=True)


async def rows(
    provider: Provider, version: str, query: str = "SELECT text FROM entry ORDER BY id"
) -> list[object]:
    with await connected(provider, version) as session:
        return [row[0] for row in session.execute(query.encode()).fetchall()]


async def run(provider: Provider, version: str, *statements: str) -> None:
    with await connected(provider, version) as session:
        for statement in statements:
            session.execute(statement.encode())


SHOP = (
    "CREATE TABLE entry (id serial PRIMARY KEY, text text NOT NULL)",
    "INSERT INTO entry (text) VALUES ('first')",
)
