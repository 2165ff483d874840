"""A persistent B+tree. A root is a number (0: the empty tree); what is changed makes a new root, and shares the rest.

Whoever has a root reads what was, for as long as its nodes are kept; two roots are compared without a look at what
they share. Keys and values are bytes; keys are ordered as bytes are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from lazycloud.versionbase.nodes import (
    SIZE,
    SMALL,
    Inner,
    Leaf,
    Node,
    Nodes,
    child_size,
    leaf_size,
    size,
)

EMPTY = 0
AHEAD = 256  # nodes of one level that are fetched before they are looked at

Change = tuple[bytes, bytes | None]
"""A key and its new value, None to remove it."""

Difference = tuple[bytes, bytes | None, bytes | None]
"""A key, its value in one tree and in the other; None where it is not."""

_Entry = tuple[bytes, int, int]  # the least key below a node, its number, and how many entries are below it


def get(nodes: Nodes, root: int, key: bytes) -> bytes | None:
    if root == EMPTY:
        return None
    node = nodes.read(root)
    while isinstance(node, Inner):
        node = nodes.read(node.children[_child(node, key)])
    at = bisect_left(node.keys, key)
    return node.values[at] if at < len(node.keys) and node.keys[at] == key else None


def scan(
    nodes: Nodes, root: int, begin: bytes = b"", end: bytes | None = None, backwards: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from `begin` to before `end` (None: to the last), in order or from the last one on."""
    if root != EMPTY:
        yield from (_scan_back if backwards else _scan)(nodes, nodes.read(root), begin, end)


def count(nodes: Nodes, root: int, begin: bytes = b"", end: bytes | None = None) -> int:
    """How many keys there are from `begin` to before `end` (None: to the last). Reads two paths at most."""
    if root == EMPTY or (end is not None and end <= begin):
        return 0
    return _below(nodes, nodes.read(root), end) - (_below(nodes, nodes.read(root), begin) if begin else 0)


def apply(nodes: Nodes, root: int, changes: Sequence[Change]) -> int:
    """The root with these changes, which are sorted by key, each key once. The same root if nothing changes."""
    if not changes:
        return root
    if root == EMPTY:
        return _top(nodes, _pack(nodes, [], list(changes)))
    changed = _changed(nodes, nodes.read(root), changes)
    if changed is None:
        return root
    nodes.discard(root)
    return _top(nodes, changed)


def cut(nodes: Nodes, root: int, begin: bytes = b"", end: bytes | None = None) -> int:
    """The root without the keys from `begin` to before `end` (None: to the last). The same root if there is none.

    Costs two paths: what lies between is not read, and not discarded either, even if it was made just now.
    """
    if root == EMPTY or (end is not None and end <= begin):
        return root
    left = _cut(nodes, nodes.read(root), begin, end)
    if left is None:
        return root
    nodes.discard(root)
    return _top(nodes, left)


def differences(
    nodes: Nodes, one: int, other: int, begin: bytes = b"", end: bytes | None = None
) -> Iterator[Difference]:
    """What differs between two trees from `begin` to before `end` (None: to the last), by key.

    Costs what differs, and a path to it: neither what is shared nor what is outside is read.
    """
    if one == other or (end is not None and end <= begin):
        return
    ours, theirs = _Frontier(nodes, one, begin, end), _Frontier(nodes, other, begin, end)
    while not (ours.is_over and theirs.is_over):
        if ours.skip_shared(theirs):
            continue
        if ours.is_beside(theirs):
            ours.open_beside(theirs)
        elif ours.is_to_open_before(theirs):
            ours.open()
        elif theirs.is_to_open_before(ours):
            theirs.open()
        elif theirs.is_over or (not ours.is_over and ours.key < theirs.key):
            key, value = ours.take()
            yield key, value, None
        elif ours.is_over or theirs.key < ours.key:
            key, value = theirs.take()
            yield key, None, value
        else:
            (key, value), (_, theirs_value) = ours.take(), theirs.take()
            if value != theirs_value:
                yield key, value, theirs_value


def height(nodes: Nodes, root: int, key: bytes = b"") -> int:
    """How far the root is from the leaves. All are equally deep; it goes where `key` is, which is read anyway."""
    levels, node = 0, nodes.read(root)
    while isinstance(node, Inner):
        levels, node = levels + 1, nodes.read(node.children[_child(node, key)])
    return levels


class _Frontier:
    """What of a tree is yet to be seen, least first: nodes that are not open, and the entries of the leaf that is."""

    def __init__(self, nodes: Nodes, root: int, begin: bytes, end: bytes | None) -> None:
        self._nodes = nodes
        self._begin, self._end = begin, end
        self._pending: list[tuple[bytes, int, int]] = []  # (least key, node, height); the next one last
        self._leaf: Leaf | None = None
        self._at = self._last = 0  # of the open leaf: the next entry, and where to stop
        if root != EMPTY:
            self._pending.append((b"", root, height(nodes, root, begin)))

    @property
    def is_over(self) -> bool:
        return self._leaf is None and not self._pending

    @property
    def key(self) -> bytes:
        """Of the next entry, when a leaf is open; else the least that there may be."""
        return self._pending[-1][0] if self._leaf is None else self._leaf.keys[self._at]

    def is_to_open_before(self, other: _Frontier) -> bool:
        """Whether the node that is next has to be opened, and before the other's."""
        if self.is_over or self._leaf is not None:
            return False
        if other.is_over:
            return True
        if other._leaf is not None:
            return self.key <= other.key
        if self.key != other.key:
            return self.key < other.key
        return self._pending[-1][2] >= other._pending[-1][2]

    def is_beside(self, other: _Frontier) -> bool:
        """Whether nodes of the same height and place are next in both."""
        if self._leaf is not None or other._leaf is not None or not (self._pending and other._pending):
            return False
        ours, theirs = self._pending[-1], other._pending[-1]
        return ours[2] == theirs[2] and ours[0] == theirs[0]

    def open_beside(self, other: _Frontier) -> None:
        """Both nodes that are next, without what they share: that is the same in both trees, wherever it lies."""
        (_, ours, height), (_, theirs, _) = self._pending[-1], other._pending[-1]
        shared: frozenset[int] = frozenset()
        if height:
            one, two = self._below(ours), other._below(theirs)
            shared = frozenset(one).intersection(two)
            self._look_ahead(
                other, [*shared.symmetric_difference(one)], [*shared.symmetric_difference(two)], height
            )
        self.open(shared)
        other.open(shared)

    def _look_ahead(self, other: _Frontier, ours: list[int], theirs: list[int], height: int) -> None:
        """Have what differs fetched, level by level, while it is few and not in memory: all of it will be opened."""
        while (
            len(ours) + len(theirs) <= AHEAD and self._nodes.fetch(ours + theirs) and (height := height - 1)
        ):
            one = {child for number in ours for child in self._below(number)}
            two = {child for number in theirs for child in other._below(number)}
            ours, theirs = [*one - two], [*two - one]

    def _below(self, number: int) -> list[int]:
        """The children of an inner node that may have something of what is looked at."""
        node = self._nodes.read(number)
        assert isinstance(node, Inner)
        first, last = _places(node, self._begin, self._end)
        return node.children[first : last + 1]

    def open(self, besides: frozenset[int] = frozenset()) -> None:
        """The next node, without some of its children."""
        low, number, height = self._pending.pop()
        node = self._nodes.read(number)
        if isinstance(node, Leaf):
            self._at = bisect_left(node.keys, self._begin) if self._begin else 0
            self._last = len(node.keys) if self._end is None else bisect_left(node.keys, self._end)
            self._leaf = node if self._at < self._last else None
            return
        first, last = _places(node, self._begin, self._end)
        self._pending += [
            (node.keys[place] if place else low, node.children[place], height - 1)
            for place in range(last, first - 1, -1)
            if node.children[place] not in besides
        ]

    def skip_shared(self, other: _Frontier) -> bool:
        """The nodes, or entries, that are next in both; whether there was any. It is most of what is seen."""
        if self._leaf is not None and other._leaf is not None:
            return self._skip_entries(self._leaf, other, other._leaf)
        ours, theirs, is_any = self._pending, other._pending, False
        if self._leaf is None and other._leaf is None:
            while ours and theirs and ours[-1][1] == theirs[-1][1]:
                ours.pop()
                theirs.pop()
                is_any = True
        return is_any

    def _skip_entries(self, leaf: Leaf, other: _Frontier, others: Leaf) -> bool:
        count = 0
        most = min(self._last - self._at, other._last - other._at)
        keys, values = leaf.keys, leaf.values
        at, there = self._at, other._at
        while (
            count < most
            and keys[at + count] == others.keys[there + count]
            and values[at + count] == others.values[there + count]
        ):
            count += 1
        self._pass(count)
        other._pass(count)
        return count > 0

    def _pass(self, count: int) -> None:
        self._at += count
        if self._at == self._last:
            self._leaf = None

    def take(self) -> tuple[bytes, bytes]:
        assert self._leaf is not None
        entry = self._leaf.keys[self._at], self._leaf.values[self._at]
        self._pass(1)
        return entry


def _child(node: Inner, key: bytes) -> int:
    """The place of the child that has a key, if any has."""
    return max(0, bisect_right(node.keys, key) - 1)


def _places(node: Inner, begin: bytes, end: bytes | None) -> tuple[int, int]:
    """The first and the last child that may have keys from `begin` to before `end`."""
    last = len(node.children) - 1 if end is None else max(0, bisect_left(node.keys, end) - 1)
    return _child(node, begin), last


def _below(nodes: Nodes, node: Node, key: bytes | None) -> int:
    """How many keys are less than this one; all of them for None."""
    total = 0
    while isinstance(node, Inner):
        if key is None:
            return total + sum(node.counts)
        place = _child(node, key)
        total += sum(node.counts[:place])
        node = nodes.read(node.children[place])
    return total + (len(node.keys) if key is None else bisect_left(node.keys, key))


def _scan(nodes: Nodes, node: Node, begin: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(node, Leaf):
        last = len(node.keys) if end is None else bisect_left(node.keys, end)
        for at in range(bisect_left(node.keys, begin), last):
            yield node.keys[at], node.values[at]
        return
    first, until = _places(node, begin, end)
    for at in range(first, until + 1):
        yield from _scan(nodes, nodes.read(node.children[at]), begin, end)


def _scan_back(nodes: Nodes, node: Node, begin: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(node, Leaf):
        last = len(node.keys) if end is None else bisect_left(node.keys, end)
        for at in range(last - 1, bisect_left(node.keys, begin) - 1, -1):
            yield node.keys[at], node.values[at]
        return
    first, until = _places(node, begin, end)
    for at in range(until, first - 1, -1):
        yield from _scan_back(nodes, nodes.read(node.children[at]), begin, end)


def _top(nodes: Nodes, entries: list[_Entry]) -> int:
    """The root of what is left of a tree: nodes of one height, put below inner nodes till they are one."""
    while len(entries) > 1:
        entries = _inner_nodes(nodes, entries)
    if not entries:
        return EMPTY
    top = entries[0][1]
    while isinstance(node := nodes.read(top), Inner) and len(node.children) == 1:
        nodes.discard(top)
        top = node.children[0]
    return top


def _entries(node: Inner) -> list[_Entry]:
    return list(zip(node.keys, node.children, node.counts, strict=True))


def _cut(nodes: Nodes, node: Node, begin: bytes, end: bytes | None) -> list[_Entry] | None:
    """What takes the place of a node: none, or one or several of its height; None if it stays."""
    if isinstance(node, Leaf):
        first = bisect_left(node.keys, begin)
        last = len(node.keys) if end is None else bisect_left(node.keys, end)
        items = list(zip(node.keys, node.values, strict=True))
        return _leaves(nodes, items[:first] + items[last:]) if first < last else None
    first, last = _places(node, begin, end)
    before = _entries(node)
    left, is_same = before[:first], last - first < 2
    for place in (first, last) if first < last else (first,):
        low, child, _ = entry = before[place]
        part = _cut(nodes, nodes.read(child), begin, end)
        if part is None:
            left.append(entry)
            continue
        nodes.discard(child)
        is_same = False
        left += [(low, *part[0][1:]), *part[1:]] if part else []
    if is_same:
        return None
    # Up to two parts of children, and what now lies beside them: all of it may be small.
    touched = set(range(first, min(len(left), first + 3)))
    return _inner_nodes(nodes, _joined(nodes, left + before[last + 1 :], touched))


def _changed(nodes: Nodes, node: Node, changes: Sequence[Change]) -> list[_Entry] | None:
    """What takes the place of a node: none, one or several; None if it stays."""
    if isinstance(node, Leaf):
        return _changed_leaf(nodes, node, changes)
    parts: dict[int, list[_Entry]] = {}  # what takes the place of children, by their place
    at = 0
    while at < len(changes):
        place = _child(node, changes[at][0])
        until = len(changes)
        if place + 1 < len(node.keys):
            until = bisect_left(changes, node.keys[place + 1], at, key=_key)
        changed = _changed(nodes, nodes.read(node.children[place]), changes[at:until])
        if changed is not None:
            nodes.discard(node.children[place])
            parts[place] = changed
        at = until
    if not parts:
        return None
    if all(len(part) == 1 and size(nodes.read(part[0][1])) >= SMALL for part in parts.values()):
        return [_replaced(nodes, node, parts)]
    return _spliced(nodes, node, parts)


def _replaced(nodes: Nodes, node: Inner, parts: dict[int, list[_Entry]]) -> _Entry:
    """Of most changes: a node with one child for another, now and then. The keys are the same ones."""
    children, counts = node.children.copy(), node.counts.copy()
    for place, ((_, child, below),) in parts.items():
        children[place], counts[place] = child, below
    return node.keys[0], nodes.make(Inner(node.keys, children, counts)), sum(counts)


def _spliced(nodes: Nodes, node: Inner, parts: dict[int, list[_Entry]]) -> list[_Entry]:
    entries: list[_Entry] = []
    touched: set[int] = set()  # places in entries
    for place, entry in enumerate(_entries(node)):
        part = parts.get(place)
        if part is None:
            entries.append(entry)
            continue
        touched |= set(range(len(entries), len(entries) + max(1, len(part))))
        # The first one's keys may begin above the place's own least key: what is between belongs to it.
        entries += [(entry[0], *part[0][1:]), *part[1:]] if part else []
    return _inner_nodes(nodes, _joined(nodes, entries, touched))


def _key(change: Change) -> bytes:
    return change[0]


def _changed_leaf(nodes: Nodes, leaf: Leaf, changes: Sequence[Change]) -> list[_Entry] | None:
    merged = Leaf([], [])
    keys, values = merged.keys, merged.values
    at, is_same = 0, True
    for key, value in changes:
        place = bisect_left(leaf.keys, key, at)
        keys += leaf.keys[at:place]
        values += leaf.values[at:place]
        is_there = place < len(leaf.keys) and leaf.keys[place] == key
        at = place + is_there
        is_same &= (leaf.values[place] if is_there else None) == value
        if value is not None:
            keys.append(key)
            values.append(value)
    if is_same:
        return None
    keys += leaf.keys[at:]
    values += leaf.values[at:]
    if keys and size(merged) <= SIZE:  # as most are
        return [(keys[0], nodes.make(merged), len(keys))]
    return _leaves(nodes, list(zip(keys, values, strict=True)))


def _pack(nodes: Nodes, before: list[tuple[bytes, bytes]], changes: Sequence[Change]) -> list[_Entry]:
    return _leaves(nodes, [*before, *((key, value) for key, value in changes if value is not None)])


def _leaves(nodes: Nodes, items: list[tuple[bytes, bytes]]) -> list[_Entry]:
    parts = _parts([leaf_size(key, value) for key, value in items])
    made = []
    for begin, end in parts:
        leaf = Leaf([key for key, _ in items[begin:end]], [value for _, value in items[begin:end]])
        low = _between(items[begin - 1][0], leaf.keys[0]) if begin else leaf.keys[0]
        made.append((low, nodes.make(leaf), end - begin))
    return made


def _between(key: bytes, higher: bytes) -> bytes:
    """The shortest beginning of the higher one that is higher: parents need no more to tell them apart."""
    at = next(
        (at for at, (one, other) in enumerate(zip(key, higher, strict=False)) if one != other), len(key)
    )
    return higher[: at + 1]


def _inner_nodes(nodes: Nodes, entries: list[_Entry]) -> list[_Entry]:
    parts = _parts([child_size(key) for key, _, _ in entries], least=2)
    return [_inner_node(nodes, entries[begin:end]) for begin, end in parts]


def _inner_node(nodes: Nodes, entries: list[_Entry]) -> _Entry:
    keys, children, counts = (list(column) for column in zip(*entries, strict=True))
    return keys[0], nodes.make(Inner(keys, children, counts)), sum(counts)


def _parts(sizes: list[int], least: int = 1) -> list[tuple[int, int]]:
    """Where to cut, so that no part is larger than a node may be, and they are about equal.

    But each has `least` entries, however large (the last one may have fewer): long keys make no endless tower.
    """
    total = sum(sizes)
    if not sizes:
        return []
    if total <= SIZE:
        return [(0, len(sizes))]
    wanted = total / -(-total // (SIZE * 3 // 4))
    parts, begin, taken = [], 0, 0
    for at, one in enumerate(sizes):
        if at - begin >= least and (taken + one > SIZE or taken >= wanted):
            parts.append((begin, at))
            begin, taken = at, 0
        taken += one
    return [*parts, (begin, len(sizes))]


def _joined(nodes: Nodes, entries: list[_Entry], touched: set[int]) -> list[_Entry]:
    """The same entries, of which none that was touched is small beside a neighbour that has room."""
    joined: list[_Entry] = []
    was_touched = False
    for place, entry in enumerate(entries):
        is_touched = place in touched
        if joined and (is_touched or was_touched):
            left, right = nodes.read(joined[-1][1]), nodes.read(entry[1])
            sizes = size(left), size(right)
            if min(sizes) < SMALL and sum(sizes) + len(entry[0]) <= SIZE:
                nodes.discard(joined[-1][1])
                nodes.discard(entry[1])
                joined[-1] = (joined[-1][0], *_concatenated(nodes, left, right, entry[0])[1:])
                was_touched = True
                continue
        joined.append(entry)
        was_touched = is_touched
    return joined


def _concatenated(nodes: Nodes, left: Node, right: Node, low: bytes) -> _Entry:
    """Both are of one height. `low` is the least key that may be below the right one."""
    if isinstance(left, Leaf) and isinstance(right, Leaf):
        leaf = Leaf(left.keys + right.keys, left.values + right.values)
        return leaf.keys[0], nodes.make(leaf), len(leaf.keys)
    assert isinstance(left, Inner) and isinstance(right, Inner)
    first, *others = _entries(right)
    seam = len(left.children)
    return _inner_node(nodes, _joined(nodes, [*_entries(left), (low, *first[1:]), *others], {seam}))
