"""Transactions, queries, indexes, what was, and what comes, on an engine over SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from lazycloud.errors import BadInput, Conflict, NotFound
from lazycloud.versionbase import past, upkeep
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.problems import Exists, Gone, Invalid, ReadOnly, TooLarge
from lazycloud.versionbase.queries import Query
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.transactions import Transaction
from tests.waiting import PATIENCE

MAIN = "production"


class Database:
    """An engine, and what the server would do with it."""

    def __init__(self, place: Path) -> None:
        self.engine = Engine(Storage(f"sqlite:///{place}"))
        self.engine.open()
        self.storage = self.engine.storage

    def do(self, work: Callable[[Transaction], Any], version: str = MAIN) -> Any:
        return self.engine.perform(version, work).result(PATIENCE)[0]

    def change(self, what: Callable[[], Any]) -> Any:
        return self.engine.change(what).result(PATIENCE)

    def insert(self, collection: str, documents: dict[str, Any], version: str = MAIN) -> None:
        self.do(lambda tx: tx.insert(collection, list(documents.values()), list(documents)), version)

    def find(self, collection: str, version: str = MAIN, at: str = "", **query: Any) -> list[tuple[str, Any]]:
        tx = self.engine.transaction(version, at, write=False)
        try:
            return [found for found in tx.find(collection, Query(**query)) if found is not None]
        finally:
            self.engine.close_transaction(tx)

    def keys(self, collection: str, **query: Any) -> list[str]:
        return [key for key, _ in self.find(collection, **query)]

    def explain(self, collection: str, **query: Any) -> dict[str, Any]:
        tx = self.engine.transaction(MAIN, write=False)
        try:
            return tx.explain(collection, Query(**query))
        finally:
            self.engine.close_transaction(tx)


def steps(work: Iterator[Future[Any] | None]) -> None:
    for step in work:
        if step is not None:
            step.exception(10)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "store.sqlite")
    made.change(lambda: made.storage.begin(MAIN))
    yield made
    made.engine.close()


@pytest.fixture
def people(database: Database) -> Database:
    database.insert(
        "people",
        {f"p{number:03}": {"age": number % 50, "name": f"name {number:03}"} for number in range(300)},
    )
    return database


def index(database: Database, path: str, unique: bool = False, collection: str = "people") -> None:
    steps(upkeep.create_index(database.engine, MAIN, collection, path, unique))


def test_what_is_stored_is_read(database: Database) -> None:
    keys = database.do(lambda tx: tx.insert("posts", [{"title": "hello"}, {"title": "there"}]))
    assert len(keys) == 2 and keys[0] < keys[1]
    assert database.do(lambda tx: tx.get("posts", [*keys, "none"])) == [
        {"title": "hello"},
        {"title": "there"},
        None,
    ]
    assert database.do(lambda tx: tx.update("posts", keys[0], {"title": "hi", "at": 3})) == {
        "title": "hi",
        "at": 3,
    }
    assert database.do(lambda tx: tx.update("posts", keys[0], {}, ["at"])) == {"title": "hi"}
    database.do(lambda tx: tx.replace("posts", keys[1], {"a": [1, None]}))
    database.do(lambda tx: tx.replace("posts", "mine", {}, create=True))
    assert dict(database.find("posts")) == {keys[0]: {"title": "hi"}, keys[1]: {"a": [1, None]}, "mine": {}}
    assert database.do(lambda tx: tx.delete("posts", [keys[0], "none"])) == 1
    assert database.keys("posts") == [keys[1], "mine"]


def test_what_cannot_be_is_refused_and_changes_nothing(database: Database) -> None:
    database.insert("posts", {"a": {"n": 1}})
    for work, problem in [
        (lambda tx: tx.insert("posts", [{}, {}], ["b", "a"]), Exists),
        (lambda tx: tx.insert("posts", [{}], ["b", "c"]), BadInput),
        (lambda tx: tx.insert("posts", [{"a": {1}}], ["b"]), BadInput),
        (lambda tx: tx.insert("posts", [[1]], ["b"]), BadInput),
        (lambda tx: tx.insert("no such\n", [{}]), BadInput),
        (lambda tx: tx.insert("posts", [{}], [""]), BadInput),
        (lambda tx: tx.insert("posts", [{}], ["x" * 513]), BadInput),
        (lambda tx: tx.insert("posts", [{"a": "x" * (16 << 20)}], ["b"]), TooLarge),
        (lambda tx: tx.replace("posts", "b", {}), NotFound),
        (lambda tx: tx.update("posts", "b", {}), NotFound),
    ]:
        with pytest.raises(problem):
            database.do(work)
    assert database.find("posts") == [("a", {"n": 1})]


def test_a_transaction_sees_what_it_wrote_and_nobody_else_does_before_it_is_committed(
    people: Database,
) -> None:
    tx = people.engine.transaction(MAIN)
    tx.delete("people", ["p000"])
    tx.insert("people", [{"age": 200}], ["new"])
    assert [key for key, _ in _all(tx.find("people", Query(filter="doc.age > 48")))] == [
        "new", "p049", "p099", "p149", "p199", "p249", "p299"
    ]  # fmt: skip
    assert list(tx.count("people", Query()))[-1] == 300
    assert tx.get("people", ["p000"]) == [None]
    assert people.do(lambda other: other.get("people", ["p000", "new"])) == [
        {"age": 0, "name": "name 000"},
        None,
    ]
    people.engine.commit(tx).result(PATIENCE)
    people.engine.close_transaction(tx)
    assert people.do(lambda other: other.get("people", ["p000", "new"])) == [None, {"age": 200}]


def test_what_is_found_is_what_was_there_when_it_was_asked_for(people: Database) -> None:
    index(people, "age")
    tx = people.engine.transaction(MAIN)
    found = 0
    for one in tx.find("people", Query(filter="doc.age == 7")):
        if one is not None:
            found += 1
            tx.update("people", one[0], {"age": 8})
            tx.insert("people", [{"age": 7}])
    assert found == 6
    people.engine.commit(tx).result(PATIENCE)
    people.engine.close_transaction(tx)
    assert len(people.keys("people", filter="doc.age == 7")) == 6
    assert len(people.keys("people", filter="doc.age == 8")) == 12


def test_a_transaction_whose_reads_have_changed_is_a_conflict(people: Database) -> None:
    def conflicts(reads: Callable[[Transaction], Any], writes: Callable[[Transaction], Any]) -> bool:
        tx = people.engine.transaction(MAIN)
        reads(tx)
        tx.replace("log", "one", {}, create=True)
        people.do(writes)
        try:
            people.engine.commit(tx).result(PATIENCE)
        except Conflict:
            return True
        finally:
            people.engine.close_transaction(tx)
        return False

    people.insert("log", {"zero": {}})
    assert conflicts(
        lambda tx: tx.get("people", ["p001"]), lambda tx: tx.update("people", "p001", {"age": 1000})
    )
    assert conflicts(lambda tx: tx.get("people", ["x"]), lambda tx: tx.insert("people", [{}], ["x"]))
    assert conflicts(
        lambda tx: _all(tx.find("people", Query(filter="doc.age == 3000"))),
        lambda tx: tx.insert("people", [{"age": 3000}], ["phantom"]),
    )
    assert conflicts(
        lambda tx: list(tx.count("people", Query())), lambda tx: tx.delete("people", ["phantom"])
    )
    assert conflicts(lambda tx: tx.collections(), lambda tx: tx.insert("more", [{}]))
    assert not conflicts(lambda tx: tx.get("people", ["p001"]), lambda tx: tx.delete("people", ["p002"]))
    assert not conflicts(
        lambda tx: _all(tx.find("people", Query(filter='key < "p010"'))),
        lambda tx: tx.delete("people", ["p200"]),
    )
    assert not conflicts(lambda tx: None, lambda tx: tx.delete("people", ["p100"]))


def test_single_steps_are_never_conflicts(database: Database) -> None:
    database.insert("counters", {"one": {"n": 0}})

    def count(tx: Transaction) -> None:
        tx.update("counters", "one", {"n": tx.get("counters", ["one"])[0]["n"] + 1})

    def often() -> None:
        for future in [database.engine.perform(MAIN, count) for _ in range(100)]:
            future.result(PATIENCE)

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.do(lambda tx: tx.get("counters", ["one"])) == [{"n": 400}]


def test_a_step_that_fails_when_it_is_taken_again_fails_alone(database: Database) -> None:
    tries = [database.engine.perform(MAIN, lambda tx: tx.insert("posts", [{}], ["one"])) for _ in range(3)]
    problems = [one.exception(10) for one in tries]
    assert problems[0] is None and all(isinstance(problem, Exists) for problem in problems[1:])


def test_who_only_reads_writes_nothing(people: Database) -> None:
    tx = people.engine.transaction(MAIN, write=False)
    with pytest.raises(ReadOnly):
        tx.insert("people", [{}])
    people.engine.close_transaction(tx)


# Queries


@pytest.mark.parametrize("indexed", [False, True])
def test_filters_orders_limits_and_maps(people: Database, indexed: bool) -> None:
    if indexed:
        index(people, "age")
    found = people.find(
        "people", filter="doc.age >= low && doc.age < 12", params={"low": 10}, order="age desc, key desc"
    )
    assert [key for key, _ in found] == [
        "p261", "p211", "p161", "p111", "p061", "p011", "p260", "p210", "p160", "p110", "p060", "p010"
    ]  # fmt: skip
    assert people.keys("people", order="age desc", limit=3, skip=1) == ["p249", "p199", "p149"]
    assert people.keys("people", order="age, key desc", limit=2) == ["p250", "p200"]
    assert people.find("people", map='{"is": doc.name}', order="name desc", limit=1) == [
        ("p299", {"is": "name 299"})
    ]
    assert people.keys("people", filter='key.startsWith("p00") && doc.age in [3, 5.0, 77]') == [
        "p003",
        "p005",
    ]
    assert people.keys("people", order="key desc", limit=2) == ["p299", "p298"]
    assert people.keys("people", limit=0) == []
    explained = people.explain("people", filter="doc.age >= 10 && doc.age < 12", order="age")
    if indexed:
        assert (explained["scan"], explained["index"], explained["sorted"]) == ("index", "age", False)
        assert explained["estimate"] <= 18
    else:
        assert (explained["scan"], explained["index"], explained["sorted"]) == ("collection", None, True)
        assert explained["estimate"] == 300
    assert people.explain("people", filter='key == "p003"')["estimate"] == 1


def test_what_is_sorted_by_is_kept_within_bounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.insert("notes", {str(number): {"text": f"{number}" * 100} for number in range(10)})
    monkeypatch.setattr("lazycloud.versionbase.queries.SORTED_SIZE", 500)
    for query in ({"order": "text"}, {"order": "text desc", "limit": 9}):
        with pytest.raises(TooLarge, match="to sort by text"):
            database.find("notes", **query)
    assert database.keys("notes", order="text desc", limit=2) == ["9", "8"]
    steps(upkeep.create_index(database.engine, MAIN, "notes", "text"))
    assert len(database.keys("notes", order="text desc")) == 10


def test_documents_that_lack_what_is_sorted_by_come_first(database: Database) -> None:
    database.insert("mixed", {"a": {"n": "text"}, "b": {}, "c": {"n": 2}, "d": {"n": None}, "e": {"n": 1.5}})
    before = database.keys("mixed", order="n"), database.keys("mixed", order="n desc")
    assert before == (["b", "d", "e", "c", "a"], ["a", "c", "e", "d", "b"])
    index(database, "n", collection="mixed")
    assert database.explain("mixed", order="n")["scan"] == "index"
    assert (database.keys("mixed", order="n"), database.keys("mixed", order="n desc")) == before
    assert database.keys("mixed", filter="doc.n == null") == ["d"]


@pytest.mark.parametrize(
    "query",
    [{"order": "at sideways"}, {"order": "a b c"}, {"order": ","}, {"limit": -1}, {"limit": True}, {"skip": "3"},
     {"filter": 3}, {"filter": "doc.a ="}, {"filter": "doc.a == who"}, {"map": "("}, {"params": []}],
)  # fmt: skip
def test_queries_that_cannot_be_are_refused(people: Database, query: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        people.find("people", **query)


def test_a_sign_before_what_is_sorted_by_is_refused_with_what_to_write(database: Database) -> None:
    database.insert("odd", {"a": {"at": 1, "-at": 2}, "b": {"at": 2, "-at": 1}})
    for order, meant in (
        ("-at", "`at desc`"),
        ("at, -author.name asc", "`author.name desc`"),
        ("+at", "`at asc`"),
    ):
        with pytest.raises(BadInput, match=f"sign.* Write {meant}"):
            database.find("odd", order=order)
    assert database.keys("odd", order="doc.-at") == ["b", "a"]


def test_long_values_are_found_by_their_index(database: Database) -> None:
    database.insert("texts", {f"{number}": {"t": "x" * 1000 + str(number)} for number in range(5)})
    index(database, "t", unique=True, collection="texts")
    wanted = {"filter": "doc.t == wanted", "params": {"wanted": "x" * 1000 + "3"}}
    assert database.keys("texts", **wanted) == ["3"]
    assert database.explain("texts", **wanted)["estimate"] == 1
    assert len(database.keys("texts", filter="doc.t >= wanted", params={"wanted": "x" * 1000 + "3"})) == 2
    assert len(database.keys("texts", filter='doc.t.startsWith("xxx")')) == 5


# Indexes and schemas


@pytest.mark.parametrize("at_once", [7, 100_000])
def test_an_index_is_built_in_steps_while_others_write(
    people: Database, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in {"PASS": at_once, "BATCH": 3, "RUN": 5}.items():
        monkeypatch.setattr(upkeep, name, number)
    building = upkeep.create_index(people.engine, MAIN, "people", "age")
    for number in range(2):
        next(step for step in building if step is not None).result(PATIENCE)
        people.insert("people", {f"a{number}": {"age": 77}, f"z{number}": {"age": 77}})
    assert people.explain("people", filter="doc.age == 77")["scan"] == "collection"
    people.do(lambda tx: tx.delete("people", ["a0", "p003"]))
    steps(building)
    assert people.explain("people", filter="doc.age == 77")["scan"] == "index"
    assert people.keys("people", filter="doc.age == 77") == ["a1", "z0", "z1"]
    assert "p003" not in people.keys("people", filter="doc.age == 3")


def test_a_unique_index_keeps_second_ones_out(database: Database) -> None:
    database.insert("users", {"a": {"mail": "a@x"}, "b": {"mail": None}, "c": {}, "d": {"mail": None}})
    index(database, "mail", unique=True, collection="users")
    with pytest.raises(Exists, match="'a'"):
        database.insert("users", {"e": {"mail": "a@x"}})
    database.insert("users", {"e": {"mail": None}, "f": {}})
    database.do(lambda tx: tx.update("users", "a", {"mail": "a@x", "more": 1}))
    database.do(lambda tx: (tx.delete("users", ["a"]), tx.insert("users", [{"mail": "a@x"}], ["g"])))
    tries = [
        database.engine.perform(MAIN, lambda tx: tx.insert("users", [{"mail": "race@x"}])) for _ in range(5)
    ]
    assert sum(one.exception(10) is None for one in tries) == 1


def test_a_unique_index_that_cannot_be_is_not_there(database: Database) -> None:
    database.insert("users", {"a": {"mail": "x"}, "b": {"mail": "x"}})
    with pytest.raises(Exists):
        index(database, "mail", unique=True, collection="users")
    database.insert("users", {"c": {"mail": "x"}})
    (collection,) = database.do(lambda tx: tx.collections())
    assert collection.indexes == ()


def test_dropped_collections_and_indexes_leave_nothing(people: Database) -> None:
    index(people, "age")
    people.insert("others", {"a": {"age": 1}})
    assert people.do(lambda tx: tx.drop_index("people", "age")) is True
    assert people.do(lambda tx: tx.drop_index("people", "age")) is False
    index(people, "name")
    assert people.do(lambda tx: tx.drop_collection("people")) is True
    assert people.do(lambda tx: tx.drop_collection("people")) is False
    assert people.keys("people") == [] and people.keys("others") == ["a"]
    with people.engine.pinning(MAIN) as now:
        from lazycloud.versionbase import tree

        assert tree.count(people.storage, now.root) == 2  # the other collection, and its document


def test_a_schema_is_asked_of_what_is_written(people: Database) -> None:
    ages = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 100}}, "required": ["age"]}
    steps(upkeep.set_schema(people.engine, MAIN, "people", ages))
    with pytest.raises(Invalid, match="age"):
        people.insert("people", {"old": {"age": 101}})
    with pytest.raises(Invalid):
        people.do(lambda tx: tx.update("people", "p001", {}, ["age"]))
    with pytest.raises(Invalid, match="which is there"):
        steps(upkeep.set_schema(people.engine, MAIN, "people", {"properties": {"age": {"maximum": 10}}}))
    people.insert("people", {"fits": {"age": 100}})
    steps(upkeep.set_schema(people.engine, MAIN, "people", None))
    people.insert("people", {"old": {"age": 101}})
    with pytest.raises(BadInput):
        steps(upkeep.set_schema(people.engine, MAIN, "people", {"type": 3}))


# Versions, the past, and what comes


def test_a_schema_that_nobody_waits_for_is_not_there(people: Database) -> None:
    setting = upkeep.set_schema(people.engine, MAIN, "people", {"required": ["mail"]})
    step = next(setting)
    assert step is not None and step.exception(10) is None
    next(setting, None)  # it looks at what is there
    setting.close()  # type: ignore[attr-defined]
    people.change(lambda: None)
    people.insert("people", {"no mail": {}})


def test_a_fork_has_data_of_its_own(people: Database) -> None:
    people.change(lambda: people.storage.fork("preview", MAIN))
    people.do(lambda tx: tx.drop_collection("people"), "preview")
    people.insert("people", {"mine": {}}, "preview")
    assert people.find("people", "preview") == [("mine", {})]
    assert len(people.keys("people")) == 300


def test_a_snapshot_is_read_and_compared_and_brought_back(people: Database) -> None:
    people.change(lambda: people.storage.snapshot(MAIN, "s1"))
    people.do(lambda tx: tx.update("people", "p001", {"age": 99}))
    people.do(lambda tx: tx.delete("people", ["p002"]))
    people.insert("people", {"new": {}})
    assert len(people.find("people", at="s1")) == 300
    then, now = people.storage.at(MAIN, "s1"), people.storage.branch(MAIN)
    assert [
        (change.key, change.old, change.new) for change in past.differences(people.engine, then, now)
    ] == [
        ("new", None, {}),
        ("p001", {"age": 1, "name": "name 001"}, {"age": 99, "name": "name 001"}),
        ("p002", {"age": 2, "name": "name 002"}, None),
    ]
    assert list(past.differences(people.engine, then, now, "others")) == []
    people.change(lambda: people.storage.restore(MAIN, "s1"))
    assert list(past.differences(people.engine, then, people.storage.branch(MAIN))) == []


def test_a_document_has_a_history(people: Database) -> None:
    people.do(lambda tx: tx.update("people", "p001", {"age": 99}))
    people.do(lambda tx: tx.delete("people", ["p002"]))
    people.do(lambda tx: tx.delete("people", ["p001"]))
    told = [one for one in past.history(people.engine, MAIN, "people", "p001") if one]
    assert [one["document"] and one["document"]["age"] for one in told] == [None, 99, 1]
    assert [one["sequence"] for one in told] == sorted((one["sequence"] for one in told), reverse=True)
    assert len([one for one in past.history(people.engine, MAIN, "people", "p001", 2) if one]) == 2
    assert [one for one in past.history(people.engine, MAIN, "people", "never") if one] == []


def test_changes_are_watched_and_watched_again_from_where_it_was(people: Database) -> None:
    woken = threading.Event()
    watch = past.watch(people.engine, MAIN, None, "people", "doc.age > 40", {}, woken.set)
    began = watch.sequence
    people.insert("people", {"old": {"age": 60}, "young": {"age": 6}})
    people.insert("others", {"old": {"age": 60}})
    people.do(lambda tx: tx.update("people", "old", {"age": 7}))
    assert woken.wait(PATIENCE)
    told = [(one["key"], one["old"], one["new"]) for one in watch.poll() if one]
    assert told == [("old", None, {"age": 60}), ("old", {"age": 60}, {"age": 7})]
    assert [one for one in watch.poll() if one] == []
    watch.close()
    again = past.watch(people.engine, MAIN, began, "", "", {}, woken.set)
    assert [one["key"] for one in again.poll() if one] == ["old", "young", "old", "old"]
    again.close()
    with pytest.raises(Gone):
        past.watch(people.engine, MAIN, began + 1000, "", "", {}, woken.set)
    with pytest.raises(NotFound):
        past.watch(people.engine, "nobody", None, "", "", {}, woken.set)


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    one = Database(tmp_path / "store.sqlite")
    one.change(lambda: one.storage.begin(MAIN))
    one.insert("posts", {"a": {"n": 1}})
    one.engine.close()
    two = Database(tmp_path / "store.sqlite")
    assert two.find("posts") == [("a", {"n": 1})]
    two.engine.close()


def _all(found: Iterator[Any]) -> list[Any]:
    return [one for one in found if one is not None]
