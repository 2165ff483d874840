"""A checker of histories: do these transactions, as their clients saw them, fit one order that agrees with the clock?

After Elle (Kingsbury & Alvaro, VLDB 2020), small. Every value that is written is written once, so a read tells which
transaction it is of. Two kinds of keys: lists, to which unique elements are appended (a read tells the order of all
appends before it), and registers, which are read before they are written (a write is the next after what was read).
From these come the edges of a graph of transactions, each one a "this one was first":

    wr  it wrote what the other read          ww  it wrote what the other wrote over
    rw  it read what the other wrote over     rt  it had ended before the other began, by the clock of who watched

A cycle means that no order explains what was seen. Its edges tell the anomaly, as Adya named them: see `_name`.
A range that is read by a predicate is given as one read for each key that may be in it, the absent ones as () or
None: a phantom is then a `rw` edge as any other.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Value = tuple[int, ...] | int | None
"""A list's elements, or a register's value; () and None: nothing was written."""

Kind = Literal["wr", "ww", "rw", "rt"]
Outcome = Literal["done", "refused", "unknown"]


@dataclass(frozen=True)
class Read:
    key: str
    value: Value


@dataclass(frozen=True)
class Append:
    key: str
    element: int


@dataclass(frozen=True)
class Write:
    """To a register that the same transaction has read before."""

    key: str
    value: int


Operation = Read | Append | Write


@dataclass(frozen=True)
class Transaction:
    """`unknown`: nobody told its client. `begun` and `ended` by one clock; those of unknown outcome may end never."""

    name: str
    operations: tuple[Operation, ...]
    begun: float
    ended: float
    outcome: Outcome = "done"


@dataclass(frozen=True)
class Anomaly:
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def check(history: Sequence[Transaction]) -> list[Anomaly]:
    """What no order of the transactions explains; nothing if there is an order that explains all."""
    seen = _Seen(history)
    found = [*seen.internal(), *seen.dirty(), *seen.orders(), *seen.lost_updates()]
    return found or list(_cycles(seen))


class _Seen:
    """Which transaction wrote each version of each key, who read it, and what came after it."""

    def __init__(self, history: Sequence[Transaction]) -> None:
        self.writers: dict[tuple[str, int], Transaction] = {}
        for transaction in history:
            for key, value in _writes(transaction):
                assert (key, value) not in self.writers, (
                    f"{value} is written to {key} twice: no history to check"
                )
                self.writers[key, value] = transaction
        told = {  # even who was refused has read what was there
            self.writers[read.key, value].name
            for transaction in history
            for read in self.reads(transaction)
            for value in _values(read.value)
            if (read.key, value) in self.writers
        }
        self.done = [
            one for one in history if one.outcome == "done" or (one.outcome == "unknown" and one.name in told)
        ]
        self._longest = self._longest_lists()

    def reads(self, transaction: Transaction) -> Iterator[Read]:
        """What it read of others: without what it had appended itself before."""
        mine: dict[str, int] = defaultdict(int)
        for operation in transaction.operations:
            if not isinstance(operation, Read):
                mine[operation.key] += 1
            elif not mine[operation.key]:
                yield operation
            elif isinstance(operation.value, tuple):
                yield Read(operation.key, operation.value[: -mine[operation.key]])

    def _longest_lists(self) -> dict[str, tuple[int, ...]]:
        longest: dict[str, tuple[int, ...]] = {}
        for transaction in self.done:
            for read in self.reads(transaction):
                if isinstance(read.value, tuple) and len(read.value) >= len(longest.get(read.key, ())):
                    longest[read.key] = read.value
        return longest

    # What one look tells

    def internal(self) -> Iterator[Anomaly]:
        """A transaction sees what it has read and written itself."""
        for transaction in self.done:
            known: dict[str, Value] = {}
            for operation in transaction.operations:
                was = known.get(operation.key)
                if isinstance(operation, Read):
                    if operation.key in known and not _fits(was, operation.value):
                        yield Anomaly("not its own", f"{transaction.name}: {operation} after {was}")
                    known[operation.key] = operation.value
                elif isinstance(operation, Write):
                    known[operation.key] = operation.value
                elif operation.key in known:
                    known[operation.key] = (*_values(was), operation.element)
                else:
                    known[operation.key] = (_ANY, operation.element)

    def dirty(self) -> Iterator[Anomaly]:
        for transaction in self.done:
            for read in self.reads(transaction):
                for value in _values(read.value):
                    writer = self.writers.get((read.key, value))
                    if writer is None:
                        yield Anomaly("made up", f"{transaction.name}: {read}: nobody wrote {value}")
                    elif writer.outcome == "refused":
                        yield Anomaly("dirty read (aborted)", f"{transaction.name}: {read}, of {writer.name}")
                version = _version(read.value)
                writer = self.writers.get((read.key, version)) if version is not None else None
                if writer and writer is not transaction and _last(writer, read.key) != version:
                    yield Anomaly(
                        "dirty read (intermediate)", f"{transaction.name}: {read}, of {writer.name}"
                    )

    def orders(self) -> Iterator[Anomaly]:
        """All lists of a key begin as the longest does, have nothing twice, and all of a transaction, together."""
        for key, longest in self._longest.items():
            if len(set(longest)) < len(longest):
                yield Anomaly("twice", f"{key}: {longest}")
        for transaction in self.done:
            for read in self.reads(transaction):
                longest = self._longest.get(read.key, ())
                if isinstance(read.value, tuple) and read.value != longest[: len(read.value)]:
                    yield Anomaly("two orders", f"{transaction.name}: {read}, but there was {longest}")
        for transaction in self.done:
            for key, elements in _appended(transaction).items():
                longest = self._longest.get(key, ())
                there = [element for element in elements if element in longest]
                at = longest.index(there[0]) if there else 0
                beside = longest[at : at + len(elements)]
                if there and list(beside) != elements[: len(beside)]:
                    yield Anomaly("half a transaction", f"{transaction.name}: {elements} in {key}: {longest}")

    def lost_updates(self) -> Iterator[Anomaly]:
        """Two that read the same version of a key, and both wrote over it."""
        updates: dict[tuple[str, int | None], list[Transaction]] = defaultdict(list)
        for transaction in self.done:
            written = {key for key, _ in _writes(transaction)}
            for key, version in {(read.key, _version(read.value)) for read in self.reads(transaction)}:
                if key in written:
                    updates[key, version].append(transaction)
        for (key, version), several in updates.items():
            if len(several) > 1:
                names = ", ".join(one.name for one in several)
                yield Anomaly("lost update", f"{names} each wrote to {key} after they had read {version}")

    # Edges

    def edges(self) -> Iterator[tuple[Hashable, Hashable, Kind]]:
        """Between names of transactions, and moments of the clock."""
        after = self._after()
        for (key, version), nexts in after.items():
            for later in nexts:
                if version is not None:
                    yield self.writers[key, version].name, later.name, "ww"
        for transaction in self.done:
            for read in self.reads(transaction):
                version = _version(read.value)
                if version is not None:
                    yield self.writers[read.key, version].name, transaction.name, "wr"
                for later in after.get((read.key, version), ()):
                    yield transaction.name, later.name, "rw"
        yield from self._clock()

    def _after(self) -> dict[tuple[str, int | None], list[Transaction]]:
        """Who wrote the next version after one. Only last versions of a transaction are versions for others.

        What was appended, and is not in the longest list that anybody saw, came after it: lists only grow.
        """
        after: dict[tuple[str, int | None], list[Transaction]] = defaultdict(list)
        for key, longest in self._longest.items():
            version: int | None = None
            for element in longest:
                writer = self.writers[key, element]
                if element == _last(writer, key):
                    after[key, version].append(writer)
                    version = element
        for transaction in self.done:
            for key, elements in _appended(transaction).items():
                longest = self._longest.get(key, ())
                if elements[-1] not in longest:
                    after[key, _version(longest)].append(transaction)
            written = {one.key for one in transaction.operations if isinstance(one, Write)}
            for read in self.reads(transaction):
                if read.key in written:
                    after[read.key, _version(read.value)].append(transaction)
        return after

    def _clock(self) -> Iterator[tuple[Hashable, Hashable, Kind]]:
        """A chain of moments, one for each end: not n² edges. What begins as another ends is not after it."""
        events = [(one.ended, 1, one.name) for one in self.done if one.outcome == "done"]
        events += [(one.begun, 0, one.name) for one in self.done]
        moment: float | None = None
        for at, is_end, name in sorted(events):
            if not is_end:
                if moment is not None:
                    yield moment, name, "rt"
                continue
            if moment is not None and moment != at:
                yield moment, at, "rt"
            yield name, at, "rt"
            moment = at


_ANY = -1  # what was in a list before a transaction that has not read it appended to it


def _fits(known: Value, value: Value) -> bool:
    if isinstance(known, tuple) and known[:1] == (_ANY,):
        return isinstance(value, tuple) and value[-len(known) + 1 :] == known[1:]
    return known == value


def _values(value: Value) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _version(value: Value) -> int | None:
    """A list's version is known by its last element."""
    return _values(value)[-1] if _values(value) else None


def _writes(transaction: Transaction) -> Iterator[tuple[str, int]]:
    for operation in transaction.operations:
        if isinstance(operation, Append):
            yield operation.key, operation.element
        elif isinstance(operation, Write):
            yield operation.key, operation.value


def _appended(transaction: Transaction) -> dict[str, list[int]]:
    appended: dict[str, list[int]] = defaultdict(list)
    for operation in transaction.operations:
        if isinstance(operation, Append):
            appended[operation.key].append(operation.element)
    return appended


def _last(transaction: Transaction, key: str) -> int | None:
    return next((value for name, value in reversed([*_writes(transaction)]) if name == key), None)


# Cycles

Graph = dict[Hashable, dict[Hashable, set[Kind]]]
Path = list[tuple[Hashable, Kind]]
"""Where a cycle goes, and by which kind of edge; it ends where it began."""


def _cycles(seen: _Seen) -> Iterator[Anomaly]:
    """The plainest anomaly of each knot: without the clock if there is one without it."""
    graph: Graph = defaultdict(lambda: defaultdict(set))
    for one, other, kind in seen.edges():
        if one != other:
            graph[one][other].add(kind)
    for knot in _knots(graph):
        path = _plainest({one: {b: kinds for b, kinds in graph[one].items() if b in knot} for one in knot})
        steps = " ".join(f"-{kind}-> {at}" for at, kind in path if isinstance(at, str))
        yield Anomaly(_name([kind for _, kind in path]), f"{steps} and so on")


def _plainest(graph: Graph) -> Path:
    ways: list[Callable[[Graph], Path | None]] = [
        lambda graph: _shortest(graph, {"ww"}),
        lambda graph: _shortest(graph, {"ww", "wr"}),
        lambda graph: _shortest(graph, {"ww", "wr"}, rw="once"),
        lambda graph: _shortest(graph, {"ww", "wr"}, rw="apart"),
        lambda graph: _shortest(graph, {"ww", "wr", "rw"}),
        lambda graph: _shortest(graph, {"ww", "wr", "rt"}),
        lambda graph: _shortest(graph, {"ww", "wr", "rt"}, rw="once"),
        lambda graph: _shortest(graph, {"ww", "wr", "rw", "rt"}),
    ]
    return next(path for way in ways if (path := way(graph)))


def _name(kinds: Sequence[Kind]) -> str:
    """rw edges that follow each other are what two did beside each other; apart, what two others saw of that."""
    against = " against real time" if "rt" in kinds else ""
    reads = kinds.count("rw")
    if against:
        return f"{'stale read' if reads else 'order'}{against}"
    if reads == 0:
        return "dirty write" if set(kinds) == {"ww"} else "circular flow"
    if reads == 1:
        return "read skew"
    follow = any(one == other == "rw" for one, other in zip(kinds, [*kinds[1:], kinds[0]], strict=True))
    return "write skew" if follow else "long fork"


def _shortest(graph: Graph, kinds: set[Kind], rw: Literal["", "once", "apart"] = "") -> Path | None:
    """A shortest cycle of edges of these kinds; with exactly one of rw, or several that never follow each other."""
    best: Path | None = None
    for begin in graph:
        path = _cycle_at(graph, begin, kinds, rw)
        if path and (best is None or len(path) < len(best)):
            best = path
            if len(best) == 2:
                break
    return best


def _cycle_at(graph: Graph, begin: Hashable, kinds: set[Kind], rw: str) -> Path | None:
    """With `rw`, it begins with an edge of that kind."""
    State = tuple[Hashable, Kind | None]
    came: dict[State, tuple[State, Kind]] = {}
    first: State = (begin, None)
    queue = deque([first])
    while queue:
        state = queue.popleft()
        at, by = state
        for other, between in graph[at].items():
            allowed = between & kinds if state != first or not rw else between & {"rw"}
            if rw == "apart" and state != first and by != "rw":
                allowed = allowed | (between & {"rw"})
            for kind in allowed:
                if other == begin:
                    if rw == "apart" and kind == "rw":
                        continue
                    return [*_walked(came, first, state), (other, kind)]
                # Only whether one came by rw matters to what may follow.
                next_state: State = (other, "rw" if kind == "rw" and rw == "apart" else "ww")
                if next_state not in came:
                    came[next_state] = state, kind
                    queue.append(next_state)
    return None


def _walked(came: dict, first: object, state: object) -> Path:  # type: ignore[type-arg]
    path: Path = []
    while state != first:
        before, kind = came[state]
        path.append((state[0], kind))  # type: ignore[index]
        state = before
    return path[::-1]


def _knots(graph: Graph) -> Iterator[set[Hashable]]:
    """Strongly connected components of more than one node (Tarjan's, without recursion)."""
    number: dict[Hashable, int] = {}
    low: dict[Hashable, int] = {}
    stack: list[Hashable] = []
    on_stack: set[Hashable] = set()
    for root in [*graph]:
        if root in number:
            continue
        work: list[tuple[Hashable, Iterator[Hashable]]] = [_enter(root, number, low, stack, on_stack, graph)]
        while work:
            node, following = work[-1]
            for other in following:
                if other not in number:
                    work.append(_enter(other, number, low, stack, on_stack, graph))
                    break
                if other in on_stack:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    knot = {*_popped(stack, on_stack, node)}
                    if len(knot) > 1:
                        yield knot


def _enter(
    node: Hashable,
    number: dict[Hashable, int],
    low: dict[Hashable, int],
    stack: list[Hashable],
    on_stack: set[Hashable],
    graph: Graph,
) -> tuple[Hashable, Iterator[Hashable]]:
    number[node] = low[node] = len(number)
    stack.append(node)
    on_stack.add(node)
    return node, iter([*graph.get(node, ())])


def _popped(stack: list[Hashable], on_stack: set[Hashable], until: Hashable) -> Iterable[Hashable]:
    while True:
        node = stack.pop()
        on_stack.discard(node)
        yield node
        if node == until:
            return
