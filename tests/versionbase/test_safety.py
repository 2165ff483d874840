"""What a store says and keeps when its database fails, is full, goes away or is taken by another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text

from lazycloud.errors import Conflict, DiskFull, LazycloudError
from lazycloud.versionbase import database
from lazycloud.versionbase.storage import Branch, Storage, Wish
from lazycloud.versionbase.tree import scan
from lazycloud.versionbase.verification import verify
from tests.postgres import Postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Of a database of this test's own."""
    with postgres.superuser() as superuser:
        superuser.execute("CREATE DATABASE versionbase")
    yield postgres.url("postgres", "versionbase")
    with postgres.superuser() as superuser:
        superuser.execute("DROP DATABASE versionbase WITH (FORCE)")


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    storage = opened(url)
    storage.begin("production")
    put(storage, {b"a": b"1"})
    yield storage
    storage.close()


def opened(url: str, relaxed: bool = False) -> Storage:
    storage = Storage(url, relaxed)
    storage.open()
    return storage


def put(storage: Storage, changes: dict[bytes, bytes | None]) -> Branch:
    root = storage.branch("production").root
    (result,) = storage.commit([Wish("production", root, sorted(changes.items()), lambda root: True)])
    assert isinstance(result, Branch)
    return result


def content(storage: Storage) -> dict[bytes, bytes]:
    return dict(scan(storage, storage.branch("production").root))


def sound(storage: Storage) -> bool:
    return not [found for found in verify(storage) if isinstance(found, str)]


def end_connections(postgres: Postgres) -> None:
    """Those of the store, as by who restarts the server."""
    postgres.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'versionbase'"
    )


def allow(storage: Storage, pages: int) -> None:
    writer = storage.database._writer
    assert writer
    writer.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    writer.commit()


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    storage = opened(f"sqlite:///{tmp_path}/versionbase.sqlite")
    storage.begin("production")
    put(storage, {b"%05d" % number: b"x" * 200 for number in range(1000)})
    before = content(storage)
    allow(storage, int(storage.database.read("PRAGMA page_count").scalar()))
    for _ in range(3):
        with pytest.raises(DiskFull, match=r"is full: database or disk is full\. Nothing was changed"):
            put(storage, {b"%05d" % number: b"y" * 200 for number in range(1000)})
        assert (content(storage), storage.branch("production").sequence) == (before, 1)
        assert not storage._fresh
    with pytest.raises(DiskFull):
        for number in range(1000):
            storage.fork(f"fork {number}", "production")
    allow(storage, 1_000_000)
    assert put(storage, {b"new": b"1"}).sequence == 2
    assert content(storage) == {**before, b"new": b"1"}
    assert sound(storage)
    storage.close()


def test_a_full_disk_of_postgres_is_one_too(storage: Storage, postgres: Postgres) -> None:
    with psycopg.connect(postgres.url("postgres", "versionbase"), autocommit=True) as superuser:
        superuser.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
        )
        superuser.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON versionbase_nodes EXECUTE FUNCTION full_disk()"
        )
    with pytest.raises(DiskFull, match="could not extend file"):
        put(storage, {b"a": b"2"})
    assert content(storage) == {b"a": b"1"}
    with psycopg.connect(postgres.url("postgres", "versionbase"), autocommit=True) as superuser:
        superuser.execute("DROP TRIGGER full_disk ON versionbase_nodes")
    assert put(storage, {b"a": b"2"}).sequence == 2


def test_a_store_in_postgres_is_had_by_one(
    storage: Storage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "OPENING", 0.2)
    with pytest.raises(Conflict, match=rf"is open already: lazycloud versionbase, \S+ {os.getpid()} "):
        opened(url)
    storage.close()
    other = opened(url)
    assert content(other) == {b"a": b"1"}
    other.close()


def test_connections_that_are_lost_are_made_again(storage: Storage, postgres: Postgres, url: str) -> None:
    end_connections(postgres)
    assert put(storage, {b"b": b"2"}).sequence == 2
    end_connections(postgres)
    storage._cache.clear()
    storage._known.clear()
    assert content(storage) == {b"a": b"1", b"b": b"2"}
    postgres.stop()
    postgres.start()
    assert put(storage, {b"c": b"3"}).sequence == 3
    assert sound(storage)
    storage.close()
    other = opened(url)
    assert content(other) == {b"a": b"1", b"b": b"2", b"c": b"3"}
    other.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_became_of_a_change_is_looked_up_when_its_connection_is_lost(
    storage: Storage, postgres: Postgres, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done once: a change that took place is not done again, and one that did not is."""
    change, tries = storage.database.change, 0

    def cut_off(work: Callable[[Connection], object], is_done: Callable[[Connection], bool]) -> None:
        def broken(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            work(connection)
            if tries == 1:
                if when == "after":
                    connection.exec_driver_sql("COMMIT")
                end_connections(postgres)

        change(broken, is_done)

    with monkeypatch.context() as patch:
        patch.setattr(storage.database, "change", cut_off)
        assert put(storage, {b"b": b"2"}).sequence == 2
    assert tries == (1 if when == "after" else 2)
    assert content(storage) == {b"a": b"1", b"b": b"2"}
    assert [commit.sequence for commit in storage.commits("production", -1, 9)] == [0, 1, 2]
    assert sound(storage)


@pytest.mark.parametrize("is_taken", [False, True])
def test_what_is_not_known_is_said_and_found_out_later(
    storage: Storage, postgres: Postgres, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = database.PATIENCE
    monkeypatch.setattr(database, "PATIENCE", 0.3)
    change = storage.database.change

    def cut_off(work: Callable[[Connection], object], is_done: Callable[[Connection], bool]) -> None:
        def broken(connection: Connection) -> None:
            work(connection)
            if is_taken:
                connection.exec_driver_sql("COMMIT")
            postgres.stop()
            connection.exec_driver_sql("SELECT 1")

        change(broken, is_done)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(storage.database, "change", cut_off)
            with pytest.raises(LazycloudError, match="Whether the last change took place is not known"):
                put(storage, {b"b": b"2"})
        with pytest.raises(LazycloudError, match="Nothing was changed"):
            put(storage, {b"c": b"3"})
        assert content(storage) == {b"a": b"1"}  # as far as anybody knows
    finally:
        postgres.start()
    monkeypatch.setattr(database, "PATIENCE", patience)
    assert put(storage, {b"c": b"3"}).sequence == (3 if is_taken else 2)
    assert content(storage) == {b"a": b"1", b"c": b"3", **({b"b": b"2"} if is_taken else {})}
    assert sound(storage)


def test_who_lost_a_store_to_another_writes_no_more(storage: Storage, postgres: Postgres, url: str) -> None:
    """Its connection, and with it its lock, was lost; the other one was quicker."""
    end_connections(postgres)
    other = opened(url)
    put(other, {b"b": b"2"})
    other.close()
    for _ in range(2):
        with pytest.raises(Conflict, match="Another has opened"):
            put(storage, {b"b": b"3"})
    other = opened(url)
    assert content(other) == {b"a": b"1", b"b": b"2"}
    assert sound(other)
    other.close()


def test_relaxed_stores_wait_for_no_disk(url: str, tmp_path: Path) -> None:
    for relaxed, expected in ((True, "off"), (False, "on")):
        storage = opened(url, relaxed)
        writer = storage.database._writer
        assert writer
        assert writer.execute(text("SHOW synchronous_commit")).scalar() == expected
        storage.close()
    for relaxed, level in ((True, 1), (False, 2)):
        storage = opened(f"sqlite:///{tmp_path}/versionbase.sqlite", relaxed)
        writer = storage.database._writer
        assert writer
        assert writer.execute(text("PRAGMA synchronous")).scalar() == level
        storage.close()


@pytest.mark.parametrize("database_of", ["sqlite", "postgres"])
def test_what_is_collected_waits_for_no_disk_and_what_is_written_afterwards_does(
    database_of: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    waits: object
    waits_not: object
    url, words, waits, waits_not = f"sqlite:///{tmp_path}/versionbase.sqlite", "PRAGMA synchronous", 2, 1
    if database_of == "postgres":
        url, words, waits, waits_not = request.getfixturevalue("url"), "SHOW synchronous_commit", "on", "off"
    storage, seen = opened(url), list[object]()
    storage.database.clear(lambda connection: seen.append(connection.exec_driver_sql(words).scalar()))
    storage.database.change(
        lambda connection: seen.append(connection.exec_driver_sql(words).scalar()), lambda _: False
    )
    assert seen == [waits_not, waits]
    storage.close()


def test_readers_see_commits_as_they_are_and_never_go_back(tmp_path: Path) -> None:
    """Each commit writes the same number to many keys; no reader may see two of them, or an older one again."""
    storage = opened(f"sqlite:///{tmp_path}/versionbase.sqlite")
    storage.begin("production")
    keys = [b"%05d" % number for number in range(0, 3000)]
    put(storage, dict.fromkeys(keys, b"0" * 40))
    is_over, problems = threading.Event(), list[str]()

    def read() -> None:
        seen = -1
        while not is_over.is_set():
            storage._known.clear()  # so that it is read while others write
            branch = storage.branch("production")
            values = {value for _, value in scan(storage, branch.root)}
            if len(values) != 1 or branch.sequence < seen:
                problems.append(f"{values} at {branch.sequence} after {seen}")
            seen = branch.sequence

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(40):
        put(storage, dict.fromkeys(keys, b"%040d" % number))
        for _ in storage.expire(keep=3):
            pass
        if number % 10 == 0:
            for _ in storage.collect():
                pass
    is_over.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert sound(storage)
    storage.close()
