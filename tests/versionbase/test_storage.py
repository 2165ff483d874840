"""Branches and snapshots are numbers; commits come together, or are refused; what nobody reaches goes."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from lazycloud.errors import BadInput, Conflict, NotFound
from lazycloud.versionbase import tables
from lazycloud.versionbase.database import Database
from lazycloud.versionbase.nodes import Damaged
from lazycloud.versionbase.problems import Exists
from lazycloud.versionbase.storage import Branch, Storage, Wish
from lazycloud.versionbase.tree import Change, differences, get, scan
from tests.versionbase.looking import oldest, reach


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(f"sqlite:///{tmp_path}/base/versionbase.sqlite")
    storage.open()
    yield storage
    storage.close()


def yes(root: int) -> bool:
    return True


def put(storage: Storage, branch: str, *changes: Change, holds: Callable[[int], bool] = yes) -> Branch:
    (result,) = storage.commit([Wish(branch, storage.branch(branch).root, sorted(changes), holds)])
    assert isinstance(result, Branch)
    return result


def count(storage: Storage) -> int:
    return storage.database.read(select(func.count()).select_from(tables.nodes)).scalar() or 0


def content(storage: Storage, branch: str, snapshot: str = "") -> dict[bytes, bytes]:
    return dict(scan(storage, storage.at(branch, snapshot).root))


def test_a_commit_is_there_after_a_restart(storage: Storage, tmp_path: Path) -> None:
    storage.begin("production")
    assert put(storage, "production", (b"a", b"1")).sequence == 1
    assert put(storage, "production", (b"b", b"2")).sequence == 2
    storage.close()
    again = Storage(f"sqlite:///{tmp_path}/base/versionbase.sqlite")
    again.open()
    assert content(again, "production") == {b"a": b"1", b"b": b"2"}
    assert put(again, "production", (b"c", b"3")).sequence == 3
    again.close()


def test_forks_and_snapshots_copy_nothing(storage: Storage) -> None:
    storage.begin("production")
    put(storage, "production", *((b"%05d" % number, b"x" * 100) for number in range(5000)))
    before = count(storage)
    storage.fork("abc", "production")
    storage.snapshot("production", "s1")
    assert count(storage) == before
    put(storage, "abc", (b"00007", b"mine"))
    put(storage, "production", (b"00007", None))
    assert content(storage, "abc")[b"00007"] == b"mine"
    assert b"00007" not in content(storage, "production")
    assert content(storage, "production", "s1")[b"00007"] == b"x" * 100
    storage.fork("def", "production", "s1")
    assert content(storage, "def") == content(storage, "production", "s1")
    assert storage.restore("production", "s1").sequence == 3
    assert content(storage, "production") == content(storage, "def")


def test_what_differs_is_fetched_by_few_queries(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.begin("production")
    put(storage, "production", *((b"%05d" % number, b"x" * 100) for number in range(50_000)))
    storage.fork("abc", "production")
    put(storage, "abc", *((b"%05d" % number, b"mine") for number in range(0, 50_000, 1000)))
    asked: list[int] = []
    find_all = storage.database.find_all

    def counted(statement: str, arguments: Sequence[object]) -> Sequence[Any]:
        asked.append(len(arguments))
        return find_all(statement, arguments)

    monkeypatch.setattr(storage.database, "find_all", counted)
    roots = storage.branch("production").root, storage.branch("abc").root
    for name, most in (("none of it in memory", 20), ("all of it", 0)):
        asked.clear()
        if most:
            storage._cache.clear()
        assert len(list(differences(storage, *roots))) == 50
        assert len(asked) <= most, name


def test_what_is_fetched_ahead_and_is_damaged_is_told_when_it_is_read(storage: Storage) -> None:
    storage.begin("production")
    put(storage, "production", (b"a", b"1"))
    root = storage.branch("production").root
    storage.close()
    storage.open()
    storage._cache.clear()
    storage.database.change(
        lambda connection: connection.execute(update(tables.nodes).values(data=b"12345")), lambda _: True
    )
    assert storage.fetch([root, root + 7]) == 2
    with pytest.raises(Damaged, match="checksum"):
        storage.read(root)
    with pytest.raises(Damaged, match="is not there"):
        storage.read(root + 7)


def test_transactions_of_one_write_see_each_other_and_one_that_does_not_hold_changes_nothing(
    storage: Storage,
) -> None:
    root = storage.begin("production").root
    seen: list[dict[bytes, bytes]] = []

    def no(root: int) -> bool:
        seen.append(dict(scan(storage, root)))
        return False

    results = storage.commit(
        [
            Wish("production", root, [(b"a", b"1")], yes),
            Wish("production", root, [(b"a", b"2")], no),
            Wish("gone", root, [(b"a", b"3")], yes),
            Wish("production", root, [(b"b", b"4")], yes),
        ]
    )
    assert [type(result) for result in results] == [Branch, Conflict, NotFound, Branch]
    assert seen == [{b"a": b"1"}]
    assert content(storage, "production") == {b"a": b"1", b"b": b"4"}
    assert storage.branch("production").sequence == 2


def test_what_the_database_refuses_changes_nothing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.begin("production")
    put(storage, "production", (b"a", b"1"))

    def full(written: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_write", full)
        with pytest.raises(OSError, match="full"):
            put(storage, "production", (b"a", b"2"))
    assert content(storage, "production") == {b"a": b"1"}
    assert put(storage, "production", (b"b", b"2")).sequence == 2


def test_what_nobody_reaches_is_collected_and_nothing_else(storage: Storage) -> None:
    storage.begin("production")
    put(storage, "production", *((b"%05d" % number, b"x" * 100) for number in range(5000)))
    storage.snapshot("production", "s1")
    storage.fork("abc", "production")
    for number in range(0, 5000, 50):
        put(storage, "production", (b"%05d" % number, b"y" * 100))
    kept = {name: content(storage, *name) for name in [("production",), ("abc",), ("production", "s1")]}
    sum(storage.expire(float("inf")))
    before, steps = count(storage), storage.collect(grace=0)
    removed = next(steps)
    put(storage, "production", (b"new", b"1"))  # between the steps
    removed += sum(steps)
    assert removed > 90
    assert count(storage) <= before - removed + 5
    kept["production",][b"new"] = b"1"
    assert {name: content(storage, *name) for name in kept} == kept
    storage.drop_snapshot("production", "s1")
    storage.drop("abc")
    sum(storage.expire(float("inf")))
    assert sum(storage.collect(grace=0)) > 90
    known = {number for number, _ in reach(storage, storage.branch("production").root, lambda number: False)}
    assert count(storage) == len(known)
    assert content(storage, "production") == kept["production",]


def test_a_root_that_a_reader_holds_is_not_collected(storage: Storage) -> None:
    storage.begin("production")
    held = put(storage, "production", (b"a", b"1")).root
    put(storage, "production", (b"a", b"2"))
    sum(storage.expire(float("inf")))
    assert sum(storage.collect(lambda: [held], grace=0)) == 0
    assert get(storage, held, b"a") == b"1"
    assert sum(storage.collect(grace=0)) == 1
    with pytest.raises(Damaged, match="is not there"):
        get(storage, held, b"a")


def test_names_are_had_once(storage: Storage) -> None:
    storage.begin("production")
    with pytest.raises(Conflict):
        storage.fork("production", "production")
    with pytest.raises(NotFound):
        storage.branch("abc")
    with pytest.raises(NotFound):
        storage.fork("x", "abc")
    with pytest.raises(NotFound):
        storage.at("production", "s")
    storage.drop("production")
    storage.drop("production")
    storage.begin("production")
    assert content(storage, "production") == {}


def test_commits_are_told_and_forgotten_but_for_the_last(storage: Storage) -> None:
    storage.begin("production")
    for number in range(5):
        put(storage, "production", (b"a", b"%d" % number))
    storage.fork("abc", "production")
    put(storage, "abc", (b"a", b"mine"))
    assert [commit.sequence for commit in storage.commits("production", -1, 99)] == [0, 1, 2, 3, 4, 5]
    assert [commit.sequence for commit in storage.commits("production", 2, 2)] == [3, 4]
    assert [commit.sequence for commit in storage.commits("abc", -1, 99)] == [5, 6]
    for sequence, root, at in storage.commits("production", 0, 99):
        assert get(storage, root, b"a") == b"%d" % (sequence - 1)
        assert abs(at - time.time()) < 60
    assert sum(storage.expire(keep=2)) == 4
    assert oldest(storage, "production") == 4
    assert oldest(storage, "abc") == 5
    assert sum(storage.expire(before=time.time() + 5)) == 2
    assert [oldest(storage, name) for name in ("production", "abc")] == [5, 6]
    storage.drop("abc")
    assert sum(storage.expire()) == 1


def test_commits_that_were_written_together_are_told_apart(storage: Storage) -> None:
    root = storage.begin("production").root
    storage.commit([Wish("production", root, [(b"a", b"%d" % number)], yes) for number in range(5)])
    assert [get(storage, commit.root, b"a") for commit in storage.commits("production", 0, 9)] == [
        b"%d" % number for number in range(5)
    ]
    assert len(list(storage.collect(grace=0))) >= 0
    assert get(storage, storage.commits("production", 2, 1)[0].root, b"a") == b"2"


def test_who_watches_a_branch_sees_a_swap_as_a_change_of_it(storage: Storage) -> None:
    begun = storage.begin("production")
    put(storage, "production", (b"a", b"1"))
    storage.fork("abc", "production")
    for number in range(5):
        put(storage, "abc", (b"b", b"%d" % number))
    storage.snapshot("production", "s1", "before")
    ours, theirs = storage.swap("production", "abc")
    assert (ours.sequence, ours.birth) == (2, begun.birth)
    assert ours == storage.branch("production")
    assert theirs == storage.branch("abc")
    assert content(storage, "production") == {b"a": b"1", b"b": b"4"}
    assert content(storage, "abc") == content(storage, "production", "before") == {b"a": b"1"}
    assert [sequence for sequence, _, _ in storage.commits("production", -1, 9)] == [0, 1, 2]
    storage.swap("production", "abc")
    assert content(storage, "production") == {b"a": b"1"}
    assert storage.branch("production").sequence == 3


def test_snapshots_have_names_and_branches_are_listed(storage: Storage) -> None:
    storage.begin("production")
    put(storage, "production", (b"a", b"1"))
    storage.snapshot("production", "s1", "first")
    storage.snapshot("production", "s2")
    storage.snapshot("production", "s3")
    storage.fork("abc", "production", "first")
    storage.snapshot("abc", "s1", "first")
    with pytest.raises(Exists):
        storage.snapshot("production", "s1")
    with pytest.raises(Exists):
        storage.snapshot("production", "s4", "first")
    assert [(row.id, row.name, row.sequence) for row in storage.snapshots("production")] == [
        ("s1", "first", 1),
        ("s2", "", 1),
        ("s3", "", 1),
    ]
    assert storage.drop_snapshot("production", "s1")
    assert not storage.drop_snapshot("production", "s1")
    assert storage.at("abc", "first") == storage.at("abc", "s1") == storage.branch("abc")
    listed = storage.branches()
    assert [(row.name, row.source, row.sequence) for row in listed] == [
        ("abc", "production", 1),
        ("production", "", 1),
    ]
    assert {row.birth for row in listed} == {storage.branch(row.name).birth for row in listed}
    was = storage.branch("abc").birth
    storage.drop("abc")
    assert storage.begin("abc").birth != was


def test_ranges_are_cut_before_changes_are_made(storage: Storage) -> None:
    root = storage.begin("production").root
    storage.commit([Wish("production", root, [(b"%05d" % number, b"x") for number in range(2000)], yes)])
    wish = Wish(
        "production", storage.branch("production").root, [(b"00500", b"new")], yes, [(b"00010", None)]
    )
    assert storage.commit([wish]) == [storage.branch("production")]
    assert list(content(storage, "production")) == [*(b"%05d" % number for number in range(10)), b"00500"]


def test_a_store_is_had_by_one(storage: Storage, tmp_path: Path) -> None:
    storage.begin("production")
    other = Storage(f"sqlite:///{tmp_path}/base/versionbase.sqlite")
    with pytest.raises(Conflict, match=rf"is open already: process {os.getpid()} "):
        other.open()
    put(storage, "production", (b"a", b"1"))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "base").iterdir()} == {0o600}
    storage.close()
    other.open()
    assert content(other, "production") == {b"a": b"1"}
    other.close()


def test_a_store_of_a_newer_format_is_not_touched(storage: Storage, tmp_path: Path) -> None:
    storage.database.change(
        lambda connection: connection.execute(update(tables.store).values(format=7)), lambda _: False
    )
    storage.close()
    other = Storage(f"sqlite:///{tmp_path}/base/versionbase.sqlite")
    with pytest.raises(BadInput, match="has format 7; this lazycloud knows 1 only"):
        other.open()


@pytest.mark.parametrize("url", ["nonsense", "mysql://a/b", "sqlite://", "sqlite:///:memory:"])
def test_where_no_store_can_be_is_said(url: str) -> None:
    with pytest.raises(BadInput):
        Storage(url)


def test_versions_and_commits_that_are_many_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of SQLite's machine, the same on any day, with 2 versions and with 1,000 of 100 commits each."""
    steps = [0]
    prepare = Database._prepare_sqlite

    def counted(self: Database, connection: sqlite3.Connection, record: object) -> None:
        def step() -> None:
            steps[0] += 1

        prepare(self, connection, record)
        connection.set_progress_handler(step, 1)

    def costs(url: str) -> dict[str, int]:
        taken, storage = {}, Storage(url)
        put_one = [Wish("version 1", -1, [(b"new", b"1")], yes)]
        for name, act in (
            ("open", storage.open),
            ("find", lambda: storage.branch("version 1")),
            ("oldest", lambda: oldest(storage, "version 1")),
            ("fork", lambda: storage.fork("fork", "version 1")),
            ("snapshot", lambda: storage.snapshot("version 1", "s1", "first")),
            ("commit", lambda: storage.commit(put_one)),
            ("swap", lambda: storage.swap("fork", "version 1")),
            ("restore", lambda: storage.restore("version 1", "s1")),
            ("drop", lambda: storage.drop("fork")),
            ("expire", lambda: list(storage.expire(keep=100))[:0]),
        ):
            steps[0] = 0
            act()
            taken[name] = steps[0]
        storage.close()
        return taken

    urls = []
    for many, of_each in ((2, 2), (1000, 100)):
        urls.append(f"sqlite:///{tmp_path}/{many}.sqlite")
        storage = Storage(urls[-1])
        storage.open()
        births = [(f"version {number}", f"{number:016x}") for number in range(many)]

        def fill(
            connection: Connection, births: list[tuple[str, str]] = births, of_each: int = of_each
        ) -> None:
            made = [{"name": name, "birth": birth, "source": "", "made": 0.0} for name, birth in births]
            connection.execute(insert(tables.branches), made)
            done = [
                {"birth": birth, "sequence": number, "root": 0, "at": 0.0}
                for _, birth in births
                for number in range(of_each)
            ]
            connection.execute(insert(tables.commits), done)

        storage.database.change(fill, lambda _: False)
        assert len(storage.branches()) == many
        storage.close()
    monkeypatch.setattr(Database, "_prepare_sqlite", counted)
    few, many_costs = costs(urls[0]), costs(urls[1])
    assert few.pop("expire") < many_costs.pop("expire")  # which looks at each; or nothing is counted here
    assert {name: cost for name, cost in many_costs.items() if cost > few[name] * 1.2 + 20} == {}
