"""What documents and indexes say of each other is verified, at the cost of what differs from what is in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.versionbase import catalogue, upkeep
from lazycloud.versionbase.catalogue import Collection, Index
from lazycloud.versionbase.consistency import check
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import Storage, Wish
from lazycloud.versionbase.tree import EMPTY, Change, apply, scan
from lazycloud.versionbase.values import encode
from lazycloud.versionbase.verification import verify
from tests.waiting import PATIENCE


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A thousand notes, with a plain and a unique index."""
    engine = Engine(Storage(f"sqlite:///{tmp_path}/versionbase.sqlite"))
    engine.open()
    engine.change(lambda: engine.storage.begin("production")).result(PATIENCE)
    documents = [{"n": number % 10, "name": f"name {number}"} for number in range(1000)]
    insert(engine, documents, [f"key{number}" for number in range(1000)])
    for path, unique in (("n", False), ("name", True)):
        for step in upkeep.create_index(engine, "production", "notes", path, unique):
            step and step.exception(PATIENCE)
    yield engine
    engine.close()


def insert(engine: Engine, documents: list[Any], keys: list[str]) -> None:
    engine.perform("production", lambda one: one.insert("notes", documents, keys)).result(PATIENCE)


def problems(engine: Engine, known: int = EMPTY) -> list[str]:
    return [one for one in check(engine.storage, engine.storage.branch("production").root, known) if one]


def notes(engine: Engine) -> Collection:
    transaction = engine.transaction("production", write=False)
    engine.close_transaction(transaction)
    return transaction.collection("notes")


def spoil(engine: Engine, *changes: Change) -> int:
    """Behind everybody's back; the root of before."""
    before = engine.storage.branch("production").root
    wish = Wish("production", before, sorted(changes), lambda root: True)
    engine.change(lambda: engine.storage.commit([wish])).result(PATIENCE)
    return before


def at(engine: Engine, index: str, key: str, **document: Any) -> tuple[bytes, bytes]:
    of = notes(engine).index(index)
    assert of
    return catalogue.entry("notes", of, document, key)


def the_first(engine: Engine, index: str) -> bytes:
    of = notes(engine).index(index)
    assert of
    return next(
        scan(engine.storage, engine.storage.branch("production").root, *catalogue.entries("notes", of.number))
    )[0]


SPOILT: dict[str, Callable[[Engine], list[Change]]] = {
    "an entry that is missing": lambda engine: [(the_first(engine, "n"), None)],
    "a unique one": lambda engine: [(the_first(engine, "name"), None)],
    "an entry too many": lambda engine: [at(engine, "n", "key5", n=77)],
    "an entry of nobody": lambda engine: [at(engine, "n", "nobody", n=5)],
    "an entry at another value": lambda engine: [
        (at(engine, "n", "key5", n=5)[0], None),
        at(engine, "n", "key5", n=6),
    ],
    "a unique one of another": lambda engine: [(at(engine, "name", "key5", name="name 5")[0], b"key6")],
    "a document that has changed": lambda engine: [(b"dnotes\0key5", encode({"n": 6, "name": "name 5"}))],
    "a document that is gone": lambda engine: [(b"dnotes\0key5", None)],
    "a document too many": lambda engine: [(b"dnotes\0more", encode({"n": 1}))],
    "a document that is none": lambda engine: [(b"dnotes\0key5", b"\xc1")],
    "a document of no collection": lambda engine: [(b"dothers\0key5", encode({}))],
    "an entry of no index": lambda engine: [(b"inotes\0\x00\x09\x02x", b"")],
    "what is nothing": lambda engine: [(b"x", b"")],
    "a record that is none": lambda engine: [(b"cnotes", b"\xc1")],
    "a record of another": lambda engine: [(b"cmore", catalogue.encode_collection(Collection("less")))],
    "an index that was not built": lambda engine: [
        (b"cnotes", catalogue.encode_collection(notes(engine).with_index(Index(3, "x", ("x",)))))
    ],
}


def test_what_is_in_order_has_no_problems(engine: Engine) -> None:
    before = engine.storage.branch("production").root
    insert(engine, [{"n": None}, {}, {"name": None}, {"n": [1], "name": 5}], ["a", "b", "c", "d"])
    engine.perform("production", lambda one: one.delete("notes", ["key1", "key2"])).result(PATIENCE)
    engine.perform(
        "production", lambda one: one.update("notes", "key3", {"n": 3.5, "name": "x" * 1000})
    ).result(PATIENCE)
    assert problems(engine) == []
    assert problems(engine, before) == []
    assert [one for one in verify(engine.storage, contents=True) if isinstance(one, str)] == []


@pytest.mark.parametrize("name", SPOILT)
def test_what_does_not_fit_is_told(engine: Engine, name: str) -> None:
    before = spoil(engine, *SPOILT[name](engine))
    assert problems(engine)
    assert problems(engine, before)
    assert [one for one in verify(engine.storage, contents=True) if isinstance(one, str)]


def test_what_is_shared_with_what_is_in_order_is_not_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.storage.branch("production").root
    insert(engine, [{"n": 1, "name": "new"}], ["new"])
    read: list[int] = []
    asked = engine.storage.read
    monkeypatch.setattr(engine.storage, "read", lambda number: read.append(number) or asked(number))  # type: ignore[func-returns-value]
    assert problems(engine, before) == []
    assert len(set(read)) < 40


def test_any_change_of_one_entry_is_told(engine: Engine) -> None:
    """Removed, or with another value: nothing that a tree holds is left out."""
    root = engine.storage.branch("production").root
    entries = [*scan(engine.storage, root)]
    for key, data in random.Random(1).sample(entries, 60):
        for other in (None, data + b"\0"):
            with engine.storage._changed():
                spoilt = apply(engine.storage, root, [(key, other)])
                engine.storage._fresh |= engine.storage._making
                assert [one for one in check(engine.storage, spoilt) if one], (key, other)
                assert [one for one in check(engine.storage, spoilt, root) if one], (key, other)
