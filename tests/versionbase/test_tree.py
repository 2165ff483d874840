"""Trees against dicts: whatever was done, every root still tells what it told when it was made."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazycloud.versionbase.nodes import SIZE, Damaged, Inner, Leaf, Node, decode, encode, size
from lazycloud.versionbase.sizes import size_of
from lazycloud.versionbase.tree import EMPTY, apply, count, cut, differences, get, scan
from tests.versionbase.looking import reach

KEYS = st.binary(min_size=1, max_size=5)
VALUES = st.one_of(st.binary(max_size=20), st.integers(0, 1500).map(lambda n: b"v" * n))
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=60)


class Memory:
    """Encoded nodes. `reads` counts; `fresh` may be discarded, what was committed may not."""

    def __init__(self) -> None:
        self.stored: dict[int, bytes] = {}
        self.fresh: set[int] = set()
        self.reads = 0
        self.forgets = False  # whatever is fetched is not in memory
        self.next = 1

    def read(self, number: int) -> Node:
        self.reads += 1
        return decode(self.stored[number])

    def fetch(self, numbers: Sequence[int]) -> int:
        assert all(number in self.stored for number in numbers)
        return len(numbers) if self.forgets else 0

    def make(self, node: Node) -> int:
        number, self.next = self.next, self.next + 1
        self.stored[number] = encode(node)
        self.fresh.add(number)
        return number

    def discard(self, number: int) -> None:
        if number in self.fresh:
            self.fresh.remove(number)
            del self.stored[number]

    def commit(self) -> None:
        self.fresh.clear()


def sound(nodes: Memory, root: int) -> None:
    """Its keys ascend, lie where their parents say, and its nodes have their size; leaves are equally deep."""
    if root == EMPTY:
        return
    depths: set[int] = set()

    def look(number: int, low: bytes, high: bytes | None, depth: int) -> int:
        node = nodes.read(number)
        keys = node.keys if isinstance(node, Leaf) else node.keys[1:]
        assert keys == sorted(set(keys))
        assert all(low <= key and (high is None or key < high) for key in keys)
        assert len(node.keys) <= (1 if isinstance(node, Leaf) else 3) or size(node) <= SIZE
        if isinstance(node, Leaf):
            assert node.keys
            depths.add(depth)
            return len(node.keys)
        bounds = [low, *node.keys[1:], high]
        for place, child in enumerate(node.children):
            told = node.counts[place]
            assert look(child, bounds[place] or b"", bounds[place + 1], depth + 1) == told
        return sum(node.counts)

    look(root, b"", None, 0)
    assert len(depths) == 1


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, max_size=12))
def test_every_root_tells_what_it_told(steps: list[dict[bytes, bytes | None]]) -> None:
    nodes, root, model = Memory(), EMPTY, dict[bytes, bytes]()
    history = [(root, dict(model))]
    for step in steps:
        root = apply(nodes, root, sorted(step.items()))
        nodes.commit()
        for key, value in step.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        sound(nodes, root)
        history.append((root, dict(model)))
    for old, was in history:
        assert dict(scan(nodes, old)) == was
        assert list(scan(nodes, old)) == sorted(was.items())
        assert list(scan(nodes, old, backwards=True)) == sorted(was.items(), reverse=True)
        for key in [*was, b"\x00", b"zz"]:
            assert get(nodes, old, key) == was.get(key)
    for one, was in history:
        different = {
            key: (was.get(key), model.get(key))
            for key in was.keys() | model
            if was.get(key) != model.get(key)
        }
        for nodes.forgets in (False, True):
            told = list(differences(nodes, one, root))
            assert {key: (a, b) for key, a, b in told} == different
            assert [key for key, _, _ in told] == sorted(different)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=80), KEYS, st.one_of(st.none(), KEYS))
def test_a_part_is_scanned_either_way(model: dict[bytes, bytes], begin: bytes, end: bytes | None) -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, sorted(model.items()))
    part = [
        (key, value) for key, value in sorted(model.items()) if begin <= key and (end is None or key < end)
    ]
    assert list(scan(nodes, root, begin, end)) == part
    assert list(scan(nodes, root, begin, end, backwards=True)) == part[::-1]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(KEYS, VALUES, min_size=20, max_size=300),
    st.lists(st.tuples(KEYS, st.one_of(st.none(), KEYS), CHANGES), max_size=6),
)
def test_a_range_is_cut_counted_and_compared(
    model: dict[bytes, bytes], steps: list[tuple[bytes, bytes | None, dict[bytes, bytes | None]]]
) -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, sorted(model.items()))
    for begin, end, changes in steps:
        nodes.commit()
        before, was = root, dict(model)
        part = [key for key in model if begin <= key and (end is None or key < end)]
        assert count(nodes, root, begin, end) == len(part)
        assert (cut(nodes, root, begin, end) == root) == (not part)
        root = cut(nodes, root, begin, end)
        sound(nodes, root)
        for key in part:
            del model[key]
        assert dict(scan(nodes, root)) == model
        root = apply(nodes, root, sorted(changes.items()))
        sound(nodes, root)
        model = {key: value for key, value in {**model, **changes}.items() if value is not None}
        assert count(nodes, root) == len(model)
        nodes.forgets = not nodes.forgets
        told = list(differences(nodes, before, root, begin, end))
        assert [key for key, _, _ in told] == sorted(
            key
            for key in was.keys() | model
            if was.get(key) != model.get(key) and begin <= key and (end is None or key < end)
        )
        assert all((was.get(key), model.get(key)) == (one, other) for key, one, other in told)
    assert dict(scan(nodes, root)) == model


def many(count: int) -> list[tuple[bytes, bytes | None]]:
    return [(b"%08d" % number, b"value of %d" % number) for number in range(count)]


def test_what_differs_costs_what_differs() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(100_000))
    nodes.commit()
    chosen = random.Random(1).sample(range(100_000), 100)
    other = apply(nodes, root, sorted((b"%08d" % number, b"another") for number in chosen))
    nodes.reads = 0
    assert len(list(differences(nodes, root, other))) == 100
    assert nodes.reads < 100 * 2 * 4 + 10
    nodes.reads = 0
    assert list(differences(nodes, root, root)) == []
    assert nodes.reads < 10


def test_a_range_costs_its_edges() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(100_000))
    nodes.commit()
    nodes.reads = 0
    assert count(nodes, root, b"%08d" % 5, b"%08d" % 99_995) == 99_990
    assert nodes.reads < 10
    nodes.reads, before = 0, set(nodes.stored)
    assert list(scan(nodes, cut(nodes, root, b"%08d" % 5, b"%08d" % 99_998), b"%08d" % 4)) == [
        (b"%08d" % number, b"value of %d" % number) for number in (4, 99_998, 99_999)
    ]
    assert nodes.reads < 40
    assert len(set(nodes.stored) - before) < 8
    assert cut(nodes, root) == EMPTY


def test_what_is_outside_a_range_is_not_compared() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(100_000))
    nodes.commit()
    other = apply(nodes, root, [(b"%08d" % number, b"x") for number in range(0, 100_000, 20)])
    nodes.reads = 0
    told = list(differences(nodes, root, other, b"%08d" % 50_010, b"%08d" % 50_050))
    assert [key for key, _, _ in told] == [b"%08d" % 50_020, b"%08d" % 50_040]
    assert nodes.reads < 20


def test_what_only_one_tree_has_is_measured() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(100_000))
    nodes.commit()
    whole = sum(len(data) for data in nodes.stored.values())
    assert size_of(nodes, root) == pytest.approx(whole, rel=0.1)
    assert size_of(nodes, root, [root]) == size_of(nodes, EMPTY) == size_of(nodes, EMPTY, [root]) == 0
    assert size_of(nodes, root, [EMPTY]) == size_of(nodes, root)
    before = set(nodes.stored)
    other = apply(nodes, root, [(b"%08d" % number, b"x") for number in range(0, 100_000, 5000)])
    nodes.reads = 0
    own = sum(len(data) for number, data in nodes.stored.items() if number not in before)
    assert size_of(nodes, other, [root]) == pytest.approx(own, rel=0.1)
    assert nodes.reads < 200
    small = apply(nodes, EMPTY, many(10))
    assert size_of(nodes, other, [small, root]) == pytest.approx(own, rel=0.1)
    assert size_of(nodes, small, [root, other]) < 1000


def test_keys_longer_than_a_node_are_borne() -> None:
    nodes, root = Memory(), EMPTY
    keys = [bytes([number]) * 3000 for number in range(40)]
    for key in keys:
        root = apply(nodes, root, [(key, b"v")])
        sound(nodes, root)
    assert [key for key, _ in scan(nodes, root)] == keys
    root = cut(nodes, root, keys[3], keys[37])
    sound(nodes, root)
    assert count(nodes, root) == 6


def test_one_change_makes_one_path() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(100_000))
    nodes.commit()
    before = set(nodes.stored)
    apply(nodes, root, [(b"%08d" % 5, b"x")])
    assert len(set(nodes.stored) - before) <= 4


def test_what_is_made_and_replaced_before_a_commit_is_not_kept() -> None:
    nodes, root = Memory(), EMPTY
    for number in range(2000):
        root = apply(nodes, root, [(b"%08d" % number, b"x" * 50)])
    assert {number for number, _ in reach(nodes, root, lambda number: False)} == set(nodes.stored)


def test_a_tree_that_loses_its_entries_loses_its_nodes() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(50_000))
    nodes.commit()
    for begin in range(0, 49_990, 1000):
        gone = [(b"%08d" % number, None) for number in range(begin, min(begin + 1000, 49_990))]
        root = apply(nodes, root, gone)
        nodes.commit()
        sound(nodes, root)
    assert len(list(scan(nodes, root))) == 10
    assert len(list(reach(nodes, root, lambda number: False))) == 1
    assert apply(nodes, root, [(b"%08d" % number, None) for number in range(49_990, 50_000)]) == EMPTY


def test_nothing_is_made_for_what_is_so_already() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, many(1000))
    nodes.commit()
    made = nodes.next
    assert apply(nodes, root, [(b"%08d" % 5, b"value of 5"), (b"not there", None)]) == root
    assert apply(nodes, root, []) == root
    assert nodes.next == made


def test_an_entry_that_is_larger_than_a_node_has_one_for_itself() -> None:
    nodes = Memory()
    root = apply(nodes, EMPTY, [(b"a", b"1"), (b"b", b"x" * 3 * SIZE), (b"c", b"2")])
    sound(nodes, root)
    assert get(nodes, root, b"b") == b"x" * 3 * SIZE


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x93\x02\x90\x90", b"\x93\x00\x91\xc4\x01a\x91\x01"])
def test_what_is_no_node_is_not_read(data: bytes) -> None:
    with pytest.raises(Damaged, match="not as it was written"):
        decode(data)
    with pytest.raises(Damaged, match="no node" if data else "not as it was"):
        decode(zlib.crc32(data).to_bytes(4, "little") + data)
    assert isinstance(decode(encode(Inner([b""], [1], [5]))), Inner)
