"""Which documents are meant, and in which order: a plan of what to read, and the reading of it.

Of the ways that lead to all documents that a filter can match (by key, by an index, through the collection), the one
with the fewest entries is taken; to know their number costs next to nothing. The filter itself is asked of each
document all the same: an index only says where there is no need to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lazycloud.errors import BadInput
from lazycloud.versionbase import catalogue, expressions
from lazycloud.versionbase.catalogue import LONGEST, NULL, PRESENT, Collection, Index, Path, Span
from lazycloud.versionbase.expressions import Restriction
from lazycloud.versionbase.problems import TooLarge
from lazycloud.versionbase.scratch import View
from lazycloud.versionbase.values import MISSING, Value, at_path, decode, ordered, ordered_prefix

PAUSE = 16  # documents looked at without a turn for others
SORTED = 100_000  # documents that are sorted at most
SORTED_SIZE = 32 << 20  # bytes of what they are sorted by
SLICE = 0.002  # seconds, the same of a filter that takes long
LISTED = 200  # values of an `in` that an index is asked for

Document = dict[str, Value]


@dataclass(frozen=True)
class Order:
    path: Path  # () for the key
    descending: bool = False


@dataclass(frozen=True)
class Query:
    """`order`: as in "at desc, author.name". Raises BadInput for what cannot be."""

    filter: str = ""
    params: Mapping[str, Value] = field(default_factory=dict)
    map: str = ""
    order: str = ""
    limit: int | None = None
    skip: int = 0

    def __post_init__(self) -> None:
        for name, number in (("limit", self.limit), ("skip", self.skip)):
            if number is not None and (type(number) is not int or number < 0):
                raise BadInput(
                    f"{name} is {str(number)[:40]!r}: a number of documents, 0 or more, is wanted."
                )
        for name, text in (("filter", self.filter), ("map", self.map), ("order", self.order)):
            if not isinstance(text, str):
                raise BadInput(f"{name} is no text.")
        if not isinstance(self.params, Mapping):
            raise BadInput("params are no object of names and values.")

    @property
    def orders(self) -> tuple[Order, ...]:
        """What to sort by, first things first. Raises BadInput."""
        return tuple(_order(part) for part in self.order.split(",")) if self.order.strip() else ()


@dataclass(frozen=True)
class Plan:
    """What to read. `spans` are apart, and in order."""

    scan: str  # key, index or collection
    spans: tuple[Span, ...]
    estimate: int  # entries in them
    index: Index | None = None
    backwards: bool = False
    is_sorted: bool = False


def find(view: View, collection: Collection, query: Query) -> Iterator[tuple[str, Value] | None]:
    """Keys with documents, or with what they are mapped to; None now and then. Raises BadInput, at once or later."""
    test, restrictions = _filter(query)
    mapped = _map(query)
    orders = query.orders
    plan = _plan(view, collection, restrictions, orders)
    matching = _matching(view, collection, plan, test)
    if orders and not plan.is_sorted:
        wanted = None if query.limit is None else query.limit + query.skip
        matching = _sorted(view, collection, matching, orders, wanted)
    return _mapped(_cut(matching, query), mapped)


def count(view: View, collection: Collection, query: Query) -> Iterator[int | None]:
    """The last that it yields is how many there are."""
    if not query.filter.strip():
        return iter([view.count(*catalogue.documents(collection.name))])
    test, restrictions = _filter(query)
    matching = _matching(view, collection, _plan(view, collection, restrictions, ()), test)
    return _counted(matching)


def explain(view: View, collection: Collection, query: Query) -> dict[str, Any]:
    _, restrictions = _filter(query)
    _map(query)
    plan = _plan(view, collection, restrictions, query.orders)
    return {
        "scan": plan.scan,
        "index": plan.index.name if plan.index else None,
        "ranges": len(plan.spans),
        "filter": query.filter,
        "sorted": bool(query.orders) and not plan.is_sorted,
        "estimate": plan.estimate,
    }


def _order(text: str) -> Order:
    words = text.split()
    if len(words) not in (1, 2) or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
        raise BadInput(
            f"{text.strip()[:80]!r} is no order: a path, and asc or desc behind it, as in `at desc`."
        )
    if words[0][0] in "-+":
        way = "desc" if words[0][0] == "-" else "asc"
        meant = f"{words[0].lstrip('-+')[:80] or 'at'} {way}"
        raise BadInput(
            f"{text.strip()[:80]!r} is no order: a sign before a path means nothing here.",
            f"Write `{meant}`; a member of that name is `doc.{words[0][:80]}`.",
        )
    path = () if words[0] == "key" else catalogue.check_path(words[0])
    return Order(path, len(words) == 2 and words[1].lower() == "desc")


def _filter(query: Query) -> tuple[Callable[[str, Document], bool] | None, list[Restriction]]:
    if not query.filter.strip():
        return None, []
    expression = expressions.compile(query.filter, frozenset(query.params))
    return expression.test(query.params), list(expression.restrictions(query.params))


def _map(query: Query) -> Callable[[str, Document], Value] | None:
    if not query.map.strip():
        return None
    return expressions.compile(query.map, frozenset(query.params)).bind(query.params)


# What to read


def _plan(
    view: View,
    collection: Collection,
    restrictions: list[Restriction],
    orders: tuple[Order, ...],
) -> Plan:
    best = _whole(view, collection, restrictions, orders)
    for index in collection.indexes:
        spans = _through(collection, index, restrictions) if index.built is None else None
        if spans is not None:
            plan = _planned(view, "index", spans, index, orders)
            if plan.estimate < best.estimate or (plan.is_sorted and plan.estimate == best.estimate):
                best = plan
    if orders and not best.is_sorted and (best.scan == "collection" or best.estimate > SORTED):
        return _in_order(view, collection, orders) or best
    return best


def _in_order(view: View, collection: Collection, orders: tuple[Order, ...]) -> Plan | None:
    """Through an index that has them all, as they are to be sorted."""
    for index in collection.indexes:
        if index.built is None and _is_sorted_by(index.path, orders):
            spans = (catalogue.entries(collection.name, index.number),)
            return _planned(view, "index", spans, index, orders)
    return None


def _whole(
    view: View, collection: Collection, restrictions: list[Restriction], orders: tuple[Order, ...]
) -> Plan:
    """Through the documents themselves: all, or those of which the filter tells the key."""
    begin, end = catalogue.documents(collection.name)
    ranges = _ranges([one for one in restrictions if one.path == ()], _Keys())
    if ranges is None:
        return _planned(view, "collection", ((begin, end),), None, orders)
    spans = tuple((begin + low, begin + high) for low, high in ranges)
    return _planned(view, "key", spans, None, orders)


def _through(
    collection: Collection, index: Index, restrictions: list[Restriction]
) -> tuple[Span, ...] | None:
    """What of an index may match; None if the filter tells nothing of its path."""
    ranges = _ranges([one for one in restrictions if one.path == index.path], _Values())
    if ranges is None:
        return None
    return tuple(catalogue.values(collection.name, index, low, high) for low, high in ranges)


def _planned(
    view: View, scan: str, spans: tuple[Span, ...], index: Index | None, orders: tuple[Order, ...]
) -> Plan:
    path = index.path if index else ()
    is_sorted = _is_sorted_by(path, orders)
    estimate = sum(view.count(begin, end, noted=False) for begin, end in spans)
    return Plan(scan, spans, estimate, index, is_sorted and orders[0].descending, is_sorted)


def _is_sorted_by(path: Path, orders: tuple[Order, ...]) -> bool:
    """Entries of an index are sorted by its path, and those of one value by their keys."""
    if not orders or orders[0].path != path:
        return False
    return path == () or orders[1:] in ((), (Order((), orders[0].descending),))


class _Keys:
    """Where keys of documents are."""

    def equal(self, value: Value) -> Span:
        return (value.encode(), value.encode() + b"\0") if isinstance(value, str) else (b"", b"")

    def from_(self, value: Value) -> Span:
        return (value.encode(), b"\xff") if isinstance(value, str) else (b"", b"")

    def until(self, value: Value) -> Span:
        return (b"", value.encode() + b"\0") if isinstance(value, str) else (b"", b"")

    def beginning(self, text: str) -> Span:
        return text.encode(), text.encode() + b"\xff"


class _Values:
    """Where values are in an index. A comparison is of values of one kind."""

    def equal(self, value: Value) -> Span:
        place = catalogue.in_index(value)
        return place, catalogue.after(place)

    def from_(self, value: Value) -> Span:
        place = self._place(value)
        return place, catalogue.after(place[:2])

    def until(self, value: Value) -> Span:
        place = self._place(value)
        return place[:2], catalogue.after(place)

    def beginning(self, text: str) -> Span:
        place = PRESENT + ordered_prefix(text)[:LONGEST]
        return place, catalogue.after(place)

    def _place(self, value: Value) -> bytes:
        return NULL if value is None else PRESENT + ordered(value)[:LONGEST]


def _ranges(restrictions: list[Restriction], where: _Keys | _Values) -> list[Span] | None:
    """Where all that meets all of them is, apart and in order; None if nothing is said."""
    found: list[Span] | None = None
    for one in restrictions:
        values = one.value if one.op == "in" else [one.value]
        if len(values) > LISTED or any(isinstance(value, (list, dict)) for value in values):
            continue  # an index would be of little help
        if one.op == "in":
            ranges = sorted({where.equal(value) for value in values})
        elif one.op == "startsWith":
            ranges = [where.beginning(one.value)]
        elif one.op == "==":
            ranges = [where.equal(one.value)]
        else:
            ranges = [where.from_(one.value) if one.op in (">", ">=") else where.until(one.value)]
        found = ranges if found is None else [both for a in found for b in ranges if (both := _both(a, b))]
    return None if found is None else [(begin, end) for begin, end in found if begin < end]


def _both(one: Span, other: Span) -> Span | None:
    begin, end = max(one[0], other[0]), min(one[1], other[1])
    return (begin, end) if begin < end else None


# Reading it


def _matching(
    view: View, collection: Collection, plan: Plan, test: Callable[[str, Document], bool] | None
) -> Iterator[tuple[str, Document] | None]:
    due = time.monotonic() + SLICE
    for looked, (key, data) in enumerate(_read(view, collection, plan), 1):
        document: Document = decode(data)
        if test is None or test(key, document):
            yield key, document
        if looked % PAUSE == 0 or time.monotonic() > due:
            yield None
            due = time.monotonic() + SLICE


def _read(view: View, collection: Collection, plan: Plan) -> Iterator[tuple[str, bytes]]:
    spans = reversed(plan.spans) if plan.backwards else plan.spans
    before = len(catalogue.documents(collection.name)[0])
    for begin, end in spans:
        for tree_key, data in view.scan(begin, end, plan.backwards):
            if plan.index is None:
                yield tree_key[before:].decode(), data
            else:
                key = catalogue.key_of_entry(collection.name, plan.index, tree_key, data)
                found = view.get(catalogue.document_key(collection.name, key))
                if found is None:
                    raise AssertionError(
                        f"the index {plan.index.name} of {collection.name} has what is not there"
                    )
                yield key, found


def _sorted(
    view: View,
    collection: Collection,
    matching: Iterator[tuple[str, Document] | None],
    orders: tuple[Order, ...],
    wanted: int | None,
) -> Iterator[tuple[str, Document] | None]:
    """Of `wanted`, the first ones. Only what they are sorted by is kept of them meanwhile."""
    most = SORTED if wanted is None else min(wanted, SORTED)
    kept: list[tuple[tuple[bytes, ...], str]] = []
    size = 0
    for found in matching:
        if found is None:
            yield None
            continue
        place = _place(found, orders)
        kept.append((place, found[0]))
        size += sum(map(len, place))
        if len(kept) <= most + 1000 and size <= SORTED_SIZE:
            continue
        if wanted is None or wanted > SORTED:
            raise _too_many(collection, orders)
        kept.sort()
        del kept[most:]
        size = sum(len(part) for place, _ in kept for part in place)
        if size > SORTED_SIZE // 2:  # else it might be sorted again and again
            raise _too_many(collection, orders)
    kept.sort()
    for _, key in kept[:wanted]:
        yield key, _there(view.get(catalogue.document_key(collection.name, key)))


def _too_many(collection: Collection, orders: tuple[Order, ...]) -> TooLarge:
    paths = ", ".join(".".join(one.path) or "key" for one in orders)
    return TooLarge(
        f"{collection.name} has more of these documents to sort by {paths} than {SORTED:,}, "
        f"or than {SORTED_SIZE >> 20} MB of that.",
        "Make an index of it, or give a limit.",
    )


def _place(found: tuple[str, Document], orders: tuple[Order, ...]) -> tuple[bytes, ...]:
    """What is less comes first. Those that are equal are sorted by key, in the direction of the last order."""
    key, document = found
    places = []
    for order in (*orders, Order((), orders[-1].descending)):
        place = key.encode() + b"\0" if order.path == () else _whole_place(at_path(document, order.path))
        places.append(place.translate(_INVERTED) if order.descending else place)
    return tuple(places)


def _whole_place(value: Value | object) -> bytes:
    if value is None or value is MISSING:
        return catalogue.in_index(value)
    return PRESENT + ordered(value)


def _there(data: bytes | None) -> Document:
    assert data is not None  # of a tree that does not change
    document: Document = decode(data)
    return document


def _cut(
    matching: Iterator[tuple[str, Document] | None], query: Query
) -> Iterator[tuple[str, Document] | None]:
    left, skip = query.limit, query.skip
    if left == 0:
        return
    for found in matching:
        if found is not None and skip:
            skip -= 1
            continue
        yield found
        if found is not None and left is not None:
            left -= 1
            if left == 0:
                return


def _mapped(
    matching: Iterator[tuple[str, Document] | None], mapped: Callable[[str, Document], Value] | None
) -> Iterator[tuple[str, Value] | None]:
    for found in matching:
        yield found if found is None or mapped is None else (found[0], mapped(*found))


def _counted(matching: Iterator[object]) -> Iterator[int | None]:
    number = 0
    for found in matching:
        if found is None:
            yield None
        number += found is not None
    yield number


_INVERTED = bytes(255 - byte for byte in range(256))
