"""What was begun in a version that is gone reaches no other one, also if that has its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.errors import LazycloudError
from lazycloud.versionbase import past
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import Storage
from tests.waiting import PATIENCE


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """With an empty `abc`, and a `production` that has a document."""
    engine = Engine(Storage(f"sqlite:///{tmp_path}/versionbase.sqlite"))
    engine.open()
    for name in ("production", "abc"):
        engine.change(lambda name=name: engine.storage.begin(name)).result(PATIENCE)  # type: ignore[misc]
    insert(engine, "production", "secret")
    yield engine
    engine.close()


def insert(engine: Engine, version: str, key: str) -> None:
    engine.perform(version, lambda one: one.insert("notes", [{"of": version}], [key])).result(PATIENCE)


def keys(engine: Engine, version: str) -> list[str]:
    transaction = engine.transaction(version, write=False)
    try:
        return [key for key in ("mine", "secret", "late") if transaction.get("notes", [key]) != [None]]
    finally:
        engine.close_transaction(transaction)


def made_again(engine: Engine, source: str) -> None:
    """Another `abc`, of whoever has its key."""

    def again() -> Any:
        engine.storage.drop("abc")
        return engine.storage.fork("abc", source) if source else engine.storage.begin("abc")

    engine.change(again).result(PATIENCE)


@pytest.mark.parametrize("source", ["", "production"])
def test_a_transaction_is_not_committed_into_another_version_of_its_name(engine: Engine, source: str) -> None:
    transaction = engine.transaction("abc")
    transaction.insert("others", [{}], ["mine"])
    made_again(engine, source)
    with pytest.raises(LazycloudError):
        engine.commit(transaction).result(PATIENCE)
    engine.close_transaction(transaction)
    assert keys(engine, "abc") == (["secret"] if source else [])
    assert engine.storage.branch("abc").sequence == (1 if source else 0)


def test_who_watches_a_version_is_not_told_of_another_of_its_name(engine: Engine) -> None:
    watch = past.Watch(engine, "abc", None)
    made_again(engine, "production")
    insert(engine, "abc", "late")
    told: list[Any] = []
    with pytest.raises(LazycloudError):
        told += [one for one in watch.poll() if one is not None]
    assert told == []
    watch.close()


def test_a_snapshot_is_of_its_version_alone(engine: Engine) -> None:
    engine.change(lambda: engine.storage.snapshot("production", "s1", "daily")).result(PATIENCE)
    for name in ("s1", "daily", "production", "production@s1", "production@daily", "%", "s_", "' OR 1=1 --"):
        with pytest.raises(LazycloudError):
            engine.transaction("abc", at=name)
    made_again(engine, "production")
    with pytest.raises(LazycloudError):
        engine.transaction("abc", at="s1")


def test_nor_if_it_was_made_again_just_then(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks at the store."""
    insert(engine, "abc", "mine")
    watch = past.Watch(engine, "abc", 0)
    of_history = past.history(engine, "abc", "notes", "secret")
    for name in ("commits", "commits_until"):
        asked = getattr(engine.storage, name)

        def just_then(version: str, at: int, limit: int, asked: Any = asked) -> Any:
            made_again(engine, "production")
            insert(engine, "abc", "late")
            return asked(version, at, limit)

        monkeypatch.setattr(engine.storage, name, just_then)
    told: list[Any] = []
    for reading in (watch.poll(), of_history):
        with pytest.raises(LazycloudError):
            told += [one for one in reading if one is not None]
    assert told == []
    watch.close()
