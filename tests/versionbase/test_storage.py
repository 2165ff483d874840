"""Branches and snapshots are numbers; commits come together, or are refused; what nobody reaches goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from lazycloud.errors import Conflict, NotFound
from lazycloud.versionbase import storage as tables
from lazycloud.versionbase.storage import Branch, Storage, Wish
from lazycloud.versionbase.tree import Change, get, reach, scan


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
    with storage._engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(tables.nodes)).scalar() or 0


def content(storage: Storage, branch: str, snapshot: str = "") -> dict[bytes, bytes]:
    return dict(scan(storage, storage.at(branch, snapshot).root))


def test_a_commit_is_there_after_a_restart(storage: Storage, tmp_path: Path) -> None:
    storage.begin("production")
    assert put(storage, "production", (b"a", b"1")).sequence == 1
    assert put(storage, "production", (b"b", b"2")).sequence == 2
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
    storage.expire(float("inf"))
    before, steps = count(storage), storage.collect()
    removed = next(steps)
    put(storage, "production", (b"new", b"1"))  # between the steps
    removed += sum(steps)
    assert removed > 90
    assert count(storage) <= before - removed + 5
    kept["production",][b"new"] = b"1"
    assert {name: content(storage, *name) for name in kept} == kept
    storage.drop_snapshot("production", "s1")
    storage.drop("abc")
    storage.expire(float("inf"))
    assert sum(storage.collect()) > 90
    known = {number for number, _ in reach(storage, storage.branch("production").root, lambda number: False)}
    assert count(storage) == len(known)
    assert content(storage, "production") == kept["production",]


def test_a_root_that_a_reader_holds_is_not_collected(storage: Storage) -> None:
    storage.begin("production")
    held = put(storage, "production", (b"a", b"1")).root
    put(storage, "production", (b"a", b"2"))
    storage.expire(float("inf"))
    assert sum(storage.collect(lambda: [held])) == 0
    assert get(storage, held, b"a") == b"1"
    assert sum(storage.collect()) == 1
    with pytest.raises(KeyError):
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
