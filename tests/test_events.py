"""The event log on a real database."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lazycloud import store
from lazycloud.errors import LazycloudError
from lazycloud.events import AppAdded, Asked, CommitAnnounced, EventLog, Output, Recorded, revive
from lazycloud.store import Store
from tests.waiting import PATIENCE


@pytest.fixture
def state(tmp_path: Path) -> Store:
    state = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    state.open()
    return state


@pytest.fixture
async def events(state: Store) -> AsyncIterator[EventLog]:
    log = EventLog(state.last_number(), state.write, state.read)
    log.start()
    yield log
    await log.close()


def output(text: str) -> Output:
    return Output(app="shop", deployment="shop.1", attempt=1, step="build", text=text)


async def take(log: EventLog, after: int, count: int) -> list[Recorded]:
    taken: list[Recorded] = []
    async for recorded in log.follow(after, lambda event: True):
        taken.append(recorded)
        if len(taken) == count:
            break
    return taken


async def test_facts_are_numbered_and_followed_in_order(events: EventLog) -> None:
    following = asyncio.create_task(take(events, 0, 3))
    for text in ("a", "b", "c"):
        events.append(output(text))
    facts = await following
    assert [recorded.number for recorded in facts] == [1, 2, 3]
    assert [recorded.event for recorded in facts] == [output(text) for text in ("a", "b", "c")]


async def test_a_fact_is_on_disk_before_anybody_hears_of_it(events: EventLog, tmp_path: Path) -> None:
    events.append(output("a"))
    (fact,) = await take(events, 0, 1)
    rows = sqlite3.connect(tmp_path / "state.sqlite").execute("SELECT number FROM events").fetchall()
    assert rows == [(fact.number,)]


async def test_changes_are_made_in_the_transaction_of_their_fact(events: EventLog, state: Store) -> None:
    row = {"name": "shop", "source": "/shop", "domain": "", "follow": "", "added": 1.0}
    events.append(
        AppAdded(app="shop", source="/shop", address="http://localhost/"), store.put(store.apps, **row)
    )
    await events.flush()
    assert state.rows(store.apps) == [row]


async def test_numbers_go_on_after_a_restart_and_the_past_can_be_followed(
    events: EventLog, state: Store
) -> None:
    events.append(output("before"))
    await events.close()
    again = EventLog(state.last_number(), state.write, state.read)
    again.start()
    again.append(output("after"))
    facts = await take(again, 0, 2)
    await again.close()
    assert [(recorded.number, recorded.event) for recorded in facts] == [
        (1, output("before")),
        (2, output("after")),
    ]


async def test_a_follower_who_was_away_for_long_gets_all_from_the_database(events: EventLog) -> None:
    for number in range(5000):
        events.append(output(str(number)))
    facts = await take(events, 0, 5000)
    assert [recorded.number for recorded in facts] == list(range(1, 5001))


async def test_a_disk_that_takes_nothing_does_not_blind_those_who_watch(state: Store) -> None:
    broken = True

    def write(batch: list[Recorded]) -> None:
        if broken:
            raise OSError(28, "No space left on device")
        state.write(batch)

    log = EventLog(0, write, state.read)
    log.start()
    log.append(output("while full"))
    assert [recorded.event for recorded in await take(log, 0, 1)] == [output("while full")]
    log.append(output("still full"))
    with pytest.raises(OSError, match="No space left"):
        await log.flush()
    broken = False
    log.append(output("room again"))
    await log.flush()
    assert [recorded.number for recorded in state.read(0, 10)] == [1, 2, 3]
    await log.close()


async def test_a_fact_that_must_be_on_disk_to_be_true_never_was_when_it_cannot_be_written(
    state: Store,
) -> None:
    broken = True

    def write(batch: list[Recorded]) -> None:
        if broken:
            raise OSError(28, "No space left on device")
        state.write(batch)

    log = EventLog(0, write, state.read)
    log.start()
    with pytest.raises(OSError, match="No space left"):
        await log.commit(output("a promote"))
    broken = False
    await log.commit(output("another"))
    facts = await take(log, 0, 1)
    await log.close()
    assert [recorded.event for recorded in facts] == [output("another")]
    assert [recorded.event for recorded in state.read(0, 10)] == [output("another")]


async def test_a_fact_that_no_database_takes_does_not_hold_up_the_others(
    events: EventLog, state: Store
) -> None:
    events.append(output("before"))
    events.append(
        output("bad"), store.put(store.apps, name="\ud800", source="s", domain="", follow="", added=0.0)
    )
    events.append(output("after"))
    await events.flush()
    assert [recorded.event for recorded in state.read(0, 10)] == [output("before"), output("after")]


async def test_followers_end_when_the_log_is_closed(events: EventLog) -> None:
    following = asyncio.create_task(take(events, 0, 99))
    events.append(output("a"))
    await events.flush()
    await events.close()
    assert len(await asyncio.wait_for(following, PATIENCE)) == 1


def test_a_fact_is_revived_with_what_this_version_knows_of_it() -> None:
    fact = CommitAnnounced(app="a", commit="c", ref="main", subject="s", address="u", action="announce")
    assert revive(fact.kind, "a", "", fact.data() | {"colour": "unknown"}) == fact
    assert revive("from_the_future", "a", "", {}) is None


def test_a_state_written_by_a_newer_lazycloud_is_refused(state: Store) -> None:
    with state.engine.begin() as connection:
        connection.execute(store.meta.update().values(value="99"))
    with pytest.raises(LazycloudError, match="newer lazycloud"):
        state.open()


def test_columns_that_an_older_lazycloud_did_not_write_have_their_defaults(state: Store) -> None:
    with state.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE versions")
        connection.exec_driver_sql(
            "CREATE TABLE versions (app VARCHAR NOT NULL, name VARCHAR NOT NULL, source VARCHAR NOT NULL,"
            " forked FLOAT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (app, name))"
        )
        connection.exec_driver_sql("INSERT INTO versions VALUES ('shop', 'production', '', 1.5, 4096)")
    state.open()
    state.open()
    (row,) = state.rows(store.versions, app="shop")
    assert (row["size"], row["snapshot"], row["pending"], row["used"]) == (4096, "", False, 0)


def test_a_command_is_told_with_a_commit_as_people_call_it() -> None:
    def told(target: str) -> str:
        return Asked(app="shop", who="ann", what="stop", target=target).sentence()

    assert told("3f2a9c1d0b" * 4) == "ann: stop 3f2a9c1d0b of shop"
    assert told("feature/a-branch-of-a-long-name") == "ann: stop feature/a-branch-of-a-long-name of shop"
