"""What a versionbase is to be, plainly: dicts of collections and documents, and what each request does to them.

The requests are data, done here and by an engine alike; what they give is compared. Filters and orders are a few,
each written twice: as an expression, and as Python. What has no truth value there (a member that is not there, a
comparison of a number with a text) is `None` here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

Document = dict[str, Any]

MISSING = object()


@dataclass
class Index:
    path: str
    unique: bool


@dataclass
class Collection:
    documents: dict[str, Document] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    schema: dict[str, Any] | None = None
    generation: int = 0  # how often its rules were changed: not seen, but it may be a reason for a conflict

    def rules(self) -> tuple[object, ...]:
        """All but the documents, to be compared."""
        return (
            {name: (one.path, one.unique) for name, one in self.indexes.items()},
            self.schema,
            self.generation,
        )


@dataclass
class State:
    """Of one version at one moment."""

    collections: dict[str, Collection] = field(default_factory=dict)

    def copy(self) -> State:
        return copy.deepcopy(self)

    def documents(self) -> dict[tuple[str, str], Document]:
        return {
            (name, key): one for name, each in self.collections.items() for key, one in each.documents.items()
        }

    def collection(self, name: str) -> Collection:
        """One that nobody has made is empty."""
        return self.collections.get(name, Collection())


class Refused(Exception):
    """By its word in the protocol."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


# Values


def kind(value: Any) -> int:
    """Values of different kinds are not equal, and sorted so."""
    kinds = (bool, (int, float, Decimal), datetime, str, bytes, list, dict)
    if value is MISSING:
        return 0
    return 1 if value is None else next(at for at, one in enumerate(kinds, 2) if isinstance(value, one))


def same(one: Any, other: Any) -> bool:
    if kind(one) != kind(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bool(one == other)


def exactly(value: Any) -> Any:
    """To compare what is stored: 1, 1.0 and True are three things, and members have an order."""
    if isinstance(value, dict):
        return [("member", name, exactly(one)) for name, one in value.items()]
    if isinstance(value, (list, tuple)):
        return [exactly(one) for one in value]
    if isinstance(value, Decimal):
        return "decimal", str(value)
    return type(value).__name__, value


def compare(one: Any, other: Any) -> int:
    """As orders and indexes have it; not for lists and objects."""
    if kind(one) != kind(other):
        return -1 if kind(one) < kind(other) else 1
    if one is MISSING or one is None:
        return 0
    if isinstance(one, str):
        one, other = one.encode(), other.encode()
    return (one > other) - (one < other)


def at_path(document: Document, path: str) -> Any:
    value: Any = document
    for member in path.split("."):
        if not isinstance(value, dict) or member not in value:
            return MISSING
        value = value[member]
    return value


# Filters: an expression, and whether it is true of a document; None where that has no answer

Truth = bool | None
Test = Callable[[Document, str, Mapping[str, Any]], Truth]


def equal(path: str) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        value = at_path(doc, path)
        return None if value is MISSING else same(value, params["v"])

    return test


def less(path: str, wanted: Sequence[int], name: str = "v") -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        value, other = at_path(doc, path), params[name]
        if value is MISSING or kind(value) != kind(other) or not 2 <= kind(value) <= 6:
            return None
        return compare(value, other) in wanted

    return test


def both(one: Test, other: Test) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        a, b = one(doc, key, params), other(doc, key, params)
        return False if a is False or b is False else None if a is None or b is None else True

    return test


def either(one: Test, other: Test) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        a, b = one(doc, key, params), other(doc, key, params)
        return True if a is True or b is True else None if a is None or b is None else False

    return test


def no(one: Test) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        answer = one(doc, key, params)
        return None if answer is None else not answer

    return test


def among(path: str) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        value = at_path(doc, path)
        return None if value is MISSING else any(same(value, one) for one in params["vs"])

    return test


def begins(path: str) -> Test:
    def test(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
        value = at_path(doc, path)
        return value.startswith(params["p"]) if isinstance(value, str) else None

    return test


def tagged(doc: Document, key: str, params: Mapping[str, Any]) -> Truth:
    tags = at_path(doc, "tags")
    return None if not isinstance(tags, list) else params["p"] in tags


FILTERS: dict[str, Test] = {
    "": lambda doc, key, params: True,
    "doc.a == v": equal("a"),
    "v == doc.a": equal("a"),
    "doc.a < v": less("a", (-1,)),
    "doc.a <= v": less("a", (-1, 0)),
    "v < doc.a": less("a", (1,)),
    "doc.a >= v": less("a", (0, 1)),
    "doc.a >= v && doc.a < w": both(less("a", (0, 1)), less("a", (-1,), "w")),
    "doc.a > v && doc.b == 1": both(less("a", (1,)), lambda doc, key, _: equal("b")(doc, key, {"v": 1})),
    "doc.a == v || doc.b == 1": either(equal("a"), lambda doc, key, _: equal("b")(doc, key, {"v": 1})),
    "!(doc.a == v)": no(equal("a")),
    "doc.a != v": no(equal("a")),
    "doc.a in vs": among("a"),
    "doc.b in [0, 2, 2.0, 'x']": lambda doc, key, _: among("b")(doc, key, {"vs": [0, 2, "x"]}),
    "doc.t.x == v": equal("t.x"),
    "doc.t.x > v": less("t.x", (1,)),
    "doc.a.startsWith(p)": begins("a"),
    "has(doc.a)": lambda doc, key, _: "a" in doc,
    "doc.tags.exists(t, t == p)": tagged,
    "p in doc.tags": tagged,
    "key == p": lambda doc, key, params: key == params["p"],
    "key >= p": lambda doc, key, params: key.encode() >= params["p"].encode(),
    "key > p && doc.a == v": both(lambda doc, key, params: key.encode() > params["p"].encode(), equal("a")),
    "key.startsWith(p)": lambda doc, key, params: key.startswith(params["p"]),
    "key in ['a', 'b', 'zz']": lambda doc, key, _: key in ("a", "b", "zz"),
}

ORDERS: dict[str, tuple[tuple[str, int], ...]] = {
    "": (),
    "key": (("", 1),),
    "key desc": (("", -1),),
    "a": (("a", 1),),
    "a desc": (("a", -1),),
    "b": (("b", 1),),
    "b desc, key desc": (("b", -1), ("", -1)),
    "b desc, key": (("b", -1), ("", 1)),
    "t.x, a desc": (("t.x", 1), ("a", -1)),
}
"""Those that are equal are sorted by key, in the direction of the last."""


@dataclass(frozen=True)
class Query:
    filter: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    order: str = ""
    limit: int | None = None
    skip: int = 0


def found(collection: Collection, query: Query) -> list[tuple[str, Document]]:
    """By key, if no order is wanted; nothing is left out then."""
    test = FILTERS[query.filter]
    matching = [
        (key, doc) for key, doc in collection.documents.items() if test(doc, key, query.params) is True
    ]
    matching.sort(key=lambda one: one[0].encode())
    orders = ORDERS[query.order]
    if not orders:
        return matching
    if orders[-1][0]:
        orders = (*orders, ("", orders[-1][1]))

    def by(one: tuple[str, Document], other: tuple[str, Document]) -> int:
        for path, sign in orders:
            ours, theirs = (at_path(one[1], path), at_path(other[1], path)) if path else (one[0], other[0])
            if result := compare(ours, theirs):
                return sign * result
        return 0

    matching.sort(key=cmp_to_key(by))
    end = None if query.limit is None else query.skip + query.limit
    return matching[query.skip : end]


# Requests. Each is done to a state, which stays as it was if it is refused, and gives what a client is told.

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"b": {"type": "integer", "maximum": 2}},
    "required": ["b"],
}


def fits(document: Document) -> bool:
    """Into SCHEMA. A float that is whole is an integer there."""
    b = document.get("b", MISSING)
    return kind(b) == 3 and b == int(b) and b <= 2


@dataclass(frozen=True)
class Request:
    """`what`, in a collection, with arguments by name."""

    what: str
    collection: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what} {self.collection} {dict(self.more)}"


READS = ("get", "find", "count", "collections")


def perform(state: State, request: Request) -> Any:
    """What is told. Raises Refused, and has changed nothing then."""
    before = state.collections.get(request.collection)
    kept = copy.deepcopy(before) if request.what not in READS else None
    try:
        return _DONE[request.what](state, request.collection, **request.more)
    except Refused:
        if before is None:
            state.collections.pop(request.collection, None)
        elif kept is not None:
            state.collections[request.collection] = kept
        raise


def _made(state: State, name: str) -> Collection:
    return state.collections.setdefault(name, Collection())


def _get(state: State, name: str, keys: Sequence[str]) -> Any:
    return [state.collection(name).documents.get(key) for key in keys]


def _insert(state: State, name: str, documents: Sequence[Document], keys: Sequence[str]) -> Any:
    into = _made(state, name)
    for key, document in zip(keys, documents, strict=True):
        if key in into.documents:
            raise Refused("exists")
        _put(into, key, document)
    return list(keys)


def _replace(state: State, name: str, key: str, document: Document, create: bool = False) -> Any:
    if key not in state.collection(name).documents and not create:
        raise Refused("not-found")
    _put(_made(state, name), key, document)


def _update(state: State, name: str, key: str, members: Document, remove: Sequence[str]) -> Any:
    before = state.collection(name).documents.get(key)
    if before is None:
        raise Refused("not-found")
    document = {member: value for member, value in before.items() if member not in remove} | members
    _put(_made(state, name), key, document)
    return document


def _delete(state: State, name: str, keys: Sequence[str]) -> Any:
    documents = state.collection(name).documents
    return sum(documents.pop(key, None) is not None for key in keys)


def _find(state: State, name: str, query: Query) -> Any:
    return found(state.collection(name), query)


def _count(state: State, name: str, query: Query) -> Any:
    return len(found(state.collection(name), Query(query.filter, query.params)))


def _collections(state: State, name: str) -> Any:
    return sorted(
        (
            name,
            len(one.documents),
            sorted((index, at.path, at.unique) for index, at in one.indexes.items()),
            one.schema,
        )
        for name, one in state.collections.items()
    )


def _drop_collection(state: State, name: str) -> Any:
    return state.collections.pop(name, None) is not None


def _create_index(state: State, name: str, path: str, unique: bool) -> Any:
    """Called by its path. What breaks a unique one is found, and then it is not there."""
    of = _made(state, name)
    called, there = path.replace(".", "_"), of.indexes.get(path.replace(".", "_"))
    if there is not None and (there.path, there.unique) != (path, unique):
        raise Refused("exists")
    if there is None:
        of.indexes[called] = Index(path, unique)
        for key, document in of.documents.items():
            _demand_unique(of, key, document)
    return called


def _drop_index(state: State, name: str, index: str) -> Any:
    of = state.collection(name)
    of.generation += 1
    return of.indexes.pop(index, None) is not None


def _set_schema(state: State, name: str, schema: dict[str, Any] | None) -> Any:
    of = _made(state, name)
    if schema is not None and not all(map(fits, of.documents.values())):
        raise Refused("invalid")
    of.schema = schema


def _put(into: Collection, key: str, document: Document) -> None:
    if into.schema is not None and not fits(document):
        raise Refused("invalid")
    _demand_unique(into, key, document)
    into.documents[key] = document


def _demand_unique(of: Collection, key: str, document: Document) -> None:
    for index in of.indexes.values():
        value = at_path(document, index.path)
        if not index.unique or value is MISSING or value is None:
            continue
        for other, one in of.documents.items():
            if other != key and same(at_path(one, index.path), value):
                raise Refused("exists")


_DONE: dict[str, Callable[..., Any]] = {
    "get": _get,
    "insert": _insert,
    "replace": _replace,
    "update": _update,
    "delete": _delete,
    "find": _find,
    "count": _count,
    "collections": _collections,
    "drop_collection": _drop_collection,
    "create_index": _create_index,
    "drop_index": _drop_index,
    "set_schema": _set_schema,
}


def told(request: Request, result: Any) -> Any:
    """To be compared: where no order was asked for, there is none."""
    if request.what == "find" and not request.more["query"].order:
        result = sorted(result, key=lambda one: one[0])
    return exactly(result)
