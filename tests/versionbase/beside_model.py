"""An engine, and the plain model beside it: both tell the same, and nobody is refused for nothing."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lazycloud.errors import DiskFull, LazycloudError
from lazycloud.versionbase import catalogue, past, queries, upkeep
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.problems import kind as kind_of
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.transactions import Transaction
from lazycloud.versionbase.tree import scan
from lazycloud.versionbase.values import encode
from lazycloud.versionbase.verification import verify
from tests.versionbase import model
from tests.versionbase.model import FILTERS, ORDERS, SCHEMA, Refused, Request, State, exactly, told
from tests.waiting import PATIENCE

VERSIONS = ("production", "abc", "def")
MANY = 3  # transactions that are open at once
MEMORY = Path("/dev/shm")  # an fsync is not what is tried here


class Place(Protocol):
    """Where a store is."""

    url: str

    def crash(self) -> None:
        """What was committed is all there is; nobody has the store open any more."""

    def remove(self) -> None: ...


class SqlitePlace:
    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="vb-", dir=MEMORY if MEMORY.is_dir() else None))
        self._crashes = 0

    @property
    def url(self) -> str:
        return f"sqlite:///{self._root}/{self._crashes}/versionbase.sqlite"

    def crash(self) -> None:
        """The files, as they are on the disk while somebody has them open: what a killed process leaves."""
        before = self._root / str(self._crashes)
        self._crashes += 1
        shutil.copytree(before, self._root / str(self._crashes))

    def remove(self) -> None:
        shutil.rmtree(self._root)


# Requests to an engine


def drained(found: Iterator[Any]) -> list[Any]:
    return [one for one in found if one is not None]


def ask(transaction: Transaction, request: Request) -> Any:
    """What is told; raises what it raises."""
    name, more = request.collection, request.more
    if request.what == "find":
        return drained(transaction.find(name, _query(more["query"])))
    if request.what == "count":
        return drained(transaction.count(name, _query(more["query"])))[-1]
    if request.what == "collections":
        return _collections(transaction)
    if request.what == "update":
        return transaction.update(name, more["key"], more["members"], more["remove"])
    if request.what == "drop_index":
        return transaction.drop_index(name, more["index"])
    return getattr(transaction, request.what)(name, **more)


def _query(query: model.Query) -> queries.Query:
    return queries.Query(query.filter, query.params, "", query.order, query.limit, query.skip)


def _collections(transaction: Transaction) -> Any:
    shown = [transaction.shown(one) for one in transaction.collections()]
    for one in shown:
        assert all(index["state"] == "ready" for index in one["indexes"])
    return [
        (
            one["name"],
            one["documents"],
            sorted((at["name"], at["path"], at["unique"]) for at in one["indexes"]),
            one["schema"],
        )
        for one in shown
    ]


def outcome(request: Request, work: Callable[[], Any]) -> Any:
    """What is told, or by which word it was refused; to be compared."""
    try:
        return told(request, work())
    except Refused as refused:
        return f"refused: {refused.kind}"
    except LazycloudError as problem:
        return f"refused: {kind_of(problem)}"


def full(*_: object) -> None:
    raise DiskFull("The disk is full.")


def bound(request: Request, told_: Any) -> Any:
    """By what of it a transaction is bound: not by how many documents `collections` tells."""
    return [[name, *rules] for name, _, *rules in told_] if request.what == "collections" else told_


def steps(work: Iterator[Any]) -> Any:
    """Do what takes many transactions: it looks at what became of each itself."""
    for step in work:
        if isinstance(step, Future):
            step.exception(PATIENCE)


# The model's side


@dataclass
class Version:
    """`kept` are its commits, as far as they are: sequence and what was then, the last one as it is now."""

    kept: list[tuple[int, State]]
    snapshots: dict[str, tuple[int, State]] = field(default_factory=dict)

    @property
    def now(self) -> State:
        return self.kept[-1][1]

    @property
    def sequence(self) -> int:
        return self.kept[-1][0]


@dataclass
class Open:
    """A transaction that is under way, and what it was told so far."""

    version: str
    began: State
    mine: State
    transaction: Transaction
    writes: bool
    done: list[tuple[Request, Any]] = field(default_factory=list)

    def again(self, state: State) -> State | None:
        """What comes of it where it is done now; None if it would have been told something else."""
        after = state.copy()
        for request, told_then in self.done:
            told_now = outcome(request, lambda request=request: model.perform(after, request))  # type: ignore[misc]
            if bound(request, told_now) != bound(request, told_then):
                return None
        return after

    def might_conflict(self, now: State) -> bool:
        """Whether it may be refused although it would be told the same: where the docs say so.

        Something that it looked at by key has become different; a range that it looked through has changed somewhere;
        so have the rules of its collection.
        """
        for request, _ in self.done:
            then, there = (
                self.began.collections.get(request.collection),
                now.collections.get(request.collection),
            )
            if (then is None) != (there is None):
                return True
            if request.what == "collections":
                if exactly(_rules(self.began)) != exactly(_rules(now)):
                    return True
                continue
            if then is None or there is None:
                continue
            if then.rules() != there.rules():
                return True
            is_ranged = request.what in ("find", "count") or any(one.unique for one in then.indexes.values())
            changed = {
                key
                for key in then.documents.keys() | there.documents
                if encode(then.documents.get(key))
                != encode(there.documents.get(key))  # members in another order
            }
            if changed if is_ranged else changed & _keys(request):
                return True
        return False


def _rules(state: State) -> dict[str, tuple[object, ...]]:
    return dict(sorted((name, one.rules()) for name, one in state.collections.items()))


def _keys(request: Request) -> set[str]:
    return {*request.more.get("keys", ())} | {request.more.get("key", "")}


# What is made up

LARGE = "m" * 3000  # two of them are no neighbours in a node
KEYS = st.sampled_from(["a", "b", "ba", "c", "é", "\U0001f600", "key/with space", "zz", "A" * 512])
TEXTS = st.sampled_from(
    ["", "a", "ab", "b", "é", "\U0001f600", "\uffff", "a\0b", "x" * 398, "x" * 405, "x" * 404 + "y"]
)
NUMBERS = st.sampled_from(
    [
        *(0, 1, -1, 2, 1.0, 1.5, -0.5, 0.1, 1e300, 5e-324),
        *(2**53, 2**53 + 1, 2.0**53, 2**63, 2**64 - 1, -(2**63)),
        *map(Decimal, ("1", "1.10", "0.1", "-1e20", "1e-30")),
    ]
)
TIMES = st.sampled_from(
    [
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from([b"", b"\0", b"\xff\xff", b"ab"]), TIMES
)
FEW = st.one_of(st.sampled_from([0, 1, 2, 1.0, True, False, "a", "x", None]), SCALARS)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "a": FEW,
        "b": st.sampled_from([0, 1, 2, 1, 2.0, 3, "x", None]),
        "t": st.one_of(st.just({}), st.fixed_dictionaries({"x": FEW}), st.just([])),
        "tags": st.lists(st.sampled_from(["a", "b", "zz"]), max_size=2),
        "more": st.sampled_from(["", "", "", LARGE]),
        "$odd.name": st.just(1),
    },
)
COLLECTIONS = st.sampled_from(["one", "one", "one", "two"])
PARAMS = st.fixed_dictionaries(
    {"v": FEW, "w": FEW, "p": st.one_of(KEYS, TEXTS), "vs": st.lists(FEW, max_size=4)}
)
QUERIES = st.builds(
    model.Query,
    st.sampled_from(["", "", "key >= p", "key >= p", "doc.a >= v", *FILTERS]),
    PARAMS,
    st.sampled_from([*ORDERS]),
    st.sampled_from([None, None, 0, 1, 3]),
    st.sampled_from([0, 0, 1, 2]),
).map(lambda query: query if query.order else model.Query(query.filter, query.params))


def _requests(what: str, more: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Request]:
    return st.builds(Request, st.just(what), COLLECTIONS, st.fixed_dictionaries(more))


_NEW = st.dictionaries(KEYS, DOCUMENTS, min_size=1, max_size=5).map(
    lambda new: {"keys": [*new], "documents": [*new.values()]}
)
INSERTS = st.builds(Request, st.just("insert"), COLLECTIONS, _NEW)
WRITES = st.one_of(
    INSERTS,
    INSERTS,
    _requests("replace", {"key": KEYS, "document": DOCUMENTS, "create": st.booleans()}),
    _requests(
        "update",
        {
            "key": KEYS,
            "members": st.one_of(st.fixed_dictionaries({"a": FEW}), DOCUMENTS),
            "remove": st.lists(st.sampled_from(["a", "b", "t"]), max_size=1),
        },
    ),
    _requests("delete", {"keys": st.lists(KEYS, min_size=1, max_size=3)}),
)
LOOKS = st.one_of(
    _requests("get", {"keys": st.lists(KEYS, min_size=1, max_size=3)}),
    _requests("find", {"query": QUERIES}),
    _requests("find", {"query": QUERIES}),
    _requests("count", {"query": QUERIES}),
    st.just(Request("collections", "")),
)
SEVERE = st.one_of(
    st.builds(Request, st.just("drop_collection"), st.just("two")),
    _requests("drop_index", {"index": st.sampled_from(["a", "b", "t_x"])}),
)
_PLAIN = _requests("create_index", {"path": st.sampled_from(["a", "b", "t.x"]), "unique": st.just(False)})
_UNIQUE = _requests("create_index", {"path": st.sampled_from(["a", "t.x"]), "unique": st.just(True)})
INDEXES = st.one_of(_PLAIN, _UNIQUE)
RARE = st.one_of(
    SEVERE,
    INDEXES,
    INDEXES,
    INDEXES,
    _requests("set_schema", {"schema": st.sampled_from([None, SCHEMA])}),
)
THERE = st.runner().flatmap(lambda machine: st.sampled_from([*machine.versions]))
"""A version that there is."""


class Machine(RuleBasedStateMachine):
    """`place` is set by who runs it."""

    place: Callable[[], Place]

    def __init__(self) -> None:
        super().__init__()
        self.where = type(self).place()
        self.engine = Engine(Storage(self.where.url))
        self.versions: dict[str, Version] = {}
        self.open: list[Open] = []
        self.numbers = 0

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.everything_is_as_it_is_to_be()
        finally:
            self.engine.close()
            self.where.remove()

    @initialize(requests=st.lists(INSERTS, min_size=1, max_size=2), indexes=st.lists(INDEXES, max_size=2))
    def begin(self, requests: list[Request], indexes: list[Request]) -> None:
        self.engine.open()
        self.change(lambda storage: storage.begin("production"))
        self.versions["production"] = Version([(0, State())])
        for request in indexes:
            self.change_a_collection("production", request)
        self.write("production", requests)

    # Single requests

    @rule(version=THERE, requests=st.lists(st.one_of(INSERTS, WRITES), min_size=1, max_size=4))
    def write(self, version: str, requests: list[Request]) -> None:
        for request in requests:
            self.request(version, request)

    @rule(version=THERE, requests=st.lists(LOOKS, min_size=1, max_size=4))
    def look(self, version: str, requests: list[Request]) -> None:
        for request in requests:
            self.request(version, request)

    @rule(version=THERE, collection=COLLECTIONS, data=st.data(), orders=st.permutations([*ORDERS]))
    def look_through(self, version: str, collection: str, data: st.DataObject, orders: list[str]) -> None:
        """By every filter, for values that are there."""
        documents = self.versions[version].now.collection(collection).documents.values()
        values = [value for each in documents for value in (each.get("a"), model.at_path(each, "t.x"))]
        there = st.sampled_from([one for one in values if model.kind(one) <= 6] or [1])
        params = data.draw(PARAMS) | {"v": data.draw(there), "w": data.draw(there)}
        params = {name: value for name, value in params.items() if value is not model.MISSING}
        transaction = self.engine.transaction(version, write=False)
        try:
            for filter_, order in zip(FILTERS, itertools.cycle(orders)):
                request = Request(
                    "find", collection, {"query": model.Query(filter_, {"v": 1, "w": 1, **params}, order)}
                )
                wanted = told(request, model.perform(self.versions[version].now, request))
                assert told(request, ask(transaction, request)) == wanted, request
        finally:
            self.engine.close_transaction(transaction)

    @rule(version=THERE, request=WRITES)
    def write_to_a_full_disk(self, version: str, request: Request) -> None:
        """Nothing is changed then, nowhere."""
        of, after = self.versions[version], self.versions[version].now.copy()
        wanted = outcome(request, lambda: model.perform(after, request))
        database = self.engine.storage.database
        before = database.change
        database.change = full  # type: ignore[method-assign]
        try:
            got = outcome(request, lambda: self.performed(version, request)[0])
        finally:
            database.change = before  # type: ignore[method-assign]
        changes = exactly(after_as_data(after)) != exactly(after_as_data(of.now))
        assert got == "refused: full" or (got == wanted and not changes)
        self.compare(version, "", of.now, of.sequence)

    @rule(version=THERE, request=RARE)
    def change_a_collection(self, version: str, request: Request) -> None:
        if request.what == "create_index":
            more = request.more["path"], request.more["unique"]
            begun = lambda: upkeep.create_index(self.engine, version, request.collection, *more)  # noqa: E731
            self.many_steps(version, request, begun)
        elif request.what == "set_schema":
            schema = request.more["schema"]
            begun = lambda: upkeep.set_schema(self.engine, version, request.collection, schema)  # noqa: E731
            self.many_steps(version, request, begun)
        else:
            self.request(version, request)

    def request(self, version: str, request: Request) -> None:
        of, after = self.versions[version], self.versions[version].now.copy()
        wanted = outcome(request, lambda: model.perform(after, request))
        sequence = of.sequence

        def work() -> Any:
            nonlocal sequence
            result, sequence = self.performed(version, request)
            return result

        assert outcome(request, work) == wanted, f"{version}: {request}"
        self.committed(version, after, sequence)

    def performed(self, version: str, request: Request) -> tuple[Any, int]:
        return self.engine.perform(version, lambda transaction: ask(transaction, request)).result(PATIENCE)

    def many_steps(self, version: str, request: Request, begun: Callable[[], Iterator[Any]]) -> None:
        after = self.versions[version].now.copy()
        wanted = outcome(request, lambda: model.perform(after, request))
        refused = isinstance(wanted, str)
        got = outcome(request, lambda: steps(begun()))
        if collection := after.collections.get(request.collection):
            collection.generation += 1
        assert got == wanted if refused else not isinstance(got, str), (
            f"{version}: {request}: {got}, not {wanted}"
        )
        self.committed(version, after, self.engine.storage.branch(version).sequence, by_several=True)

    # Transactions

    @precondition(lambda self: len(self.open) < MANY)
    @rule(data=st.data(), version=THERE, writes=st.sampled_from([True, True, True, False]))
    def begin_transaction(self, data: st.DataObject, version: str, writes: bool) -> None:
        if writes or not self.snapshots():
            self.open.append(self.begun(version, writes))
            return
        version, name = data.draw(st.sampled_from(self.snapshots()))
        then = self.versions[version].snapshots[name][1]
        transaction = self.engine.transaction(version, at=name, write=False)
        self.open.append(Open(version, then.copy(), then.copy(), transaction, False))

    def begun(self, version: str, writes: bool = True) -> Open:
        now = self.versions[version].now
        transaction = self.engine.transaction(version, write=writes)
        return Open(version, now.copy(), now.copy(), transaction, writes)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), requests=st.lists(st.one_of(LOOKS, WRITES), min_size=1, max_size=4))
    def read_in_transaction(self, data: st.DataObject, requests: list[Request]) -> None:
        self.in_transaction(data, requests)

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        requests=st.lists(st.one_of(INSERTS, WRITES, WRITES, WRITES, SEVERE), min_size=1, max_size=4),
    )
    def write_in_transaction(self, data: st.DataObject, requests: list[Request]) -> None:
        self.in_transaction(data, requests)

    @rule(
        version=THERE,
        first=st.lists(st.one_of(LOOKS, LOOKS, WRITES), min_size=1, max_size=3),
        meanwhile=st.lists(WRITES, max_size=2),
        then=st.lists(WRITES, min_size=1, max_size=2),
    )
    def contend(
        self, version: str, first: list[Request], meanwhile: list[Request], then: list[Request]
    ) -> None:
        """A whole transaction, and what others do between."""
        one = self.begun(version)
        self.do(one, first)
        self.write(version, meanwhile)
        self.do(one, then)
        try:
            self.commit(one)
        finally:
            self.engine.close_transaction(one.transaction)

    def in_transaction(self, data: st.DataObject, requests: list[Request]) -> None:
        self.do(self.open[data.draw(st.integers(0, len(self.open) - 1))], requests)

    def do(self, one: Open, requests: list[Request]) -> None:
        for request in requests:
            if request.what in model.READS or one.writes:
                wanted = outcome(request, lambda request=request: model.perform(one.mine, request))  # type: ignore[misc]
            else:
                wanted = "refused: read-only"
            got = outcome(request, lambda request=request: ask(one.transaction, request))  # type: ignore[misc]
            assert got == wanted, f"{one.version}: {request}"
            if wanted != "refused: read-only":
                one.done.append((request, wanted))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), is_commit=st.sampled_from([True, True, True, False]))
    def end_transaction(self, data: st.DataObject, is_commit: bool) -> None:
        one = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        try:
            if is_commit and one.writes:
                self.commit(one)
        finally:
            self.engine.close_transaction(one.transaction)

    def commit(self, one: Open) -> None:
        if one.version not in self.versions:
            return
        now = self.versions[one.version].now
        after = one.again(now)
        try:
            sequence = self.engine.commit(one.transaction).result(PATIENCE)
        except LazycloudError as problem:
            assert kind_of(problem) == "conflict"
            note("a conflict")
            assert after is None or one.might_conflict(now), "refused for nothing"
            return
        if after is None or exactly(after_as_data(after)) == exactly(after_as_data(now)):
            assert sequence <= self.versions[one.version].sequence + (after is not None), (
                "it read what is so no more"
            )
        if after is not None and sequence > self.versions[one.version].sequence:
            self.committed(one.version, after, sequence)

    # Versions

    @rule(data=st.data())
    def branch(self, data: st.DataObject) -> None:
        can = [self.fork] * (len(self.versions) < len(VERSIONS)) + [self.drop, self.swap] * (
            len(self.versions) > 1
        )
        can += [self.snapshot] + [self.restore, self.restore, self.drop_snapshot] * bool(self.snapshots())
        data.draw(st.sampled_from(can))(data)

    def fork(self, data: st.DataObject) -> None:
        name = next(one for one in VERSIONS if one not in self.versions)
        if self.snapshots() and data.draw(st.booleans()):
            source, snapshot = data.draw(st.sampled_from(self.snapshots()))
            sequence, state = self.versions[source].snapshots[snapshot]
        else:
            source, snapshot = data.draw(st.sampled_from(sorted(self.versions))), ""
            sequence, state = self.versions[source].sequence, self.versions[source].now
        self.change(lambda storage: storage.fork(name, source, snapshot))
        self.versions[name] = Version([(sequence, state.copy())])

    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([one for one in sorted(self.versions) if one != "production"]))
        for one in [one for one in self.open if one.version == name]:
            self.open.remove(one)
            self.engine.close_transaction(one.transaction)
        self.change(lambda storage: storage.drop(name))
        del self.versions[name]

    def snapshot(self, data: st.DataObject) -> None:
        version = data.draw(THERE)
        self.numbers += 1
        id_, name = f"id{self.numbers}", data.draw(st.sampled_from(["", f"name{self.numbers}"]))
        self.change(lambda storage: storage.snapshot(version, id_, name))
        of = self.versions[version]
        of.snapshots[name or id_] = of.sequence, of.now.copy()

    def drop_snapshot(self, data: st.DataObject) -> None:
        version, name = data.draw(st.sampled_from(self.snapshots()))
        id_ = next(one.id for one in self.engine.storage.snapshots(version) if name in (one.id, one.name))
        assert self.change(lambda storage: storage.drop_snapshot(version, id_))
        del self.versions[version].snapshots[name]

    def restore(self, data: st.DataObject) -> None:
        version, name = data.draw(st.sampled_from(self.snapshots()))
        of = self.versions[version]
        restored = self.change(lambda storage: storage.restore(version, name))
        of.kept.append((restored.sequence, of.snapshots[name][1].copy()))

    def swap(self, data: st.DataObject) -> None:
        """By a commit of each."""
        names = data.draw(st.permutations(sorted(self.versions)))[:2]
        one, other = (self.versions[name] for name in names)
        swapped = self.change(lambda storage: storage.swap(*names))
        states = other.now.copy(), one.now.copy()
        for version, branch, state in zip((one, other), swapped, states, strict=True):
            assert branch.sequence == version.sequence + 1
            version.kept.append((branch.sequence, state))

    # What was

    @rule(data=st.data(), version=THERE, collection=st.sampled_from(["one", "two", ""]))
    def what_was(self, data: st.DataObject, version: str, collection: str) -> None:
        self.watch_from(data, version, collection)
        self.diff(data, collection)
        for key in {
            key for _, state in self.versions[version].kept for key in state.collection("one").documents
        }:
            self.history(version, "one", key)

    def watch_from(self, data: st.DataObject, version: str, collection: str) -> None:
        kept = self.versions[version].kept
        at = data.draw(st.integers(0, len(kept) - 1))
        watch = past.Watch(self.engine, version, kept[at][0], collection)
        try:
            events = drained(watch.poll())
        finally:
            watch.close()
        wanted = []
        for (_, before), (sequence, after) in zip(kept[at:], kept[at + 1 :], strict=False):
            wanted += [(sequence, *one) for one in differences(before, after, collection)]
        got = [
            (one["sequence"], one["collection"], one["key"], exactly(one["old"]), exactly(one["new"]))
            for one in events
        ]
        assert self.net(got) == self.net(wanted)

    @staticmethod
    def net(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return sorted(events, key=lambda event: event[:3])

    def history(self, version: str, collection: str, key: str) -> None:
        told_ = drained(past.history(self.engine, version, collection, key))
        kept = [
            (sequence, state.collection(collection).documents.get(key))
            for sequence, state in self.versions[version].kept
        ]
        changes = [
            (sequence, exactly(doc))
            for at, (sequence, doc) in enumerate(kept)
            if at and exactly(doc) != exactly(kept[at - 1][1])
        ]
        got = [(one["sequence"], exactly(one["document"])) for one in told_]
        assert got[: len(changes)] == changes[::-1]
        assert len(got) <= len(changes) + 1  # how it was when what is known begins

    def diff(self, data: st.DataObject, collection: str) -> None:
        views = [(name, "", one.now) for name, one in self.versions.items()]
        views += [
            (version, name, self.versions[version].snapshots[name][1]) for version, name in self.snapshots()
        ]
        one, other = (data.draw(st.sampled_from(views)) for _ in range(2))
        storage = self.engine.storage
        got = past.differences(self.engine, storage.at(*one[:2]), storage.at(*other[:2]), collection)
        shown = [(change.collection, change.key, exactly(change.old), exactly(change.new)) for change in got]
        assert sorted(shown, key=lambda change: change[:2]) == differences(one[2], other[2], collection)

    # Time goes on

    @rule(expires=st.sampled_from([True, True, False]))
    def collect(self, expires: bool) -> None:
        if expires:
            for _ in self.engine.storage.expire(float("inf")):
                pass
            for version in self.versions.values():
                del version.kept[:-1]
        for _ in self.engine.storage.collect(self.engine.pinned, grace=0):
            pass
        for one in self.open:
            self.do(one, [Request("find", name, {"query": model.Query()}) for name in ("one", "two")])

    @rule(is_crash=st.booleans())
    def open_again(self, is_crash: bool) -> None:
        """After a crash, the engine of before is closed only when another has begun."""
        for one in self.open:
            self.engine.close_transaction(one.transaction)
        self.open.clear()
        before = self.engine
        if is_crash:
            self.where.crash()
        else:
            before.close()
        self.engine = Engine(Storage(self.where.url))
        self.engine.open()
        if is_crash:
            with contextlib.suppress(Exception):
                before.close()

    def everything_is_as_it_is_to_be(self) -> None:
        for name, version in self.versions.items():
            self.compare(name, "", version.now, version.sequence)
        for name, snapshot in self.snapshots():
            sequence, state = self.versions[name].snapshots[snapshot]
            self.compare(name, snapshot, state, sequence)
        assert [one for one in verify(self.engine.storage, contents=True) if isinstance(one, str)] == []

    def compare(self, version: str, at: str, state: State, sequence: int) -> None:
        transaction = self.engine.transaction(version, at=at, write=False)
        try:
            assert transaction.begun.sequence == sequence
            assert exactly(_collections(transaction)) == told(
                Request("collections", ""), model.perform(state.copy(), Request("collections", ""))
            )
            for name, collection in state.collections.items():
                documents = dict(drained(transaction.find(name, queries.Query())))
                assert exactly(documents) == exactly(by_key(collection.documents))
            self.indexes_are_right(transaction)
        finally:
            self.engine.close_transaction(transaction)

    def indexes_are_right(self, transaction: Transaction) -> None:
        """An entry for each document in each index, and no other; nothing but those, documents and collections."""
        tree = {**dict(scan(self.engine.storage, transaction.begun.root))}
        wanted = {}
        for of in transaction.collections():
            wanted[catalogue.collection_key(of.name)] = catalogue.encode_collection(of)
            for key, document in drained(transaction.find(of.name, queries.Query())):
                wanted[catalogue.document_key(of.name, key)] = encode(document)
                wanted |= dict(catalogue.entry(of.name, index, document, key) for index in of.indexes)
        assert tree == wanted

    # Both sides

    def committed(self, version: str, after: State, sequence: int, by_several: bool = False) -> None:
        of = self.versions[version]
        changed = exactly(after_as_data(after)) != exactly(after_as_data(of.now))
        assert sequence >= of.sequence + changed
        assert sequence <= of.sequence + 1 or by_several
        if sequence > of.sequence:
            of.kept.append((sequence, after))
        assert self.engine.storage.branch(version).sequence == sequence

    def snapshots(self) -> list[tuple[str, str]]:
        return [
            (name, snapshot) for name in sorted(self.versions) for snapshot in self.versions[name].snapshots
        ]

    def change(self, what: Callable[[Storage], Any]) -> Any:
        return self.engine.change(lambda: what(self.engine.storage)).result(PATIENCE)


def after_as_data(state: State) -> Any:
    return [
        (name, by_key(one.documents), *one.rules()[:-1]) for name, one in sorted(state.collections.items())
    ]


def by_key(documents: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(documents.items(), key=lambda one: one[0].encode()))


def differences(one: State, other: State, collection: str = "") -> Sequence[tuple[Any, ...]]:
    ours, theirs = one.documents(), other.documents()
    return [
        (name, key, exactly(ours.get((name, key))), exactly(theirs.get((name, key))))
        for name, key in sorted(ours.keys() | theirs)
        if collection in ("", name) and exactly(ours.get((name, key))) != exactly(theirs.get((name, key)))
    ]
