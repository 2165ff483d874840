"""What a version may have of its own: who goes beyond is refused what adds, and harms nobody else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from lazycloud.versionbase import upkeep
from lazycloud.versionbase.client import Denied, Full, connect
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.problems import Invalid, OverLimit
from lazycloud.versionbase.storage import OWNERS, Storage
from lazycloud.versionbase.stored import LEAST, writer
from lazycloud.versionbase.tables import nodes
from lazycloud.versionbase.tending import Tending
from tests.postgres import Postgres
from tests.versionbase.served import Served

PATIENCE = 60.0
PRODUCTION, FILLER, OTHER = "production", "filler", "other"
LIMIT = 2_000_000
LARGE = 100_000  # bytes of a document


class Limited:
    """An engine over a store whose versions may have `LIMIT` each, and what tends it."""

    def __init__(self, url: str) -> None:
        self.storage = Storage(url)
        self.storage.stored.limit = LIMIT
        self.engine = Engine(self.storage)
        self.engine.open()
        self.tending = Tending(self.engine, kept=3600, commits=10_000)
        self.tending.grace = self.tending.recent = 0.0
        self.asked = 0
        self.engine.ask_for_look = self._ask

    def _ask(self) -> None:
        self.asked += 1

    def fork(self, name: str, source: str = PRODUCTION) -> None:
        storage = self.storage
        made = self.engine.change(lambda: storage.fork(name, source) if source else storage.begin(name))
        made.result(PATIENCE)

    def do(self, version: str, what: str, *arguments: Any) -> Any:
        def work(transaction: Any) -> Any:
            return getattr(transaction, what)("notes", *arguments)

        return self.engine.perform(version, work).result(PATIENCE)[0]

    def insert(self, version: str, key: str, size: int = LARGE) -> None:
        self.do(version, "insert", [{"text": "x" * size}], [key])

    async def fill(self, version: str) -> list[str]:
        """Until it may have no more, whatever it was: the keys."""
        keys: list[str] = []
        is_full = False
        while True:
            try:
                self.insert(version, f"filled {len(keys)}")
            except OverLimit:
                if is_full:
                    return keys
                is_full = True
                await self.tended()
            else:
                is_full = False
                keys.append(f"filled {len(keys)}")

    def has(self, version: str) -> int:
        return self.storage.stored.of(self.storage.branch(version).birth)

    def there(self, version: str) -> int:
        """Bytes of all nodes that it made."""
        made = nodes.c.writer == writer(self.storage.branch(version).birth)
        found = self.storage.database.read(select(func.sum(func.length(nodes.c.data))).where(made))
        return int(found.scalar() or 0)

    async def tended(self) -> None:
        """As often as there is something to give back."""
        for _ in range(10):
            if not await self.tending.make_room():
                return
        raise AssertionError


@contextmanager
def limited(url: str) -> Iterator[Limited]:
    made = Limited(url)
    try:
        yield made
    finally:
        made.engine.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@pytest.fixture
def base(url: str) -> Iterator[Limited]:
    """With an empty production."""
    with limited(url) as made:
        made.fork(PRODUCTION, "")
        yield made


async def fills_and_goes_on(base: Limited) -> None:
    base.fork(PRODUCTION, "")
    base.insert(PRODUCTION, "kept")
    base.fork(FILLER)
    base.fork(OTHER)
    keys = await base.fill(FILLER)
    assert LIMIT * 0.8 < base.has(FILLER) <= LIMIT
    base.insert(PRODUCTION, "more")
    base.insert(OTHER, "more")
    assert base.do(FILLER, "get", ["kept"])[0]["text"]

    await base.tended()
    assert base.has(FILLER) == base.there(FILLER) > LIMIT * 0.8  # it needs all of that
    with pytest.raises(OverLimit, match=r"filler has 1\.\d MB of its own, and may have 2\.0 MB") as caught:
        base.insert(FILLER, "refused")
    assert "Delete documents" in caught.value.advice

    assert base.do(FILLER, "delete", keys) == len(keys)
    await base.tended()
    assert base.has(FILLER) == base.there(FILLER) < LIMIT * 0.1
    base.insert(FILLER, "again")
    assert base.do(PRODUCTION, "get", ["kept", "more"])[1]["text"]


async def test_who_fills_a_store_is_refused_until_it_has_deleted(url: str) -> None:
    with limited(url) as base:
        await fills_and_goes_on(base)


async def test_who_fills_a_store_in_postgres_is_refused_until_it_has_deleted(postgres: Postgres) -> None:
    with postgres.superuser() as superuser:
        superuser.execute("CREATE DATABASE limited")
        try:
            with limited(postgres.url("postgres", "limited")) as base:
                await fills_and_goes_on(base)
        finally:
            superuser.execute("DROP DATABASE limited WITH (FORCE)")


async def test_what_was_counts_and_goes_when_there_is_no_room_for_it(base: Limited) -> None:
    base.insert(PRODUCTION, "a")
    before = base.storage.branch(PRODUCTION).sequence
    for number in range(100):  # the same document again and again: what is now is little
        try:
            base.do(PRODUCTION, "replace", "a", {"text": str(number) + "x" * LARGE})
        except OverLimit:
            break
    assert 10 < number < 25
    assert base.asked
    await base.tended()
    assert base.has(PRODUCTION) < 2 * LARGE
    assert base.storage.commits(PRODUCTION, before - 1, 1)[0].sequence > before
    base.do(PRODUCTION, "replace", "a", {"text": "again" + "x" * LARGE})


async def test_what_is_near_the_limit_is_looked_at_before_anything_is_refused(base: Limited) -> None:
    for number in range(60):
        base.do(PRODUCTION, "replace", "a", {"text": str(number) + "x" * LARGE}, True)
        if base.asked:
            base.asked = 0
            await base.tending.make_room()


async def test_what_others_hold_of_it_is_not_counted(base: Limited) -> None:
    keys = await base.fill(PRODUCTION)
    base.fork(OTHER)
    base.engine.change(lambda: base.storage.snapshot(PRODUCTION, f"{OWNERS}1")).result(PATIENCE)
    base.do(PRODUCTION, "delete", keys)
    await base.tended()
    assert base.has(PRODUCTION) < LIMIT * 0.1 < LIMIT * 0.8 < base.there(PRODUCTION)
    assert base.has(OTHER) == 0
    await base.tending.round()
    assert base.has(PRODUCTION) < LIMIT * 0.1
    base.insert(PRODUCTION, "more")


async def test_its_own_snapshots_are_counted_until_they_are_dropped(base: Limited) -> None:
    keys = await base.fill(PRODUCTION)
    base.engine.change(lambda: base.storage.snapshot(PRODUCTION, "its-own")).result(PATIENCE)
    base.do(PRODUCTION, "delete", keys)
    await base.tended()
    with pytest.raises(OverLimit):
        base.insert(PRODUCTION, "more", size=4 * LARGE)
    base.engine.change(lambda: base.storage.drop_snapshot(PRODUCTION, "its-own")).result(PATIENCE)
    base.asked = 0
    with pytest.raises(OverLimit):
        base.insert(PRODUCTION, "more", size=4 * LARGE)
    assert base.asked == 1
    with pytest.raises(OverLimit):
        base.insert(PRODUCTION, "more", size=4 * LARGE)
    assert base.asked == 1  # nothing is new: who tries again and again has nobody look
    await base.tended()
    base.insert(PRODUCTION, "more", size=4 * LARGE)


async def test_what_is_there_is_known_after_a_restart(url: str) -> None:
    with limited(url) as base:
        base.fork(PRODUCTION, "")
        await base.fill(PRODUCTION)
        had = base.there(PRODUCTION)
    with limited(url) as base:
        await base.tended()
        assert base.has(PRODUCTION) == base.there(PRODUCTION) > had * 0.8
        with pytest.raises(OverLimit):
            base.insert(PRODUCTION, "more")


async def test_a_large_write_has_room_made_for_it_by_a_version_that_has_little(base: Limited) -> None:
    for number in range(10):
        base.do(PRODUCTION, "replace", "a", {"text": str(number) + "x" * LARGE}, True)
    await base.tending.round()
    with pytest.raises(OverLimit):
        base.insert(PRODUCTION, "large", size=LIMIT - 3 * LARGE)
    await base.tended()
    base.insert(PRODUCTION, "large", size=LIMIT - 3 * LARGE)


async def test_what_takes_away_is_done_at_the_limit_and_nothing_else(base: Limited) -> None:
    base.do(PRODUCTION, "insert", [{"n": number} for number in range(10)])
    run(upkeep.create_index(base.engine, PRODUCTION, "notes", "n"))
    keys = await base.fill(PRODUCTION)
    base.storage.stored.limit = LEAST
    for refused in (
        ("replace", keys[0], {"text": ""}),
        ("insert", [{}]),
        ("set_schema", {"type": "object"}),
    ):
        with pytest.raises(OverLimit):
            base.do(PRODUCTION, *refused)
    with pytest.raises(OverLimit):
        run(upkeep.create_index(base.engine, PRODUCTION, "notes", "text"))
    assert base.do(PRODUCTION, "drop_index", "n")
    assert base.do(PRODUCTION, "delete", keys[:1]) == 1
    assert base.do(PRODUCTION, "drop_collection")
    transaction = base.engine.transaction(PRODUCTION)
    transaction.insert("notes", [{}])
    with pytest.raises(OverLimit):
        base.engine.commit(transaction).result(PATIENCE)
    base.engine.close_transaction(transaction)


def test_what_was_begun_is_taken_back_at_the_limit(base: Limited) -> None:
    base.insert(PRODUCTION, "a", size=LEAST)
    setting = upkeep.set_schema(base.engine, PRODUCTION, "notes", {"required": ["title"]})
    wait(next(setting))
    base.storage.stored.limit = LEAST
    with pytest.raises(Invalid, match="title"):
        run(setting)
    base.storage.stored.limit = 0
    base.insert(PRODUCTION, "b")  # the schema is none again


async def test_where_there_is_no_limit_any_more_nobody_looks(base: Limited) -> None:
    await base.fill(PRODUCTION)
    base.storage.stored.limit = 0
    assert not await base.tending.make_room()
    base.insert(PRODUCTION, "more")


async def test_an_empty_version_can_do_a_bit_however_low_the_limit(base: Limited) -> None:
    base.storage.stored.limit = 1
    base.insert(PRODUCTION, "a")
    base.fork(OTHER)
    await base.fill(OTHER)
    assert LEAST * 0.8 < base.has(OTHER) <= LEAST


def test_those_that_are_committed_together_do_not_go_beyond_it_together(base: Limited) -> None:
    def insert(key: str) -> Future[Any]:
        return base.engine.perform(
            PRODUCTION, lambda transaction: transaction.insert("notes", [{"text": "x" * LARGE}], [key])
        )

    base.insert(PRODUCTION, "first")
    with base.storage._changed():  # so that they wait for each other
        done = [insert(str(number)) for number in range(100)]
    problems = [one.exception(PATIENCE) for one in done]
    assert base.has(PRODUCTION) < LIMIT * 2  # each has written a neighbour's leaf anew
    assert {type(one) for one in problems} == {type(None), OverLimit}


def test_a_store_of_an_earlier_lazycloud_is_gone_on_with(url: str, tmp_path: Path) -> None:
    with limited(url) as base:
        base.fork(PRODUCTION, "")
        base.insert(PRODUCTION, "old")
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("ALTER TABLE versionbase_nodes DROP COLUMN writer")
    for _ in range(2):
        with limited(url) as base:
            base.fork("new" + str(_), PRODUCTION)
            base.insert("new" + str(_), "more")
            sum(base.storage.collect(grace=0))
            assert base.has(PRODUCTION) == 0  # nobody knows who wrote it
            assert base.has("new" + str(_)) == base.there("new" + str(_)) > LARGE
            assert base.do(PRODUCTION, "get", ["old"])[0]


async def test_the_server_is_told_it_when_it_starts_and_by_its_owner(url: str) -> None:
    with Served(url, "--version-limit", "2") as served:
        mine, owners = f"{served.owner}@{served.address}", served.owner
        async with connect(f"ws://{PRODUCTION}:{mine}") as owner:
            key = await owner.owner.key(PRODUCTION)
            assert key != owners
            async with connect(f"ws://{PRODUCTION}:{key}@{served.address}") as client:
                notes = client.collection("notes")
                with pytest.raises(Full, match=r"may have 2\.0 MB"):
                    for _ in range(100):
                        await notes.insert({"text": "x" * LARGE})
                with pytest.raises(Denied):
                    await client.owner.limit(0)
                await owner.owner.limit(0)
                await notes.insert({"text": "x" * LIMIT})
                await owner.owner.limit(LIMIT)
                with pytest.raises(Full):
                    await notes.insert({"text": "x" * LIMIT})
        served.stop()
        assert served.log.read_text() == ""  # who goes on trying fills no log


def run(steps: Iterator[Future[Any] | None]) -> None:
    for step in steps:
        wait(step)


def wait(step: Future[Any] | None) -> None:
    if step is not None:
        step.exception(PATIENCE)
