"""Versions in Postgres: apart from each other, whole, and gone when they are dropped."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from lazycloud.data.names import PRODUCTION, new_snapshot
from lazycloud.data.postgres.programs import NICENESS
from lazycloud.data.postgres.provider import Postgres as Provider
from lazycloud.data.tools.summing import sum_up
from lazycloud.errors import NotFound, StepFailed
from tests.data.postgres.conftest import ONE, OTHER, SHOP, connected, rows, run
from tests.postgres import SUPERUSER, Postgres
from tests.waiting import PATIENCE, until


async def test_a_version_is_forked_and_lives_on_its_own(provider: Provider) -> None:
    assert await provider.fork(PRODUCTION, None) == "an empty Postgres database"
    await run(provider, PRODUCTION, *SHOP)
    assert "as of " in await provider.fork(ONE, PRODUCTION)
    await run(provider, ONE, "INSERT INTO entry (text) VALUES ('of one')", "CREATE TABLE more (id int)")
    await run(provider, PRODUCTION, "INSERT INTO entry (text) VALUES ('of production')")
    assert await rows(provider, ONE) == ["first", "of one"]
    assert await rows(provider, PRODUCTION) == ["first", "of production"]


async def test_no_version_gets_into_the_database_of_another(either: Provider, postgres: Postgres) -> None:
    await either.fork(PRODUCTION, None)
    await either.fork(ONE, PRODUCTION)
    await either.fork(OTHER, ONE)
    await either.snapshot(ONE, new_snapshot())
    await until_kept_up(either)
    limits = "SELECT rolname LIKE '%production%', rolconnlimit FROM pg_roles "
    limits += "WHERE rolname ~ '^lazycloud_' AND rolcanlogin"
    assert {(True, -1), (False, 20)} <= set(postgres.rows(limits))
    versions = (PRODUCTION, ONE, OTHER)
    environments = {version: await either.environment(version) for version in versions}
    there = [name for name in postgres.databases() if name.startswith("lazycloud_")]
    assert len(there) >= len(versions) + 4  # a template, two made ahead, a snapshot
    for version, environment in environments.items():
        for database in there:
            words = {"dbname": database, "user": environment["PGUSER"], "password": environment["PGPASSWORD"]}
            if database == environment["PGDATABASE"]:
                psycopg.connect(environment["DATABASE_URL"], **words).close()
            else:
                with pytest.raises(
                    psycopg.OperationalError, match=r"permission denied|not currently accepting"
                ):
                    psycopg.connect(environment["DATABASE_URL"], **words)
        for statement in (
            f'DROP DATABASE "{environments[PRODUCTION]["PGDATABASE"]}"',
            f"ALTER ROLE \"{environments[PRODUCTION]['PGUSER']}\" PASSWORD 'mine'"
            if version != PRODUCTION
            else "",
            f'GRANT "{environments[PRODUCTION]["PGUSER"]}" TO CURRENT_USER',
            "CREATE DATABASE another",
            "CREATE ROLE another",
        ):
            if statement:
                with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType)):
                    await run(either, version, statement)


async def test_a_superuser_of_ours_keeps_versions_out_of_what_all_may_enter(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    provider = open_provider(user=SUPERUSER)
    await provider.fork(PRODUCTION, None)
    environment = await provider.environment(PRODUCTION)
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(environment["DATABASE_URL"], dbname=database)


EVERYTHING = (
    "CREATE SCHEMA books",
    "CREATE TYPE books.mood AS ENUM ('good', 'bad')",
    "CREATE DOMAIN books.isbn AS text CHECK (length(VALUE) = 13)",
    "CREATE TABLE books.book (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood books.mood, isbn books.isbn)",
    "CREATE SEQUENCE books.number START 7",
    "CREATE VIEW books.good AS SELECT * FROM books.book WHERE mood = 'good'",
    "CREATE FUNCTION books.twice(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2'",
    "CREATE EXTENSION citext",
    "CREATE EXTENSION hstore WITH SCHEMA books",
    "INSERT INTO books.book (mood, isbn) VALUES ('good', '9783161484100')",
    "CREATE MATERIALIZED VIEW books.counted AS SELECT count(*) AS count FROM books.book",
    "SELECT nextval('books.number')",
    "SELECT lo_from_bytea(4711, 'large')",
    "GRANT SELECT ON books.book TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA books GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER ROLE CURRENT_USER SET search_path TO books, public",
    "ALTER ROLE CURRENT_USER SET timezone TO 'Asia/Tokyo'",
    "ALTER TABLE books.book ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY all_of_it ON books.book USING (true)",
    "COMMENT ON TABLE books.book IS 'paper'",
)
OF_ANOTHER = (
    "SELECT count(*)::int FROM pg_shdepend "
    "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND refclassid = 'pg_authid'::regclass AND refobjid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)"
)


@pytest.mark.parametrize("way", ["template", "spare", "asleep", "awake", "snapshot"])
async def test_all_that_a_database_can_hold_is_the_forks_own(
    open_provider: Callable[..., Provider], way: str
) -> None:
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *EVERYTHING)
    await provider.fork(ONE, PRODUCTION)
    fork = ONE
    if way == "spare":
        await until_kept_up(provider)
        await provider.fork(fork := OTHER, PRODUCTION)
    elif way == "asleep":
        await provider.fork(fork := OTHER, ONE)
    elif way == "awake":
        with await connected(provider, ONE):
            await provider.fork(fork := OTHER, ONE)
    elif way == "snapshot":
        await provider.snapshot(ONE, name := new_snapshot())
        await provider.fork(fork := OTHER, ONE, name)
    assert await rows(provider, fork, OF_ANOTHER) == [0]
    assert await rows(provider, fork, "SELECT nextval('number')::int") == [8]  # the search path came along
    assert await rows(provider, fork, "SHOW timezone") == ["Asia/Tokyo"]
    assert await rows(provider, fork, "SELECT count FROM counted") == [1]
    assert await rows(provider, fork, "SELECT convert_from(lo_get(4711), 'UTF8')") == ["large"]
    assert await rows(provider, fork, "SELECT obj_description('books.book'::regclass)") == ["paper"]
    await run(
        provider,
        fork,
        "INSERT INTO book (mood, isbn) VALUES ('bad', '9783161484101')",
        "REFRESH MATERIALIZED VIEW counted",
        "ALTER TYPE mood ADD VALUE 'so so'",
        "ALTER TABLE book ADD COLUMN more text",
        "DROP FUNCTION twice",
        "DROP EXTENSION citext",
        "SELECT lo_unlink(4711)",
        "CREATE TABLE books.new (id int)",
        "CREATE FUNCTION books.new() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    public = (
        "has_table_privilege('public', 'new', 'SELECT'), has_function_privilege('public', 'new()', 'EXECUTE')"
    )
    assert await rows(provider, fork, f"SELECT ({public})::text") == ["(t,f)"]
    await run(
        provider,
        fork,
        "DROP SCHEMA public CASCADE",
        "CREATE SCHEMA public",
        "DROP SCHEMA books CASCADE",
    )
    assert await rows(provider, PRODUCTION, "SELECT books.twice(id::int) FROM books.book") == [2]


async def test_production_is_copied_while_it_is_written(provider: Provider) -> None:
    """Each commit moves a coin; what is copied is of one moment."""
    await provider.fork(PRODUCTION, None)
    await run(
        provider,
        PRODUCTION,
        "CREATE TABLE purse (id int PRIMARY KEY, coins int)",
        "INSERT INTO purse VALUES (1, 50), (2, 50)",
    )
    url, stop, done = (await provider.environment(PRODUCTION))["DATABASE_URL"], threading.Event(), []

    def trade() -> None:
        with psycopg.connect(url) as session:
            while not stop.is_set():
                session.execute("UPDATE purse SET coins = coins - 1 WHERE id = 1")
                session.execute("UPDATE purse SET coins = coins + 1 WHERE id = 2")
                session.commit()
                done.append(1)

    trading = threading.Thread(target=trade)
    trading.start()
    try:
        for number in range(4):
            before = len(done)
            version = f"rehearsal-{number}"
            await provider.fork(version, PRODUCTION)
            assert await rows(provider, version, "SELECT sum(coins)::int FROM purse") == [100]
            (moved,) = await rows(provider, version, "SELECT coins FROM purse WHERE id = 2")
            assert (
                isinstance(moved, int) and moved >= 50 + before
            )  # nothing that was there when it began is missing
            assert len(done) > before
            await provider.drop(version)
    finally:
        stop.set()
        trading.join()


async def test_a_snapshot_stays_as_it_was(provider: Provider) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    note = await provider.snapshot(PRODUCTION, name := new_snapshot())
    assert note.startswith("as of ") and note.endswith(" MB")
    assert min(await provider.size(PRODUCTION), await provider.size(PRODUCTION, name)) > 5_000_000
    assert await provider.size(ONE) == 0
    await run(provider, PRODUCTION, "DELETE FROM entry")
    await provider.fork(ONE, PRODUCTION, name)
    assert await rows(provider, ONE) == ["first"]
    await provider.drop_snapshot(PRODUCTION, name)
    with pytest.raises(NotFound, match=name):
        await provider.fork(OTHER, PRODUCTION, name)


async def test_two_versions_change_places_at_once(either: Provider) -> None:
    await either.fork(PRODUCTION, None)
    await run(either, PRODUCTION, *SHOP)
    await either.fork(ONE, PRODUCTION)
    await until_kept_up(either)
    await run(either, ONE, "INSERT INTO entry (text) VALUES ('of one')")
    before = {version: await either.environment(version) for version in (PRODUCTION, ONE)}
    with await connected(either, PRODUCTION) as left:  # one that does not end by itself
        await either.swap(PRODUCTION, ONE)
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
    assert {version: await either.environment(version) for version in (PRODUCTION, ONE)} == before
    assert await rows(either, PRODUCTION) == ["first", "of one"]
    assert await rows(either, ONE) == ["first"]
    assert await rows(either, PRODUCTION, OF_ANOTHER) == [0]
    await either.fork(OTHER, PRODUCTION)  # of production as it is now, not of its copy from before
    assert await rows(either, OTHER) == ["first", "of one"]


async def test_what_is_unfolded_can_be_loaded(provider: Provider, tmp_path: Path) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    await provider.snapshot(PRODUCTION, name := new_snapshot())
    await run(provider, PRODUCTION, "INSERT INTO entry (text) VALUES ('second')")
    await provider.unfold(PRODUCTION, None, tmp_path / "now")
    await provider.unfold(PRODUCTION, name, tmp_path / "then")
    assert (tmp_path / "now").stat().st_mode & 0o777 == 0o600
    await provider.load(PRODUCTION, tmp_path / "then")
    assert await rows(provider, PRODUCTION) == ["first"]
    await provider.load(PRODUCTION, tmp_path / "now")
    assert await rows(provider, PRODUCTION) == ["first", "second"]
    (tmp_path / "noise").write_bytes(b"PGDMP, or not")
    with pytest.raises(StepFailed, match="pg_restore failed"):
        await provider.load(PRODUCTION, tmp_path / "noise")
    assert await rows(provider, PRODUCTION) == ["first", "second"]


async def test_an_outline_has_the_schema_and_numbers_of_rows(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provider.fork(PRODUCTION, None)
    more = ('CREATE SCHEMA "an Other"', 'CREATE TABLE "an Other"."T" AS SELECT generate_series(1, 5) AS n')
    parts = ("CREATE TABLE log (at int) PARTITION BY RANGE (at)",)
    parts += (
        "CREATE TABLE log_0 PARTITION OF log FOR VALUES FROM (0) TO (10)",
        "INSERT INTO log VALUES (1), (2)",
    )
    await run(provider, PRODUCTION, *SHOP, *more, *parts)
    await provider.snapshot(PRODUCTION, name := new_snapshot())
    await run(provider, PRODUCTION, "ALTER TABLE entry ADD COLUMN stars int")
    now, then = tmp_path / "now", tmp_path / "then"
    for folder, snapshot, counts in ((now, None, {"entry": 1, "an Other.T": 5, "log": 2}), (then, name, {})):
        folder.mkdir()
        assert await provider.outline(PRODUCTION, snapshot, folder / "postgres.dump") == counts
    before, after = [sum_up(folder, rows=True, sizes=False).databases[0] for folder in (then, now)]
    columns = [
        [one.name for table in each.tables for one in table.columns if table.name == "entry"]
        for each in (before, after)
    ]
    assert columns == [["id", "text"], ["id", "text", "stars"]]

    monkeypatch.setattr("lazycloud.data.postgres.databases.COUNT_SECONDS", 1.0)
    with await connected(provider, PRODUCTION) as session:
        session.execute("BEGIN; LOCK entry IN ACCESS EXCLUSIVE MODE")
        counts = await provider._databases.counts(provider._databases.of(PRODUCTION))
        assert "entry" not in counts, "nobody waits long for who has it"
        session.execute("ROLLBACK")


async def test_nothing_is_left_of_a_version_that_is_dropped(provider: Provider, postgres: Postgres) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    await provider.fork(ONE, PRODUCTION)
    await until_kept_up(provider)
    await provider.snapshot(ONE, new_snapshot())
    before = ours(postgres)
    with await connected(provider, ONE) as session:
        await provider.drop(ONE)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    await provider.dropped()
    assert len(before) - len(ours(postgres)) == 2
    await provider.drop(ONE)
    await provider.drop(PRODUCTION)
    await provider.dropped()
    assert ours(postgres) == []


async def test_the_next_start_drops_what_was_left_half_made_and_keeps_the_rest(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    await provider.fork(ONE, PRODUCTION)
    await until_kept_up(provider)
    await provider.close()
    kept = ours(postgres)
    naming, other = provider._naming, open_provider(app="other")
    await other.fork(PRODUCTION, None)
    others = set(ours(postgres)) - set(kept)
    half = naming.new("making")
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{half}"'.encode())
        admin.execute(f'CREATE ROLE "{naming.new("making")}"'.encode())
        admin.execute(
            f'ALTER DATABASE "{naming.version(ONE)}" ALLOW_CONNECTIONS false'.encode()
        )  # as in a swap
    again = open_provider()
    await again.open()
    assert again._opening
    await again._opening
    assert set(ours(postgres)) == set(kept) | others
    assert {role for role in postgres.roles() if role.startswith("lazycloud_")} == set(kept) | others
    assert await rows(again, ONE) == ["first"]
    spares = postgres.rows("SELECT oid FROM pg_database WHERE datname LIKE '%_spare_%'")
    await again.fork(OTHER, PRODUCTION)  # the spares are still of use
    assert len(ours(postgres)) == len(kept) + 1
    (used,) = postgres.rows(f"SELECT oid FROM pg_database WHERE datname = '{naming.version(OTHER)}'")
    assert used in spares


async def test_an_old_copy_of_production_is_used_at_once_and_replaced_behind(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazycloud.data.postgres.pool.QUICK", 0)
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    await provider.fork(ONE, PRODUCTION)
    await until_kept_up(provider)
    await run(provider, PRODUCTION, "INSERT INTO entry (text) VALUES ('second')")
    monkeypatch.setattr("lazycloud.data.postgres.pool.OLD", 0)
    await provider.fork(OTHER, PRODUCTION)
    assert await rows(provider, OTHER) == ["first"]
    await until_kept_up(provider)
    monkeypatch.setattr("lazycloud.data.postgres.pool.OLD", 1000)
    await provider.fork("c" * 40, PRODUCTION)
    assert await rows(provider, "c" * 40) == ["first", "second"]
    await run(provider, PRODUCTION, "INSERT INTO entry (text) VALUES ('third')")
    await provider.fork("rehearsal-c", PRODUCTION)  # always of this moment
    assert await rows(provider, "rehearsal-c") == ["first", "second", "third"]


async def test_forks_at_the_same_time_are_all_made(provider: Provider) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    versions = [f"{number:040x}" for number in range(6)]
    await asyncio.gather(*(provider.fork(version, PRODUCTION) for version in versions * 2))
    for version in versions:
        assert await rows(provider, version) == ["first"]


async def test_who_changes_production_waits_no_longer_than_a_moment_for_a_copy(
    open_provider: Callable[..., Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazycloud.data.postgres.databases.LOOK_EVERY", 0.1)
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP, "CREATE TABLE z (id int)")
    with await connected(provider, PRODUCTION) as holder:
        holder.execute(
            "BEGIN; LOCK TABLE z IN ACCESS EXCLUSIVE MODE"
        )  # pg_dump waits for it, and holds `entry`
        forking = asyncio.create_task(provider.fork(ONE, PRODUCTION))
        await until_waiting(provider, "pg_dump")
        changing = asyncio.create_task(
            asyncio.to_thread(alter, (await provider.environment(PRODUCTION))["DATABASE_URL"])
        )
        with pytest.raises(StepFailed, match="Tables were changed"):
            await forking
        await changing


async def test_a_copy_comes_after_whoever_writes_meanwhile(provider: Provider) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    with await connected(provider, PRODUCTION) as holder:
        holder.execute("BEGIN; LOCK TABLE entry IN ACCESS EXCLUSIVE MODE")
        forking = asyncio.create_task(provider.fork(ONE, PRODUCTION))
        await until_waiting(provider, "pg_dump")
        niceness = await until(copying, "both programs")
        holder.execute("ROLLBACK")
    await forking
    assert niceness == {min(19, os.nice(0) + NICENESS)}


def copying() -> set[int]:
    """The niceness of what copies, once both do."""
    programs = {each.name(): each.nice() for each in psutil.Process().children()}
    both = programs.keys() & {"pg_dump", "pg_restore"}
    return {programs[name] for name in both} if len(both) > 1 else set()


def alter(url: str) -> None:
    with psycopg.connect(url) as session:
        session.execute("ALTER TABLE entry ADD COLUMN more text")


async def until_waiting(provider: Provider, name: str) -> None:
    async with provider._admin() as on, asyncio.timeout(PATIENCE):
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
        )
        while (await (await on.execute(query.encode(), (name,))).fetchone()) == (0,):
            await asyncio.sleep(0.02)


async def until_kept_up(provider: Provider) -> None:
    assert provider._pool._upkeep
    await provider._pool._upkeep


def ours(postgres: Postgres) -> list[str]:
    return [name for name in postgres.databases() if name.startswith("lazycloud_")]


@pytest.mark.parametrize("held", [True, False])
async def test_a_swap_that_does_not_hold_yet_is_taken_back_by_the_next_process(
    open_provider: Callable[..., Provider], held: bool
) -> None:
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    await provider.fork(ONE, None)
    await provider.swap(PRODUCTION, ONE)
    if held:
        await provider.swapped(PRODUCTION)
    again = open_provider()
    await again.undo_swap(PRODUCTION)
    assert await rows(again, ONE if held else PRODUCTION) == ["first"]
    await again.undo_swap(PRODUCTION)
    assert await rows(again, ONE if held else PRODUCTION) == ["first"]


async def test_one_that_has_no_database_can_change_places_with_one_that_has(provider: Provider) -> None:
    await provider.fork(ONE, None)
    await run(provider, ONE, *SHOP)
    await provider.swap(PRODUCTION, ONE)
    assert (await provider.exists(PRODUCTION), await provider.exists(ONE)) == (True, False)
    assert await rows(provider, PRODUCTION) == ["first"]
    await provider.undo_swap(PRODUCTION)
    assert (await provider.exists(PRODUCTION), await provider.exists(ONE)) == (False, True)
    assert await rows(provider, ONE) == ["first"]


async def test_who_is_cancelled_in_the_middle_of_a_fork_leaves_nothing(
    provider: Provider, postgres: Postgres
) -> None:
    await provider.fork(PRODUCTION, None)
    await run(provider, PRODUCTION, *SHOP)
    before = ours(postgres)
    for _ in range(3):
        forking = asyncio.create_task(provider.fork(ONE, PRODUCTION))
        while len(ours(postgres)) == len(before):
            await asyncio.sleep(0)
        forking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forking
        assert not [name for name in ours(postgres) if "_making_" in name]
    await provider.fork(ONE, PRODUCTION)
    assert await rows(provider, ONE) == ["first"]


async def test_a_database_that_the_server_itself_is_busy_in_can_be_dropped_and_swapped(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    """Autovacuum's workers are nobody's whom we may end."""
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await provider.fork(ONE, None)
    for number in range(3):
        await run(
            provider,
            ONE,
            f"CREATE TABLE large{number} AS SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i",
        )
    with postgres.superuser() as superuser:
        for setting in (
            "autovacuum_naptime = '1s'",
            "autovacuum_vacuum_cost_delay = '100ms'",
            "autovacuum_vacuum_cost_limit = 1",
        ):
            superuser.execute(f"ALTER SYSTEM SET {setting}".encode())
        superuser.execute("SELECT pg_reload_conf()")
    try:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{}'"
        for change in (provider.swap(PRODUCTION, ONE), provider.drop(PRODUCTION)):
            at = ONE if change.__name__ == "swap" else PRODUCTION
            name = (await provider.environment(at))["PGDATABASE"]
            async with asyncio.timeout(PATIENCE):
                while postgres.rows(busy.format(name)) == [(0,)]:
                    await asyncio.sleep(0.05)
            await change
    finally:
        with postgres.superuser() as superuser:
            superuser.execute("ALTER SYSTEM RESET ALL")
            superuser.execute("SELECT pg_reload_conf()")


async def test_a_database_whose_drop_was_cut_off_is_dropped(
    open_provider: Callable[..., Provider], postgres: Postgres
) -> None:
    provider = open_provider()
    await provider.fork(PRODUCTION, None)
    await provider.fork(ONE, PRODUCTION)
    await until_kept_up(provider)
    spare = next(name for name in ours(postgres) if "_spare_" in name)
    postgres.rows(
        f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{spare}' RETURNING 1"
    )  # as DROP does
    again = open_provider()
    await again.fork(OTHER, PRODUCTION)
    assert await rows(again, OTHER, "SELECT 1") == [1]
    assert spare not in ours(postgres)
