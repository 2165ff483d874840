"""What goes wrong with a server is said in words, and without the password."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from lazycloud.data.names import PRODUCTION
from lazycloud.data.postgres import programs
from lazycloud.data.postgres.findings import findings
from lazycloud.data.postgres.provider import Postgres as Provider
from lazycloud.data.postgres.server import Server
from lazycloud.errors import BadInput, DiskFull, StepFailed
from lazycloud.findings import Weight
from tests.data.postgres.conftest import ONE, SHOP, run
from tests.postgres import ADMIN, IN_URL, PASSWORD, SUPERUSER, Postgres

KEY = bytes(32)


@pytest.mark.parametrize(
    "url, said",
    [
        ("postgresql://nobody:{password}@127.0.0.1:{port}/postgres", "does not let us in"),
        ("postgresql://lazycloud:wrong@127.0.0.1:{port}/postgres", "does not let us in"),
        ("postgresql://lazycloud@127.0.0.1:{port}/postgres", "does not let us in"),
        ("postgresql://lazycloud:{password}@127.0.0.1:1/postgres", "refused"),
        ("postgresql://lazycloud:{password}@127.0.0.1:{port}/none", 'database "none" does not exist'),
        ("postgresql://lazycloud:{password}@no.such.host.invalid:{port}/none", "cannot be used"),
    ],
)
async def test_a_server_that_cannot_be_used_is_told_of(postgres: Postgres, url: str, said: str) -> None:
    provider = Provider(Server(url.format(password=IN_URL, port=postgres.port)), "shop", KEY)
    await provider.open()  # does not raise
    with pytest.raises(StepFailed, match=said) as failed:
        await provider.fork(PRODUCTION, None)
    assert PASSWORD not in str(failed.value) and IN_URL not in str(failed.value) and failed.value.advice
    with pytest.raises(StepFailed, match=said):
        await provider.size(PRODUCTION)
    assert await provider.size(PRODUCTION) == 0  # who lists many versions waits once
    await provider.close()


def test_a_url_that_is_none_is_bad_input_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="postgres_url cannot be read") as failed:
        Server("postgresql://lazycloud:s3cret@localhost:5432/postgres?no_such_option=1")
    assert "s3cret" not in str(failed.value)
    assert "s3cret" not in repr(Server("postgresql://lazycloud:s3cret@localhost:5432/postgres"))


async def test_a_role_that_may_make_nothing_is_told_of(postgres: Postgres) -> None:
    with postgres.superuser() as superuser:
        superuser.execute(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
        superuser.execute("GRANT CONNECT ON DATABASE postgres TO plain")
    try:
        with pytest.raises(StepFailed, match="plain may not make databases and roles") as failed:
            await Provider(Server(postgres.url("plain")), "shop", KEY).fork(PRODUCTION, None)
        assert failed.value.advice == 'As its superuser: ALTER ROLE "plain" CREATEDB CREATEROLE;'
    finally:
        with postgres.superuser() as superuser:
            superuser.execute("DROP OWNED BY plain")
            superuser.execute("DROP ROLE plain")


def test_a_pg_dump_that_is_too_old_is_told_of(tmp_path: Path) -> None:
    assert programs.find(15).major >= 15
    with pytest.raises(StepFailed, match=r"is of version 99, and only pg_dump \d+ is here"):
        programs.find(99)


async def test_a_copy_that_fails_says_why_and_leaves_nothing(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    before = postgres.databases()
    database = (await provider.environment(PRODUCTION))["PGDATABASE"]
    with psycopg.connect(postgres.url(SUPERUSER, database), autocommit=True) as superuser:
        superuser.execute("CREATE TABLE of_somebody_else (id int)")
    with pytest.raises(StepFailed, match=r"pg_dump failed: .*permission denied") as failed:
        await provider.fork(ONE, PRODUCTION)
    assert "must belong to that version's role" in failed.value.advice
    assert postgres.databases() == before


async def test_a_full_disk_of_the_server_is_told_of(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    """As it is said by a server whose disk is full, which is asked to say so."""
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(
        provider,
        PRODUCTION,
        "CREATE FUNCTION full_disk(i int) RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN IF current_user NOT LIKE '%production%' THEN "
        "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; "
        "END IF; RETURN true; END $$",
        "CREATE TABLE large (id int CHECK (full_disk(id)))",
        "INSERT INTO large VALUES (1)",
    )
    with pytest.raises(StepFailed, match=r"The disk of the Postgres server .* is full"):
        await provider.fork(ONE, PRODUCTION)


async def test_a_full_disk_of_ours_is_told_of(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provider.fork(PRODUCTION, None)
    large = "CREATE TABLE large AS SELECT md5(i::text) FROM generate_series(1, 20000) i"
    await run(provider, PRODUCTION, *SHOP, large)
    opening, said = os.open, "no room for a dump of what is in Postgres"
    with monkeypatch.context() as patch:
        patch.setattr(programs.os, "open", lambda place, *words: opening("/dev/full", os.O_WRONLY))
        with pytest.raises(DiskFull, match=said):
            await provider.unfold(PRODUCTION, None, tmp_path / "dump")
    monkeypatch.setattr(programs.shutil, "disk_usage", lambda place: SimpleNamespace(free=4096))
    with pytest.raises(DiskFull, match=said):  # of which pg_dump says nothing
        await provider.unfold(PRODUCTION, None, tmp_path / "dump")


def test_the_doctor_tells_how_the_server_is(postgres: Postgres) -> None:
    with postgres.superuser() as superuser:
        superuser.execute("GRANT CONNECT ON DATABASE template1 TO PUBLIC")
    unsafe, fine = findings(postgres.url(ADMIN))
    assert unsafe.weight is Weight.UNSAFE and "template1" in unsafe.sentence and "REVOKE" in unsafe.advice
    assert fine.weight is Weight.FINE and "PostgreSQL" in fine.sentence and "pg_dump" in fine.sentence
    (broken,) = findings("postgresql://lazycloud:s3cret@127.0.0.1:1/postgres")
    assert broken.weight is Weight.BROKEN and "refused" in broken.sentence and "s3cret" not in str(broken)
